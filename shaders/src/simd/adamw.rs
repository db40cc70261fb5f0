use super::call::{Call, product};
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::size4;
use super::vector::Vector;
use crate::params;

/// Weights of a task.
const BLOCK: usize = 1 << 13;

/// One step of AdamW; see the [CPU reference](crate::cpu::adamw).
///
/// The order of operations is that of the shader and nothing is fused, so all instruction sets give the same bits.
pub(super) fn adamw(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Adamw = call.params()?;
    let count = size4(p.count4);
    if count == 0 {
        return Ok(());
    }
    let (grad, squares) = (call.read(0, count)?, call.read(1, 1)?[0]);
    let (w, m, v) = (call.write(2, count)?, call.write(3, count)?, call.write(4, count)?);
    if !squares.is_finite() {
        return Ok(());
    }
    let mut factor = p.scale;
    if p.clip > 0.0 {
        factor *= (p.clip / (p.scale * squares.sqrt() + 1e-6)).min(1.0);
    }
    // Divisions and a root take about as long as 20 multiply-adds.
    call.each(count.div_ceil(BLOCK), product(&[20, count]), |task| {
        let block = task * BLOCK..count.min((task + 1) * BLOCK);
        // SAFETY: every task has a block of its own.
        let (w, m, v) = unsafe { (w.slice(block.clone()), m.slice(block.clone()), v.slice(block.clone())) };
        call.instructions.run(Step { p: &p, factor, grad: &grad[block], w, m, v });
    });
    Ok(())
}

/// A step of some weights; all slices have the same length.
struct Step<'a> {
    p: &'a params::Adamw,
    /// The gradient is multiplied by this.
    factor: f32,
    grad: &'a [f32],
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
}

impl Task for Step<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let p = self.p;
        let (factor, mean, kept, square) =
            (V::splat(self.factor), V::splat(1.0 - p.beta1), V::splat(p.beta2), V::splat(1.0 - p.beta2));
        let (bias1, root_bias2, eps) = (V::splat(p.bias1), V::splat(p.bias2.sqrt()), V::splat(p.eps));
        let (decay, lr) = (V::splat(p.decay), V::splat(p.lr));
        let moments = self.m.chunks_mut(V::LANES).zip(self.v.chunks_mut(V::LANES));
        let weights = self.grad.chunks(V::LANES).zip(self.w.chunks_mut(V::LANES));
        for ((grad, w), (m, v)) in weights.zip(moments) {
            let count = grad.len();
            // SAFETY: all slices have the same length, so all chunks have `count` values.
            unsafe {
                let g = factor.mul(V::load_first(grad.as_ptr(), count));
                let (m_old, v_old) = (V::load_first(m.as_ptr(), count), V::load_first(v.as_ptr(), count));
                let m_new = m_old.add(g.sub(m_old).mul(mean));
                let v_new = kept.mul(v_old).add(square.mul(g).mul(g));
                m_new.store_first(m.as_mut_ptr(), count);
                v_new.store_first(v.as_mut_ptr(), count);
                let step = m_new.div(bias1).div(v_new.sqrt().div(root_bias2).add(eps));
                let w_old = V::load_first(w.as_ptr(), count);
                // Computing 1 - lr * decay first would round a small decay away.
                w_old.sub(lr.mul(decay.mul(w_old).add(step))).store_first(w.as_mut_ptr(), count);
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
    use crate::simd::testing::{Found, Run, cases, words};

    const P: params::Adamw = params::Adamw {
        count4: 1,
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        decay: 0.1,
        bias1: 0.271,
        bias2: 0.002_997,
        clip: 0.0,
        scale: 0.25,
    };

    struct Weights {
        grad: Vec<f32>,
        squares: f32,
        /// The weights and both moments.
        state: [Vec<f32>; 3],
    }

    fn weights(count4: u32) -> Weights {
        let count = 4 * count4 as usize;
        let grad = noise(1, count, 2.0);
        let squares = grad.iter().map(|g| g * g).sum();
        let v = noise(4, count, 0.01).iter().map(|v| v.abs()).collect();
        Weights { grad, squares, state: [noise(2, count, 1.0), noise(3, count, 0.1), v] }
    }

    fn run(p: &params::Adamw, Weights { grad, squares, state: [w, m, v] }: &Weights) -> Run {
        let bindings = vec![words(grad), words(&[*squares]), words(w), words(m), words(v)];
        Run::new(KernelId::Adamw, p, bindings, [p.count4.div_ceil(64), 1, 1])
    }

    fn bits(found: &Found) -> [&[u32]; 3] {
        [2, 3, 4].map(|binding| found.u32(binding))
    }

    #[test]
    fn matches_the_reference() {
        for (count4, clip) in cases([(1, 0.0), (3, 0.5), (2, 0.0), (5, 1e6), (9, 1e-3), (2050, 0.5), (5000, 0.0)]) {
            let p = params::Adamw { count4, clip, ..P };
            let mut all = weights(count4);
            let run = run(&p, &all);
            let [w, m, v] = &mut all.state;
            cpu::adamw(&p, &all.grad, &[all.squares], w, m, v);
            run.all(|found| {
                for (i, expected) in all.state.iter().enumerate() {
                    assert_close(found.f32(2 + i), expected, 1e-6);
                }
            });
        }
    }

    #[test]
    fn every_instruction_set_has_the_bits_of_the_formula() {
        let p = params::Adamw { count4: 13, clip: 0.5, ..P };
        let mut all = weights(p.count4);
        let run = run(&p, &all);
        let factor = p.scale * (p.clip / (p.scale * all.squares.sqrt() + 1e-6)).min(1.0);
        let [w, m, v] = &mut all.state;
        for (((w, m), v), grad) in w.iter_mut().zip(m).zip(v).zip(&all.grad) {
            let g = factor * grad;
            *m += (g - *m) * (1.0 - p.beta1);
            *v = p.beta2 * *v + (1.0 - p.beta2) * g * g;
            let step = *m / p.bias1 / (v.sqrt() / p.bias2.sqrt() + p.eps);
            *w -= p.lr * (p.decay * *w + step);
        }
        let expected = all.state.each_ref().map(|values| words(values));
        run.all(|found| assert_eq!(bits(found), expected.each_ref().map(Vec::as_slice)));
    }

    #[test]
    fn a_norm_that_is_not_finite_changes_nothing() {
        let p = params::Adamw { count4: 5, ..P };
        for squares in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let all = Weights { squares, ..weights(p.count4) };
            let before = all.state.each_ref().map(|values| words(values));
            run(&p, &all).all(|found| assert_eq!(bits(found), before.each_ref().map(Vec::as_slice)));
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let p = params::Adamw { count4: 5, ..P };
        let mut all = weights(p.count4);
        (all.grad[3], all.grad[19]) = (f32::NAN, f32::INFINITY);
        run(&p, &all).all(|found| {
            assert!(found.f32(2)[3].is_nan() && found.f32(2)[19].is_nan());
            assert!(found.f32(3)[3].is_nan() && found.f32(4)[19] == f32::INFINITY);
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::Adamw { count4: 2, ..P };
        assert_eq!(run(&p, &weights(2)).fault(), None);
        assert_eq!(run(&params::Adamw { count4: 0, ..P }, &weights(0)).fault(), None);
        for binding in 0..5 {
            let mut run = run(&p, &weights(2));
            run.bindings[binding].pop();
            assert!(run.fault().is_some(), "binding {binding}");
        }
        for count4 in [3, u32::MAX] {
            assert!(run(&params::Adamw { count4, ..P }, &weights(2)).fault().is_some());
        }
    }
}
