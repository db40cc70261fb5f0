use super::call::Call;
use super::extent::{product, rows_end};
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// Multiply-adds that take as long as one value.
pub(super) const COST: usize = 12;

/// Normalizer, head norm and output gate of the mLSTM; see the [CPU reference](crate::cpu::mlstm_norm).
pub(super) fn mlstm_norm(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmNorm = call.params()?;
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
    let out = call.write(4, product([rows, width]))?;
    call.each(rows * heads, product([rows, width, COST]), |task| {
        let (t, head) = (task / heads, task % heads);
        if call.halted(t) {
            return;
        }
        let o0 = t * stride + o_offset + head * dv;
        // SAFETY: every task has a row and head of its own.
        let out = unsafe { out.slice(task * dv..(task + 1) * dv) };
        call.instructions.run(Head {
            y: &y[task * columns..(task + 1) * columns],
            m: gates[4 * task + 2],
            o: &x[o0..o0 + dv],
            scale: &scale[head * dv..(head + 1) * dv],
            eps: p.eps,
            out,
        });
    });
    Ok(())
}

/// A head of a row.
pub(super) struct Head<'a> {
    /// `[dv + 1]`
    pub(super) y: &'a [f32],
    /// The stabilizer.
    pub(super) m: f32,
    /// Pre-activation of the output gate, `[dv]`
    pub(super) o: &'a [f32],
    /// `[dv]`
    pub(super) scale: &'a [f32],
    pub(super) eps: f32,
    /// `[dv]`
    pub(super) out: &'a mut [f32],
}

impl Task for Head<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { y, m, o, scale, eps, out } = self;
        let dv = out.len();
        assert!(y.len() == dv + 1 && o.len() == dv && scale.len() == dv);
        let normalizer = f64::from(y[dv]).abs().max((-f64::from(m)).exp()) + 1e-6;
        let factor = V::splat((1.0 / normalizer) as f32);
        let (mut sum, mut probe) = (V::splat(0.0), V::splat(0.0));
        for at in (0..dv).step_by(V::LANES) {
            let count = V::LANES.min(dv - at);
            // SAFETY: all slices have at least `dv` values.
            unsafe {
                let h = V::load_first(y.as_ptr().add(at), count).mul(factor);
                h.store_first(out.as_mut_ptr().add(at), count);
                sum = sum.add(h);
                probe = V::load_first(o.as_ptr().add(at), count).mul_add(V::splat(0.0), probe);
            }
        }
        let mean = sum.sum() / dv as f32;
        let squares = squared_differences::<V>(out, mean);
        let (mean, root) = (V::splat(mean), V::splat(1.0 / (squares / dv as f32 + eps).sqrt()));
        for at in (0..dv).step_by(V::LANES) {
            let count = V::LANES.min(dv - at);
            // SAFETY: as above.
            unsafe {
                let gate = V::load_first(o.as_ptr().add(at), count).sigmoid();
                let scale = V::load_first(scale.as_ptr().add(at), count).mul(root);
                let h = V::load_first(out.as_ptr().add(at), count);
                gate.mul(h.sub(mean)).mul(scale).store_first(out.as_mut_ptr().add(at), count);
            }
        }
        // Vectors turn NaN into some other exponential.
        if probe.sum().is_nan() {
            out.iter_mut().zip(o).filter(|(_, o)| o.is_nan()).for_each(|(out, _)| *out = f32::NAN);
        }
    }
}

/// The sum of the squares of `h - mean`.
#[inline(always)]
pub(super) fn squared_differences<V: Vector>(h: &[f32], mean: f32) -> f32 {
    let (whole, rest) = h.split_at(h.len() - h.len() % V::LANES);
    let mut squares = V::splat(0.0);
    for h in whole.chunks_exact(V::LANES) {
        // SAFETY: the chunk has `LANES` values.
        let difference = unsafe { V::load(h.as_ptr()) }.sub(V::splat(mean));
        squares = difference.mul_add(difference, squares);
    }
    let mut squares = squares.sum();
    for h in rest {
        squares += (h - mean) * (h - mean);
    }
    squares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    fn run(rows: u32, heads: u32, dv: u32, change: impl Fn(&mut [f32])) -> (Run, Vec<f32>) {
        let x_stride = heads * dv + 5;
        let p = params::MlstmNorm { rows, heads, dv, x_stride, o_offset: 3, eps: 1e-6 };
        let y = noise(1, (rows * heads * (dv + 1)) as usize, 3.0);
        let gates = noise(2, (4 * rows * heads) as usize, 1.0);
        let mut x = noise(3, (rows * x_stride) as usize, 6.0);
        change(&mut x);
        let scale = noise(4, (heads * dv) as usize, 1.0);
        let mut out = vec![0.0; (rows * heads * dv) as usize];
        let bindings = vec![words(&y), words(&gates), words(&x), words(&scale), words(&out)];
        cpu::mlstm_norm(&p, &y, &gates, &x, &scale, &mut out);
        (Run::new(KernelId::MlstmNorm, &p, bindings, [heads, rows, 1]), out)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, heads, dv) in cases([(1, 1, 2), (3, 2, 5), (4, 4, 128), (2, 3, 131), (9, 8, 256), (2, 1, 0)]) {
            let (run, expected) = run(rows, heads, dv, |_| {});
            run.all(|found| assert_close(found.f32(4), &expected, 2e-6));
        }
    }

    #[test]
    fn guard_flags_skip_rows_and_nan_stays_nan() {
        let (mut run, expected) = run(3, 2, 20, |x| (x[4], x[5], x[6]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY));
        let mut flags = vec![0; 3 * 64];
        flags[64] = 1;
        run.guard = Some(flags);
        run.all(|found| {
            for (i, (&found, &expected)) in found.f32(4).iter().zip(&expected).enumerate() {
                let expected = if i / 40 == 1 { 0.0 } else { expected };
                assert!(found.is_nan() == expected.is_nan(), "{i}: {found} {expected}");
                assert!(expected.is_nan() || (found - expected).abs() < 1e-5, "{i}: {found} {expected}");
            }
        });
    }
}
