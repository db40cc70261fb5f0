use super::call::Call;
use super::extent::{product, rows_end};
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::vector::Vector;
use crate::params;

/// Columns of a task. A head's state of that width stays in the L2 cache from row to row, and long runs of it come
/// from memory faster.
const BLOCK: usize = 256;
/// Rows of the state at a time. They share the loads and stores of what belongs to a column.
const GROUP: usize = 4;

/// The mLSTM cell in its recurrent form; see the [CPU reference](crate::cpu::mlstm_step).
pub(super) fn mlstm_step(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmStep = call.params()?;
    let shape = Shape::new(&p);
    if shape.rows == 0 || shape.heads == 0 {
        return Ok(());
    }
    let x = call.read(0, shape.x_end())?;
    let gates = call.read(1, product([shape.rows, shape.heads, 4]))?;
    let c = call.write(2, product([shape.heads, shape.dk, shape.columns]))?;
    let y = call.write(3, product([shape.rows, shape.heads, shape.columns]))?;
    step(call, &Step { shape, x, gates, c, y });
    Ok(())
}

/// The sizes of a step.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) heads: usize,
    pub(super) dk: usize,
    pub(super) dv: usize,
    /// dv + 1
    pub(super) columns: usize,
    pub(super) stride: usize,
    /// Of q, k and v
    pub(super) offsets: [usize; 3],
    pub(super) scale: f32,
}

impl Shape {
    pub(super) fn new(p: &params::MlstmStep) -> Self {
        let [rows, heads, dk, dv, stride] = [p.rows, p.heads, p.dk, p.dv, p.stride].map(|n| n as usize);
        let offsets = [p.q_offset, p.k_offset, p.v_offset].map(|n| n as usize);
        Self { rows, heads, dk, dv, columns: dv.saturating_add(1), stride, offsets, scale: p.scale }
    }

    /// Length of x up to the last q, k and v. There must be at least one row.
    pub(super) fn x_end(&self) -> usize {
        let [q_offset, k_offset, v_offset] = self.offsets;
        let end = |offset, width| rows_end(self.rows, self.stride, offset, product([self.heads, width]));
        end(q_offset.max(k_offset), self.dk).max(end(v_offset, self.dv))
    }

    /// Where q, k or v (`part` 0, 1 or 2) of a head begins in x.
    pub(super) fn x_at(&self, row: usize, head: usize, part: usize) -> usize {
        row * self.stride + self.offsets[part] + head * if part < 2 { self.dk } else { self.dv }
    }
}

/// The bindings of a step. Their lengths have been checked.
pub(super) struct Step<'a> {
    pub(super) shape: Shape,
    /// `[rows, ...]`
    pub(super) x: &'a [f32],
    /// `[rows, heads, 4]`
    pub(super) gates: &'a [f32],
    /// `[heads, dk, dv + 1]`
    pub(super) c: Output<'a>,
    /// `[rows, heads, dv + 1]`
    pub(super) y: Output<'a>,
}

/// Updates the state and computes y, on several threads.
pub(super) fn step(call: &Call<'_>, step: &Step<'_>) {
    let Shape { rows, heads, dk, dv, columns, .. } = step.shape;
    // Column dv belongs to the last block.
    let blocks = dv.div_ceil(BLOCK).max(1);
    call.each(heads * blocks, product([rows, heads, dk, columns]), |task| {
        call.instructions.run(Block { step, head: task / blocks, first: task % blocks * BLOCK });
    });
}

/// Columns of a head in all rows.
struct Block<'a> {
    step: &'a Step<'a>,
    head: usize,
    /// The first column.
    first: usize,
}

impl Task for Block<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { step: Step { shape, x, gates, c, y }, head, first } = self;
        let &Shape { rows, heads, dk, dv, columns, stride, offsets, scale } = shape;
        let width = (dv - first).min(BLOCK);
        let with_last = first + width == dv;
        let [q_offset, k_offset, v_offset] = offsets;
        for t in 0..rows {
            let at = |offset: usize, width: usize| t * stride + offset + head * width;
            let [q0, k0, v0] = [at(q_offset, dk), at(k_offset, dk), at(v_offset, dv) + first];
            let gate = &gates[(t * heads + head) * 4..][..4];
            let mut row = Row::new(gate, &x[v0..v0 + width]);
            let (q, k) = (&x[q0..q0 + dk], &x[k0..k0 + dk]);
            for (i, (q, k)) in q.chunks(GROUP).zip(k.chunks(GROUP)).enumerate() {
                let rows: [_; GROUP] = std::array::from_fn(|r| {
                    let at = (head * dk + i * GROUP + r) * columns + first;
                    let range = if r < q.len() { at..at + width + usize::from(with_last) } else { 0..0 };
                    // SAFETY: the columns belong to this task, and there is one slice per row of the state.
                    unsafe { c.slice(range) }
                });
                match (rows, q, k) {
                    (rows, &[q0, q1, q2, q3], &[k0, k1, k2, k3]) => {
                        row.update::<V, GROUP>(rows, [q0, q1, q2, q3], [k0, k1, k2, k3]);
                    }
                    (rows, q, k) => {
                        for ((state, &q), &k) in rows.into_iter().zip(q).zip(k) {
                            row.update::<V, 1>([state], [q], [k]);
                        }
                    }
                }
            }
            let y0 = (t * heads + head) * columns + first;
            // SAFETY: the columns belong to this task.
            let y = unsafe { y.slice(y0..y0 + width + usize::from(with_last)) };
            for (y, sum) in y.iter_mut().zip(&row.sums[..width]) {
                *y = scale * sum;
            }
            if let Some(y) = y.get_mut(width) {
                *y = scale * row.last;
            }
        }
    }
}

