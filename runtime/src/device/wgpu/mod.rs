//! Devices that wgpu reaches: GPUs, and drivers that play one on the CPU. No other module names a type of wgpu.

mod adapter;
#[cfg(not(target_family = "wasm"))]
mod address_space;
mod commands;
mod errors;
mod gpu;
mod instance;
#[cfg(not(target_family = "wasm"))]
mod kernel_cache;
mod memory;
mod pipelines;
#[cfg(not(target_family = "wasm"))]
mod poller;
#[cfg(not(target_family = "wasm"))]
mod static_program;
#[cfg(not(target_family = "wasm"))]
mod stopwatch;

use crate::error::Error;
#[cfg(not(target_family = "wasm"))]
use crate::error::ErrorKind;
pub(super) use adapter::{Found, enumerate};
pub(super) use commands::{CommandList, PARAMS_BYTES, Recorded};
pub(super) use gpu::Gpu;
pub(super) use memory::{GpuBuffer, Mapped};

/// Why no graphics driver may be loaded into this process, if none may.
#[cfg(not(target_family = "wasm"))]
pub(super) fn no_drivers() -> Option<Error> {
    if static_program::is_static() {
        return Some(Error::unsupported(
            "no graphics driver is loaded: the program is linked statically and cannot load any; use the adapter cpu",
        ));
    }
    let shortage = address_space::shortage()?;
    Some(Error::new(ErrorKind::OutOfMemory, format!("no graphics driver is loaded: {shortage}")))
}

/// Browsers load drivers in a process of their own.
#[cfg(target_family = "wasm")]
pub(super) fn no_drivers() -> Option<Error> {
    None
}
