//! What the gradients of attention by queries and by keys and values share.
//!
//! Both multiply some rows of a head with all that they see, chunk by chunk: queries with keys, or keys with queries.
//! Attention weights and gradients of scores are recomputed for each chunk, and never stored beyond it.

use std::ops::Range;

#[cfg(test)]
pub(super) mod tests;

use super::call::{Call, product};
use super::instruction_set::{InstructionSet, Task};
use super::memory::Fault;
use super::panels::{Operand, PackKeys, PackValues, Product, TILE_ROWS};
use super::scratch::with_scratch;
use super::vector::Vector;
use crate::params;

/// Columns that are packed at a time.
const CHUNK: usize = 32;
/// Rows of a block, which share packed columns: enough to make packing cheap.
pub(super) const BLOCK: usize = 11 * TILE_ROWS;
/// 2^-90. The next larger number is 2^-113 away, so adding and subtracting it turns what is much smaller into 0.
const TINY: f32 = f32::from_bits((127 - 90) << 23);

/// Sizes of a call.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) sequences: usize,
    /// Rows of a sequence.
    pub(super) count: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Query heads of a key/value head.
    pub(super) group: usize,
    pub(super) dim: usize,
    window: usize,
    scale: f32,
    instructions: InstructionSet,
}

impl Shape {
    /// Nothing if there are no rows or no heads.
    pub(super) fn new(call: &Call<'_>) -> Result<Option<Self>, Fault> {
        let p: params::AttentionGradQ = call.params()?;
        let [count, heads, group, dim4, window] =
            [p.count, p.heads, p.heads_per_kv, p.dim4, p.window].map(|n| n as usize);
        if group == 0 || heads % group != 0 {
            let stem = call.kernel.kernel().stem;
            return Err(Fault::new(format!("{stem}: {heads} heads are not a multiple of {group}")));
        }
        let (sequences, dim) = (call.grid[2] as usize, product(&[4, dim4]));
        let (kv_heads, scale, instructions) = (heads / group, p.scale, call.instructions);
        let shape = Self { sequences, count, heads, kv_heads, group, dim, window, scale, instructions };
        Ok((![sequences, count, heads].contains(&0)).then_some(shape))
    }

    /// Rows and heads.
    pub(super) fn items(&self) -> usize {
        product(&[self.sequences, self.count, self.heads])
    }

    /// Values of kv and of its gradient.
    pub(super) fn kv_values(&self) -> usize {
        product(&[self.sequences, self.count, 2, self.kv_heads, self.dim])
    }

    /// Multiply-adds of `products` products for every query and every key that it sees.
    pub(super) fn cost(&self, products: usize) -> usize {
        let seen = if self.window == 0 { self.count.div_ceil(2) } else { self.count.min(self.window) };
        product(&[self.items(), seen, products, self.dim])
    }

    /// The keys that a query of a sequence sees.
    pub(super) fn keys(&self, query: usize) -> Range<usize> {
        let hidden = if self.window == 0 { 0 } else { (query + 1).saturating_sub(self.window) };
        hidden..query + 1
    }

    /// The queries of a sequence that see a key.
    pub(super) fn queries(&self, key: usize) -> Range<usize> {
        let end = if self.window == 0 { self.count } else { key.saturating_add(self.window).min(self.count) };
        key..end
    }

    /// Where the query of an item begins in q and d_o.
    pub(super) fn item(&self, item: usize) -> Range<usize> {
        item * self.dim..(item + 1) * self.dim
    }

    /// Where the key (0) or the value (1) in a row of all sequences begins in kv.
    pub(super) fn kv(&self, row: usize, which: usize, kv_head: usize) -> Range<usize> {
        self.item((row * 2 + which) * self.kv_heads + kv_head)
    }

