use super::call::Call;
use super::extent::{apart, product, rows_end};
use super::instruction_set::Task;
use super::memory::Fault;
use super::mlstm_norm::squared_differences;
use super::vector::Vector;
use crate::params;

/// Multiply-adds that take as long as one value.
const COST: usize = 24;

/// Gradient of normalizer, head norm and output gate of the mLSTM; see the
/// [CPU reference](crate::cpu::mlstm_norm_grad).
pub(super) fn mlstm_norm_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmNormGrad = call.params()?;
    let [rows, heads, dv, stride, o_offset] = [p.rows, p.heads, p.dv, p.x_stride, p.o_offset].map(|n| n as usize);
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    let columns = dv.saturating_add(1);
    let width = product([heads, dv]);
    let y = call.read(0, product([rows, heads, columns]))?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let x = call.read(2, rows_end(rows, stride, o_offset, width))?;
    let scale = call.read(3, width)?;
    let dout = call.read(4, product([rows, width]))?;
    let dy = call.write(5, product([rows, heads, columns]))?;
    let dx = call.write(6, rows_end(rows, stride, o_offset, width))?;
    let dscale = call.write(7, product([rows, width]))?;
    if !apart(rows, stride, [[o_offset, width]]) {
        return Err(Fault::new("mlstm_norm_grad: rows of dx overlap"));
    }
    call.each(rows * heads, product([rows, width, COST]), |task| {
        let (t, head) = (task / heads, task % heads);
        let sums = task * columns..(task + 1) * columns;
        let values = task * dv..(task + 1) * dv;
        let o0 = t * stride + o_offset + head * dv;
        // SAFETY: every task has a row and head of its own, and rows don't overlap.
        let (dy, dx, dscale) = unsafe { (dy.slice(sums.clone()), dx.slice(o0..o0 + dv), dscale.slice(values.clone())) };
        call.instructions.run(Head {
            y: &y[sums],
            m: gates[4 * task + 2],
            o: &x[o0..o0 + dv],
            scale: &scale[head * dv..(head + 1) * dv],
            dout: &dout[values],
            eps: p.eps,
            dy,
            dx,
            dscale,
        });
    });
    Ok(())
}

/// A head of a row.
struct Head<'a> {
    /// `[dv + 1]`
    y: &'a [f32],
    /// The stabilizer.
    m: f32,
    /// Pre-activation of the output gate, `[dv]`
    o: &'a [f32],
    /// `[dv]`
    scale: &'a [f32],
    /// `[dv]`
    dout: &'a [f32],
    eps: f32,
    /// `[dv + 1]`
    dy: &'a mut [f32],
    /// `[dv]`
    dx: &'a mut [f32],
    /// `[dv]`
    dscale: &'a mut [f32],
}

