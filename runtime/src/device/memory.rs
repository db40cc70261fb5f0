//! Device memory: slices of buffers.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::device::cpu::HostBuffer;
use crate::device::usage::Held;
use crate::device::wgpu::GpuBuffer;
use crate::error::{Error, Result};

/// A range of a buffer, as bound by a kernel. Cheap to clone; keeps the buffer alive.
#[derive(Debug, Clone)]
pub struct Slice {
    pub(super) buffer: Buffer,
    /// In bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) size: u64,
    /// Shared by all slices of the buffer.
    owner: Arc<Owner>,
}

/// The memory behind a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Buffer {
    /// On a device of wgpu.
    Gpu(GpuBuffer),
    /// On the CPU device.
    Cpu(HostBuffer),
    /// None: of a dry run, and for results of the CPU device, which go straight to the caller.
    Absent,
}

/// What is released with the last slice of a buffer.
#[derive(Debug)]
struct Owner {
    /// Counts the buffer as held memory.
    _held: Held,
    #[cfg(target_family = "wasm")]
    buffer: Buffer,
}

#[cfg(target_family = "wasm")]
impl Drop for Owner {
    /// Frees the memory. Browsers would free it when the JavaScript object is garbage-collected, which may take minutes
    /// because the collector does not know how much memory is behind it. Commands already submitted can still use it.
    fn drop(&mut self) {
        if let Buffer::Gpu(buffer) = &self.buffer {
            buffer.destroy();
        }
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        (&self.buffer, self.offset, self.size) == (&other.buffer, other.offset, other.size)
    }
}

impl Eq for Slice {}

impl Hash for Slice {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.buffer, self.offset, self.size).hash(state);
    }
}

impl Slice {
    /// The whole of a buffer of `size` bytes, which `held` counts.
    pub(super) fn whole(buffer: Buffer, size: u64, held: Held) -> Self {
        let owner = Owner {
            _held: held,
            #[cfg(target_family = "wasm")]
            buffer: buffer.clone(),
        };
        Self { buffer, offset: 0, size, owner: Arc::new(owner) }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The `count` rows from `row` on, of `width` floats each. From row 0 on it is the whole slice, so that bindings
    /// are shared between counts.
    pub fn rows(&self, row: usize, count: usize, width: usize) -> Result<Slice> {
        match row {
            0 => Ok(self.clone()),
            _ => self.part(4 * (row * width) as u64, 4 * (count * width) as u64),
        }
    }

    /// A part of the slice, in bytes. For a binding, `offset` must be a multiple of
    /// [`Device::align`](crate::device::Device::align)'s alignment.
    pub fn part(&self, offset: u64, size: u64) -> Result<Slice> {
        if offset.checked_add(size).is_none_or(|end| end > self.size) {
            return Err(Error::internal(format!(
                "bytes {offset} to {offset} + {size} are outside of a device buffer of {} bytes",
                self.size
            )));
        }
        Ok(Slice { buffer: self.buffer.clone(), offset: self.offset + offset, size, owner: self.owner.clone() })
    }
}

/// A slice of another device was used.
pub(super) fn other_device() -> Error {
    Error::internal("a buffer belongs to another device")
}
