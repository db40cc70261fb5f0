use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::size;
use super::softmax::{BLOCK, Exp, all_finite, each_row, load_rest};
use super::vector::Vector;
use crate::params;

/// The entropy of the softmax of each row of logits; see the [CPU reference](crate::cpu::entropy).
pub(super) fn entropy(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Entropy = call.params()?;
    let [rows, n] = [p.rows, p.n].map(size);
    let logits = call.read(0, product([rows, n]))?;
    let logs = call.read(1, product([rows, 4]))?;
    let out = call.write(2, rows)?;
    each_row(call, rows, n, |row| {
        // SAFETY: every row belongs to one task.
        let out = unsafe { &mut out.slice(row..row + 1)[0] };
        let (max, log_sum) = (logs[4 * row], logs[4 * row + 1]);
        call.instructions.run(Row { logits: &logits[row * n..(row + 1) * n], max, log_sum, out });
    });
    Ok(())
}

/// One row.
struct Row<'a> {
    logits: &'a [f32],
    max: f32,
    log_sum: f32,
    out: &'a mut f32,
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { logits, max, log_sum, out } = self;
        // With d = logit - max, the entropy is log sum exp(d) - sum exp(d) d / sum exp(d).
        let mut sum = 0.0;
        for block in logits.chunks(BLOCK) {
            // Vectors turn NaN into some other exponential.
            sum += if max.is_finite() && all_finite(block) { block_sum::<V>(block, max) } else { sum_any(block, max) };
        }
        let log_sum = f64::from(log_sum);
        *out = (log_sum - sum * (-log_sum).exp()) as f32;
    }
}

/// The sum of `exp(d) d` over finite logits.
#[inline(always)]
fn block_sum<V: Vector>(block: &[f32], max: f32) -> f64 {
    let (exp, mut sum) = (Exp::<V>::new(), V::splat(0.0));
    let vectors = block.chunks_exact(V::LANES);
    if !vectors.remainder().is_empty() {
        sum = add_product(sum, load_rest::<V>(vectors.remainder()), max, exp);
    }
    for logits in vectors {
        // SAFETY: the slice has that many values.
        sum = add_product(sum, unsafe { V::load(logits.as_ptr()) }, max, exp);
    }
    sum.sum().into()
}

#[inline(always)]
fn add_product<V: Vector>(sum: V, logits: V, max: f32, exp: Exp<V>) -> V {
    // The exponential is 0 below this bound; with it, d isn't infinite.
    let d = logits.sub(V::splat(max)).max(V::splat(-100.0));
    exp.of(d).mul_add(d, sum)
}

/// As [`block_sum`], also where logits or the maximum are infinite or NaN.
fn sum_any(block: &[f32], max: f32) -> f64 {
    let of = |&logit: &f32| {
        let d = f64::from(logit) - f64::from(max);
        if d < -700.0 { 0.0 } else { d.exp() * d }
    };
    block.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    fn inputs(rows: u32, n: u32, width: f32, change: impl Fn(&mut [f32])) -> (Run, Vec<f32>, Vec<f32>) {
        let mut logits = noise(u64::from(n), (rows * n) as usize, width);
        change(&mut logits);
        let mut logs = vec![0.0; 4 * rows as usize];
        let forward = params::LogSoftmax { rows, n, stride: n, offset: 0 };
        cpu::log_softmax(&forward, &logits, &vec![0; rows as usize], &vec![0; n as usize], &mut logs);
        let mut expected = vec![-5.0; rows as usize];
        let p = params::Entropy { rows, n };
        let bindings = vec![words(&logits), words(&logs), words(&expected)];
        cpu::entropy(&p, &logits, &logs, &mut expected);
        (Run::new(KernelId::Entropy, &p, bindings, [rows, 1, 1]), expected, logs)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, n, width) in cases([
            (3, 17, 4.0),
            (2, 1, 1.0),
            (4, 15, 30.0),
            (20, 16, 0.1),
            (33, 65, 1e3),
            (9, 520, 4.0),
            (5, 520, 1e30),
            (2, 1025, 3e38),
            (3, 20_000, 12.0),
        ]) {
            // The maximum of the first row is far above the others.
            let (run, expected, logs) = inputs(rows, n, width, |logits| logits[n as usize / 2] = width + 25.0);
            run.all(|found| {
                for (row, (&found, &expected)) in found.f32(2).iter().zip(&expected).enumerate() {
                    let tolerance = 5e-6 * (expected.abs() + logs[4 * row + 1]) + 1e-35;
                    assert!((found - expected).abs() <= tolerance, "{row}: {found} {expected}, {n} of {width}");
                }
            });
        }
    }

    #[test]
    fn halted_rows_are_skipped() {
        let (mut run, expected, _) = inputs(3, 20, 4.0, |_| {});
        let mut guard = vec![0; 129];
        guard[64] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            let found = found.f32(2);
            assert!((found[0] - expected[0]).abs() < 1e-5 && (found[2] - expected[2]).abs() < 1e-5);
            assert_eq!(found[1], -5.0);
        });
    }

    #[test]
    fn infinity_and_nan_are_not_hidden() {
        for faulty in cases([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            let (run, expected, _) = inputs(2, 40, 4.0, |logits| logits[63] = faulty);
            run.all(|found| {
                let found = found.f32(2);
                assert!((found[0] - expected[0]).abs() < 1e-5);
                assert!((found[1] - expected[1]).abs() < 1e-5 || (found[1].is_nan() && expected[1].is_nan()));
                assert!(found[1].is_nan() || faulty < 0.0);
            });
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        for (binding, words) in cases([(0, 60), (1, 12), (2, 3)]) {
            let (mut run, ..) = inputs(3, 20, 4.0, |_| {});
            assert!(run.fault().is_none());
            run.bindings[binding].truncate(words - 1);
            assert!(run.fault().is_some());
        }
        let (run, ..) = inputs(3, 20, 4.0, |_| {});
        for (rows, n, fits) in
            [(3, u32::MAX, false), (u32::MAX, 20, false), (u32::MAX, 0, false), (3, 0, true), (0, u32::MAX, true)]
        {
            let run = Run { params: bytemuck::bytes_of(&params::Entropy { rows, n }).to_vec(), ..run_of(&run) };
            assert_eq!(run.fault().is_none(), fits, "{rows} {n}");
        }
    }

    fn run_of(run: &Run) -> Run {
        Run::new(KernelId::Entropy, &params::Entropy { rows: 0, n: 0 }, run.bindings.clone(), run.grid)
    }
}
