//! Every compute kernel of the Bolmo runtime as WGSL, the [table] that describes them in all their [forms], the [parameter blocks](params)
//! that host and shader share, and a [CPU twin](cpu) of each kernel, which is the oracle of its tests.
//!
//! This crate knows no GPU library and no model. A kernel is one stem: `wgsl/<stem>.wgsl`, `src/cpu/<stem>.rs`, a block in
//! [`params`], a row in [`table::KERNELS`] and a test that holds shader and twin against each other.

pub mod cpu;
pub mod forms;
pub mod params;
pub mod quant;
pub mod table;

pub use table::{Access, Binding, Fusion, Kernel, KernelId, Reduce, Tiles, Variant, WeightFormat};
