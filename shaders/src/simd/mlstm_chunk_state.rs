use super::call::Call;
use super::extent::{product, rows_end};
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::scratch::with_scratch;
use super::tile::{MAX_TILE_COLUMNS, TILE_ROWS, Tile, copy_columns, row_stride};
use super::vector::Vector;
use crate::params;

/// Rows of x at a time.
const SLAB: usize = 64;
/// Columns of a task.
const BLOCK: usize = 128;

/// Chunkwise mLSTM, step 1 of 3: the contribution of each chunk to the state; see the
/// [CPU reference](crate::cpu::mlstm_chunk_state).
pub(super) fn mlstm_chunk_state(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmChunkState = call.params()?;
    let [rows, heads, dk, dv, stride, chunk] = [p.rows, p.heads, p.dk, p.dv, p.stride, p.chunk].map(|n| n as usize);
    if rows == 0 || heads == 0 || dk == 0 {
        return Ok(());
    }
    if chunk == 0 {
        return Err(Fault::new("mlstm_chunk_state: a chunk needs at least one row"));
    }
    let [k_offset, v_offset] = [p.k_offset, p.v_offset].map(|n| n as usize);
    let end = |offset, width| rows_end(rows, stride, offset, product([heads, width]));
    let x = call.read(0, end(k_offset, dk).max(end(v_offset, dv)))?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let states = call.write(2, product([rows.div_ceil(chunk), heads, dk, dv.saturating_add(1)]))?;
    let left = Side { values: x, stride, offset: k_offset, step: dk, width: dk };
    let right = Side { values: x, stride, offset: v_offset, step: dv, width: dv };
    let sums = Sums { rows, heads, chunk, gates, weight: Weight::ToEnd, left, right, last: Last::Ones, states };
    sums.run(call);
    Ok(())
}

/// One side of outer products, with some columns for each row and head.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) values: &'a [f32],
    /// From one row to the next.
    pub(super) stride: usize,
    pub(super) offset: usize,
    /// From one head to the next.
    pub(super) step: usize,
    pub(super) width: usize,
}

impl Side<'_> {
    #[inline(always)]
    fn at(&self, row: usize, head: usize) -> usize {
        row * self.stride + self.offset + head * self.step
    }
}

/// The weight of a row in the sum of its chunk.
#[derive(Clone, Copy)]
pub(super) enum Weight {
    /// `exp(g_end - g) i`
    ToEnd,
    /// `exp(g)` times a scale
    FromStart(f32),
}

/// The column after those of the right side.
#[derive(Clone, Copy)]
pub(super) enum Last {
    Ones,
    /// The value that follows the columns of the right side.
    Next,
}

/// A weighted sum of outer products over the rows of each chunk. Bindings are as large as the sizes say.
#[derive(Clone, Copy)]
pub(super) struct Sums<'a> {
    pub(super) rows: usize,
    pub(super) heads: usize,
    /// Rows of a chunk, at least one.
    pub(super) chunk: usize,
    /// `[rows, heads, 4]`
    pub(super) gates: &'a [f32],
    pub(super) weight: Weight,
    /// Of `dk` columns
    pub(super) left: Side<'a>,
    /// Of `dv` columns
    pub(super) right: Side<'a>,
    pub(super) last: Last,
    /// `[chunks, heads, dk, dv + 1]`
    pub(super) states: Output<'a>,
}

impl Sums<'_> {
    /// Computes all sums, on several threads.
    pub(super) fn run(&self, call: &Call<'_>) {
        let &Self { rows, heads, chunk, left: Side { width: dk, .. }, right: Side { width: dv, .. }, .. } = self;
        // Column dv belongs to the last block.
        let blocks = dv.div_ceil(BLOCK).max(1);
        let left_stride = row_stride(dk);
        let tasks = rows.div_ceil(chunk) * heads * blocks;
        call.each(tasks, product([rows, heads, dk, dv + 1]), |task| {
            let (which, first) = (task / blocks, task % blocks * BLOCK);
            let begin = which / heads * chunk;
            let end = begin.saturating_add(chunk).min(rows);
            let (head, state) = (which % heads, which * dk * (dv + 1));
            with_scratch(product([SLAB, left_stride + MAX_TILE_COLUMNS]), |scratch| {
                let (left, right) = scratch.split_at_mut(SLAB * left_stride);
                call.instructions.run(Contribution { sums: *self, head, begin, end, state, first, left, right });
            });
        });
    }
}

/// Columns of the sum of a chunk in a head.
struct Contribution<'a> {
    sums: Sums<'a>,
    head: usize,
    /// The rows of the chunk.
    begin: usize,
    end: usize,
    /// Where the sum begins in `states`.
    state: usize,
    /// The first column.
    first: usize,
    /// Weighted rows of the left side, `[SLAB, row_stride(dk)]`
    left: &'a mut [f32],
    /// Some columns of the right side, `[SLAB, COLUMNS]`
    right: &'a mut [f32],
}

impl Task for Contribution<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let Self { begin, end, first, .. } = self;
        let dv = self.sums.right.width;
        let last = (first + BLOCK).min(dv);
        for slab in (begin..end).step_by(SLAB) {
            let len = (end - slab).min(SLAB);
            self.weigh::<V>(slab, len);
            for column in (first..last).step_by(Tile::<V>::COLUMNS) {
                self.columns::<V>(slab, len, column, (last - column).min(Tile::<V>::COLUMNS));
            }
            if last == dv {
                self.last_column::<V>(slab, len);
            }
        }
    }
}

