use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::mlstm_step::Shape;
use super::panels::{Operand, PackKeys, Product, TILE_ROWS};
use super::scratch::with_scratch;
use super::vector::Vector;
use crate::sizes::MLSTM_CHUNK;

/// Rows of a chunk.
const CHUNK: usize = MLSTM_CHUNK as usize;
/// Sources at a time. Their keys and values stay in the L1 cache from row to row.
const GROUP: usize = 32;
/// Exponents up to which vectors compute an exponential.
const MAX_EXPONENT: f32 = 80.0;
const _: () = assert!(CHUNK.is_multiple_of(GROUP));

/// Gradient of the chunkwise mLSTM, step 3 of 4: the scores within each chunk; see the
/// [CPU reference](crate::cpu::mlstm_chunk_scores).
pub(super) fn mlstm_chunk_scores(call: &Call<'_>) -> Result<(), Fault> {
    // The block has the fields of this shape.
    let shape = Shape::new(&call.params()?);
    let Shape { rows, heads, dk, dv, columns, .. } = shape;
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    let x = call.read(0, shape.x_end())?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let dy = call.read(2, product([rows, heads, columns]))?;
    let a = call.write(3, product([rows, heads, CHUNK]))?;
    let b = call.write(4, product([rows, heads, CHUNK]))?;
    let scores = Scores { shape, x, gates, dy, a, b };
    let depth = dk.saturating_add(dv);
    call.each(rows.div_ceil(CHUNK) * heads, product([rows, heads, depth, CHUNK / 2]), |task| {
        let count = product([depth.saturating_add(2 * TILE_ROWS), GROUP]);
        with_scratch(count, |scratch| scores.chunk(call, task / heads, task % heads, scratch));
    });
    Ok(())
}

/// The bindings. Their lengths have been checked.
struct Scores<'a> {
    shape: Shape,
    /// `[rows, ...]`
    x: &'a [f32],
    /// `[rows, heads, 4]`
    gates: &'a [f32],
    /// `[rows, heads, dv + 1]`
    dy: &'a [f32],
    /// `[rows, heads, 64]`
    a: Output<'a>,
    /// `[rows, heads, 64]`
    b: Output<'a>,
}

impl Scores<'_> {
    /// Computes the scores of a head in a chunk.
    fn chunk(&self, call: &Call<'_>, chunk: usize, head: usize, scratch: &mut [f32]) {
        let Shape { rows, heads, dk, dv, columns, stride, .. } = self.shape;
        let begin = chunk * CHUNK;
        let len = (rows - begin).min(CHUNK);
        let decay = Decay::new(self, begin, len, head);
        let (panels, products) = scratch.split_at_mut((dk + dv) * GROUP);
        let (key_panels, value_panels) = panels.split_at_mut(dk * GROUP);
        let (products_a, products_b) = products.split_at_mut(TILE_ROWS * GROUP);
        for first in (0..len).step_by(GROUP) {
            let sources = 0..(len - first).min(GROUP);
            for (part, dim, panels) in [(1, dk, &mut *key_panels), (2, dv, &mut *value_panels)] {
                let keys = &self.x[self.shape.x_at(begin + first, head, part)..];
                let pack = PackKeys { keys, stride, dim, valid: sources.clone(), columns: sources.clone(), panels };
                call.instructions.run(pack);
            }
            for t in (first..len).step_by(TILE_ROWS) {
                let count = TILE_ROWS.min(len - t);
                // Later sources have no weight.
                let near = 0..(t + count - first).min(GROUP);
                let dy = &self.dy[((begin + t) * heads + head) * columns..];
                products_a.fill(0.0);
                for (r, row) in products_b.chunks_exact_mut(GROUP).take(count).enumerate() {
                    row.fill(dy[r * heads * columns + dv]);
                }
                let q = &self.x[self.shape.x_at(begin + t, head, 0)..];
                for (a, a_stride, panels, depth, c) in [
                    (q, stride, &*key_panels, dk, &mut *products_a),
                    (dy, heads * columns, &*value_panels, dv, &mut *products_b),
                ] {
                    let b = Operand::Panels(panels, depth);
                    let (rows, columns, depth) = (count, near.clone(), 0..depth);
                    call.instructions.run(Product {
                        a,
                        a_stride,
                        b,
                        c,
                        c_stride: GROUP,
                        rows,
                        columns,
                        depth,
                        add: true,
                    });
                }
                let products = products_a.chunks_exact(GROUP).zip(products_b.chunks_exact(GROUP));
                for (t, (from_k, from_v)) in (t..t + count).zip(products) {
                    let at = ((begin + t) * heads + head) * CHUNK;
                    // SAFETY: rows and head belong to this task, and no other slice is in use.
                    let to = unsafe { [self.a.slice(at..at + CHUNK), self.b.slice(at..at + CHUNK)] };
                    decay.weigh(call, t, first, [from_k, from_v], to);
                }
            }
        }
    }
}

