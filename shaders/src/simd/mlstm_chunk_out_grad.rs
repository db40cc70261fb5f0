use std::ops::Range;

use super::attention::product::{Operand, PackKeys, PackValues, Product, TILE_ROWS};
use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::mlstm_step::Shape;
use super::scratch::with_scratch;
use super::vector::Vector;
use crate::sizes::MLSTM_CHUNK;

#[cfg(test)]
mod tests;

/// Rows of a chunk.
const CHUNK: usize = MLSTM_CHUNK as usize;
/// Columns at a time. Their part of the state stays in the L1 cache from row to row.
const GROUP: usize = 32;

/// Gradient of the chunkwise mLSTM, step 4 of 4: the gradients of q, k and v; see the
/// [CPU reference](crate::cpu::mlstm_chunk_out_grad).
pub(super) fn mlstm_chunk_out_grad(call: &Call<'_>) -> Result<(), Fault> {
    // The block has the fields of this shape.
    let shape = Shape::new(&call.params()?);
    let Shape { rows, heads, dk, columns, .. } = shape;
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    let x = call.read(0, shape.x_end())?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let chunks = rows.div_ceil(CHUNK);
    let states = call.read(2, product([chunks, heads, dk, columns]))?;
    let dstates = call.read(3, product([chunks, heads, dk, columns]))?;
    let dy = call.read(4, product([rows, heads, columns]))?;
    let a = call.read(5, product([rows, heads, CHUNK]))?;
    let b = call.read(6, product([rows, heads, CHUNK]))?;
    let dx = call.write(7, shape.x_end())?;
    if parts_overlap(&shape) {
        return Err(Fault::new("mlstm_chunk_out_grad: the gradients of q, k and v overlap"));
    }
    let inputs = Inputs { shape, x, gates, states, dstates, dy, a, b };
    let cost = product([3, rows, heads, dk.saturating_add(CHUNK / 2), columns]);
    call.each(chunks * heads * 3, cost, |task| {
        let part = Part::new(&inputs, task / 3 / heads, task / 3 % heads, task % 3);
        let count = product([part.far_depth().saturating_add(CHUNK + TILE_ROWS), GROUP]).saturating_add(CHUNK * CHUNK);
        with_scratch(count, |scratch| part.run(call, dx, scratch));
    });
    Ok(())
}

/// Whether any two of the gradients, which different tasks write, share a value.
fn parts_overlap(shape: &Shape) -> bool {
    let &Shape { rows, heads, dk, dv, stride, offsets, .. } = shape;
    let part = |which: usize| {
        let width = heads * if which < 2 { dk } else { dv };
        offsets[which]..offsets[which] + width
    };
    let mut parts = [0, 1, 2].map(part);
    parts.sort_by_key(|part| part.start);
    let mut parts = parts.into_iter().filter(|part| !part.is_empty());
    let Some(first) = parts.next() else {
        return false;
    };
    let mut end = first.end;
    for part in parts {
        if part.start < end {
            return true;
        }
        end = part.end;
    }
    rows > 1 && end - first.start > stride
}

/// The bindings that are read. Their lengths have been checked.
struct Inputs<'a> {
    shape: Shape,
    /// `[rows, ...]`
    x: &'a [f32],
    /// `[rows, heads, 4]`
    gates: &'a [f32],
    /// `[chunks, heads, dk, dv + 1]`
    states: &'a [f32],
    /// `[chunks, heads, dk, dv + 1]`
    dstates: &'a [f32],
    /// `[rows, heads, dv + 1]`
    dy: &'a [f32],
    /// `[rows, heads, 64]`
    a: &'a [f32],
    /// `[rows, heads, 64]`
    b: &'a [f32],
}

/// Rows in a binding with a distance.
#[derive(Clone, Copy)]
struct Rows<'a> {
    values: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    fn new(values: &'a [f32], start: usize, stride: usize) -> Self {
        Self { values: &values[start..], stride }
    }

    fn skip(self, rows: usize) -> Self {
        Self::new(self.values, rows * self.stride, self.stride)
    }
}

