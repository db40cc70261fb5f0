//! Products of many rows: x and blocks of W are packed in the order in which tiles of outputs read them.
//!
//! A packed tile is `[step][row][LANES]`: the vectors of one step along the columns are adjacent. Rows whose distance
//! is a power of two would otherwise compete for cache lines. Weights are converted once for all rows of x.

use super::instruction_set::Task;
use super::memory::Output;
use super::product::{Product, Target, share};
use super::scratch::{with_scratch, with_shared};
use super::vector::Vector;
use super::weights::{Source, WeightRows, Weights};
use crate::sizes::QUANT_BLOCK;

/// Values of a block of W in scratch memory: half of a small second-level cache. CPUs with longer vectors have larger
/// ones.
const fn block_values<V: Vector>() -> usize {
    if V::LANES > 8 { 1 << 17 } else { 1 << 16 }
}
/// Rows of a block of W at most.
const BLOCK_ROWS: usize = 48;
/// Blocks of W that are enough for any number of threads.
const BLOCKS: usize = 32;
/// Columns of a tile that stay in the first-level cache, of x and of W together 14 to 20 KB.
const CHUNK: usize = 512;
/// Values of x that are packed at a time: 8 MB.
const PANEL_VALUES: usize = 1 << 21;

/// A product, and how it is divided.
pub(super) struct Packed<'a, W> {
    product: &'a Product<'a>,
    w: WeightRows<W>,
    /// Vectors of a row: the last one may be filled up with zeros.
    steps: usize,
    /// Rows of x that are packed at a time.
    panel: usize,
    /// Rows of a block of W.
    block: usize,
    /// Vectors of a row in a block of W. Longer rows are packed in several segments.
    segment: usize,
}

impl<'a, W: Weights> Packed<'a, W> {
    #[inline(always)]
    pub(super) fn new<V: Vector>(product: &'a Product<'a>, w: WeightRows<W>) -> Self {
        let steps = product.columns[1].div_ceil(V::LANES);
        let padded = (steps * V::LANES).max(1);
        // Whole tiles, and an even number of rows, because outputs may be gated.
        let unit = 2 * V::TILE[1];
        let most = (block_values::<V>() / padded).min(product.n / BLOCKS).min(BLOCK_ROWS);
        let block = (most / unit * unit).max(unit);
        let whole = block * padded <= block_values::<V>();
        let segment = if whole { steps } else { block_values::<V>() / block / CHUNK * CHUNK / V::LANES };
        let panel = (PANEL_VALUES / padded).clamp(64, 1 << 16);
        Self { product, w, steps, panel, block, segment }
    }

    #[inline(always)]
    pub(super) fn compute<V: Vector>(&self) {
        let Product { call, live, n, .. } = *self.product;
        let panels = live.len().div_ceil(self.panel);
        with_shared(live.len().div_ceil(panels) * self.steps * V::LANES, |shared| {
            for i in 0..panels {
                let live = &live[share(live.len(), panels, i)..share(live.len(), panels, i + 1)];
                let tiles = live.len().div_ceil(V::TILE[0]);
                let values = &mut shared[..live.len() * self.steps * V::LANES];
                let cost = values.len();
                let x = Output::from(&mut *values);
                call.each(tiles, cost, |tile| call.instructions.run(PackX { packed: self, live, tile, x }));
                let x = &*values;
                call.each(n.div_ceil(self.block), self.product.cost(), |i| {
                    let rows = [i * self.block, ((i + 1) * self.block).min(n)];
                    let count = rows[1] - rows[0];
                    let kept = if self.segment < self.steps { live.len() } else { V::TILE[0] };
                    let values = count * (self.segment + kept) * V::LANES;
                    with_scratch(values, |scratch| {
                        call.instructions.run(Block { packed: self, rows, live, x, scratch })
                    });
                });
            }
        });
    }
}

/// Packs the rows of x of one tile.
struct PackX<'a, W> {
    packed: &'a Packed<'a, W>,
    live: &'a [usize],
    tile: usize,
    /// `[tile][steps][row][LANES]`
    x: Output<'a>,
}

impl<W: Weights> Task for PackX<'_, W> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Product { x, columns: [begin, count], .. } = *self.packed.product;
        let tiles = self.live.len().div_ceil(V::TILE[0]);
        let [first, end] = [self.tile, self.tile + 1].map(|i| share(self.live.len(), tiles, i));
        let size = self.packed.steps * V::LANES;
        // SAFETY: every task has a tile of its own.
        let to = unsafe { self.x.slice(first * size..end * size) };
        let row = |i: usize| W::X::from(x.row(self.live[first + i], begin, count).as_ptr());
        // SAFETY: the rows have `count` values.
        unsafe { pack_tile::<V, _>(row, end - first, [0, count], x.stride, to) };
    }
}

