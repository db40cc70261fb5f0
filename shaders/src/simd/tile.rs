//! Small matrix products in tiles that stay in registers.

use super::vector::Vector;

/// Rows of a tile.
pub(super) const TILE_ROWS: usize = 6;
/// Vectors in a row of a tile. Twelve sums, two vectors of a row and a factor fit into 16 registers.
const TILE_VECTORS: usize = 2;
/// The largest number of columns of a tile, for sizes of buffers.
pub(super) const MAX_TILE_COLUMNS: usize = 16 * TILE_VECTORS;

/// The distance of rows of `width` values. It is a multiple of a cache line but not of several, so that columns spread
/// over the cache, and leaves room for a whole tile.
pub(super) fn row_stride(width: usize) -> usize {
    let lines = width.next_multiple_of(TILE_ROWS).div_ceil(16);
    16 * (lines | 1)
}

/// A tile of a product.
#[derive(Clone, Copy)]
pub(super) struct Tile<V>([[V; TILE_VECTORS]; TILE_ROWS]);

impl<V: Vector> Tile<V> {
    /// Columns of a tile.
    pub(super) const COLUMNS: usize = TILE_VECTORS * V::LANES;

    /// `Σ_d left[d][r] right[d][c]` over `depth` rows of both, whose starts are a stride apart.
    #[inline(always)]
    pub(super) fn product(depth: usize, left: &[f32], left_stride: usize, right: &[f32], right_stride: usize) -> Self {
        let mut sums = [[V::splat(0.0); TILE_VECTORS]; TILE_ROWS];
        if depth == 0 {
            return Self(sums);
        }
        assert!((depth - 1) * left_stride + TILE_ROWS <= left.len());
        assert!((depth - 1) * right_stride + Self::COLUMNS <= right.len());
        let (mut left, mut right) = (left.as_ptr(), right.as_ptr());
        for _ in 0..depth {
            // SAFETY: the lengths have been checked above. Only the last additions may pass the ends, and nothing is
            // read after them.
            unsafe {
                let mut columns = [V::splat(0.0); TILE_VECTORS];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = V::load(right.add(v * V::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*left.add(r));
                    for (sum, &column) in sums.iter_mut().zip(&columns) {
                        *sum = factor.mul_add(column, *sum);
                    }
                }
                left = left.wrapping_add(left_stride);
                right = right.wrapping_add(right_stride);
            }
        }
        Self(sums)
    }

    /// Writes the first values of row `r`, or adds to them.
    #[inline(always)]
    pub(super) fn put(&self, r: usize, to: &mut [f32], add: bool) {
        for (mut sum, to) in self.0[r].into_iter().zip(to.chunks_mut(V::LANES)) {
            // SAFETY: the chunk has that many values.
            unsafe {
                if add {
                    sum = sum.add(V::load_first(to.as_ptr(), to.len()));
                }
                sum.store_first(to.as_mut_ptr(), to.len());
            }
        }
    }
}

/// Copies the first `COLUMNS` values of `from`, or as many as there are and then zeros.
#[inline(always)]
pub(super) fn copy_columns<V: Vector>(from: &[f32], to: &mut [f32]) {
    for v in 0..TILE_VECTORS {
        let at = v * V::LANES;
        let from = from.get(at..).unwrap_or_default();
        let to = &mut to[at..at + V::LANES];
        // SAFETY: the lengths are those of the slices.
        unsafe { V::load_first(from.as_ptr(), from.len().min(V::LANES)).store(to.as_mut_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::InstructionSet;
    use crate::simd::instruction_set::Task;

    struct Check;

    impl Task for Check {
        #[inline(always)]
        fn run<V: Vector>(self) {
            for depth in [0, 1, 7] {
                let (left_stride, right_stride) = (9, Tile::<V>::COLUMNS + 1);
                let (left, right) = (noise(1, 7 * left_stride, 1.0), noise(2, 7 * right_stride, 1.0));
                let tile = Tile::<V>::product(depth, &left, left_stride, &right, right_stride);
                for r in 0..TILE_ROWS {
                    let mut found = vec![1.0; Tile::<V>::COLUMNS - 1];
                    tile.put(r, &mut found, true);
                    let sum = |c: usize| -> f32 {
                        (0..depth).map(|d| left[d * left_stride + r] * right[d * right_stride + c]).sum()
                    };
                    let expected: Vec<f32> = (0..found.len()).map(|c| 1.0 + sum(c)).collect();
                    assert_close(&found, &expected, 1e-6);
                }
            }
        }
    }

    #[test]
    fn tiles_are_products() {
        InstructionSet::available().into_iter().for_each(|set| set.run(Check));
    }
}