    /// Calls `f` with a block of `rows` rows, without contents.
    pub(super) fn with_block(&self, rows: usize, side: Side, f: impl FnOnce(&mut Block<'_>)) {
        let width = self.dim.next_multiple_of(16);
        let queries = if side == Side::Queries { rows } else { CHUNK };
        let values = if side == Side::Queries { [CHUNK, 0] } else { [CHUNK; 2] };
        let sums = if side == Side::Queries { [rows, 0] } else { [rows; 2] };
        let sizes = [
            product(&[width, values[0]]),
            product(&[width, values[1]]),
            product(&[self.dim, CHUNK]),
            product(&[self.dim, CHUNK]),
            TILE_ROWS * CHUNK,
            TILE_ROWS * CHUNK,
            product(&[width, sums[0]]),
            product(&[width, sums[1]]),
            product(&[self.dim, rows]),
            product(&[self.dim, rows]),
            queries,
            queries,
            queries,
        ];
        with_scratch(sizes.into_iter().fold(0, usize::saturating_add), |mut memory| {
            let [p0, p1, c0, c1, weights, grads, s0, s1, l0, l1, tops, factors, deltas] = sizes.map(|size| {
                let (part, rest) = std::mem::take(&mut memory).split_at_mut(size);
                memory = rest;
                part
            });
            s0.fill(0.0);
            s1.fill(0.0);
            f(&mut Block {
                shape: *self,
                side,
                rows,
                width,
                left: [l0, l1],
                columns: [c0, c1],
                values: [p0, p1],
                weights,
                grads,
                sums: [s0, s1],
                statistics: [tops, factors, deltas],
            });
        });
    }
}

/// What the rows of a block are. Columns are the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Only the first sums are computed.
    Queries,
    /// Both sums are computed.
    Keys,
}

/// Queries and the gradients of their outputs, or keys and values, of a head: `[rows, dim]` at a stride.
#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    pub(super) values: [&'a [f32]; 2],
    pub(super) stride: usize,
}

