//! Scales of several rows of weights, block after block.

use half::f16;

use super::super::vector::Vector;
use super::RowParts;
use super::dot::MAX_LANES;

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