impl Task for Head<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { y, m, o, scale, dout, eps, dy, dx, dscale } = self;
        let dv = o.len();
        assert!(y.len() == dv + 1 && dy.len() == dv + 1);
        assert!([scale.len(), dout.len(), dx.len(), dscale.len()] == [dv; 4]);
        let (product, least) = (f64::from(y[dv]), (-f64::from(m)).exp());
        // Unlike with `max`, NaN stays NaN.
        let outweighs = product.abs() > least;
        let normalizer = if outweighs || product.is_nan() { product.abs() } else { least } + 1e-6;

        // `dscale` holds h until it is overwritten.
        let factor = V::splat((1.0 / normalizer) as f32);
        let (mut sum, mut probe) = (V::splat(0.0), V::splat(0.0));
        for at in (0..dv).step_by(V::LANES) {
            let lanes = V::LANES.min(dv - at);
            // SAFETY: all slices have at least `dv` values.
            unsafe {
                let h = V::load_first(y.as_ptr().add(at), lanes).mul(factor);
                h.store_first(dscale.as_mut_ptr().add(at), lanes);
                sum = sum.add(h);
                probe = V::load_first(o.as_ptr().add(at), lanes).mul_add(V::splat(0.0), probe);
            }
        }
        let mean = sum.sum() / dv as f32;
        let root = 1.0 / (squared_differences::<V>(dscale, mean) / dv as f32 + eps).sqrt();

        // `dy` holds the gradient by z, the normed values, until its sums are known.
        let (means, roots) = (V::splat(mean), V::splat(root));
        let (mut sum, mut dot) = (V::splat(0.0), V::splat(0.0));
        for at in (0..dv).step_by(V::LANES) {
            let lanes = V::LANES.min(dv - at);
            // SAFETY: as above.
            unsafe {
                let [gate, rest] = V::load_first(o.as_ptr().add(at), lanes).sigmoids();
                let z = V::load_first(dscale.as_ptr().add(at), lanes).sub(means).mul(roots);
                let wanted = V::load_first(dout.as_ptr().add(at), lanes).mul(gate);
                let z_grad = wanted.mul(V::load_first(scale.as_ptr().add(at), lanes));
                let product = z_grad.mul(z);
                wanted.mul(z).store_first(dscale.as_mut_ptr().add(at), lanes);
                product.mul(rest).store_first(dx.as_mut_ptr().add(at), lanes);
                z_grad.store_first(dy.as_mut_ptr().add(at), lanes);
                // Lanes past the end have a gradient of 0.
                (sum, dot) = (sum.add(z_grad), dot.add(product));
            }
        }
        let [mut sum, mut dot] = [sum.sum(), dot.sum()];
        // Vectors turn NaN into some other exponential.
        if probe.sum().is_nan() && o.iter().any(|o| o.is_nan()) {
            (sum, dot) = (f32::NAN, f32::NAN);
            for ((dx, dscale), _) in dx.iter_mut().zip(dscale).zip(o).filter(|(_, o)| o.is_nan()) {
                (*dx, *dscale) = (f32::NAN, f32::NAN);
            }
        }

        let [sums, dots] = [sum, dot].map(|sum| V::splat(sum / dv as f32));
        let outer = V::splat((f64::from(root) / normalizer) as f32);
        for at in (0..dv).step_by(V::LANES) {
            let lanes = V::LANES.min(dv - at);
            // SAFETY: as above.
            unsafe {
                let z = V::load_first(y.as_ptr().add(at), lanes).mul(factor).sub(means).mul(roots);
                let z_grad = V::load_first(dy.as_ptr().add(at), lanes);
                z_grad.sub(sums).sub(z.mul(dots)).mul(outer).store_first(dy.as_mut_ptr().add(at), lanes);
            }
        }
        // Σ dh h, which would cancel, equals eps r² Σ z_grad z.
        let root = f64::from(root);
        let shrinks = -f64::from(eps) * root * root * f64::from(dot) / normalizer * product.signum();
        dy[dv] = if outweighs || normalizer.is_nan() { shrinks as f32 } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    fn block(rows: u32, heads: u32, dv: u32) -> params::MlstmNormGrad {
        params::MlstmNormGrad { rows, heads, dv, x_stride: heads * dv + 5, o_offset: 3, eps: 1e-6 }
    }

    /// A run with bindings that are just large enough, and dy, dx and dscale as expected after it. `change` may change
    /// y, gates and x.
    fn case(p: &params::MlstmNormGrad, change: impl Fn([&mut [f32]; 3])) -> (Run, [Vec<f32>; 3]) {
        let [rows, heads, dv] = [p.rows, p.heads, p.dv].map(|n| n as usize);
        let width = heads * dv;
        let mut y = noise(1, rows * heads * (dv + 1), 3.0);
        let mut gates = noise(2, 4 * rows * heads, 1.0);
        let mut x = noise(3, (rows - 1) * p.x_stride as usize + 3 + width, 6.0);
        change([&mut y, &mut gates, &mut x]);
        let (scale, dout) = (noise(4, width, 1.0), noise(5, rows * width, 1.0));
        let mut after = [vec![7.0; y.len()], vec![7.0; x.len()], vec![7.0; rows * width]];
        let bindings = [&y, &gates, &x, &scale, &dout, &after[0], &after[1], &after[2]].map(|values| words(values));
        let inputs = cpu::MlstmNormGradInputs { y: &y, gates: &gates, x: &x, scale: &scale, dout: &dout };
        let [dy, dx, dscale] = &mut after;
        cpu::mlstm_norm_grad(p, inputs, dy, dx, dscale);
        (Run::new(KernelId::MlstmNormGrad, p, bindings.to_vec(), [p.heads, p.rows, 1]), after)
    }

    #[test]
    fn matches_the_reference() {
        let widths = [15, 16, 17, 33].map(|dv| (2, 3, dv));
        let more = [(4, 4, 128), (2, 3, 131), (9, 8, 256)];
        for (rows, heads, dv) in cases([(1, 1, 3), (3, 2, 5)].into_iter().chain(widths).chain(more)) {
            for eps in cases([1e-6, 0.3]) {
                let p = params::MlstmNormGrad { eps, ..block(rows, heads, dv) };
                let (run, expected) = case(&p, |_| {});
                // The last column is small compared to the others.
                let last =
                    |dy: &[f32]| dy.iter().skip(dv as usize).step_by(dv as usize + 1).copied().collect::<Vec<_>>();
                run.all(|found| {
                    (5..8).zip(&expected).for_each(|(i, expected)| assert_close(found.f32(i), expected, 4e-6));
                    assert_close(&last(found.f32(5)), &last(&expected[0]), 2e-5);
                });
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn heads_without_values_have_no_gradients() {
        case(&block(2, 1, 0), |_| {}).0.all(|found| assert_eq!(found.f32(6), [7.0; 8]));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn nan_stays_nan() {
        let [row, sums] = [2 * 19 + 5, 2 * 20];
        let (run, expected) = case(&block(6, 2, 19), |[y, gates, x]| {
            // Two output gates, a sum, q · n and a stabilizer, each in another row.
            (x[3], x[row + 3 + 37]) = (f32::NAN, f32::NAN);
            (y[2 * sums], y[3 * sums + 19], gates[4 * 8 + 2]) = (f32::NAN, f32::NAN, f32::NAN);
            (x[5 * row + 3], x[5 * row + 4]) = (f32::INFINITY, f32::NEG_INFINITY);
        });
        run.all(|found| {
            for ((binding, expected), width) in (5..8).zip(&expected).zip([sums, row, 2 * 19]) {
                for (i, (&found, &expected)) in found.f32(binding).iter().zip(expected).enumerate() {
                    // The reference takes the larger number where q · n or the stabilizer is NaN.
                    let may_differ = (3..5).contains(&(i / width));
                    assert!(may_differ || found.is_nan() == expected.is_nan(), "{binding}, {i}: {found} {expected}");
                }
            }
            assert!(found.f32(5)[3 * 40..3 * 40 + 20].iter().all(|v| v.is_nan()));
            assert!(found.f32(7)[4 * 38..4 * 38 + 19].iter().all(|v| v.is_nan()));
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = block(3, 2, 4);
        assert_eq!(case(&p, |_| {}).0.fault(), None);
        for binding in 0..8 {
            let (mut short, _) = case(&p, |_| {});
            short.bindings[binding].pop();
            assert!(short.fault().is_some(), "binding {binding}");
        }
        let max = u32::MAX;
        for wrong in [
            params::MlstmNormGrad { x_stride: 7, ..p },
            params::MlstmNormGrad { rows: max, ..p },
            params::MlstmNormGrad { heads: max, ..p },
            params::MlstmNormGrad { dv: max, ..p },
            params::MlstmNormGrad { x_stride: max, ..p },
            params::MlstmNormGrad { o_offset: max, ..p },
            params::MlstmNormGrad { rows: max, heads: max, dv: max, x_stride: max, o_offset: max, ..p },
        ] {
            let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, |_| {}).0 };
            assert!(run.fault().is_some(), "{wrong:?}");
        }
    }
}
