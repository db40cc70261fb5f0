//! Everything that touches wgpu: adapters, the device, buffers, pipelines, and the one place that submits and reads back.
//!
//! Nothing outside this module names a wgpu type. The rest of the crate works with [`Slice`]s of device memory and records
//! dispatches of the kernels in `bolmo-shaders` through a [`Recorder`].

mod adapter;
mod capabilities;
mod device;
#[cfg(not(target_family = "wasm"))]
mod kernel_cache;
pub mod kernel_runner;
mod memory;
mod pipelines;
mod recorder;
mod self_test;
#[cfg(not(target_family = "wasm"))]
mod stopwatch;
mod usage;

pub use adapter::{AdapterChoice, AdapterInfo, adapters};
pub use capabilities::Capabilities;
pub use device::Gpu;
pub use device::{Engine, EngineOptions};
pub use memory::Slice;
pub(crate) use recorder::Recorded;
pub use recorder::{Form, Recorder};
#[cfg(not(target_family = "wasm"))]
pub use stopwatch::KernelTime;
pub use usage::{Counters, DeviceMemory};
