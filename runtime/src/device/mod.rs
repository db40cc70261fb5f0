//! The device: adapters, buffers, kernels, and the one place that submits commands and reads results back.
//!
//! The rest of the crate works with [`Slice`]s of device memory and records dispatches of the kernels in
//! `bolmo-shaders` through a [`Recorder`]. It doesn't know which of the two backends runs them: `wgpu` on GPUs, or
//! `cpu` in vector instructions on the CPU's threads. A build without one of them has types without values in its
//! place: without the feature `gpu` there is no `wgpu`, and with it browsers have no `cpu`.

mod adapter;
mod backend;
mod capabilities;
mod choose;
#[cfg(any(not(target_family = "wasm"), not(feature = "gpu")))]
mod cpu;
#[cfg(all(target_family = "wasm", feature = "gpu"))]
#[path = "cpu/disabled.rs"]
mod cpu;
mod dispatch;
mod engine;
mod interrupt;
mod kept;
mod kernel_runner;
mod memory;
mod open;
mod options;
mod permit;
mod process;
mod recorder;
mod self_test;
mod shared_bytes;
mod status;
mod suspension;
mod usage;
#[cfg(feature = "gpu")]
mod wgpu;
#[cfg(not(feature = "gpu"))]
#[path = "wgpu/disabled.rs"]
mod wgpu;

pub use adapter::{AdapterChoice, AdapterInfo};
pub use backend::Device;
pub(crate) use backend::buffer_bytes;
pub use capabilities::Capabilities;
pub use choose::adapters;
pub use dispatch::OddRows;
pub use engine::Engine;
pub(crate) use interrupt::{Interrupt, StopRequest};
pub(crate) use kept::Kept;
pub use kernel_runner::{KernelRunner, matmul_tile, run_kernel};
pub use memory::Slice;
pub use open::open_tested;
pub use options::EngineOptions;
pub use permit::Permit;
pub use recorder::{Form, Recorder};
pub(crate) use recorder::{Recorded, list_bytes};
pub(crate) use shared_bytes::SharedBytes;

#[cfg(not(target_family = "wasm"))]
pub use usage::KernelTime;
pub use usage::{Counters, DeviceMemory};
