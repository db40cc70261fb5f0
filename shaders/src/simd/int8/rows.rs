//! What the two forms of products read of several rows of weights.

use half::f16;

use super::super::vector::Vector;
use super::super::weights::WeightRows;
use super::dot::MAX_LANES;
use super::{Quantized, block_bytes};
use crate::sizes::QUANT_BLOCK;

/// Where a row of weights is.
#[derive(Clone, Copy)]
pub(super) struct RowParts {
    /// [`block_bytes`](super::block_bytes) a block.
    pub(super) integers: *const u8,
    /// An f16 a block.
    pub(super) scales: *const f16,
}

/// Memory that is needed after the current rows: the integers of as many rows that follow.
///
/// It is loaded in the order of addresses, not in the order of blocks, in which the rows of a page would take turns:
/// only then do CPUs recognize it and load more on their own.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// Where each half of the rows begins.
    halves: [*const u8; 2],
}

impl Next {
    /// What follows `LANES` rows.
    #[inline(always)]
    pub(super) fn new<V: Vector, W: Quantized>(w: &WeightRows<W>, rows: &[RowParts; MAX_LANES]) -> Self {
        let bytes = w.distance(V::LANES) * block_bytes(W::Q4) / QUANT_BLOCK;
        let second = if w.alternate { 1 } else { V::LANES / 2 };
        Self { halves: [0, second].map(|row| rows[row].integers.wrapping_add(bytes)) }
    }

    /// Begins to load as much as block `block` of `LANES` rows takes up.
    #[inline(always)]
    pub(super) fn prefetch<V: Vector>(self, block: usize, q4: bool) {
        let bytes = V::LANES / 2 * block_bytes(q4);
        for half in self.halves {
            for line in 0..bytes.div_ceil(64) {
                V::prefetch(half.wrapping_add(block * bytes + 64 * line));
            }
        }
    }
}

/// Values of the buffer of [`scales`].
pub(super) const SCALES: usize = MAX_LANES * MAX_LANES;

/// Writes the scales of `LANES` blocks from `block` on, of which the rows have `count`: one block's scales of `LANES`
/// rows, then the next block's.
///
/// # Safety
/// The first `LANES` rows have these blocks, and `to` is valid for writes of `LANES^2` values.
#[inline(always)]
pub(super) unsafe fn scales<V: Vector>(rows: &[RowParts; MAX_LANES], block: usize, count: usize, to: *mut f32) {
    let mut values = [0.0_f32; SCALES];
    for (row, values) in rows[..V::LANES].iter().zip(values.chunks_exact_mut(V::LANES)) {
        // SAFETY: the caller's for the rows; there is room for `LANES` values.
        unsafe {
            let from = row.scales.add(block);
            if count >= V::LANES {
                V::load_f16(from).store(values.as_mut_ptr());
            } else {
                let mut few = [f16::ZERO; MAX_LANES];
                std::ptr::copy_nonoverlapping(from, few.as_mut_ptr(), count);
                V::load_f16(few.as_ptr()).store(values.as_mut_ptr());
            }
        }
    }
    // SAFETY: the caller's for `to`; there are `LANES` rows of `LANES` values.
    unsafe { V::transpose(values.as_ptr(), V::LANES, to) };
}
