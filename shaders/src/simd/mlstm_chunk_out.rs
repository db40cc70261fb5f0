use super::call::Call;
use super::extent::{product, rows_end};
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::scratch::with_scratch;
use super::tile::{MAX_TILE_COLUMNS, TILE_ROWS, Tile, copy_columns};
use super::vector::Vector;
use crate::params;
use crate::sizes::MLSTM_CHUNK;

/// Rows of a chunk.
const CHUNK: usize = MLSTM_CHUNK as usize;
/// Distance of rows in `left` and `keys`: a chunk and room for a whole tile.
const STRIDE: usize = 80;
const _: () = assert!(CHUNK + MAX_TILE_COLUMNS / 2 <= STRIDE && CHUNK.is_multiple_of(MAX_TILE_COLUMNS));

/// Chunkwise mLSTM, step 3 of 3: the output of every row; see the [CPU reference](crate::cpu::mlstm_chunk_out).
pub(super) fn mlstm_chunk_out(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmChunkOut = call.params()?;
    let [rows, heads, dk, dv, stride] = [p.rows, p.heads, p.dk, p.dv, p.stride].map(|n| n as usize);
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    let offsets @ [q_offset, k_offset, v_offset] = [p.q_offset, p.k_offset, p.v_offset].map(|n| n as usize);
    let columns = dv.saturating_add(1);
    let end = |offset, width| rows_end(rows, stride, offset, product([heads, width]));
    let x = call.read(0, end(q_offset.max(k_offset), dk).max(end(v_offset, dv)))?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let chunks = rows.div_ceil(CHUNK);
    let states = call.read(2, product([chunks, heads, dk, columns]))?;
    let y = call.write(3, product([rows, heads, columns]))?;
    let sizes = [product([dk.saturating_add(CHUNK), STRIDE]), product([dk, STRIDE])];
    let right = product([dk.saturating_add(CHUNK), MAX_TILE_COLUMNS]);
    let cost = product([rows, heads, dk.saturating_add(CHUNK / 2), columns]);
    call.each(chunks * heads, cost, |task| {
        let (chunk, head) = (task / heads, task % heads);
        let begin = chunk * CHUNK;
        let scratch = sizes[0].saturating_add(sizes[1]).saturating_add(right);
        with_scratch(scratch, |scratch| {
            let (left, scratch) = scratch.split_at_mut(sizes[0]);
            let (keys, right) = scratch.split_at_mut(sizes[1]);
            let shape = Shape { begin, len: (rows - begin).min(CHUNK), head, heads, dk, dv, stride, offsets };
            let states = &states[task * dk * columns..(task + 1) * dk * columns];
            call.instructions.run(Chunk { shape, scale: p.scale, x, gates, states, y, left, keys, right });
        });
    });
    Ok(())
}

/// Sizes of a head in a chunk.
#[derive(Clone, Copy)]
struct Shape {
    /// The first row.
    begin: usize,
    /// Number of rows.
    len: usize,
    head: usize,
    heads: usize,
    dk: usize,
    dv: usize,
    stride: usize,
    offsets: [usize; 3],
}

/// A head in a chunk. Its output is one product, of the queries and weights with the state and the values.
struct Chunk<'a> {
    shape: Shape,
    scale: f32,
    /// `[rows, ...]`
    x: &'a [f32],
    /// `[rows, heads, 4]`
    gates: &'a [f32],
    /// `[dk, dv + 1]`
    states: &'a [f32],
    /// `[rows, heads, dv + 1]`
    y: Output<'a>,
    /// `[dk + source rows, STRIDE]`: for each row of the chunk its scaled queries, then its weights of source rows.
    left: &'a mut [f32],
    /// `[dk, STRIDE]`
    keys: &'a mut [f32],
    /// Some columns of the state and, below, of the values: `[dk + source rows, COLUMNS]`
    right: &'a mut [f32],
}

impl Task for Chunk<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let Shape { dv, .. } = self.shape;
        self.transpose();
        self.weights::<V>();
        self.decay_queries::<V>();
        for column in (0..dv).step_by(Tile::<V>::COLUMNS) {
            self.columns::<V>(column, (dv - column).min(Tile::<V>::COLUMNS));
        }
        self.last_column::<V>();
    }
}

