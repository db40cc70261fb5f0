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
mod stopwatch;

pub(super) use adapter::{Found, enumerate};
#[cfg(not(target_family = "wasm"))]
pub(super) use address_space::shortage;
pub(super) use commands::{CommandList, PARAMS_BYTES, Recorded};
pub(super) use gpu::Gpu;
pub(super) use memory::{GpuBuffer, Mapped};