/// The weights of sources in the rows of a chunk.
struct Decay {
    g: [f32; CHUNK],
    /// `scale i`
    factors: [f32; CHUNK],
    /// Whether vectors compute the exponentials. They turn NaN and infinity into some other exponential.
    vectors: bool,
}

impl Decay {
    fn new(scores: &Scores<'_>, begin: usize, len: usize, head: usize) -> Self {
        let Scores { shape: Shape { heads, scale, .. }, gates, .. } = scores;
        let [mut g, mut factors] = [[0.0; CHUNK]; 2];
        let (mut vectors, mut lowest) = (true, f32::INFINITY);
        for t in 0..len {
            let gate = &gates[((begin + t) * heads + head) * 4..][..4];
            (g[t], factors[t]) = (gate[3], gate[1] * scale);
            lowest = lowest.min(g[t]);
            vectors &= g[t].is_finite() && g[t] - lowest <= MAX_EXPONENT;
        }
        Self { g, factors, vectors }
    }

    /// Writes the weighted products of row `t` with the sources from `first` on, and zeros for the sources after `t`.
    fn weigh(&self, call: &Call<'_>, t: usize, first: usize, products: [&[f32]; 2], to: [&mut [f32]; 2]) {
        let g_t = self.g[t];
        let group = first..first + GROUP;
        let (g, factors) = (&self.g[group.clone()], &self.factors[group.clone()]);
        let [a, b] = to;
        if self.vectors {
            let to = [&mut a[group.clone()], &mut b[group]];
            call.instructions.run(Weigh { g_t, g, factors, products, to });
        } else {
            for (s, (g_s, factor)) in g.iter().zip(factors).enumerate() {
                let weight = (f64::from(g_t) - f64::from(*g_s)).exp() as f32 * factor;
                (a[first + s], b[first + s]) = (weight * products[0][s], weight * products[1][s]);
            }
        }
        a[t + 1..].fill(0.0);
        b[t + 1..].fill(0.0);
    }
}

