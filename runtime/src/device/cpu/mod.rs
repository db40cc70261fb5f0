//! The CPU device: kernels in vector instructions (`bolmo_shaders::simd`), on the threads of one pool.
//!
//! All engines of a process share an executor ([`executor`]): a thread that runs submissions one after another, in the
//! order in which they were made, with the help of the other threads of the [`pool`]. Buffers are memory of the host
//! ([`buffer`]). Browsers run submissions on the calling thread instead (`inline`).

mod buffer;
mod command;
mod commands;
mod device;
#[cfg(not(target_family = "wasm"))]
mod executor;
#[cfg(target_family = "wasm")]
#[path = "inline.rs"]
mod executor;
#[cfg(not(target_family = "wasm"))]
mod pool;
mod submission;
mod threads;
#[cfg(target_family = "wasm")]
mod turns;

pub(super) use buffer::HostBuffer;
pub(super) use commands::{CommandList, Recorded, Reply};
pub(super) use device::{Cpu, Shared, describe};
pub(super) use threads::check_threads;