impl Chunk<'_> {
    /// Where a part of row `t` of the chunk begins in x.
    #[inline(always)]
    fn at(&self, t: usize, part: usize) -> usize {
        let Shape { begin, head, dk, dv, stride, offsets, .. } = self.shape;
        (begin + t) * stride + offsets[part] + head * if part < 2 { dk } else { dv }
    }

    /// A gate of row `t` of the chunk.
    #[inline(always)]
    fn gate(&self, t: usize, which: usize) -> f32 {
        let Shape { begin, head, heads, .. } = self.shape;
        self.gates[((begin + t) * heads + head) * 4 + which]
    }

    /// Transposes queries, which are scaled, and keys. Columns past the chunk are 0.
    #[inline(always)]
    fn transpose(&mut self) {
        let Shape { len, dk, .. } = self.shape;
        let scale = self.scale;
        for t in 0..len {
            let (q0, k0) = (self.at(t, 0), self.at(t, 1));
            let queries = self.left.chunks_exact_mut(STRIDE).zip(&self.x[q0..q0 + dk]);
            queries.for_each(|(left, q)| left[t] = q * scale);
            let keys = self.keys.chunks_exact_mut(STRIDE).zip(&self.x[k0..k0 + dk]);
            keys.for_each(|(keys, k)| keys[t] = *k);
        }
        let rows = self.left.chunks_exact_mut(STRIDE).take(dk).chain(self.keys.chunks_exact_mut(STRIDE));
        rows.for_each(|row| row[len..].fill(0.0));
    }

    /// Computes the weights of source rows: `exp(g_t - g_s) i_s (q_t · k_s)`, and 0 for rows before s.
    #[inline(always)]
    fn weights<V: Vector>(&mut self) {
        let Shape { len, dk, .. } = self.shape;
        let mut g = [0.0; STRIDE];
        (0..len).for_each(|t| g[t] = self.gate(t, 3));
        // Vectors turn NaN and infinity into some other exponential.
        let finite = g.iter().all(|g| g.is_finite());
        for s0 in (0..len).step_by(TILE_ROWS) {
            let first = s0 - s0 % Tile::<V>::COLUMNS;
            let sources = TILE_ROWS.min(len - s0);
            for t0 in (first..len).step_by(Tile::<V>::COLUMNS) {
                let (queries, weights) = self.left.split_at_mut(dk * STRIDE);
                let tile = Tile::<V>::product(
                    dk,
                    self.keys.get(s0..).unwrap_or_default(),
                    STRIDE,
                    queries.get(t0..).unwrap_or_default(),
                    STRIDE,
                );
                for r in 0..sources {
                    let at = (s0 + r) * STRIDE + t0;
                    tile.put(r, &mut weights[at..at + Tile::<V>::COLUMNS], false);
                }
            }
            for s in s0..s0 + sources {
                let i = self.gate(s, 1);
                let row = (dk + s) * STRIDE;
                let row = &mut self.left[row..row + STRIDE];
                if finite {
                    decay::<V>(&mut row[first..], &g[first..], g[s], i);
                } else {
                    for (weight, g_t) in row[s..len].iter_mut().zip(&g[s..]) {
                        *weight *= (f64::from(*g_t) - f64::from(g[s])).exp() as f32 * i;
                    }
                }
                row[..s].fill(0.0);
                row[len..].fill(0.0);
            }
        }
    }

    /// Multiplies the queries by `exp(g)`, the weight of the state.
    #[inline(always)]
    fn decay_queries<V: Vector>(&mut self) {
        let Shape { len, dk, .. } = self.shape;
        let mut keep = [0.0; STRIDE];
        (0..len).for_each(|t| keep[t] = f64::from(self.gate(t, 3)).exp() as f32);
        for row in self.left.chunks_exact_mut(STRIDE).take(dk) {
            for (q, keep) in row.chunks_exact_mut(V::LANES).zip(keep.chunks_exact(V::LANES)) {
                // SAFETY: both chunks have that many values.
                unsafe { V::load(q.as_ptr()).mul(V::load(keep.as_ptr())).store(q.as_mut_ptr()) };
            }
        }
    }

    /// Computes `count` columns of y.
    #[inline(always)]
    fn columns<V: Vector>(&mut self, column: usize, count: usize) {
        let Shape { begin, len, head, heads, dk, dv, .. } = self.shape;
        let width = Tile::<V>::COLUMNS;
        for (state, right) in self.states.chunks_exact(dv + 1).zip(self.right.chunks_exact_mut(width)) {
            copy_columns::<V>(&state[column..column + count], right);
        }
        for s in 0..len {
            let (v0, at) = (self.at(s, 2) + column, (dk + s) * width);
            copy_columns::<V>(&self.x[v0..v0 + count], &mut self.right[at..at + width]);
        }
        for t in (0..len).step_by(TILE_ROWS) {
            // Later source rows have no weight.
            let depth = dk + (t + TILE_ROWS).min(len);
            let tile = Tile::<V>::product(depth, &self.left[t..], STRIDE, self.right, width);
            for r in 0..TILE_ROWS.min(len - t) {
                let y0 = ((begin + t + r) * heads + head) * (dv + 1) + column;
                // SAFETY: rows and head belong to this task, and no other slice is in use.
                tile.put(r, unsafe { self.y.slice(y0..y0 + count) }, false);
            }
        }
    }

    /// Computes column dv of y, where all values are 1.
    #[inline(always)]
    fn last_column<V: Vector>(&mut self) {
        let Shape { begin, len, head, heads, dk, dv, .. } = self.shape;
        for t0 in (0..len).step_by(V::LANES) {
            let mut sum = V::splat(0.0);
            for (d, row) in self.left.chunks_exact(STRIDE).take(dk + len).enumerate() {
                let value = if d < dk { self.states[d * (dv + 1) + dv] } else { 1.0 };
                let row = &row[t0..t0 + V::LANES];
                // SAFETY: there are that many values.
                sum = V::splat(value).mul_add(unsafe { V::load(row.as_ptr()) }, sum);
            }
            let mut sums = [0.0; 16];
            // SAFETY: a vector has at most 16 lanes.
            unsafe { sum.store(sums.as_mut_ptr()) };
            for (t, sum) in (t0..len.min(t0 + V::LANES)).zip(sums) {
                let at = ((begin + t) * heads + head) * (dv + 1) + dv;
                // SAFETY: rows and head belong to this task, and no other slice is in use.
                unsafe { self.y.slice(at..at + 1)[0] = sum };
            }
        }
    }
}

