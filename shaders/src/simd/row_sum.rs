//! The sum of rows, which `sum_rows` and `gather_rows_grad` share.
//!
//! Eight rows at a time are added up as a tree, then these sums one after another. That goes through the sums so far an
//! eighth as often as adding one row after another, and has fewer roundings. Nothing is fused, and every column is
//! added up by itself, so all instruction sets give the same bits.

use super::instruction_set::Task;
use super::vector::Vector;

/// Columns of a task: their sums stay in the L1 cache, and a row has a whole page of them.
pub(super) const STRIP: usize = 1024;
/// Rows that are added up at a time.
const GROUP: usize = 8;

/// Where the rows of a sum begin.
pub(super) enum Places<'a> {
    /// `count` rows, each `stride` values after the one before, from `first` on.
    Apart { first: usize, stride: usize, count: usize },
    /// The rows of these numbers, with `stride` values each, from column `first` on.
    Listed { first: usize, stride: usize, numbers: &'a [u32] },
}

impl Places<'_> {
    #[inline(always)]
    fn count(&self) -> usize {
        match self {
            Places::Apart { count, .. } => *count,
            Places::Listed { numbers, .. } => numbers.len(),
        }
    }

    #[inline(always)]
    fn begin(&self, i: usize) -> usize {
        match *self {
            Places::Apart { first, stride, .. } => first + i * stride,
            Places::Listed { first, stride, numbers } => first + numbers[i] as usize * stride,
        }
    }

    /// `width` values of each of up to [`GROUP`] rows, from row number `first` on, and how many rows these are.
    #[inline(always)]
    fn group<'a>(&self, x: &'a [f32], first: usize, width: usize) -> ([&'a [f32]; GROUP], usize) {
        let (mut rows, count) = ([&[][..]; GROUP], (self.count() - first).min(GROUP));
        for (i, row) in rows[..count].iter_mut().enumerate() {
            *row = &x[self.begin(first + i)..][..width];
        }
        (rows, count)
    }
}

/// `y = the sum of rows`, or `y +=` it, for columns of a strip.
pub(super) struct RowSum<'a> {
    pub(super) x: &'a [f32],
    pub(super) rows: Places<'a>,
    /// At most [`STRIP`] values.
    pub(super) y: &'a mut [f32],
    pub(super) add: bool,
}

impl Task for RowSum<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, rows: places, y, add } = self;
        let last = places.count().saturating_sub(1) / GROUP * GROUP;
        if last == 0 {
            let (rows, count) = places.group(x, 0, y.len());
            return add_up::<V>(&rows[..count], &[], y, add);
        }
        let mut sums = [0.0; STRIP];
        let sums = &mut sums[..y.len()];
        for first in (0..last).step_by(GROUP) {
            let (rows, _) = places.group(x, first, y.len());
            add_up::<V>(&rows, &[], sums, first > 0);
        }
        let (rows, count) = places.group(x, last, y.len());
        add_up::<V>(&rows[..count], sums, y, add);
    }
}

/// `y = before + the sum of rows`, or `y +=` it. All slices have the length of `y`, but `before` may be empty, for
/// zeros.
#[inline(always)]
fn add_up<V: Vector>(rows: &[&[f32]], before: &[f32], y: &mut [f32], add: bool) {
    assert!(rows.iter().all(|row| row.len() == y.len()) && (before.is_empty() || before.len() == y.len()));
    let whole = y.len() / V::LANES * V::LANES;
    for at in (0..whole).step_by(V::LANES) {
        // SAFETY: all slices have these values.
        unsafe { add_up_at::<V>(rows, before, y, add, at, V::LANES) };
    }
    if whole < y.len() {
        // SAFETY: as above.
        unsafe { add_up_at::<V>(rows, before, y, add, whole, y.len() - whole) };
    }
}

/// As [`add_up`], for `count` columns from `at` on.
///
/// # Safety
/// All slices that are not empty have these columns, of which there are at most `LANES`.
#[inline(always)]
unsafe fn add_up_at<V: Vector>(rows: &[&[f32]], before: &[f32], y: &mut [f32], add: bool, at: usize, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        let mut sum = V::splat(0.0);
        if let Ok(rows) = <&[&[f32]; GROUP]>::try_from(rows) {
            let mut v = [sum; GROUP];
            for (v, row) in v.iter_mut().zip(rows) {
                *v = V::load_first(row.as_ptr().add(at), count);
            }
            let [a, b, c, d, e, f, g, h] = v;
            sum = a.add(b).add(c.add(d)).add(e.add(f).add(g.add(h)));
        } else if let Some((first, rest)) = rows.split_first() {
            sum = V::load_first(first.as_ptr().add(at), count);
            for row in rest {
                sum = sum.add(V::load_first(row.as_ptr().add(at), count));
            }
        }
        if !before.is_empty() {
            sum = V::load_first(before.as_ptr().add(at), count).add(sum);
        }
        let y = y.as_mut_ptr().add(at);
        if add {
            sum = V::load_first(y, count).add(sum);
        }
        sum.store_first(y, count);
    }
}