/// Multiplies both products of a row and each of [`GROUP`] sources by the weight of the source.
struct Weigh<'a> {
    g_t: f32,
    g: &'a [f32],
    factors: &'a [f32],
    products: [&'a [f32]; 2],
    to: [&'a mut [f32]; 2],
}

impl Task for Weigh<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { g_t, g, factors, products: [from_k, from_v], to: [a, b] } = self;
        assert!([g, factors, from_k, from_v, a, b].iter().all(|values| values.len() == GROUP));
        let (zero, one) = (V::splat(0.0), V::splat(1.0));
        for at in (0..GROUP).step_by(V::LANES) {
            // SAFETY: all slices have `GROUP` values, a multiple of `LANES`.
            unsafe {
                let exponent = V::splat(g_t).sub(V::load(g.as_ptr().add(at)));
                // The exponential of vectors doesn't vanish. From -87 down to -88 this does.
                let vanishing = exponent.add(V::splat(88.0)).max(zero).min(one);
                let weight = exponent.exp().mul(vanishing).mul(V::load(factors.as_ptr().add(at)));
                weight.mul(V::load(from_k.as_ptr().add(at))).store(a.as_mut_ptr().add(at));
                weight.mul(V::load(from_v.as_ptr().add(at))).store(b.as_mut_ptr().add(at));
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
    use crate::params;
    use crate::simd::testing::{Run, cases, words};

    fn run([rows, heads, dk, dv]: [u32; 4], change: impl Fn(&mut [f32], &mut [f32])) -> (Run, [Vec<f32>; 2]) {
        let stride = heads * (2 * dk + dv) + 3;
        let [q_offset, k_offset, v_offset] = [1, 1 + heads * dk, 2 + 2 * heads * dk];
        let scale = (dk.max(1) as f32).powf(-0.5);
        let p = params::MlstmChunkScores { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
        let mut x = noise(1, (rows * stride) as usize, 2.0);
        let mut gates = noise(2, (4 * rows * heads) as usize, 1.0);
        // g falls from row to row.
        gates.chunks_exact_mut(4).enumerate().for_each(|(i, gate)| gate[3] -= (i / heads as usize % CHUNK) as f32);
        change(&mut x, &mut gates);
        let dy = noise(3, (rows * heads * (dv + 1)) as usize, 2.0);
        let scores = vec![7.0; rows as usize * heads as usize * CHUNK];
        let (mut a, mut b) = (scores.clone(), scores);
        let bindings = vec![words(&x), words(&gates), words(&dy), words(&a), words(&b)];
        cpu::mlstm_chunk_scores(&p, &x, &gates, &dy, &mut a, &mut b);
        (Run::new(KernelId::MlstmChunkScores, &p, bindings, [1, heads, 1]), [a, b])
    }

    #[test]
    fn matches_the_reference() {
        for sizes in cases([
            [1, 1, 1, 1],
            [3, 2, 6, 5],
            [130, 2, 16, 33],
            [70, 3, 9, 130],
            [64, 2, 128, 256],
            [97, 1, 130, 8],
            [5, 2, 0, 3],
            [5, 2, 3, 0],
        ]) {
            let (run, [a, b]) = run(sizes, |_, _| {});
            run.all(|found| {
                assert_close(found.f32(3), &a, 2e-6);
                assert_close(found.f32(4), &b, 2e-6);
            });
        }
    }

    #[test]
    fn small_weights_vanish() {
        let (run, [a, b]) = run([64, 1, 4, 9], |_, gates| {
            gates.chunks_exact_mut(4).for_each(|gate| gate[3] *= 8.0);
        });
        run.all(|found| {
            for (found, expected) in [(found.f32(3), &a), (found.f32(4), &b)] {
                assert!(found.iter().zip(expected).all(|(found, expected)| *expected != 0.0 || *found == 0.0));
                assert_close(found, expected, 2e-6);
            }
        });
    }

    #[test]
    fn nan_and_infinity_stay() {
        let (run, expected) = run([20, 1, 4, 9], |x, gates| {
            gates[4 * 12 + 3] = f32::NAN;
            x[15 * 20 + 3] = f32::NAN;
            gates[4 * 17 + 3] = f32::NEG_INFINITY;
            gates[4 * 19 + 3] = 200.0;
        });
        run.all(|found| {
            for (found, expected) in [(found.f32(3), &expected[0]), (found.f32(4), &expected[1])] {
                assert!(found.iter().zip(expected).all(|(found, expected)| found.is_finite() == expected.is_finite()));
            }
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        // x has values that are not read at the end of each row.
        run([9, 2, 5, 3], |_, _| {}).0.refuses_what_does_not_fit(2, 8);
    }
}
