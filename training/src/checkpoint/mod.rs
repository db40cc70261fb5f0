//! Checkpoints that training reads and writes.

pub mod export;
pub(crate) mod source;
