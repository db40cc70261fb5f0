//! Compute kernels of the Bolmo runtime, in WGSL and for CPUs.
//!
//! The crate has the WGSL text of every kernel, the [table] that describes the kernels, their [variants](variant), the
//! [parameter blocks](params) that host and shader share, a [CPU reference](cpu) of each kernel, against which the
//! kernel is tested, and the [fast form](simd) on CPUs of those that a forward pass needs.
//!
//! The crate depends on no GPU library and knows no model. These share the stem of a kernel: `wgsl/<stem>.wgsl`,
//! `src/cpu/<stem>.rs`, `src/simd/<stem>.rs` if there is a fast form, a parameter block in [`params`], a row in
//! [`table::KERNELS`], and a test that compares shader and CPU reference.

pub mod cpu;
pub mod params;
pub mod quant;
pub mod simd;
pub mod sizes;
mod source;
pub mod table;
pub mod variant;

pub use table::{Access, Binding, Kernel, KernelId};
pub use variant::{Fusion, Products, Reduce, Tiles, Variant, WeightFormat};