/// Rows of a head, with the sums over the columns that they see.
pub(super) struct Block<'a> {
    shape: Shape,
    side: Side,
    rows: usize,
    /// `dim` up to whole vectors.
    width: usize,
    /// Queries and the gradients of their outputs, or keys and values: `[rows, dim]`
    pub(super) left: [&'a mut [f32]; 2],
    /// The same of the other side, of a chunk of columns, as panels of columns.
    columns: [&'a mut [f32]; 2],
    /// The same as panels of rows.
    values: [&'a mut [f32]; 2],
    /// Scores and then weights of a register tile: `[TILE_ROWS, CHUNK]`
    weights: &'a mut [f32],
    /// Products of values and gradients of outputs, and then gradients of scores: `[TILE_ROWS, CHUNK]`
    grads: &'a mut [f32],
    /// `[rows, width]`: sums of columns times gradients of scores, and times weights.
    sums: [&'a mut [f32]; 2],
    /// Of each query: the maximum of its scores, the factor of its weights, and its delta. If rows are keys, these are
    /// the queries of the chunk.
    pub(super) statistics: [&'a mut [f32]; 3],
}

impl Block<'_> {
    /// The sums of a row.
    pub(super) fn sums(&self, which: usize, row: usize) -> &[f32] {
        &self.sums[which][row * self.width..][..self.shape.dim]
    }

    /// Sets the statistics of query `i` from the maximum and the sum of its scores.
    pub(super) fn set_statistics(&mut self, i: usize, running: &[f32], delta: f32) {
        let [tops, factors, deltas] = &mut self.statistics;
        (tops[i], factors[i], deltas[i]) = (running[0], 1.0 / running[1], delta);
    }

    /// Adds a chunk of columns. `seen` tells which columns a row sees; both ends grow with the row.
    pub(super) fn add(&mut self, chunk: Range<usize>, from: Columns<'_>, seen: impl Fn(usize) -> Range<usize>) {
        let Shape { dim, instructions, scale, .. } = self.shape;
        let (stride, count) = (from.stride, chunk.len());
        for (panels, keys) in self.columns.iter_mut().zip(from.values) {
            instructions.run(PackKeys { keys, stride, dim, valid: 0..count, columns: 0..count, panels });
        }
        let sums = if self.side == Side::Queries { 1 } else { 2 };
        for (panels, values) in self.values.iter_mut().zip(from.values).take(sums) {
            instructions.run(PackValues { values, stride, dim, rows: 0..count, depth: CHUNK, panels });
        }
        let number = |column: usize| column.clamp(chunk.start, chunk.end) - chunk.start;
        for first in (0..self.rows).step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(self.rows - first);
            let seen: [_; TILE_ROWS] = std::array::from_fn(|r| {
                let seen = seen(first + r.min(rows - 1));
                number(seen.start)..number(seen.end)
            });
            let all = seen[0].start..seen[rows - 1].end;
            if all.is_empty() {
                continue;
            }
            for (which, c) in [&mut *self.weights, &mut *self.grads].into_iter().enumerate() {
                instructions.run(Product {
                    a: &self.left[which][first * dim..],
                    a_stride: dim,
                    b: Operand::Panels(self.columns[which], dim),
                    c,
                    c_stride: CHUNK,
                    rows,
                    columns: all.clone(),
                    depth: 0..dim,
                    add: false,
                });
            }
            let [tops, factors, deltas] = &self.statistics;
            instructions.run(Gradients {
                weights: self.weights,
                grads: self.grads,
                seen: &seen[..rows],
                columns: all.clone(),
                scale,
                statistics: [tops, factors, deltas],
                first: (self.side == Side::Queries).then_some(first),
            });
            for (which, a) in [&*self.grads, &*self.weights].into_iter().enumerate().take(sums) {
                instructions.run(Product {
                    a,
                    a_stride: CHUNK,
                    b: Operand::Panels(self.values[which], CHUNK),
                    c: &mut self.sums[which][first * self.width..],
                    c_stride: self.width,
                    rows,
                    columns: 0..dim,
                    depth: all.clone(),
                    add: true,
                });
            }
        }
    }
}

/// Chunks of columns.
pub(super) fn chunks(columns: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    columns.clone().step_by(CHUNK).map(move |start| start..columns.end.min(start + CHUNK))
}

/// Replaces scores by weights, and products by gradients of the scores: both 0 where a row doesn't see a column.
struct Gradients<'a> {
    /// `[rows, CHUNK]`
    weights: &'a mut [f32],
    /// `[rows, CHUNK]`
    grads: &'a mut [f32],
    /// The columns that each row sees.
    seen: &'a [Range<usize>],
    /// The columns to compute, extended to whole vectors.
    columns: Range<usize>,
    scale: f32,
    /// Maxima, factors and deltas of queries.
    statistics: [&'a [f32]; 3],
    /// The query in the first row, if rows are queries. Otherwise columns are queries.
    first: Option<usize>,
}

impl Task for Gradients<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let columns = self.columns.start / V::LANES * V::LANES..self.columns.end.next_multiple_of(V::LANES);
        let scale = V::splat(self.scale);
        let rows = self.weights.chunks_exact_mut(CHUNK).zip(self.grads.chunks_exact_mut(CHUNK));
        for (r, ((weights, grads), seen)) in rows.zip(self.seen).enumerate() {
            for column in columns.clone().step_by(V::LANES) {
                let [top, factor, delta] = match self.first {
                    Some(first) => {
                        let [tops, factors, deltas] = self.statistics;
                        [V::splat(tops[first + r]), V::splat(factors[first + r]), V::splat(deltas[first + r])]
                    }
                    None => load::<V>(self.statistics, column),
                };
                let weights = &mut weights[column..column + V::LANES];
                let grads = &mut grads[column..column + V::LANES];
                // SAFETY: both slices have that many values.
                unsafe {
                    let x = V::load(weights.as_ptr()).mul(scale).sub(top);
                    // `exp` of NaN is unspecified; 0 x makes it NaN again.
                    let weight = x.mul_add(V::splat(0.0), x.exp());
                    // Weights below 1e-34 become 0: products with numbers that are not normal are slow.
                    let weight = weight.add(V::splat(TINY)).sub(V::splat(TINY)).mul(factor);
                    weight.store(weights.as_mut_ptr());
                    let difference = V::load(grads.as_ptr()).sub(delta);
                    weight.mul(difference).mul(scale).store(grads.as_mut_ptr());
                }
            }
            for values in [weights, grads] {
                values[columns.start..seen.start.max(columns.start)].fill(0.0);
                values[seen.end.max(columns.start)..columns.end].fill(0.0);
            }
        }
    }
}

/// A vector of each of these.
#[inline(always)]
fn load<V: Vector>([a, b, c]: [&[f32]; 3], at: usize) -> [V; 3] {
    let [a, b, c] = [&a[at..at + V::LANES], &b[at..at + V::LANES], &c[at..at + V::LANES]];
    // SAFETY: there are that many values.
    unsafe { [V::load(a.as_ptr()), V::load(b.as_ptr()), V::load(c.as_ptr())] }
}
