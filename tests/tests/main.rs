//! All whole-model tests in one program. They share one device, so each kernel is compiled once, and the program is
//! linked once.
//!
//! One file or folder here is one module: `cargo test --test device kernels::` runs the tests of `kernels`.
//! `steady.rs` is a program of its own, because it replaces the global allocator.

mod configurations;
mod constraints;
mod cpu_device;
mod decode;
mod equivalence;
mod fetching;
mod golden;
mod in_place;
mod kernel_cache;
mod kernels;
mod merge;
mod mlstm_cell;
mod quantized;
mod robustness;
mod self_test;
mod session_memory;
mod snapshot_fields;
mod suspend;
mod teachers;
mod training;
mod training_data;
mod training_run;
