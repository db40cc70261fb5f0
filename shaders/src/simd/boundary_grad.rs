use super::boundary::dot_products;
use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// The lower bound of a norm, as in the forward pass.
const LEAST: f32 = 1e-12;

/// Gradient of the cosine between q of a byte and k of the next byte; see the
/// [CPU reference](crate::cpu::boundary_grad).
pub(super) fn boundary_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::BoundaryGrad = call.params()?;
    let (rows, dim) = (p.rows as usize, product([4, p.dim4 as usize]));
    if dim == 0 {
        return Ok(());
    }
    let bytes = rows.saturating_add(1);
    let x = call.read(0, if rows == 0 { 0 } else { product([bytes, 2, dim]) })?;
    let dcosine = call.read(1, rows)?;
    let dx = call.write(2, product([bytes, 2, dim]))?;
    // Gradients of a byte that is halted are not written.
    let gradient = |byte: usize, at: usize| {
        // SAFETY: every task has a q and a k of its own.
        (!call.halted(byte)).then(|| unsafe { dx.slice(at..at + dim) })
    };
    call.each(bytes, product([8, rows, dim]), |t| {
        let (q0, k0) = (2 * t * dim, (2 * t + 3) * dim);
        if t < rows {
            let (dq, dk) = (gradient(t, q0), gradient(t + 1, k0));
            let (q, k) = (&x[q0..q0 + dim], &x[k0..k0 + dim]);
            call.instructions.run(Pair { q, k, dcosine: dcosine[t], dq, dk });
        } else {
            // q of the last byte and k of the first byte have no partner.
            [gradient(rows, q0), gradient(0, dim)].into_iter().flatten().for_each(|alone| alone.fill(0.0));
        }
    });
    Ok(())
}

/// Vectors whose cosine is a byte's, and their gradients where they are wanted; all are `[dim]`.
struct Pair<'a> {
    q: &'a [f32],
    k: &'a [f32],
    dcosine: f32,
    dq: Option<&'a mut [f32]>,
    dk: Option<&'a mut [f32]>,
}

impl Task for Pair<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { q, k, dcosine, dq, dk } = self;
        let [product, squares @ ..] = dot_products::<V>(q, k);
        let norms = squares.map(f32::sqrt);
        // Unlike with `max`, NaN stays NaN.
        let [q_factor, k_factor] = norms.map(|norm| 1.0 / if norm < LEAST { LEAST } else { norm });
        let cosine = product * q_factor * k_factor;
        let turns = norms.map(|norm| if norm <= LEAST { 0.0 } else { cosine });
        if let Some(dq) = dq {
            write::<V>([q, k], [q_factor, k_factor], turns[0], dcosine, dq);
        }
        if let Some(dk) = dk {
            write::<V>([k, q], [k_factor, q_factor], turns[1], dcosine, dk);
        }
    }
}

/// Writes the gradient by the first one of two vectors, whose inverse lengths are `factors`.
#[inline(always)]
fn write<V: Vector>([a, b]: [&[f32]; 2], factors: [f32; 2], turn: f32, dcosine: f32, da: &mut [f32]) {
    let dim = da.len();
    assert!(a.len() == dim && b.len() == dim);
    let (a_factor, b_factor) = (V::splat(factors[0]), V::splat(factors[1]));
    let (turn, factor) = (V::splat(turn), V::splat(dcosine * factors[0]));
    for at in (0..dim).step_by(V::LANES) {
        let lanes = V::LANES.min(dim - at);
        // SAFETY: all slices have `dim` values.
        unsafe {
            let a = V::load_first(a.as_ptr().add(at), lanes).mul(a_factor);
            let b = V::load_first(b.as_ptr().add(at), lanes).mul(b_factor);
            factor.mul(b.sub(turn.mul(a))).store_first(da.as_mut_ptr().add(at), lanes);
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

    /// A run, and dx as expected after it.
    fn case(p: &params::BoundaryGrad, change: impl Fn(&mut [f32])) -> (Run, Vec<f32>) {
        let mut x = noise(1, (p.rows as usize + 1) * 8 * p.dim4 as usize, 2.0);
        change(&mut x);
        let dcosine = noise(2, p.rows as usize, 2.0);
        let mut dx = vec![5.0; x.len()];
        let bindings = [&x, &dcosine, &dx].map(|values| words(values)).to_vec();
        cpu::boundary_grad(p, &x, &dcosine, &mut dx);
        (Run::new(KernelId::BoundaryGrad, p, bindings, [p.rows + 1, 1, 1]), dx)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, dim4) in cases([(1, 1), (3, 2), (0, 3), (5, 3), (2, 4), (9, 5), (40, 33), (20, 256)]) {
            let p = params::BoundaryGrad { rows, dim4 };
            // The first pair of several is parallel.
            let dim = 4 * dim4 as usize;
            let (run, expected) = case(&p, |x| {
                if rows > 1 {
                    x.copy_within(..dim, 3 * dim)
                }
            });
            run.all(|found| assert_close(found.f32(2), &expected, 2e-6));
        }
    }

    #[test]
    fn norms_are_clamped() {
        for first in [0, 24] {
            let (run, expected) = case(&params::BoundaryGrad { rows: 1, dim4: 2 }, |x| x[first..first + 8].fill(0.0));
            run.all(|found| {
                assert_close(found.f32(2), &expected, 1e-6);
                // The gradient of the other vector is small compared to that of the one with the clamped norm.
                let other = 24 - first;
                assert_close(&found.f32(2)[other..other + 8], &expected[other..other + 8], 1e-6);
            });
        }
    }

    #[test]
    fn halted_bytes_are_skipped() {
        let (mut run, expected) = case(&params::BoundaryGrad { rows: 3, dim4: 2 }, |_| {});
        for halted in cases([0, 1, 3]) {
            let mut guard = vec![0; 4 * 64];
            guard[64 * halted] = 1;
            run.guard = Some(guard);
            run.all(|found| {
                let mut expected = expected.clone();
                expected[halted * 16..][..16].fill(5.0);
                assert_close(found.f32(2), &expected, 2e-6);
            });
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn nan_stays_nan() {
        let (run, _) = case(&params::BoundaryGrad { rows: 2, dim4: 3 }, |x| x[13 + 24] = f32::NAN);
        // k of the second byte, the partner of q of the first byte.
        run.all(|found| {
            for (i, v) in found.f32(2).iter().enumerate() {
                assert!(v.is_nan() == ((0..12).contains(&i) || (36..48).contains(&i)), "{i}: {v}");
            }
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::BoundaryGrad { rows: 3, dim4: 2 };
        assert_eq!(case(&p, |_| {}).0.fault(), None);
        for binding in 0..3 {
            let (mut short, _) = case(&p, |_| {});
            short.bindings[binding].pop();
            assert!(short.fault().is_some(), "binding {binding}");
        }
        for (rows, dim4) in [(4, 2), (3, 3), (u32::MAX, 2), (3, u32::MAX), (u32::MAX, u32::MAX)] {
            let wrong = params::BoundaryGrad { rows, dim4 };
            let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, |_| {}).0 };
            assert!(run.fault().is_some(), "{wrong:?}");
        }
    }
}
