//! Every compute kernel of the Bolmo runtime as WGSL, the [table] that describes them in all their [variants](variant), the [parameter blocks](params)
//! that host and shader share, and a [CPU twin](cpu) of each kernel, which is the oracle of its tests.
//!
//! This crate knows no GPU library and no model. A kernel is one stem: `wgsl/<stem>.wgsl`, `src/cpu/<stem>.rs`, a block in
//! [`params`], a row in [`table::KERNELS`] and a test that holds shader and twin against each other.

pub mod cpu;
pub mod params;
pub mod quant;
pub mod sizes;
mod source;
pub mod table;
pub mod variant;

// TEMPORARY: old path
pub mod forms {
    //! The old path of [`variant`](crate::variant).
    pub use crate::sizes::QUANT_BLOCK;
    pub use crate::variant::*;
}

pub use table::{Access, Binding, Kernel, KernelId};
pub use variant::{Fusion, Reduce, Tiles, Variant, WeightFormat};
