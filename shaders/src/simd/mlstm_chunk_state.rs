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
    let columns = dv.saturating_add(1);
    let end = |offset, width| rows_end(rows, stride, offset, product([heads, width]));
    let x = call.read(0, end(k_offset, dk).max(end(v_offset, dv)))?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let states = call.write(2, product([rows.div_ceil(chunk), heads, dk, columns]))?;
    // Column dv belongs to the last block.
    let blocks = dv.div_ceil(BLOCK).max(1);
    let left_stride = row_stride(dk);
    let tasks = rows.div_ceil(chunk) * heads * blocks;
    call.each(tasks, product([rows, heads, dk, columns]), |task| {
        let (which, first) = (task / blocks, task % blocks * BLOCK);
        let begin = which / heads * chunk;
        let block = Block {
            head: which % heads,
            heads,
            begin,
            end: begin.saturating_add(chunk).min(rows),
            dk,
            dv,
            stride,
            offsets: [k_offset, v_offset],
            state: which * dk * columns,
            first,
        };
        with_scratch(product([SLAB, left_stride + MAX_TILE_COLUMNS]), |scratch| {
            let (left, right) = scratch.split_at_mut(SLAB * left_stride);
            call.instructions.run(Contribution { block, x, gates, states, left, right });
        });
    });
    Ok(())
}

/// Columns of the contribution of a chunk to a head.
#[derive(Clone, Copy)]
struct Block {
    head: usize,
    heads: usize,
    /// The rows of the chunk.
    begin: usize,
    end: usize,
    dk: usize,
    dv: usize,
    stride: usize,
    /// Offsets of k and v in a row of x.
    offsets: [usize; 2],
    /// Where the contribution begins in `states`.
    state: usize,
    /// The first column.
    first: usize,
}

struct Contribution<'a> {
    block: Block,
    /// `[rows, ...]`
    x: &'a [f32],
    /// `[rows, heads, 4]`
    gates: &'a [f32],
    /// `[chunks, heads, dk, dv + 1]`
    states: Output<'a>,
    /// `exp(g_end - g) i k`, `[SLAB, row_stride(dk)]`
    left: &'a mut [f32],
    /// Some columns of v, `[SLAB, COLUMNS]`
    right: &'a mut [f32],
}

impl Task for Contribution<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let Block { begin, end, dv, first, .. } = self.block;
        let last = (first + BLOCK).min(dv);
        for slab in (begin..end).step_by(SLAB) {
            let len = (end - slab).min(SLAB);
            self.weigh_keys::<V>(slab, len);
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
    /// Fills `left` with `len` rows from row `slab` on.
    #[inline(always)]
    fn weigh_keys<V: Vector>(&mut self, slab: usize, len: usize) {
        let Block { head, heads, end, dk, stride, offsets: [k_offset, _], .. } = self.block;
        let gate = |s: usize, which: usize| f64::from(self.gates[(s * heads + head) * 4 + which]);
        let left_stride = row_stride(dk);
        for (s, left) in (slab..slab + len).zip(self.left.chunks_exact_mut(left_stride)) {
            let weight = V::splat(((gate(end - 1, 3) - gate(s, 3)).exp() * gate(s, 1)) as f32);
            let k0 = s * stride + k_offset + head * dk;
            let (keys, padding) = left.split_at_mut(dk);
            for (left, k) in keys.chunks_mut(V::LANES).zip(self.x[k0..k0 + dk].chunks(V::LANES)) {
                // SAFETY: both chunks have as many values.
                unsafe { V::load_first(k.as_ptr(), k.len()).mul(weight).store_first(left.as_mut_ptr(), left.len()) };
            }
            padding.fill(0.0);
        }
    }

    /// Adds `len` rows from row `slab` on to `count` columns.
    #[inline(always)]
    fn columns<V: Vector>(&mut self, slab: usize, len: usize, column: usize, count: usize) {
        let Block { head, begin, dk, dv, stride, offsets: [_, v_offset], state, .. } = self.block;
        let left_stride = row_stride(dk);
        for (s, right) in (slab..slab + len).zip(self.right.chunks_exact_mut(Tile::<V>::COLUMNS)) {
            let v0 = s * stride + v_offset + head * dv + column;
            copy_columns::<V>(&self.x[v0..v0 + count], right);
        }
        for i in (0..dk).step_by(TILE_ROWS) {
            let tile = Tile::<V>::product(len, &self.left[i..], left_stride, self.right, Tile::<V>::COLUMNS);
            for r in 0..TILE_ROWS.min(dk - i) {
                let at = state + (i + r) * (dv + 1) + column;
                // SAFETY: the columns belong to this task, and no other slice is in use.
                tile.put(r, unsafe { self.states.slice(at..at + count) }, slab > begin);
            }
        }
    }

    /// Adds `len` rows from row `slab` on to column dv, as if v were 1 there.
    #[inline(always)]
    fn last_column<V: Vector>(&mut self, slab: usize, len: usize) {
        let Block { begin, dk, dv, state, .. } = self.block;
        let left_stride = row_stride(dk);
        for i in (0..dk).step_by(V::LANES) {
            let mut sum = V::splat(0.0);
            for left in self.left.chunks_exact(left_stride).take(len) {
                let left = &left[i..i + V::LANES];
                // SAFETY: there are that many values.
                sum = sum.add(unsafe { V::load(left.as_ptr()) });
            }
            let mut sums = [0.0; 16];
            // SAFETY: a vector has at most 16 lanes.
            unsafe { sum.store(sums.as_mut_ptr()) };
            for (i, sum) in (i..dk.min(i + V::LANES)).zip(sums) {
                let at = state + i * (dv + 1) + dv;
                // SAFETY: the column belongs to this task, and no other slice is in use.
                let to = unsafe { &mut self.states.slice(at..at + 1)[0] };
                *to = if slab > begin { *to + sum } else { sum };
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
