//! The device: adapters, buffers, pipelines, and the one place that submits commands and reads results back.
//!
//! No other module names a wgpu type. The rest of the crate works with [`Slice`]s of device memory and records
//! dispatches of the kernels in `bolmo-shaders` through a [`Recorder`].

mod adapter;
mod capabilities;
mod engine;
mod gpu;
#[cfg(not(target_family = "wasm"))]
mod kernel_cache;
mod kernel_runner;
mod memory;
mod open;
mod options;
mod pipelines;
#[cfg(not(target_family = "wasm"))]
mod poller;
mod recorder;
mod self_test;
mod status;
#[cfg(not(target_family = "wasm"))]
mod stopwatch;
mod usage;

pub use adapter::{AdapterChoice, AdapterInfo, adapters};
pub use capabilities::Capabilities;
pub use engine::Engine;
pub use gpu::Gpu;
pub use kernel_runner::{KernelRunner, matmul_tile, run_kernel};
pub use memory::Slice;
pub use open::open_tested;
pub use options::EngineOptions;
pub(crate) use recorder::Recorded;
pub use recorder::{Form, Recorder};
#[cfg(not(target_family = "wasm"))]
pub use stopwatch::KernelTime;
pub use usage::{Counters, DeviceMemory};