/// Packs `rows` rows of values `begin` to `end`, where `begin` is a multiple of [`QUANT_BLOCK`]. The distance from one
/// row to the next is `next`.
///
/// # Safety
/// `row` returns rows that have these values. Rows with scales have whole blocks.
#[inline(always)]
pub(super) unsafe fn pack_tile<V: Vector, S: Source>(
    row: impl Fn(usize) -> S,
    rows: usize,
    [begin, end]: [usize; 2],
    next: usize,
    to: &mut [f32],
) {
    assert!(to.len() >= rows * (end - begin).next_multiple_of(V::LANES));
    for i in 0..rows {
        let row = row(i);
        let mut to = to.as_mut_ptr().wrapping_add(i * V::LANES);
        let stride = rows * V::LANES;
        let mut at = begin;
        while at + QUANT_BLOCK <= end {
            // SAFETY: the row has this block. `to` has room for every vector that begins before `end`, rounded up.
            unsafe {
                // A row is too short for the CPU's own prefetching to reach its full speed.
                row.prefetch::<V>(at.wrapping_add(next));
                let scale = row.scale::<V>(at);
                let mut j = at;
                while j < at + QUANT_BLOCK {
                    let pair = row.pair::<V>(j, scale);
                    pair[0].store(to);
                    pair[1].store(to.add(stride));
                    to = to.wrapping_add(2 * stride);
                    j += 2 * V::LANES;
                }
            }
            at += QUANT_BLOCK;
        }
        while at < end {
            let count = V::LANES.min(end - at);
            // SAFETY: as above.
            unsafe { row.first::<V>(at, count).store(to) };
            to = to.wrapping_add(stride);
            at += count;
        }
    }
}

/// Some rows of W with the packed rows of x.
struct Block<'a, W> {
    packed: &'a Packed<'a, W>,
    /// First row of W, and one past the last row.
    rows: [usize; 2],
    live: &'a [usize],
    /// `[tile][steps][row][LANES]`
    x: &'a [f32],
    /// Memory for a segment of W, then for sums.
    scratch: &'a mut [f32],
}

impl<W: Weights> Task for Block<'_, W> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let Packed { steps, segment, product, .. } = *self.packed;
        let rows = self.rows[1] - self.rows[0];
        let tiles = self.live.len().div_ceil(V::TILE[0]);
        let (w, sums) = std::mem::take(&mut self.scratch).split_at_mut(rows * segment * V::LANES);
        let mut done = 0;
        loop {
            let now = segment.min(steps - done);
            self.pack::<V>([done, done + now], w);
            for tile in 0..tiles {
                let [first, end] = [tile, tile + 1].map(|i| share(self.live.len(), tiles, i));
                let size = [end - first, rows];
                let x = &self.x[(first * steps + size[0] * done) * V::LANES..][..size[0] * now * V::LANES];
                // With one segment, the sums of a tile are complete before those of the next one begin.
                let at = if segment < steps { first * rows * V::LANES } else { 0 };
                let sums = &mut sums[at..at + size[0] * rows * V::LANES];
                if done == 0 {
                    sums.fill(0.0);
                }
                product.call.instructions.run(Products { rows: size, steps: now, x, w, sums });
                if done + now == steps {
                    self.finish::<V>(&self.live[first..end], sums);
                }
            }
            done += now;
            if done == steps {
                break;
            }
        }
    }
}

impl<W: Weights> Block<'_, W> {
    /// Packs a range of steps of all rows as `[tile][step][row][LANES]`.
    #[inline(always)]
    fn pack<V: Vector>(&self, steps: [usize; 2], to: &mut [f32]) {
        let Product { columns: [begin, count], .. } = *self.packed.product;
        let w = &self.packed.w;
        let range = steps.map(|step| (step * V::LANES).min(count));
        let size = (steps[1] - steps[0]) * V::LANES;
        let mut first = self.rows[0];
        while first < self.rows[1] {
            let rows = V::TILE[1].min(self.rows[1] - first);
            let row = |i: usize| w.row(first + i, begin, count);
            // SAFETY: `row` has checked that the rows have `count` values.
            unsafe {
                pack_tile::<V, _>(row, rows, range, w.k, &mut to[(first - self.rows[0]) * size..][..rows * size])
            };
            first += rows;
        }
    }

    /// Adds up the lanes and writes the outputs of some rows of x.
    #[inline(always)]
    fn finish<V: Vector>(&self, live: &[usize], sums: &[f32]) {
        let rows = self.rows[1] - self.rows[0];
        let target: &Target<'_> = self.packed.product.target;
        let mut outputs = [0.0; BLOCK_ROWS];
        for (i, row) in live.iter().enumerate() {
            let lanes = &sums[i * rows * V::LANES..][..rows * V::LANES];
            let whole = rows / 4 * 4;
            for at in (0..whole).step_by(4) {
                let mut four = [V::splat(0.0); 4];
                for (n, v) in four.iter_mut().enumerate() {
                    // SAFETY: there are `rows` vectors.
                    *v = unsafe { V::load(lanes.as_ptr().add((at + n) * V::LANES)) };
                }
                outputs[at..at + 4].copy_from_slice(&V::sums(four));
            }
            for (n, output) in outputs[whole..rows].iter_mut().enumerate() {
                // SAFETY: as above.
                *output = unsafe { V::load(lanes.as_ptr().add((whole + n) * V::LANES)) }.sum();
            }
            target.write::<V>(*row, self.rows[0], &outputs[..rows]);
        }
    }
}

