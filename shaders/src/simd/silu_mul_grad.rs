use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// Multiply-adds that take as long as one value: an exponential, a quotient and the reordering of pairs.
const COST: usize = 30;

/// Gradient of `h = silu(gate) * up`; see the [CPU reference](crate::cpu::silu_mul_grad).
pub(super) fn silu_mul_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::SiluMulGrad = call.params()?;
    let (rows, dim) = (p.rows as usize, product([4, p.dim4 as usize]));
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let gate_up = call.read(0, product([rows, dim, 2]))?;
    let dh = call.read(1, product([rows, dim]))?;
    let d_gate_up = call.write(2, product([rows, dim, 2]))?;
    call.each(rows, product([rows, dim, COST]), |row| {
        let pairs = 2 * row * dim..2 * (row + 1) * dim;
        // SAFETY: every task has a row of its own.
        let d_gate_up = unsafe { d_gate_up.slice(pairs.clone()) };
        call.instructions.run(Row { gate_up: &gate_up[pairs], dh: &dh[row * dim..(row + 1) * dim], d_gate_up });
    });
    Ok(())
}

/// One row.
struct Row<'a> {
    /// `[dim, 2]`
    gate_up: &'a [f32],
    /// `[dim]`
    dh: &'a [f32],
    /// `[dim, 2]`
    d_gate_up: &'a mut [f32],
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let all = self.dh.chunks(V::LANES).zip(self.gate_up.chunks(2 * V::LANES));
        for ((dh, gate_up), d_gate_up) in all.zip(self.d_gate_up.chunks_mut(2 * V::LANES)) {
            assert!(gate_up.len() == 2 * dh.len() && d_gate_up.len() == 2 * dh.len());
            let mut pairs = [0.0; 32];
            let whole = dh.len() == V::LANES;
            if !whole {
                pairs[..gate_up.len()].copy_from_slice(gate_up);
            }
            // SAFETY: `pairs`, and slices of a whole vector, have `2 LANES` values, and `dh` has `dh.len()`.
            unsafe {
                let dh = V::load_first(dh.as_ptr(), dh.len());
                let [gate, up] = V::load_pairs(if whole { gate_up.as_ptr() } else { pairs.as_ptr() });
                let [sigmoid, rest] = gate.sigmoids();
                let silu = gate.mul(sigmoid);
                // The exponential of NaN is some number, but both gradients have the gate as a factor.
                let gradients = [dh.mul(up).mul(silu.mul_add(rest, sigmoid)), dh.mul(silu)];
                V::store_pairs(gradients, if whole { d_gate_up.as_mut_ptr() } else { pairs.as_mut_ptr() });
            }
            if !whole {
                d_gate_up.copy_from_slice(&pairs[..d_gate_up.len()]);
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

    /// A run, and d_gate_up as expected after it.
    fn case(p: &params::SiluMulGrad, size: f32, change: impl Fn(&mut [f32])) -> (Run, Vec<f32>) {
        let count = (4 * p.rows * p.dim4) as usize;
        let (mut gate_up, dh, mut expected) = (noise(1, 2 * count, size), noise(2, count, 1.0), vec![7.0; 2 * count]);
        change(&mut gate_up);
        let bindings = [&gate_up, &dh, &expected].map(|values| words(values)).to_vec();
        cpu::silu_mul_grad(p, &gate_up, &dh, &mut expected);
        (Run::new(KernelId::SiluMulGrad, p, bindings, [p.dim4, p.rows, 1]), expected)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, dim4) in cases([(1, 1), (2, 5), (3, 3), (5, 4), (4, 33), (40, 250)]) {
            for size in cases([12.0, 0.1, 300.0]) {
                let (run, expected) = case(&params::SiluMulGrad { rows, dim4 }, size, |_| {});
                run.all(|found| assert_close(found.f32(2), &expected, 1e-6));
            }
        }
    }

    #[test]
    fn small_gradients_of_closed_gates_are_exact() {
        let (run, expected) = case(&params::SiluMulGrad { rows: 1, dim4: 5 }, 1.0, |x| {
            x.iter_mut().step_by(2).for_each(|gate| *gate = 20.0 * *gate - 50.0);
        });
        run.all(|found| {
            for (&found, &expected) in found.f32(2).iter().zip(&expected) {
                assert!((found - expected).abs() <= 3e-6 * expected.abs(), "{found} {expected}");
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn nan_stays_nan() {
        let (run, expected) = case(&params::SiluMulGrad { rows: 1, dim4: 5 }, 1.0, |x| {
            (x[0], x[7], x[20], x[38]) = (f32::NAN, f32::NAN, f32::NEG_INFINITY, f32::INFINITY);
        });
        run.all(|found| {
            for (i, (found, expected)) in found.f32(2).iter().zip(&expected).enumerate() {
                assert_eq!(found.is_finite(), expected.is_finite(), "{i}: {found} {expected}");
            }
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::SiluMulGrad { rows: 3, dim4: 2 };
        assert_eq!(case(&p, 1.0, |_| {}).0.fault(), None);
        for binding in 0..3 {
            let (mut short, _) = case(&p, 1.0, |_| {});
            short.bindings[binding].pop();
            assert!(short.fault().is_some(), "binding {binding}");
        }
        for (rows, dim4) in [(4, 2), (3, 3), (u32::MAX, 2), (3, u32::MAX), (u32::MAX, u32::MAX)] {
            let wrong = params::SiluMulGrad { rows, dim4 };
            let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, 1.0, |_| {}).0 };
            assert!(run.fault().is_some(), "{wrong:?}");
        }
    }
}
