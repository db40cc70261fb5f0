//! Products of many rows in f32 whose sums may be added up in any order: lanes are rows of W.
//!
//! W is packed transposed, so that a multiply-add takes a value of x and a vector of weights of several rows. There is
//! nothing to add up over lanes at the end, which matters for short sums.

use super::instruction_set::Task;
use super::memory::Output;
use super::product::{Product, Rows, Target};
use super::scratch::{with_scratch, with_shared};
use super::vector::Vector;
use super::weights::{F32, WeightRows};

/// Rows of x in a tile: with two vectors of W, their twelve sums stay in registers.
const X_ROWS: usize = 6;
/// Rows of x of a task.
const TASK_ROWS: usize = 48;
/// Vectors of a panel of W.
const PANEL_VECTORS: usize = 2;
/// Columns that are added up at a time: a panel of them stays in the first-level cache.
const CHUNK: usize = 256;
/// Values of W that are packed at a time: 8 MB.
const PACKED_VALUES: usize = 1 << 21;
/// Tasks that are enough for any number of threads.
const TASKS: usize = 32;
/// Rows of x from which on packing W transposed pays.
pub(super) const LEAST_ROWS: usize = 16;

/// A product, and how it is divided.
pub(super) struct Transposed<'a> {
    product: &'a Product<'a>,
    w: WeightRows<F32<'a>>,
}

impl<'a> Transposed<'a> {
    pub(super) fn new(product: &'a Product<'a>, w: WeightRows<F32<'a>>) -> Self {
        Self { product, w }
    }

    #[inline(always)]
    pub(super) fn compute<V: Vector>(&self) {
        let Product { call, live, n, columns: [begin, count], .. } = *self.product;
        let width = PANEL_VECTORS * V::LANES;
        let panels = n.div_ceil(width);
        let segment = (PACKED_VALUES / (panels * width) / CHUNK * CHUNK).max(CHUNK).min(count.max(1));
        let blocks = live.len().div_ceil(TASK_ROWS);
        // Panels of a task: as many as leave enough tasks, so that rows of x are read seldom.
        let group = (panels * blocks / TASKS).clamp(1, panels);
        let groups = panels.div_ceil(group);
        with_shared(panels * width * segment, |shared| {
            let mut done = 0;
            loop {
                let now = segment.min(count - done);
                let columns = [begin + done, now];
                let packed = Output::from(&mut *shared);
                call.each(panels, panels * width * now, |panel| {
                    call.instructions.run(PackPanel { w: self.w, n, panel, columns, packed });
                });
                let packed = &*shared;
                let cost = self.product.cost() / count.max(1) * now;
                call.each(blocks * groups, cost, |task| {
                    let (block, first) = (task / groups, task % groups * group);
                    let live = &live[block * TASK_ROWS..live.len().min((block + 1) * TASK_ROWS)];
                    let panels = [first, panels.min(first + group)];
                    with_scratch(live.len() * (panels[1] - panels[0]) * width, |sums| {
                        let Product { x, target, .. } = *self.product;
                        call.instructions.run(Block {
                            x,
                            live,
                            columns,
                            packed,
                            panels,
                            n,
                            sums,
                            target,
                            add: done > 0,
                        });
                    });
                });
                done += now;
                if done == count {
                    break;
                }
            }
        });
    }
}

/// Packs some columns of a panel of W as `[vector][column][LANES]`, filled up with zeros.
struct PackPanel<'a> {
    w: WeightRows<F32<'a>>,
    n: usize,
    panel: usize,
    /// First of the columns, and their number.
    columns: [usize; 2],
    packed: Output<'a>,
}