/// A packed tile of x with a packed block of W. It does not depend on the format of W, so it is a task of its own:
/// there are many forms of tiles, and they are compiled once.
struct Products<'a, 'b> {
    /// Rows of x and of W.
    rows: [usize; 2],
    steps: usize,
    /// `[steps][row][LANES]`
    x: &'a [f32],
    /// `[tile][steps][row][LANES]`
    w: &'a [f32],
    /// `[row of x][row of W][LANES]`, to which the products are added.
    sums: &'b mut [f32],
}

impl Task for Products<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { rows: [x_rows, w_rows], steps, x, w, sums } = self;
        assert!(x.len() >= x_rows * steps * V::LANES && w.len() >= w_rows * steps * V::LANES);
        assert!(sums.len() >= x_rows * w_rows * V::LANES);
        let mut begin = 0;
        while begin < steps {
            let count = (CHUNK / V::LANES).min(steps - begin);
            let (mut row, mut pass) = (0, 0);
            while row < w_rows {
                let rows = V::TILE[1].min(w_rows - row);
                let tile = Tile {
                    // The columns that follow are behind these. The first passes prefetch a row of them each.
                    ahead: if pass < x_rows { (x_rows * count + pass) * V::LANES } else { 0 },
                    steps: count,
                    x: x[x_rows * begin * V::LANES..].as_ptr(),
                    w: w[(row * steps + rows * begin) * V::LANES..].as_ptr(),
                    sums: sums[row * V::LANES..].as_mut_ptr(),
                    stride: w_rows * V::LANES,
                };
                // SAFETY: x and w have `count` steps from `begin` on, sums has a vector for each pair of rows.
                unsafe { tile.add::<V>(x_rows, rows) };
                row += rows;
                pass += 1;
            }
            begin += count;
        }
    }
}

/// A tile of outputs.
struct Tile {
    steps: usize,
    /// `[steps][row][LANES]`
    x: *const f32,
    /// `[steps][row][LANES]`
    w: *const f32,
    /// `[row of x][row of W][LANES]`
    sums: *mut f32,
    /// From one row of x to the next in `sums`.
    stride: usize,
    /// From a step of x to a vector to prefetch.
    ahead: usize,
}

impl Tile {
    /// # Safety
    /// The pointers are valid for `x_rows` rows of x and `w_rows` rows of W, neither 0 nor more than `V::TILE`.
    #[inline(always)]
    unsafe fn add<V: Vector>(self, x_rows: usize, w_rows: usize) {
        macro_rules! tiles {
            ($($x:literal: $($w:literal)*;)*) => {
                match (x_rows, w_rows) {
                    // SAFETY: the caller's.
                    $($(($x, $w) if $x <= V::TILE[0] && $w <= V::TILE[1] => unsafe { self.add_tile::<V, $x, $w>() },)*)*
                    _ => unreachable!("a tile of {x_rows} by {w_rows} rows"),
                }
            };
        }
        tiles!(1: 1 2 3 4; 2: 1 2 3 4; 3: 1 2 3 4; 4: 1 2 3 4; 5: 1 2 3 4; 6: 1 2 3 4;);
    }

    /// # Safety
    /// As for `add`.
    #[inline(always)]
    unsafe fn add_tile<V: Vector, const X: usize, const N: usize>(self) {
        let Self { steps, mut x, mut w, sums: to, stride, ahead } = self;
        let mut sums = [[V::splat(0.0); N]; X];
        for (i, row) in sums.iter_mut().enumerate() {
            for (n, sum) in row.iter_mut().enumerate() {
                // SAFETY: the caller's.
                *sum = unsafe { V::load(to.add(i * stride + n * V::LANES)) };
            }
        }
        for _ in 0..steps {
            // SAFETY: the caller's. The pointers move on by what has been read.
            unsafe {
                V::prefetch(x.wrapping_add(ahead).cast());
                let mut weights = [V::splat(0.0); N];
                for (n, weight) in weights.iter_mut().enumerate() {
                    *weight = V::load(w.add(n * V::LANES));
                }
                for (i, row) in sums.iter_mut().enumerate() {
                    let value = V::load(x.add(i * V::LANES));
                    for (sum, weight) in row.iter_mut().zip(weights) {
                        *sum = weight.mul_add(value, *sum);
                    }
                }
                x = x.add(X * V::LANES);
                w = w.add(N * V::LANES);
            }
        }
        for (i, row) in sums.into_iter().enumerate() {
            for (n, sum) in row.into_iter().enumerate() {
                // SAFETY: the caller's.
                unsafe { sum.store(to.add(i * stride + n * V::LANES)) };
            }
        }
    }
}
