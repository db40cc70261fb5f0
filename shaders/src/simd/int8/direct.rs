//! Products of few rows in integers: weights go from memory through registers.

use super::super::product::Product;
use super::super::vector::Vector;
use super::super::weights::WeightRows;
use super::blocks::Block;
use super::dot::{Dot, DotTask, MAX_LANES};
use super::rows::{Next, RowParts, SCALES, scales};
use super::{FEW_ROWS, Quantized, block_bytes};
use crate::sizes::QUANT_BLOCK;

/// Weights of a task, about.
const TASK_WEIGHTS: usize = 1 << 16;

/// Some rows of W with all rows of x, at most [`FEW_ROWS`].
#[derive(Clone, Copy)]
pub(super) struct Direct<'a, W> {
    pub(super) product: &'a Product<'a>,
    pub(super) w: WeightRows<W>,
    /// The blocks of each live row.
    pub(super) x: &'a [Block],
    /// First row of W, and one past the last row.
    pub(super) rows: [usize; 2],
}

impl<W: Quantized> Direct<'_, W> {
    /// Divides the rows of W and computes them.
    pub(super) fn compute(self) {
        let Product { call, n, columns: [_, count], .. } = *self.product;
        let rows = (TASK_WEIGHTS / count.max(1)).next_multiple_of(MAX_LANES).max(MAX_LANES);
        call.each(n.div_ceil(rows), self.product.cost(), |i| {
            call.instructions.run_dot(Direct { rows: [i * rows, ((i + 1) * rows).min(n)], ..self });
        });
    }
}

impl<W: Quantized> DotTask for Direct<'_, W> {
    #[inline(always)]
    fn run<D: Dot>(self) {
        if W::Q4 {
            self.rows::<D, true>();
        } else {
            self.rows::<D, false>();
        }
    }
}

impl<W: Quantized> Direct<'_, W> {
    #[inline(always)]
    fn rows<D: Dot, const Q4: bool>(&self) {
        let Product { columns: [begin, count], live, .. } = *self.product;
        let [first, end] = self.rows;
        for n0 in (first..end).step_by(D::V::LANES) {
            // Rows past the end are the last one again.
            let row = |i: usize| W::parts(self.w.row((n0 + i).min(end - 1), begin, count));
            let rows: [RowParts; MAX_LANES] = std::array::from_fn(|i| row(i % D::V::LANES));
            // SAFETY: the rows have `count` weights.
            unsafe {
                match live.len() {
                    1 => self.group::<D, Q4, 1>([n0, end], &rows),
                    2 => self.group::<D, Q4, 2>([n0, end], &rows),
                    3 => self.group::<D, Q4, 3>([n0, end], &rows),
                    _ => self.group::<D, Q4, FEW_ROWS>([n0, end], &rows),
                }
            }
        }
    }

    /// The outputs of rows `n0` and following of W for `X` rows of x.
    ///
    /// # Safety
    /// The rows of W have the columns of the product.
    #[inline(always)]
    unsafe fn group<D: Dot, const Q4: bool, const X: usize>(
        &self,
        [n0, end]: [usize; 2],
        rows: &[RowParts; MAX_LANES],
    ) {
        let Product { live, target, columns: [_, count], .. } = *self.product;
        let blocks = count / QUANT_BLOCK;
        let lanes = D::V::LANES;
        let x = &self.x[..X * blocks];
        let integers = rows.map(|row| row.integers);
        let next = Next::new::<D::V, W>(&self.w, rows);
        let mut sums = [D::V::splat(0.0); X];
        let mut scale = [0.0_f32; SCALES];
        for chunk in (0..blocks).step_by(lanes) {
            let now = lanes.min(blocks - chunk);
            // SAFETY: the caller's for the rows; there is room for the scales.
            unsafe { scales::<D::V>(rows, chunk, now, scale.as_mut_ptr()) };
            for i in 0..now {
                let block = chunk + i;
                let at = block * block_bytes(Q4);
                next.prefetch::<D::V>(block, Q4);
                // SAFETY: the rows of W and of x have this block, and `scale` has `LANES` blocks.
                unsafe {
                    let weights = D::block::<Q4>(&integers, at);
                    let scale = D::V::load(scale.as_ptr().add(i * lanes));
                    for (j, sum) in sums.iter_mut().enumerate() {
                        let x = x.get_unchecked(j * blocks + block);
                        let mut dot = D::splat(x.start);
                        for (word, weights) in weights.into_iter().enumerate() {
                            dot = dot.add_products::<Q4>(weights, x.values.as_ptr().add(4 * word));
                        }
                        *sum = dot.to_f32().mul_add(scale.mul(D::V::splat(x.scale)), *sum);
                    }
                }
            }
        }
        for (row, sum) in live.iter().zip(sums) {
            let mut values = [0.0_f32; MAX_LANES];
            // SAFETY: there is room for `LANES` values.
            unsafe { sum.store(values.as_mut_ptr()) };
            target.write::<D::V>(*row, n0, &values[..lanes.min(end - n0)]);
        }
    }
}
