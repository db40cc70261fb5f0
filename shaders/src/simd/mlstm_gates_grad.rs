use super::call::Call;
use super::extent::{apart, product, rows_end};
use super::memory::Fault;
use crate::params;

/// Multiply-adds that take as long as a row and head: three exponentials in f64.
const COST: usize = 200;

/// Gradient of the mLSTM gates, last row first; see the [CPU reference](crate::cpu::mlstm_gates_grad).
///
/// Like the reference it computes in f64: there are few values, and the terms of the running sums cancel.
pub(super) fn mlstm_gates_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmGatesGrad = call.params()?;
    let [rows, heads, stride, period] = [p.rows, p.heads, p.stride, p.period].map(|n| n as usize);
    let [i_offset, f_offset] = [p.i_offset, p.f_offset].map(|n| n as usize);
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    if period == 0 {
        return Err(Fault::new("mlstm_gates_grad: sequences need at least one row"));
    }
    let end = rows_end(rows, stride, i_offset.max(f_offset), heads);
    let x = call.read(0, end)?;
    let dots = call.read(1, product([rows, heads, 2]))?;
    let dx = call.write(2, end)?;
    if !apart(rows, stride, [[i_offset, heads], [f_offset, heads]]) {
        return Err(Fault::new("mlstm_gates_grad: the gates of dx overlap"));
    }
    call.each(product([rows.div_ceil(period), heads]), product([rows, heads, COST]), |task| {
        let (first, head) = (task / heads * period, task % heads);
        let mut sum = 0.0;
        for t in (first..first.saturating_add(period).min(rows)).rev() {
            let at = 2 * (t * heads + head);
            let [query, key] = [dots[at], dots[at + 1]].map(f64::from);
            sum += query - key;
            let [i, f] = [i_offset, f_offset].map(|offset| t * stride + offset + head);
            // SAFETY: every task has a sequence and head of its own, and gates and rows don't overlap.
            let (d_i, d_f) = unsafe { (&mut dx.slice(i..i + 1)[0], &mut dx.slice(f..f + 1)[0]) };
            let [(_, i_slope), (capped, f_slope)] = [x[i], x[f]].map(|x| soft_cap(p.cap, x));
            *d_i = (key * i_slope) as f32;
            *d_f = (sum / (1.0 + capped.exp()) * f_slope) as f32;
        }
    });
    Ok(())
}

/// `cap tanh(x / cap)` and its derivative, or x and 1 if the cap is 0.
fn soft_cap(cap: f32, x: f32) -> (f64, f64) {
    let (cap, x) = (f64::from(cap), f64::from(x));
    if cap == 0.0 {
        return (x, 1.0);
    }
    let x = x / cap;
    // tanh |x| is (1 - t) / (1 + t), and 1 - tanh² is 4 t / (1 + t)², which doesn't cancel.
    let t = (-2.0 * x.abs()).exp();
    let rest = 1.0 / (1.0 + t);
    (cap * x.signum() * (1.0 - t) * rest, 4.0 * t * rest * rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    fn block(rows: u32, heads: u32, period: u32, cap: f32) -> params::MlstmGatesGrad {
        params::MlstmGatesGrad { rows, heads, stride: 2 * heads + 4, i_offset: 1, f_offset: heads + 3, cap, period }
    }

    /// A run with bindings that are just large enough, and dx as expected after it.
    fn case(p: &params::MlstmGatesGrad, size: f32, change: impl Fn(&mut [f32], &mut [f32])) -> (Run, Vec<f32>) {
        let count = ((p.rows - 1) * p.stride + p.i_offset.max(p.f_offset) + p.heads) as usize;
        let (mut x, mut dots) = (noise(1, count, size), noise(2, (2 * p.rows * p.heads) as usize, 1.0));
        change(&mut x, &mut dots);
        let mut dx = vec![7.0; count];
        let bindings = [&x, &dots, &dx].map(|values| words(values)).to_vec();
        cpu::mlstm_gates_grad(p, &x, &dots, &mut dx);
        (Run::new(KernelId::MlstmGatesGrad, p, bindings, [p.heads, p.rows.div_ceil(p.period), 1]), dx)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, heads, period) in
            cases([(1, 1, 1), (9, 2, 9), (200, 4, 200), (300, 3, 128), (7, 2, 100), (20, 8, 6), (5, 17, 1)])
        {
            for (cap, size) in cases([(15.0, 8.0), (0.0, 8.0), (15.0, 0.01), (4.0, 60.0), (0.0, 60.0)]) {
                let (run, expected) = case(&block(rows, heads, period, cap), size, |_, _| {});
                run.all(|found| {
                    for (i, (&found, &expected)) in found.f32(2).iter().zip(&expected).enumerate() {
                        let error = (found - expected).abs();
                        assert!(error <= 2e-7 * expected.abs() + 1e-14, "{i}: {found}, expected {expected}");
                    }
                });
            }
        }
    }

    /// Terms of a running sum that cancel don't cost accuracy.
    #[test]
    fn large_terms_cancel() {
        let p = block(9, 1, 9, 15.0);
        let (run, expected) = case(&p, 1.0, |_, dots| dots[10] += 1e6);
        let (_, plain) = case(&p, 1.0, |_, dots| (dots[10], dots[11]) = (1e6, 1e6));
        assert_ne!(expected, plain);
        run.all(|found| assert_eq!(found.f32(2), expected));
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn nan_stays_nan() {
        for cap in [0.0, 15.0] {
            let (run, expected) = case(&block(5, 2, 3, cap), 8.0, |x, dots| {
                // An input gate, a forget gate, and a product.
                (x[1], x[8 + 6], dots[2 * 7]) = (f32::NAN, f32::NAN, f32::NAN);
                (x[3 * 8 + 1], x[3 * 8 + 6]) = (f32::INFINITY, f32::NEG_INFINITY);
            });
            run.all(|found| {
                for (i, (found, expected)) in found.f32(2).iter().zip(&expected).enumerate() {
                    assert_eq!(found.is_finite(), expected.is_finite(), "{i}: {found} {expected}");
                }
            });
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = block(5, 3, 2, 15.0);
        let fault = |p: &params::MlstmGatesGrad, wrong: &params::MlstmGatesGrad| {
            Run { params: bytemuck::bytes_of(wrong).to_vec(), ..case(p, 1.0, |_, _| {}).0 }.fault()
        };
        assert_eq!(fault(&p, &p), None);
        assert_eq!(fault(&p, &params::MlstmGatesGrad { period: u32::MAX, ..p }), None);
        for binding in 0..3 {
            let (mut short, _) = case(&p, 1.0, |_, _| {});
            short.bindings[binding].pop();
            assert!(short.fault().is_some(), "binding {binding}");
        }
        let max = u32::MAX;
        for wrong in [
            params::MlstmGatesGrad { period: 0, ..p },
            params::MlstmGatesGrad { f_offset: 2, ..p },
            params::MlstmGatesGrad { stride: 6, ..p },
            params::MlstmGatesGrad { rows: max, ..p },
            params::MlstmGatesGrad { heads: max, ..p },
            params::MlstmGatesGrad { stride: max, ..p },
            params::MlstmGatesGrad { i_offset: max, ..p },
            params::MlstmGatesGrad { f_offset: max, ..p },
            params::MlstmGatesGrad { rows: max, heads: max, stride: max, i_offset: max, f_offset: max, ..p },
        ] {
            assert!(fault(&p, &wrong).is_some(), "{wrong:?}");
        }
    }
}
