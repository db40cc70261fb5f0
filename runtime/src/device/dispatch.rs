//! What both backends record.

use bolmo_shaders::{KernelId, Variant};

use crate::device::memory::Slice;

/// Dispatches per submission.
pub(super) const MAX_DISPATCHES: usize = 1024;

/// The rows with odd numbers of a matrix whose even ones are bound. Only the CPU device reads them apart.
#[derive(Debug, Clone)]
pub struct OddRows {
    /// `[n / 2, k]`
    pub weights: Slice,
    /// `[n / 2, k / 32]` f16, in formats that have scales.
    pub scales: Option<Slice>,
}

/// A dispatch to be recorded.
pub(super) struct Dispatch<'a> {
    pub(super) kernel: KernelId,
    pub(super) variant: Variant,
    pub(super) params: &'a [u8],
    /// Storage bindings, in the order of the kernel table.
    pub(super) slices: &'a [&'a Slice],
    /// Flags of a guarded kernel.
    pub(super) guard: Option<&'a Slice>,
    /// Scales of the matrix, if its format has any.
    pub(super) scales: Option<&'a Slice>,
    /// Odd rows of the matrix, if they are apart.
    pub(super) odd_rows: Option<&'a OddRows>,
    /// Whether sums may be added up in any order.
    pub(super) any_order: bool,
    pub(super) grid: [u32; 3],
}
