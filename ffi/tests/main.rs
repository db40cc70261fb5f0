//! Tests of the C ABI from Rust, in one program. `snapshots.rs` is a program of its own, because it counts the
//! process's handles.

mod common;
mod equality;
mod header;
mod memory;
