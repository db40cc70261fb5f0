//! Everything that touches wgpu: adapters, the device, buffers, pipelines, and the one place that submits and reads back.
//!
//! Nothing outside this module names a wgpu type. The rest of the crate works with [`Slice`]s of device memory and records
//! dispatches of the kernels in `bolmo-shaders` through a [`Recorder`].

mod adapter;
#[cfg(not(target_family = "wasm"))]
mod cache;
mod capabilities;
mod device;
mod memory;
mod pipelines;
mod recorder;
mod self_test;
#[cfg(not(target_family = "wasm"))]
mod stopwatch;
mod usage;
mod warm;

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
#[cfg(not(target_family = "wasm"))]
pub(crate) use warm::Warming;
#[cfg(target_family = "wasm")]
pub(crate) use warm::warm;