/// The right-hand side of the product with a state.
enum Far<'a> {
    /// The transpose of a state.
    Transposed(&'a [f32]),
    /// A state without its last column.
    Columns(&'a [f32]),
}

/// The gradient of q, k or v (`which` 0, 1 or 2) of a head in a chunk: a product of scores with the rows of the chunk,
/// and a weighted product with the state at its start or end.
struct Part<'a> {
    inputs: &'a Inputs<'a>,
    head: usize,
    which: usize,
    /// The first row.
    begin: usize,
    /// Number of rows.
    len: usize,
    /// Columns of the gradient.
    width: usize,
    /// The right-hand side of the product with scores.
    near: Rows<'a>,
    /// The left-hand side of the product with the state.
    far_left: Rows<'a>,
    far: Far<'a>,
    /// For k, whose left-hand side ends with a column of ones: the state whose last column belongs to it.
    ones: Option<&'a [f32]>,
}

impl<'a> Part<'a> {
    fn new(inputs: &'a Inputs<'a>, chunk: usize, head: usize, which: usize) -> Self {
        let Inputs { shape, x, dy, .. } = inputs;
        let &Shape { rows, heads, dk, dv, columns, stride, .. } = shape;
        let begin = chunk * CHUNK;
        let size = dk * columns;
        let at = (chunk * heads + head) * size;
        let [state, dstate] = [inputs.states, inputs.dstates].map(|states| &states[at..at + size]);
        let [q, k, v] = [0, 1, 2].map(|part| Rows::new(x, shape.x_at(begin, head, part), stride));
        let dy = Rows::new(dy, (begin * heads + head) * columns, heads * columns);
        let (width, near, far_left, far, ones) = match which {
            0 => (dk, k, dy, Far::Transposed(state), None),
            1 => (dk, q, v, Far::Transposed(dstate), Some(dstate)),
            _ => (dv, dy, k, Far::Columns(dstate), None),
        };
        Self { inputs, head, which, begin, len: (rows - begin).min(CHUNK), width, near, far_left, far, ones }
    }

    /// Rows of the right-hand side of the product with the state.
    fn far_depth(&self) -> usize {
        let Shape { dk, columns, .. } = self.inputs.shape;
        if matches!(self.far, Far::Transposed(_)) { columns } else { dk }
    }

    fn run(&self, call: &Call<'_>, dx: Output<'_>, scratch: &mut [f32]) {
        let &Self { head, which, begin, len, width, near, far_left, .. } = self;
        let Shape { columns, .. } = self.inputs.shape;
        let far_depth = self.far_depth();
        let (scores, scratch) = scratch.split_at_mut(CHUNK * CHUNK);
        let (near_panels, scratch) = scratch.split_at_mut(CHUNK * GROUP);
        let (far_panels, sums) = scratch.split_at_mut(far_depth * GROUP);
        self.scores(scores);
        let weights = self.weights();
        for column in (0..width).step_by(GROUP) {
            let count = (width - column).min(GROUP);
            call.instructions.run(PackValues {
                values: &near.values[column..],
                stride: near.stride,
                dim: count,
                rows: 0..len,
                depth: CHUNK,
                panels: near_panels,
            });
            self.pack_state(call, column, count, far_panels);
            let mut last = [0.0; GROUP];
            if let Some(state) = self.ones {
                let rows = state[column * columns..].chunks_exact(columns);
                last.iter_mut().zip(rows).for_each(|(last, row)| *last = row[columns - 1]);
            }
            for t in (0..len).step_by(TILE_ROWS) {
                let rows = TILE_ROWS.min(len - t);
                sums.chunks_exact_mut(GROUP).for_each(|sums| sums.copy_from_slice(&last));
                // The column of ones is in the sums already.
                let depth = 0..far_depth - usize::from(self.ones.is_some());
                let b = Operand::Panels(far_panels, far_depth);
                add_product(call, far_left.skip(t), b, depth, sums, [rows, count]);
                call.instructions.run(Scale { rows: sums, weights: &weights[t..t + rows] });
                // A query sees the sources up to it, a source is seen by the queries from it on.
                let depth = if which == 0 { 0..t + rows } else { t..len };
                let b = Operand::Panels(near_panels, CHUNK);
                add_product(call, Rows::new(scores, t * CHUNK, CHUNK), b, depth, sums, [rows, count]);
                for (t, sums) in (t..t + rows).zip(sums.chunks_exact(GROUP)) {
                    let at = self.inputs.shape.x_at(begin + t, head, which) + column;
                    // SAFETY: the columns of these rows belong to this task, and no other slice is in use.
                    unsafe { dx.slice(at..at + count) }.copy_from_slice(&sums[..count]);
                }
            }
        }
    }