impl Task for PackPanel<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { w, n, panel, columns: [begin, count], packed } = self;
        let size = V::LANES * count;
        for vector in 0..PANEL_VECTORS {
            let at = panel * PANEL_VECTORS + vector;
            // SAFETY: every task has a panel of its own.
            let to = unsafe { packed.slice(at * size..(at + 1) * size) };
            let first = at * V::LANES;
            let rows = n.saturating_sub(first).min(V::LANES);
            if rows < V::LANES {
                to.fill(0.0);
            }
            let whole = if rows == V::LANES && !w.alternate { count / V::LANES * V::LANES } else { 0 };
            if whole > 0 {
                let (tensor, start) = w.place(first);
                let from = &tensor.0[start + begin..][..(V::LANES - 1) * w.k + count];
                for column in (0..whole).step_by(V::LANES) {
                    let to = &mut to[column * V::LANES..][..V::LANES * V::LANES];
                    // SAFETY: the rows are `k` apart in `from` and have `LANES` values from this column on.
                    unsafe { V::transpose(from.as_ptr().add(column), w.k, to.as_mut_ptr()) };
                }
            }
            for lane in 0..rows {
                let (tensor, start) = w.place(first + lane);
                let from = &tensor.0[start + begin..][..count];
                for column in whole..count {
                    to[column * V::LANES + lane] = from[column];
                }
            }
        }
    }
}

/// Some rows of x with some panels of W.
struct Block<'a, 'b> {
    x: Rows<'a>,
    live: &'a [usize],
    columns: [usize; 2],
    /// `[panel][vector][column][LANES]`
    packed: &'a [f32],
    /// First panel, and one past the last panel.
    panels: [usize; 2],
    /// Rows of W.
    n: usize,
    /// `[row][panel][vector][LANES]`
    sums: &'b mut [f32],
    target: &'a Target<'a>,
    /// Whether the sums are added to those of earlier columns, which y has.
    add: bool,
}

impl Task for Block<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, live, columns: [begin, count], packed, panels, n, sums, target, add } = self;
        let width = PANEL_VECTORS * V::LANES;
        let stride = (panels[1] - panels[0]) * width;
        sums.fill(0.0);
        for chunk in (0..count).step_by(CHUNK) {
            let steps = CHUNK.min(count - chunk);
            for panel in panels[0]..panels[1] {
                let mut w = [packed; PANEL_VECTORS];
                for (vector, w) in w.iter_mut().enumerate() {
                    let at = (panel * PANEL_VECTORS + vector) * count + chunk;
                    *w = &packed[at * V::LANES..][..steps * V::LANES];
                }
                for first in (0..live.len()).step_by(X_ROWS) {
                    let rows = X_ROWS.min(live.len() - first);
                    // Rows past the end are the last one again, and nothing is done with their sums.
                    let row = |i: usize| x.row(live[first + i.min(rows - 1)], begin + chunk, steps);
                    let x: [&[f32]; X_ROWS] = std::array::from_fn(row);
                    let tile = products::<V>(x, w);
                    let at = first * stride + (panel - panels[0]) * width;
                    for (i, tile) in tile.into_iter().take(rows).enumerate() {
                        for (sum, sums) in tile.into_iter().zip(sums[at + i * stride..].chunks_exact_mut(V::LANES)) {
                            // SAFETY: the chunk has `LANES` values.
                            unsafe { sum.add(V::load(sums.as_ptr())).store(sums.as_mut_ptr()) };
                        }
                    }
                }
            }
        }
        let first = panels[0] * width;
        let outputs = stride.min(n - first);
        for (row, sums) in live.iter().zip(sums.chunks_exact(stride)) {
            if add {
                target.add(*row, first, &sums[..outputs]);
            } else {
                target.write::<V>(*row, first, &sums[..outputs]);
            }
        }
    }
}

/// The products of rows of x with vectors of W, `[column][LANES]` each.
#[inline(always)]
fn products<V: Vector>(x: [&[f32]; X_ROWS], w: [&[f32]; PANEL_VECTORS]) -> [[V; PANEL_VECTORS]; X_ROWS] {
    let steps = x[0].len();
    assert!(x.iter().all(|x| x.len() == steps) && w.iter().all(|w| w.len() == steps * V::LANES));
    let mut sums = [[V::splat(0.0); PANEL_VECTORS]; X_ROWS];
    for step in 0..steps {
        // SAFETY: the lengths have been checked above.
        unsafe {
            let mut weights = [V::splat(0.0); PANEL_VECTORS];
            for (weights, w) in weights.iter_mut().zip(w) {
                *weights = V::load(w.as_ptr().add(step * V::LANES));
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                let value = V::splat(*x.as_ptr().add(step));
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = value.mul_add(weights, *sum);
                }
            }
        }
    }
    sums
}