impl Contribution<'_> {
    /// The weight of row `s`.
    #[inline(always)]
    fn weight(&self, s: usize) -> f32 {
        let Sums { heads, gates, weight, .. } = self.sums;
        let gate = |s: usize, which: usize| f64::from(gates[(s * heads + self.head) * 4 + which]);
        let weight = match weight {
            Weight::ToEnd => (gate(self.end - 1, 3) - gate(s, 3)).exp() * gate(s, 1),
            Weight::FromStart(scale) => gate(s, 3).exp() * f64::from(scale),
        };
        weight as f32
    }

    /// Fills `left` with `len` rows from row `slab` on.
    #[inline(always)]
    fn weigh<V: Vector>(&mut self, slab: usize, len: usize) {
        let side = self.sums.left;
        let left_stride = row_stride(side.width);
        for s in slab..slab + len {
            let weight = V::splat(self.weight(s));
            let values = &side.values[side.at(s, self.head)..][..side.width];
            let left = &mut self.left[(s - slab) * left_stride..][..left_stride];
            let (left, padding) = left.split_at_mut(side.width);
            for (left, value) in left.chunks_mut(V::LANES).zip(values.chunks(V::LANES)) {
                // SAFETY: both chunks have as many values.
                unsafe {
                    let value = V::load_first(value.as_ptr(), value.len());
                    value.mul(weight).store_first(left.as_mut_ptr(), left.len());
                }
            }
            padding.fill(0.0);
        }
    }

    /// Adds `len` rows from row `slab` on to `count` columns.
    #[inline(always)]
    fn columns<V: Vector>(&mut self, slab: usize, len: usize, column: usize, count: usize) {
        let Sums { left: Side { width: dk, .. }, right: side, states, .. } = self.sums;
        let left_stride = row_stride(dk);
        for (s, right) in (slab..slab + len).zip(self.right.chunks_exact_mut(Tile::<V>::COLUMNS)) {
            let from = side.at(s, self.head) + column;
            copy_columns::<V>(&side.values[from..from + count], right);
        }
        for i in (0..dk).step_by(TILE_ROWS) {
            let tile = Tile::<V>::product(len, &self.left[i..], left_stride, self.right, Tile::<V>::COLUMNS);
            for r in 0..TILE_ROWS.min(dk - i) {
                let at = self.state + (i + r) * (side.width + 1) + column;
                // SAFETY: the columns belong to this task, and no other slice is in use.
                tile.put(r, unsafe { states.slice(at..at + count) }, slab > self.begin);
            }
        }
    }

    /// Adds `len` rows from row `slab` on to column dv.
    #[inline(always)]
    fn last_column<V: Vector>(&mut self, slab: usize, len: usize) {
        let Sums { left: Side { width: dk, .. }, right: side, last, states, .. } = self.sums;
        let dv = side.width;
        let left_stride = row_stride(dk);
        for i in (0..dk).step_by(V::LANES) {
            let mut sum = V::splat(0.0);
            for (s, left) in (slab..slab + len).zip(self.left.chunks_exact(left_stride)) {
                let left = &left[i..i + V::LANES];
                let value = match last {
                    Last::Ones => 1.0,
                    Last::Next => side.values[side.at(s, self.head) + dv],
                };
                // SAFETY: there are that many values.
                sum = V::splat(value).mul_add(unsafe { V::load(left.as_ptr()) }, sum);
            }
            let mut sums = [0.0; 16];
            // SAFETY: a vector has at most 16 lanes.
            unsafe { sum.store(sums.as_mut_ptr()) };
            for (i, sum) in (i..dk.min(i + V::LANES)).zip(sums) {
                let at = self.state + i * (dv + 1) + dv;
                // SAFETY: the column belongs to this task, and no other slice is in use.
                let to = unsafe { &mut states.slice(at..at + 1)[0] };
                *to = if slab > self.begin { *to + sum } else { sum };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    #[test]
    fn matches_the_reference() {
        for (rows, heads, dk, dv, chunk) in cases([
            (1, 1, 1, 1, 64),
            (3, 2, 6, 5, 2),
            (130, 2, 16, 33, 64),
            (70, 3, 9, 130, 64),
            (150, 1, 7, 20, 140),
            (64, 2, 128, 256, 64),
            (5, 1, 3, 0, 4),
        ]) {
            let stride = heads * (dk + dv) + 3;
            let p =
                params::MlstmChunkState { rows, heads, dk, dv, stride, k_offset: 1, v_offset: 2 + heads * dk, chunk };
            let x = noise(1, (rows * stride) as usize, 2.0);
            let gates = noise(2, (4 * rows * heads) as usize, 1.0);
            let mut states = vec![0.0; (rows.div_ceil(chunk) * heads * dk * (dv + 1)) as usize];
            let bindings = vec![words(&x), words(&gates), words(&states)];
            cpu::mlstm_chunk_state(&p, &x, &gates, &mut states);
            Run::new(KernelId::MlstmChunkState, &p, bindings, [1, heads, rows.div_ceil(chunk)])
                .all(|found| assert_close(found.f32(2), &states, 2e-6));
        }
    }
}