    /// Copies the scores of the chunk, `[row of q, row of k]` for q and the transpose for k and v. The scores of later
    /// sources become 0.
    fn scores(&self, to: &mut [f32]) {
        let &Self { inputs: Inputs { shape: Shape { heads, .. }, a, b, .. }, head, which, begin, len, .. } = self;
        let from = if which < 2 { b } else { a };
        to[..len * CHUNK].fill(0.0);
        for t in 0..len {
            let row = &from[((begin + t) * heads + head) * CHUNK..][..=t];
            if which == 0 {
                to[t * CHUNK..][..=t].copy_from_slice(row);
            } else {
                to[t..].iter_mut().step_by(CHUNK).zip(row).for_each(|(to, score)| *to = *score);
            }
        }
    }

    /// The weight of the state in each row.
    fn weights(&self) -> [f32; CHUNK] {
        let Inputs { shape: Shape { heads, scale, .. }, gates, .. } = self.inputs;
        let gate = |t: usize, which: usize| f64::from(gates[((self.begin + t) * heads + self.head) * 4 + which]);
        let mut weights = [0.0; CHUNK];
        for (t, weight) in weights.iter_mut().enumerate().take(self.len) {
            *weight = if self.which == 0 {
                gate(t, 3).exp() * f64::from(*scale)
            } else {
                (gate(self.len - 1, 3) - gate(t, 3)).exp() * gate(t, 1)
            } as f32;
        }
        weights
    }

    /// Writes `count` columns of the right-hand side of the product with the state to panels.
    fn pack_state(&self, call: &Call<'_>, column: usize, count: usize, panels: &mut [f32]) {
        let Shape { dk, columns: stride, .. } = self.inputs.shape;
        match self.far {
            Far::Transposed(state) => {
                let keys = &state[column * stride..];
                call.instructions.run(PackKeys {
                    keys,
                    stride,
                    dim: stride,
                    valid: 0..count,
                    columns: 0..count,
                    panels,
                });
            }
            Far::Columns(state) => {
                // The state has no rows if dk is 0.
                let values = state.get(column..).unwrap_or_default();
                call.instructions.run(PackValues { values, stride, dim: count, rows: 0..dk, depth: dk, panels });
            }
        }
    }
}

/// Adds the product of `a` and `b` to `[rows, columns]` sums, [`GROUP`] apart.
fn add_product(call: &Call<'_>, a: Rows<'_>, b: Operand<'_>, depth: Range<usize>, c: &mut [f32], size: [usize; 2]) {
    let (Rows { values: a, stride: a_stride }, [rows, columns]) = (a, size);
    let columns = 0..columns;
    call.instructions.run(Product { a, a_stride, b, c, c_stride: GROUP, rows, columns, depth, add: true });
}

/// Multiplies each row of [`GROUP`] values by its weight.
struct Scale<'a> {
    rows: &'a mut [f32],
    weights: &'a [f32],
}

impl Task for Scale<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (row, &weight) in self.rows.chunks_exact_mut(GROUP).zip(self.weights) {
            for values in row.chunks_exact_mut(V::LANES) {
                // SAFETY: the chunk has that many values.
                unsafe { V::load(values.as_ptr()).mul(V::splat(weight)).store(values.as_mut_ptr()) };
            }
        }
    }
}
