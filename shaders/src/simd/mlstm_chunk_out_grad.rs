use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::mlstm_step::Shape;
use super::panels::{Operand, PackKeys, PackValues, Product, TILE_ROWS};
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
        let count = product([part.far_depth().saturating_add(CHUNK), GROUP + CHUNK]).saturating_add(TILE_ROWS * GROUP);
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

    /// The rows from this one on.
    fn from(self, row: usize) -> &'a [f32] {
        &self.values[row * self.stride..]
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
    /// The left-hand side of the product with the state, without weights; that of k lacks a column of ones.
    far_left: Rows<'a>,
    far: Far<'a>,
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
        let (width, near, far_left, far) = match which {
            0 => (dk, k, dy, Far::Transposed(state)),
            1 => (dk, q, v, Far::Transposed(dstate)),
            _ => (dv, dy, k, Far::Columns(dstate)),
        };
        Self { inputs, head, which, begin, len: (rows - begin).min(CHUNK), width, near, far_left, far }
    }

    /// Rows of the right-hand side of the product with the state.
    fn far_depth(&self) -> usize {
        let Shape { dk, columns, .. } = self.inputs.shape;
        if matches!(self.far, Far::Transposed(_)) { columns } else { dk }
    }

    fn run(&self, call: &Call<'_>, dx: Output<'_>, scratch: &mut [f32]) {
        let &Self { head, which, begin, len, width, near, .. } = self;
        let depth = self.far_depth();
        let (scores, scratch) = scratch.split_at_mut(CHUNK * CHUNK);
        let (far_left, scratch) = scratch.split_at_mut(CHUNK * depth);
        let (near_panels, scratch) = scratch.split_at_mut(CHUNK * GROUP);
        let (far_panels, sums) = scratch.split_at_mut(depth * GROUP);
        self.scores(scores);
        self.weigh(call, far_left);
        let (near_left, far_left) = (Rows::new(scores, 0, CHUNK), Rows::new(far_left, 0, depth));
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
            for t in (0..len).step_by(TILE_ROWS) {
                let rows = TILE_ROWS.min(len - t);
                // A query sees the sources up to it, a source is seen by the queries from it on.
                let seen = if which == 0 { 0..t + rows } else { t..len };
                sums.fill(0.0);
                for (a, panels, panel_depth, depth) in
                    [(far_left, &*far_panels, depth, 0..depth), (near_left, &*near_panels, CHUNK, seen)]
                {
                    call.instructions.run(Product {
                        a: a.from(t),
                        a_stride: a.stride,
                        b: Operand::Panels(panels, panel_depth),
                        c: sums,
                        c_stride: GROUP,
                        rows,
                        columns: 0..count,
                        depth,
                        add: true,
                    });
                }
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

    /// The weight of the state in row `t`.
    fn weight(&self, t: usize) -> f32 {
        let Inputs { shape: Shape { heads, scale, .. }, gates, .. } = self.inputs;
        let gate = |t: usize, which: usize| f64::from(gates[((self.begin + t) * heads + self.head) * 4 + which]);
        let weight = if self.which == 0 {
            gate(t, 3).exp() * f64::from(*scale)
        } else {
            (gate(self.len - 1, 3) - gate(t, 3)).exp() * gate(t, 1)
        };
        weight as f32
    }

    /// Writes the left-hand side of the product with the state: rows times their weights.
    fn weigh(&self, call: &Call<'_>, to: &mut [f32]) {
        let depth = self.far_depth();
        for t in 0..self.len {
            let (row, weight) = (&mut to[t * depth..(t + 1) * depth], self.weight(t));
            // A column of ones follows v.
            let count = depth - usize::from(self.which == 1);
            row[count..].fill(weight);
            call.instructions.run(Scale { from: &self.far_left.from(t)[..count], weight, to: &mut row[..count] });
        }
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

/// Multiplies values by a weight.
struct Scale<'a> {
    from: &'a [f32],
    weight: f32,
    to: &'a mut [f32],
}

impl Task for Scale<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let weight = V::splat(self.weight);
        for (from, to) in self.from.chunks(V::LANES).zip(self.to.chunks_mut(V::LANES)) {
            let count = from.len().min(to.len());
            // SAFETY: both chunks have that many values.
            unsafe { V::load_first(from.as_ptr(), count).mul(weight).store_first(to.as_mut_ptr(), count) };
        }
    }
}