/// Multiplies weights of a source row by `exp(g_t - g_s) i`.
#[inline(always)]
fn decay<V: Vector>(weights: &mut [f32], g: &[f32], g_s: f32, i: f32) {
    let (g_s, i) = (V::splat(g_s), V::splat(i));
    for (weight, g) in weights.chunks_exact_mut(V::LANES).zip(g.chunks_exact(V::LANES)) {
        // SAFETY: both chunks have that many values.
        unsafe {
            let decay = V::load(g.as_ptr()).sub(g_s).exp().mul(i);
            V::load(weight.as_ptr()).mul(decay).store(weight.as_mut_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, words};

    fn run(sizes: [u32; 4], change: impl Fn(&mut [f32], &mut [f32])) -> (Run, Vec<f32>) {
        let [rows, heads, dk, dv] = sizes;
        let stride = heads * (2 * dk + dv) + 3;
        let [q_offset, k_offset, v_offset] = [1, 1 + heads * dk, 2 + 2 * heads * dk];
        let scale = (dk.max(1) as f32).powf(-0.5);
        let p = params::MlstmChunkOut { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
        let mut x = noise(1, (rows * stride) as usize, 2.0);
        let mut gates = noise(2, (4 * rows * heads) as usize, 1.0);
        // g falls from row to row.
        gates.chunks_exact_mut(4).enumerate().for_each(|(i, gate)| gate[3] -= (i / heads as usize % CHUNK) as f32);
        change(&mut x, &mut gates);
        let states = noise(3, (rows.div_ceil(64) * heads * dk * (dv + 1)) as usize, 2.0);
        let mut y = vec![0.0; (rows * heads * (dv + 1)) as usize];
        let bindings = vec![words(&x), words(&gates), words(&states), words(&y)];
        cpu::mlstm_chunk_out(&p, &x, &gates, &states, &mut y);
        (Run::new(KernelId::MlstmChunkOut, &p, bindings, [1, heads, 1]), y)
    }

    #[test]
    fn matches_the_reference() {
        for sizes in [
            [1, 1, 1, 1],
            [3, 2, 6, 5],
            [130, 2, 16, 33],
            [70, 3, 9, 130],
            [64, 2, 128, 256],
            [65, 1, 130, 8],
            [5, 2, 0, 3],
            [5, 2, 3, 0],
        ] {
            let (run, expected) = run(sizes, |_, _| {});
            run.all(|found| assert_close(found.f32(3), &expected, 2e-6));
        }
    }

    #[test]
    fn nan_stays_nan() {
        let (run, expected) = run([20, 1, 4, 9], |x, gates| {
            gates[4 * 12 + 3] = f32::NAN;
            x[15 * 20 + 3] = f32::NAN;
            gates[4 * 17 + 3] = f32::NEG_INFINITY;
        });
        run.all(|found| {
            let missed = |(found, expected): (&f32, &f32)| expected.is_nan() && !found.is_nan();
            assert!(!found.f32(3).iter().zip(&expected).any(missed));
        });
    }
}
