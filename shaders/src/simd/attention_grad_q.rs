use std::ops::Range;

use super::attention_grad::{BLOCK, Block, Columns, Shape, Side, chunks};
use super::call::{Call, product};
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::vector::Vector;

/// Gradient of causal softmax attention by the queries; see the [CPU reference](crate::cpu::attention_grad_q).
pub(super) fn attention_grad_q(call: &Call<'_>) -> Result<(), Fault> {
    let Some(shape) = Shape::new(call)? else { return Ok(()) };
    let (items, values) = (shape.items(), product(&[shape.items(), shape.dim]));
    let gradient = Gradient {
        q: call.read(0, values)?,
        kv: call.read(1, shape.kv_values())?,
        running: call.read(2, product(&[items, 2]))?,
        o: call.read(3, values)?,
        d_o: call.read(4, values)?,
        delta: call.write(5, items)?,
        dq: call.write(6, values)?,
        shape,
    };
    let Shape { sequences, count, kv_heads, group, .. } = shape;
    let blocks = count.div_ceil((BLOCK / group).max(1));
    let rows = count.div_ceil(blocks);
    call.each(sequences * blocks * kv_heads, shape.cost(3), |task| {
        let (sequence, block, kv_head) = (task / kv_heads / blocks, task / kv_heads % blocks, task % kv_heads);
        gradient.block(sequence, kv_head, block * rows..count.min((block + 1) * rows), call);
    });
    Ok(())
}

/// The bindings, named as those of the kernel.
struct Gradient<'a> {
    shape: Shape,
    q: &'a [f32],
    kv: &'a [f32],
    running: &'a [f32],
    o: &'a [f32],
    d_o: &'a [f32],
    delta: Output<'a>,
    dq: Output<'a>,
}

impl Gradient<'_> {
    /// The queries of `rows` that share a key/value head.
    fn block(&self, sequence: usize, kv_head: usize, rows: Range<usize>, call: &Call<'_>) {
        let Shape { count, heads, kv_heads, group, dim, .. } = self.shape;
        let row0 = sequence * count;
        let item = |i: usize| (row0 + rows.start + i / group) * heads + kv_head * group + i % group;
        let keys = self.shape.keys(rows.start).start..rows.end;
        self.shape.with_block(rows.len() * group, Side::Queries, |block| {
            for i in 0..rows.len() * group {
                let (item, own) = (item(i), i * dim..(i + 1) * dim);
                let at = self.shape.item(item);
                block.left[0][own.clone()].copy_from_slice(&self.q[at.clone()]);
                block.left[1][own].copy_from_slice(&self.d_o[at.clone()]);
                // SAFETY: every item belongs to one task, and no other slice is in use.
                let delta = unsafe { self.delta.slice(item..item + 1) };
                call.instructions.run(Dot { a: &self.o[at.clone()], b: &self.d_o[at], sum: &mut delta[0] });
                block.set_statistics(i, &self.running[2 * item..2 * item + 2], delta[0]);
            }
            for chunk in chunks(keys) {
                let of = |which: usize| &self.kv[self.shape.kv(row0 + chunk.start, which, kv_head).start..];
                let columns = Columns { values: [of(0), of(1)], stride: 2 * kv_heads * dim };
                block.add(chunk.clone(), columns, |i| self.shape.keys(rows.start + i / group));
            }
            self.write(block, rows.len() * group, item);
        });
    }

    /// Writes the gradient of the first `queries` rows of a block.
    fn write(&self, block: &Block<'_>, queries: usize, item: impl Fn(usize) -> usize) {
        for i in 0..queries {
            // SAFETY: every item belongs to one task, and no other slice is in use.
            unsafe { self.dq.slice(self.shape.item(item(i))) }.copy_from_slice(block.sums(0, i));
        }
    }
}

/// The dot product of two vectors of equal length.
struct Dot<'a> {
    a: &'a [f32],
    b: &'a [f32],
    sum: &'a mut f32,
}

impl Task for Dot<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let mut sum = V::splat(0.0);
        for (a, b) in self.a.chunks(V::LANES).zip(self.b.chunks(V::LANES)) {
            // SAFETY: both chunks have that many values.
            unsafe { sum = V::load_first(a.as_ptr(), a.len()).mul_add(V::load_first(b.as_ptr(), b.len()), sum) };
        }
        *self.sum = sum.sum();
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::noise::assert_close;
    use crate::simd::attention_grad::tests::{CASES, Example, assert_faults, assert_not_finite, case};
    use crate::simd::testing::{Run, cases};
    use crate::table::KernelId;

    fn run(example: &Example) -> Run {
        let Example { q, kv, running, o, d_o, .. } = example;
        let (delta, dq) = (vec![f32::NAN; running.len() / 2], vec![f32::NAN; q.len()]);
        example.run(KernelId::AttentionGradQ, &[q, kv, running, o, d_o, &delta, &dq])
    }

    #[test]
    fn matches_the_reference() {
        for (case, size) in cases(CASES.into_iter().zip([2.0, 2.0, 8.0].into_iter().cycle())) {
            let example = Example::new(case, size);
            let [delta, dq] = example.grad_q();
            run(&example).all(|found| {
                assert_close(found.f32(5), &delta, 1e-6);
                if case.window == 1 || case.count == 1 {
                    // One key has all the weight, whatever the query.
                    assert!(found.f32(6).iter().chain(&dq).all(|v| v.abs() < 1e-5));
                } else {
                    assert_close(found.f32(6), &dq, 4e-6);
                }
            });
        }
    }

    #[test]
    fn weights_that_vanish() {
        // Scores far apart, which are large and therefore less exact.
        let example = Example::new(case([1, 40, 1, 1, 4, 0]), 60.0);
        let [_, dq] = example.grad_q();
        run(&example).all(|found| assert_close(found.f32(6), &dq, 1e-4));
    }

    #[test]
    fn nan_stays_nan() {
        for example in Example::not_finite() {
            let [_, dq] = example.grad_q();
            run(&example).all(|found| assert_not_finite(found.f32(6), &dq));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let example = Example::new(case([2, 3, 2, 2, 2, 0]), 2.0);
        assert_faults(&example, &|| run(&example));
    }
}