/// A row of x at the columns of a block.
struct Row {
    width: usize,
    /// The gates f and i.
    keep: f32,
    add: f32,
    /// `i v`, `[width]` used
    values: [f32; BLOCK],
    /// `qᵀ C'` so far, `[width]` used
    sums: [f32; BLOCK],
    /// The same of column dv.
    last: f32,
}

impl Row {
    #[inline(always)]
    fn new(gate: &[f32], v: &[f32]) -> Self {
        let mut values = [0.0; BLOCK];
        for (value, v) in values.iter_mut().zip(v) {
            *value = gate[1] * v;
        }
        Self { width: v.len(), keep: gate[0], add: gate[1], values, sums: [0.0; BLOCK], last: 0.0 }
    }

    /// Updates rows of the state, each `[width]` or, with column dv, `[width + 1]`, and adds their part of y.
    #[inline(always)]
    fn update<V: Vector, const N: usize>(&mut self, mut rows: [&mut [f32]; N], q: [f32; N], k: [f32; N]) {
        let width = self.width;
        assert!(width <= BLOCK && rows.iter().all(|row| row.len() >= width));
        let mut factors = [[V::splat(0.0); 2]; N];
        for (r, factors) in factors.iter_mut().enumerate() {
            *factors = [V::splat(q[r]), V::splat(k[r])];
        }
        let whole = width - width % V::LANES;
        let mut at = 0;
        // SAFETY: both columns lie below `width`.
        unsafe {
            while at < whole {
                self.update_columns::<V, N>(&mut rows, &factors, at, V::LANES);
                at += V::LANES;
            }
            if whole < width {
                self.update_columns::<V, N>(&mut rows, &factors, whole, width - whole);
            }
        }
        for (r, row) in rows.iter_mut().enumerate() {
            if let Some(state) = row.get_mut(width) {
                *state = self.keep * *state + self.add * k[r];
                self.last += q[r] * *state;
            }
        }
    }

    /// Updates `count` columns from `at` on, given q and k of each row.
    ///
    /// # Safety
    /// `at + count <= width`, every row has `width` values, and `count` is at most `LANES`.
    #[inline(always)]
    unsafe fn update_columns<V: Vector, const N: usize>(
        &mut self,
        rows: &mut [&mut [f32]; N],
        factors: &[[V; 2]; N],
        at: usize,
        count: usize,
    ) {
        let keep = V::splat(self.keep);
        // SAFETY: the caller's for the rows. BLOCK is a multiple of LANES, so the arrays have whole vectors.
        unsafe {
            let value = V::load(self.values.as_ptr().add(at));
            let mut sum = V::load(self.sums.as_ptr().add(at));
            for (row, [q, k]) in rows.iter_mut().zip(factors) {
                let state = row.as_mut_ptr().add(at);
                let updated = k.mul_add(value, keep.mul(V::load_first(state, count)));
                updated.store_first(state, count);
                sum = q.mul_add(updated, sum);
            }
            sum.store(self.sums.as_mut_ptr().add(at));
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
        for (rows, heads, dk, dv) in cases([
            (1, 1, 1, 1),
            (3, 2, 6, 5),
            (1, 4, 64, 128),
            (2, 3, 9, 130),
            (5, 2, 16, 257),
            (1, 8, 128, 256),
            (2, 1, 3, 0),
        ]) {
            let stride = heads * (2 * dk + dv) + 3;
            let [q_offset, k_offset, v_offset] = [1, 1 + heads * dk, 2 + 2 * heads * dk];
            let p = params::MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: 0.3 };
            let x = noise(1, (rows * stride) as usize, 2.0);
            let gates: Vec<f32> = noise(2, (4 * rows * heads) as usize, 1.0).iter().map(|v| v.abs()).collect();
            let start = noise(3, (heads * dk * (dv + 1)) as usize, 1.0);
            let (mut c, mut y) = (start.clone(), vec![0.0; (rows * heads * (dv + 1)) as usize]);
            let bindings = vec![words(&x), words(&gates), words(&start), words(&y)];
            cpu::mlstm_step(&p, &x, &gates, &mut c, &mut y);
            Run::new(KernelId::MlstmStep, &p, bindings, [1, heads, 1]).all(|found| {
                assert_close(found.f32(2), &c, 2e-6);
                assert_close(found.f32(3), &y, 4e-6);
            });
        }
    }
}
