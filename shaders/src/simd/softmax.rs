//! What kernels over rows of logits share. Sums over a row are taken block by block, and blocks are added up in f64:
//! rows have up to hundreds of thousands of values.

use super::call::Call;
use super::extent::product;
use super::vector::Vector;

/// Values of a block.
pub(super) const BLOCK: usize = 1024;
/// Values of a task that has several short rows, about.
const TASK_VALUES: usize = 1 << 12;
/// Multiply-adds that take as long as what is done with one value: mostly an exponential.
const COST: usize = 20;

/// Calls `task` once with each row that isn't halted, on several threads if there is enough to do with rows of `n`
/// values.
pub(super) fn each_row(call: &Call<'_>, rows: usize, n: usize, task: impl Fn(usize) + Sync) {
    let share = (TASK_VALUES / n.max(1)).max(1);
    call.each(rows.div_ceil(share), product([rows, n, COST]), |first| {
        (first * share..((first + 1) * share).min(rows)).filter(|&row| !call.halted(row)).for_each(&task);
    });
}

/// Whether no value is infinite or NaN.
#[inline(always)]
pub(super) fn all_finite(values: &[f32]) -> bool {
    let mut most = 0;
    for value in values {
        most = most.max(value.to_bits() & 0x7fff_ffff);
    }
    most < f32::INFINITY.to_bits()
}

/// The largest value, and where the first block that has it begins. Without values it is minus infinity; if a value is
/// infinite or NaN, there is none.
#[inline(always)]
pub(super) fn max_if_finite<V: Vector>(values: &[f32]) -> Option<(f32, usize)> {
    let (mut max, mut first) = (f32::NEG_INFINITY, 0);
    for (i, block) in values.chunks(BLOCK).enumerate() {
        if !all_finite(block) {
            return None;
        }
        let most = max_of_block::<V>(block);
        if most > max {
            (max, first) = (most, i * BLOCK);
        }
    }
    Some((max, first))
}

#[inline(always)]
fn max_of_block<V: Vector>(block: &[f32]) -> f32 {
    // Four at a time: a maximum waits for the one before it.
    let mut most = [V::splat(f32::NEG_INFINITY); 4];
    let fours = block.chunks_exact(4 * V::LANES);
    let mut max = f32::NEG_INFINITY;
    for &value in fours.remainder() {
        max = larger(max, value);
    }
    for four in fours {
        for (i, most) in most.iter_mut().enumerate() {
            // SAFETY: there are four vectors.
            *most = most.max(unsafe { V::load(four.as_ptr().add(i * V::LANES)) });
        }
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    let [a, b, c, d] = most;
    // SAFETY: there is room for `LANES` values.
    unsafe { a.max(b).max(c.max(d)).store(lanes.as_mut_ptr()) };
    for lane in lanes {
        max = larger(max, lane);
    }
    max
}

/// The larger one of two numbers. [`f32::max`], which takes care of NaN, may be a call of a library function.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `e^v`, and 0 far below the smallest normal number, where [`Vector::exp`] may give that number.
#[derive(Clone, Copy)]
pub(super) struct Exp<V> {
    /// The exponential of the lowest number.
    least: V,
}

impl<V: Vector> Exp<V> {
    /// To be called before a loop: the compiler doesn't move what this computes out of it.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self { least: V::splat(f32::MIN).exp() }
    }

    /// `e^v`; NaN gives an unspecified value.
    #[inline(always)]
    pub(super) fn of(self, v: V) -> V {
        // All numbers that are too low give the same bits. They are too small to change results above 1e-30.
        v.exp().sub(self.least)
    }
}

/// Fewer than `LANES` values, then the lowest number.
#[inline(always)]
pub(super) fn load_rest<V: Vector>(values: &[f32]) -> V {
    let mut lanes = [f32::MIN; 16];
    for (lane, &value) in lanes.iter_mut().zip(values) {
        *lane = value;
    }
    // SAFETY: there are 16 values.
    unsafe { V::load(lanes.as_ptr()) }
}

/// The sum of `exp(logit - max)` over finite logits.
#[inline(always)]
pub(super) fn sum_exp<V: Vector>(logits: &[f32], max: f32) -> f64 {
    let (exp, mut sum) = (Exp::<V>::new(), 0.0);
    for block in logits.chunks(BLOCK) {
        let mut part = V::splat(0.0);
        let vectors = block.chunks_exact(V::LANES);
        if !vectors.remainder().is_empty() {
            part = exp.of(load_rest::<V>(vectors.remainder()).sub(V::splat(max)));
        }
        for logits in vectors {
            // SAFETY: the slice has that many values.
            let logits = unsafe { V::load(logits.as_ptr()) };
            part = part.add(exp.of(logits.sub(V::splat(max))));
        }
        sum += f64::from(part.sum());
    }
    sum
}
