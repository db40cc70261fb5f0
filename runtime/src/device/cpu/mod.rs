//! The CPU device: kernels in vector instructions (`bolmo_shaders::simd`), on the threads of one pool.
//!
//! All engines of a process share an executor ([`executor`]): a thread that runs submissions one after another, in the
//! order in which they were made, with the help of the other threads of the [`pool`]. Buffers are memory of the host
//! ([`buffer`]).

mod buffer;
mod command;
mod commands;
mod device;
mod executor;
mod pool;
mod threads;

pub(super) use buffer::HostBuffer;
pub(super) use commands::{CommandList, Recorded, Reply};
pub(super) use device::{Cpu, describe};
pub(super) use threads::check_threads;
