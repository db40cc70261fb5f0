//! Products of few rows: weights go from memory through registers, and nothing is packed.

use super::instruction_set::Task;
use super::product::{Target, share};
use super::vector::Vector;
use super::weights::{MAX_DIRECT_ROWS, Natural, Source, WeightRows, Weights};
use crate::sizes::QUANT_BLOCK;

/// Rows of x that weights in registers serve.
const X_ROWS: usize = 4;
/// Rows of W whose sums are written at a time. They stay in the second-level cache for the next rows of x.
const GROUP: usize = 16;

/// Some rows of W with all rows of x.
pub(super) struct Direct<'a, W> {
    pub(super) w: WeightRows<W>,
    /// First of the columns to add up; `x` has the number of them.
    pub(super) begin: usize,
    /// First row of W, and one past the last row.
    pub(super) rows: [usize; 2],
    /// One to [`MAX_DIRECT_ROWS`] rows of equal length, in the order of the weights. The other slices are unused.
    pub(super) x: [&'a [f32]; MAX_DIRECT_ROWS],
    /// The row of y of each row of x.
    pub(super) live: &'a [usize],
    pub(super) target: &'a Target<'a>,
}

impl<W: Weights> Task for Direct<'_, W> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let [first, end] = self.rows;
        let tiles = self.live.len().div_ceil(X_ROWS);
        for n0 in (first..end).step_by(GROUP) {
            for tile in 0..tiles {
                let [first, end] = [tile, tile + 1].map(|i| share(self.live.len(), tiles, i));
                let n = [n0, self.rows[1].min(n0 + GROUP)];
                match end - first {
                    1 => self.group::<V, 1>(n, first),
                    2 => self.group::<V, 2>(n, first),
                    3 => self.group::<V, 3>(n, first),
                    _ => self.group::<V, 4>(n, first),
                }
            }
        }
    }
}

impl<W: Weights> Direct<'_, W> {
    /// The outputs of rows `n0` to `end` of W for `X` rows of x.
    #[inline(always)]
    fn group<V: Vector, const X: usize>(&self, [n0, end]: [usize; 2], first: usize) {
        let count = end - n0;
        let mut sums = [[0.0; GROUP]; X];
        // Three times four sums, a scale and weights are more than the registers of AVX2.
        for at in (0..count).step_by(if X < 3 { 4 } else { 2 }) {
            if X < 3 {
                self.tile::<V, X, 4>(first, [n0, end], at, &mut sums);
            } else {
                self.tile::<V, X, 2>(first, [n0, end], at, &mut sums);
            }
        }
        for (row, sums) in self.live[first..first + X].iter().zip(&sums) {
            self.target.write::<V>(*row, n0, &sums[..count]);
        }
    }

    /// The sums of rows `n0 + at` to `n0 + at + N`. Rows past the end are the last one again: fewer forms of this are
    /// worth more than the time of the last tile.
    #[inline(always)]
    fn tile<V: Vector, const X: usize, const N: usize>(
        &self,
        first: usize,
        [n0, end]: [usize; 2],
        at: usize,
        sums: &mut [[f32; GROUP]; X],
    ) {
        let count = self.x[0].len();
        let mut w = [self.w.row(end - 1, self.begin, count); N];
        for (i, w) in w.iter_mut().enumerate() {
            *w = self.w.row((n0 + at + i).min(end - 1), self.begin, count);
        }
        let mut x = [Natural::from(self.x[0].as_ptr()); X];
        for (x, row) in x.iter_mut().zip(&self.x[first..]) {
            *x = Natural::from(row[..count].as_ptr());
        }
        // SAFETY: all rows have `count` values, by `row` and by slicing.
        let accumulators = unsafe { accumulate::<V, W::Row, Natural, X, N>(w, x, count, self.w.distance(N)) };
        for (sums, accumulators) in sums.iter_mut().zip(accumulators) {
            for (i, accumulator) in accumulators.into_iter().enumerate() {
                sums[at + i] = accumulator.sum();
            }
        }
    }
}

/// The products of `N` rows of weights with `X` rows of activations, not yet summed over lanes. The next `N` rows of
/// weights follow at a distance of `ahead` weights.
///
/// # Safety
/// All rows have `count` values. Rows with scales have whole blocks.
#[inline(always)]
unsafe fn accumulate<V: Vector, W: Source, S: Source, const X: usize, const N: usize>(
    w: [W; N],
    x: [S; X],
    count: usize,
    ahead: usize,
) -> [[V; N]; X] {
    let mut sums = [[V::splat(0.0); N]; X];
    let mut at = 0;
    while at + QUANT_BLOCK <= count {
        // SAFETY: the block ends at `count` or before it.
        unsafe {
            for (n, w) in w.into_iter().enumerate() {
                w.prefetch::<V>(at + ahead);
                let scale = w.scale::<V>(at);
                for pair in 0..QUANT_BLOCK / (2 * V::LANES) {
                    let at = at + pair * 2 * V::LANES;
                    let weights = w.pair::<V>(at, scale);
                    for (sums, x) in sums.iter_mut().zip(x) {
                        let values = x.pair::<V>(at, x.scale::<V>(at));
                        sums[n] = weights[0].mul_add(values[0], sums[n]);
                        sums[n] = weights[1].mul_add(values[1], sums[n]);
                    }
                }
            }
        }
        at += QUANT_BLOCK;
    }
    while at < count {
        let step = V::LANES.min(count - at);
        for (n, w) in w.into_iter().enumerate() {
            for (sums, x) in sums.iter_mut().zip(x) {
                // SAFETY: the rows have `step` more values.
                let (weights, values) = unsafe { (w.first::<V>(at, step), x.first::<V>(at, step)) };
                sums[n] = weights.mul_add(values, sums[n]);
            }
        }
        at += step;
    }
    sums
}
