//! How to open an engine.

use bolmo_shaders::{Reduce, Tiles};

use crate::device::adapter::AdapterChoice;

/// How to open an engine.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct EngineOptions {
    /// Which adapter to use.
    pub adapter: AdapterChoice,
    /// Ask the device for smaller bindings than the adapter offers, in bytes (at least 64 KiB).
    pub max_binding_bytes: Option<u64>,
    /// Use another way of adding up than the adapter's best; [`Reduce::Workgroup`] and [`Reduce::OneLane`] are possible everywhere.
    pub reduce: Option<Reduce>,
    /// Let others work together on a tile than is best for the adapter. [`Tiles::Workgroup`] is possible everywhere; it is also what is
    /// used where the adapter cannot do what is asked for, or fails its test.
    pub tiles: Option<Tiles>,
    /// Up to how many rows a product is computed row by row, and the mLSTM recurrently.
    pub few_rows: Option<usize>,
    /// Whether a product of few rows has four loads of each row of weights on their way at once, as is best on GPUs.
    pub matvec_ahead: Option<bool>,
    /// Into how many workgroups a product of few outputs and long sums is cut, as gradients of weights are.
    pub product_groups: Option<usize>,
    /// Bytes of a prompt that one submission handles at most.
    pub prefill_bytes: Option<usize>,
    /// Bytes that one submission decodes at most; 0 takes the logits of every byte to the host and chooses there.
    pub decode_steps: Option<usize>,
    /// A folder in which compiled kernels are kept, where the driver hands them out; nothing is written if `None`. Made when needed; what
    /// is in it can be deleted at any time.
    pub kernel_cache: Option<std::path::PathBuf>,
}
