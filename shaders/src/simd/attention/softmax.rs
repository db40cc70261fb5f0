//! The softmax of a query's scores in a block of keys, and the sum of two such results.

use std::ops::Range;

use crate::simd::instruction_set::Task;
use crate::simd::vector::Vector;

/// The maximum of an empty set of scores, as in the shader.
pub(super) const LOWEST: f32 = -3.0e38;

/// Attention of a query over some keys: `o = Σ exp(s - top) v`, `sum = Σ exp(s - top)`.
pub(super) struct State<'a> {
    /// `[width]`
    o: &'a mut [f32],
    top: &'a mut f32,
    sum: &'a mut f32,
}

/// Values after a state's output: its maximum, its sum, and padding up to a cache line.
const TAIL: usize = 16;

impl<'a> State<'a> {
    /// Values of a state in memory.
    pub(super) const fn size(width: usize) -> usize {
        width + TAIL
    }

    /// The state in memory of [`Self::size`].
    pub(super) fn of(memory: &'a mut [f32]) -> Self {
        let (o, tail) = memory.split_at_mut(memory.len() - TAIL);
        let (top, sum) = tail.split_at_mut(1);
        Self { o, top: &mut top[0], sum: &mut sum[0] }
    }

    /// Makes it the state of no keys.
    pub(super) fn clear(&mut self) {
        self.set(LOWEST, 0.0);
        self.o.fill(0.0);
    }

    /// Sets the maximum and the sum.
    pub(super) fn set(&mut self, top: f32, sum: f32) {
        (*self.top, *self.sum) = (top, sum);
    }

    /// The maximum and the sum.
    pub(super) fn top_and_sum(&self) -> [f32; 2] {
        [*self.top, *self.sum]
    }

    /// The output, `[width]`.
    pub(super) fn output(&mut self) -> &mut [f32] {
        self.o
    }

    /// The factors of this state and of `other` in the state of all keys of both, which gets the maximum and the sum.
    pub(super) fn join(&mut self, other: &State<'_>) -> [f32; 2] {
        let top = if *other.top > *self.top { *other.top } else { *self.top };
        // Exponentials that underflow are slow.
        let factor = |own: f32, sum: f32| if sum == 0.0 { 0.0 } else { (own - top).exp() };
        let factors = [factor(*self.top, *self.sum), factor(*other.top, *other.sum)];
        self.set(top, *self.sum * factors[0] + *other.sum * factors[1]);
        factors
    }
}

/// Adds the keys of `other` to a state.
pub(super) struct Merge<'a> {
    pub(super) state: State<'a>,
    pub(super) other: State<'a>,
}

impl Task for Merge<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let [keep, factor] = self.state.join(&self.other);
        let (keep, factor) = (V::splat(keep), V::splat(factor));
        for (o, other) in self.state.o.chunks_exact_mut(V::LANES).zip(self.other.o.chunks_exact(V::LANES)) {
            // SAFETY: both chunks are whole vectors.
            unsafe {
                let sum = V::load(other.as_ptr()).mul(factor);
                V::load(o.as_ptr()).mul_add(keep, sum).store(o.as_mut_ptr());
            }
        }
    }
}

/// Replaces scores `s` by their weights `exp(s - top)` and sets the maximum and the sum of a state. Scores that are not
/// finite make the sum NaN.
pub(super) struct Softmax<'a> {
    /// Whole vectors. Those that reach into `range` are overwritten.
    pub(super) scores: &'a mut [f32],
    /// The keys that the query sees.
    pub(super) range: Range<usize>,
    pub(super) state: State<'a>,
}

impl Task for Softmax<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let Range { start, end } = self.range;
        let (first, last) = (start / V::LANES * V::LANES, end.next_multiple_of(V::LANES));
        self.scores[first..start].fill(LOWEST);
        self.scores[end..last].fill(LOWEST);
        let mut top = V::splat(LOWEST);
        for s in self.scores[first..last].chunks_exact(V::LANES) {
            // SAFETY: the chunk is a whole vector.
            top = unsafe { V::load(s.as_ptr()) }.max(top);
        }
        let mut tops = [LOWEST; 16];
        // SAFETY: there is room for `LANES` values.
        unsafe { top.store(tops.as_mut_ptr()) };
        let top = tops.into_iter().fold(LOWEST, f32::max);
        for s in self.scores[first..last].chunks_exact_mut(V::LANES) {
            // SAFETY: the chunk is a whole vector.
            unsafe {
                let x = V::load(s.as_ptr()).sub(V::splat(top));
                // `exp` of NaN is unspecified; 0 x makes it NaN again.
                x.mul_add(V::splat(0.0), x.exp()).store(s.as_mut_ptr());
            }
        }
        self.scores[first..start].fill(0.0);
        self.scores[end..last].fill(0.0);
        let mut sum = V::splat(0.0);
        for s in self.scores[first..last].chunks_exact(V::LANES) {
            // SAFETY: the chunk is a whole vector.
            sum = sum.add(unsafe { V::load(s.as_ptr()) });
        }
        self.state.set(top, sum.sum());
    }
}
