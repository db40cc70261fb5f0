use std::ops::Range;

use super::attention_grad::{BLOCK, Columns, Shape, Side, chunks};
use super::call::{Call, product};
use super::memory::{Fault, Output};

/// Gradient of causal softmax attention by keys and values; see the [CPU reference](crate::cpu::attention_grad_kv).
pub(super) fn attention_grad_kv(call: &Call<'_>) -> Result<(), Fault> {
    let Some(shape) = Shape::new(call)? else { return Ok(()) };
    let (items, values) = (shape.items(), product(&[shape.items(), shape.dim]));
    let gradient = Gradient {
        q: call.read(0, values)?,
        kv: call.read(1, shape.kv_values())?,
        running: call.read(2, product(&[items, 2]))?,
        d_o: call.read(3, values)?,
        delta: call.read(4, items)?,
        dkv: call.write(5, shape.kv_values())?,
        shape,
    };
    let Shape { sequences, count, kv_heads, .. } = shape;
    let blocks = count.div_ceil(BLOCK);
    let rows = count.div_ceil(blocks);
    call.each(sequences * blocks * kv_heads, shape.cost(4), |task| {
        let (sequence, block, kv_head) = (task / kv_heads / blocks, task / kv_heads % blocks, task % kv_heads);
        gradient.block(sequence, kv_head, block * rows..count.min((block + 1) * rows));
    });
    Ok(())
}

/// The bindings, named as those of the kernel.
struct Gradient<'a> {
    shape: Shape,
    q: &'a [f32],
    kv: &'a [f32],
    running: &'a [f32],
    d_o: &'a [f32],
    delta: &'a [f32],
    dkv: Output<'a>,
}

impl Gradient<'_> {
    /// The keys and values of `rows`.
    fn block(&self, sequence: usize, kv_head: usize, rows: Range<usize>) {
        let Shape { count, heads, group, dim, .. } = self.shape;
        let row0 = sequence * count;
        let queries = rows.start..self.shape.queries(rows.end - 1).end;
        self.shape.with_block(rows.len(), Side::Keys, |block| {
            for (i, row) in rows.clone().enumerate() {
                for (which, left) in block.left.iter_mut().enumerate() {
                    let at = self.shape.kv(row0 + row, which, kv_head);
                    left[i * dim..(i + 1) * dim].copy_from_slice(&self.kv[at]);
                }
            }
            for head in kv_head * group..(kv_head + 1) * group {
                for chunk in chunks(queries.clone()) {
                    let item = |query: usize| (row0 + query) * heads + head;
                    for (i, item) in chunk.clone().map(item).enumerate() {
                        block.set_statistics(i, &self.running[2 * item..2 * item + 2], self.delta[item]);
                    }
                    let start = self.shape.item(item(chunk.start)).start;
                    let columns = Columns { values: [&self.q[start..], &self.d_o[start..]], stride: heads * dim };
                    block.add(chunk, columns, |i| self.shape.queries(rows.start + i));
                }
            }
            for (i, row) in rows.clone().enumerate() {
                for which in [0, 1] {
                    let at = self.shape.kv(row0 + row, which, kv_head);
                    // SAFETY: every key and value belongs to one task, and no other slice is in use.
                    unsafe { self.dkv.slice(at) }.copy_from_slice(block.sums(which, i));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::noise::assert_close;
    use crate::simd::attention_grad::tests::{CASES, Example, assert_faults, assert_not_finite, case};
    use crate::simd::testing::{Run, cases};
    use crate::table::KernelId;

    fn run(example: &Example, delta: &[f32]) -> Run {
        let Example { q, kv, running, d_o, .. } = example;
        let dkv = vec![f32::NAN; kv.len()];
        example.run(KernelId::AttentionGradKv, &[q, kv, running, d_o, delta, &dkv])
    }

    #[test]
    fn matches_the_reference() {
        for (case, size) in cases(CASES.into_iter().zip([2.0, 2.0, 8.0].into_iter().cycle())) {
            let example = Example::new(case, size);
            let [delta, _] = example.grad_q();
            let dkv = example.grad_kv(&delta);
            run(&example, &delta).all(|found| assert_close(found.f32(5), &dkv, 4e-6));
        }
    }

    #[test]
    fn weights_that_vanish() {
        // Scores far apart, which are large and therefore less exact.
        let example = Example::new(case([1, 40, 1, 1, 4, 0]), 60.0);
        let [delta, _] = example.grad_q();
        let dkv = example.grad_kv(&delta);
        run(&example, &delta).all(|found| assert_close(found.f32(5), &dkv, 1e-4));
    }

    #[test]
    fn nan_stays_nan() {
        for example in Example::not_finite() {
            let [delta, _] = example.grad_q();
            let dkv = example.grad_kv(&delta);
            run(&example, &delta).all(|found| assert_not_finite(found.f32(5), &dkv));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let example = Example::new(case([2, 3, 2, 2, 2, 0]), 2.0);
        let [delta, _] = example.grad_q();
        assert_faults(&example, &|| run(&example, &delta));
    }
}
