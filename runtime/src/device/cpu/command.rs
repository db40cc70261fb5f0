//! Commands as they are recorded and run.

use std::ops::Range;
#[cfg(not(target_family = "wasm"))]
use std::sync::Mutex;
#[cfg(not(target_family = "wasm"))]
use std::time::Duration;

use bolmo_shaders::{Fusion, KernelId, WeightFormat};

use super::buffer::HostBuffer;
use crate::device::memory::{Buffer, Slice, other_device};
#[cfg(not(target_family = "wasm"))]
use crate::device::usage::KernelTime;
use crate::error::Result;

/// A recorded command. Ranges are into the lists of [`Commands`].
#[derive(Debug)]
pub(super) enum Command {
    Dispatch {
        kernel: KernelId,
        format: WeightFormat,
        fusion: Fusion,
        params: Range<usize>,
        /// Storage bindings; then, if there are any, the guard, the scales, the odd rows and their scales.
        slices: Range<usize>,
        guarded: bool,
        scaled: bool,
        /// Whether the odd rows of the matrix are apart.
        alternates: bool,
        /// Whether sums may be added up in any order.
        any_order: bool,
        grid: [u32; 3],
    },
    /// From the first slice to the beginning of the second.
    Copy(usize),
    Clear(usize),
}

/// Recorded commands.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) list: Vec<Command>,
    pub(super) params: Vec<u8>,
    pub(super) slices: Vec<Slice>,
    pub(super) dispatches: usize,
}

/// Times of dispatches, added up by the executor.
#[cfg(not(target_family = "wasm"))]
pub(super) type Times = Mutex<Vec<(KernelId, KernelTime)>>;

/// The buffer of a slice.
pub(super) fn buffer(slice: &Slice) -> Result<&HostBuffer> {
    match &slice.buffer {
        Buffer::Cpu(buffer) => Ok(buffer),
        _ => Err(other_device()),
    }
}

/// Adds the time of a dispatch.
#[cfg(not(target_family = "wasm"))]
pub(super) fn add_time(times: &Times, kernel: KernelId, time: Duration) {
    let mut times = times.lock().unwrap_or_else(|e| e.into_inner());
    let at = times.iter().position(|(other, _)| *other == kernel).unwrap_or_else(|| {
        times.push((kernel, KernelTime::default()));
        times.len() - 1
    });
    let sum = &mut times[at].1;
    sum.dispatches += 1;
    sum.time += time;
}
