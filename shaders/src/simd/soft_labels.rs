use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::size;
use super::softmax::{BLOCK, Exp, all_finite, each_row};
use super::vector::Vector;
use crate::params;

/// The node of a row without a place.
const NOWHERE: u32 = u32::MAX;

/// The divergence of the softmax of logits from target probabilities, and its gradient by the logits; see the
/// [CPU reference](crate::cpu::soft_labels).
pub(super) fn soft_labels(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::SoftLabels = call.params()?;
    let [rows, n] = [p.rows, p.n].map(size);
    let logits = call.read(0, product([rows, n]))?;
    let logs = call.read(1, product([rows, 4]))?;
    let place = call.read_u32(2, product([rows, 2]))?;
    let target = call.write(3, product([rows, n]))?;
    let divergence = call.write(4, rows)?;
    each_row(call, rows, n, |row| {
        let own = row * n..(row + 1) * n;
        // SAFETY: every row belongs to one task.
        let (target, divergence) = unsafe { (target.slice(own.clone()), &mut divergence.slice(row..row + 1)[0]) };
        if place[2 * row + 1] == NOWHERE {
            target.fill(0.0);
            *divergence = 0.0;
            return;
        }
        let (max, log_sum) = (logs[4 * row], logs[4 * row + 1]);
        call.instructions.run(Row { logits: &logits[own], max, log_sum, scale: p.scale, target, divergence });
    });
    Ok(())
}

/// One row.
struct Row<'a> {
    /// `[n]`
    logits: &'a [f32],
    max: f32,
    log_sum: f32,
    scale: f32,
    /// `[n]`
    target: &'a mut [f32],
    divergence: &'a mut f32,
}

impl Row<'_> {
    /// Writes the gradients of a block of finite values, and returns its part of the divergence.
    #[inline(always)]
    fn block<V: Vector>(&mut self, first: usize, end: usize) -> f64 {
        let mut logs = [0.0; BLOCK];
        ln(&self.target[first..end], &mut logs);
        let [max, log_sum, scale] = [self.max, self.log_sum, self.scale].map(V::splat);
        let (exp, mut sum) = (Exp::<V>::new(), V::splat(0.0));
        for at in (first..end).step_by(V::LANES) {
            let count = V::LANES.min(end - at);
            // SAFETY: logits and targets have values up to `end`, the logarithms as many as there are from `first` on.
            unsafe {
                let logit = V::load_first(self.logits.as_ptr().add(at), count);
                let target = self.target.as_mut_ptr().add(at);
                let t = V::load_first(target, count);
                // Never infinite, so that a target of 0 makes the product 0.
                let l = logit.sub(max).sub(log_sum).max(V::splat(f32::MIN));
                let log_t = V::load_first(logs.as_ptr().add(at - first), count);
                sum = log_t.sub(l).mul_add(t.max(V::splat(0.0)), sum);
                exp.of(l).sub(t).mul(scale).store_first(target, count);
            }
        }
        sum.sum().into()
    }

    /// As [`Self::block`], also where values are infinite or NaN.
    fn block_of_any(&mut self, first: usize, end: usize) -> f64 {
        let mut sum = 0.0;
        for (target, &logit) in self.target[first..end].iter_mut().zip(&self.logits[first..end]) {
            let (t, l) = (f64::from(*target), f64::from(logit) - f64::from(self.max) - f64::from(self.log_sum));
            if t > 0.0 {
                sum += t * (t.ln() - l);
            }
            *target = (f64::from(self.scale) * (l.exp() - t)) as f32;
        }
        sum
    }
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let n = self.target.len();
        assert_eq!(self.logits.len(), n);
        let logs_are_finite = all_finite(&[self.max, self.log_sum]);
        let mut sum = 0.0;
        for first in (0..n).step_by(BLOCK) {
            let end = (first + BLOCK).min(n);
            let finite = all_finite(&self.logits[first..end]) && all_finite(&self.target[first..end]);
            // Vectors turn NaN into some other exponential.
            sum += if logs_are_finite && finite { self.block::<V>(first, end) } else { self.block_of_any(first, end) };
        }
        *self.divergence = sum as f32;
    }
}

/// Natural logarithms of finite numbers. Those of 0, of negative and of subnormal numbers are some finite number. It is
/// a plain loop, because vectors have no operations on bits; the compiler turns it into vectors.
#[inline(always)]
fn ln(of: &[f32], to: &mut [f32; BLOCK]) {
    for (to, &x) in to.iter_mut().zip(of) {
        let bits = (x.to_bits() & 0x7fff_ffff) as i32;
        // x = 2^n m with m from the root of 1/2 to that of 2.
        let n = bits.wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32) >> 23;
        let m = f32::from_bits(bits.wrapping_sub(n << 23) as u32);
        // log m = 2 atanh s
        let s = (m - 1.0) / (m + 1.0);
        let z = s * s;
        let atanh = s * z * (0.666_666_7 + z * (0.4 + z * (0.285_714_3 + z * 0.222_222_22)));
        let n = n as f32;
        // ln 2 in two parts; n times the first part is exact.
        *to = n * 0.693_359_4 + (2.0 * s + (atanh - n * 2.121_944_4e-4));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    #[test]
    fn logarithms_are_accurate() {
        let mut x: Vec<f32> =
            noise(1, BLOCK - 8, 1.0).iter().enumerate().map(|(i, v)| v.abs().powi(i as i32 % 16)).collect();
        x.extend([1.0, 1.0 - 6e-8, 0.999, 1.001, f32::MIN_POSITIVE, std::f32::consts::FRAC_1_SQRT_2, 0.7072, 1e-30]);
        let mut found = [0.0; BLOCK];
        ln(&x, &mut found);
        for (&x, found) in x.iter().zip(found) {
            let expected = f64::from(x).ln();
            assert!((f64::from(found) - expected).abs() <= 2e-7 * expected.abs(), "log({x}) = {found}");
        }
        ln(&[0.0, 1e-45, -1.0, -0.0, f32::MAX], &mut found);
        assert!(found[..5].iter().all(|v| v.is_finite()));
    }

    struct Case {
        p: params::SoftLabels,
        logits: Vec<f32>,
        logs: Vec<f32>,
        place: Vec<u32>,
        target: Vec<f32>,
    }

    impl Case {
        fn new(rows: u32, n: u32, width: f32) -> Self {
            let count = (rows * n) as usize;
            let logits = noise(u64::from(n) + 2, count, width);
            let mut logs = vec![0.0; 4 * rows as usize];
            let forward = params::LogSoftmax { rows, n, stride: n, offset: 0 };
            cpu::log_softmax(&forward, &logits, &vec![0; rows as usize], &vec![0; n as usize], &mut logs);
            let mut target: Vec<f32> = noise(5, count, 1.0).iter().map(|v| v.max(0.0)).collect();
            for target in target.chunks_mut(n as usize) {
                target[n as usize / 3] += 0.5;
                let sum: f32 = target.iter().sum();
                target.iter_mut().for_each(|t| *t /= sum);
            }
            let place = (0..rows).flat_map(|row| [row, if row % 3 == 1 { NOWHERE } else { row }]).collect();
            Self { p: params::SoftLabels { rows, n, scale: 0.5 }, logits, logs, place, target }
        }

        fn run(&self) -> Run {
            let Self { p, logits, logs, place, target } = self;
            let divergence = vec![9f32; p.rows as usize];
            let bindings = vec![words(logits), words(logs), place.clone(), words(target), words(&divergence)];
            Run::new(KernelId::SoftLabels, p, bindings, [p.rows, 1, 1])
        }

        fn check(&self) {
            let (mut gradient, mut divergence) = (self.target.clone(), vec![9.0; self.p.rows as usize]);
            cpu::soft_labels(&self.p, &self.logits, &self.logs, &self.place, &mut gradient, &mut divergence);
            let n = self.p.n as usize;
            let close = |found: f32, expected: f32, tolerance: f32| {
                found == expected || (found - expected).abs() <= tolerance || (found.is_nan() && expected.is_nan())
            };
            self.run().all(|found| {
                for (i, (&found, &expected)) in found.f32(3).iter().zip(&gradient).enumerate() {
                    let depth = (self.logits[i] - self.logs[i / n * 4]).abs().min(90.0);
                    let share = 2.0 * expected.abs() + self.target[i];
                    let tolerance = share * (5e-7 + 1.2e-7 * depth) + 1e-35;
                    assert!(close(found, expected, tolerance), "{i}: {found} {expected}, {:?}", self.p);
                }
                for (row, (&found, &expected)) in found.f32(4).iter().zip(&divergence).enumerate() {
                    let parts = (row * n..(row + 1) * n).filter(|&i| self.target[i] > 0.0).map(|i| {
                        self.target[i] * (self.target[i].ln().abs() + 3.0 * (self.logits[i] - self.logs[4 * row]).abs())
                    });
                    let tolerance = 1e-6 * (parts.sum::<f32>() + self.logs[4 * row + 1]) + 1e-7;
                    assert!(close(found, expected, tolerance), "{row}: {found} {expected}, {:?}", self.p);
                }
            });
        }
    }

    #[test]
    fn matches_the_reference() {
        for (rows, n, width) in cases([
            (3, 17, 4.0),
            (2, 1, 1.0),
            (5, 15, 30.0),
            (20, 16, 1e-3),
            (33, 65, 1e3),
            (9, 520, 4.0),
            (5, 520, 1e30),
            (3, 1025, 8.0),
            (3, 5000, 12.0),
        ]) {
            Case::new(rows, n, width).check();
        }
    }

    #[test]
    fn divergence_of_the_softmax_from_itself_is_zero() {
        let mut case = Case::new(1, 520, 4.0);
        let [max, log_sum] = [0, 1].map(|i| f64::from(case.logs[i]));
        case.target = case.logits.iter().map(|&logit| (f64::from(logit) - max - log_sum).exp() as f32).collect();
        case.run().all(|found| {
            assert!(found.f32(4)[0].abs() < 1e-6);
            assert!(found.f32(3).iter().zip(&case.target).all(|(v, t)| v.abs() < 1e-6 * t));
        });
    }

    #[test]
    fn halted_rows_are_skipped() {
        let case = Case::new(4, 20, 4.0);
        let mut run = case.run();
        // The last flag is that of the last row too.
        let mut guard = vec![0; 129];
        guard[128] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            assert_eq!(found.f32(3)[40..], case.target[40..]);
            assert_eq!(found.f32(4)[1..], [0.0, 9.0, 9.0]);
            assert!(found.f32(4)[0] != 9.0 && found.f32(3)[20..40] == [0.0; 20]);
        });
    }

    #[test]
    fn infinity_and_nan_are_not_hidden() {
        for faulty in cases([f32::NAN, f32::INFINITY, f32::NEG_INFINITY]) {
            for what in 0..4 {
                let mut case = Case::new(3, 1100, 4.0);
                match what {
                    0 => case.logits[37] = faulty,
                    1 => case.target[1050] = faulty,
                    2 => case.logs[0] = faulty,
                    _ => case.logs[1] = faulty,
                }
                case.check();
            }
        }
        let mut case = Case::new(1, 20, 4.0);
        case.p.scale = f32::NAN;
        case.run().all(|found| assert!(found.f32(3).iter().all(|v| v.is_nan())));
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let case = Case::new(3, 20, 4.0);
        for (binding, words) in cases([(0, 60), (1, 12), (2, 6), (3, 60), (4, 3)]) {
            let mut run = case.run();
            assert!(run.fault().is_none());
            run.bindings[binding].truncate(words - 1);
            assert!(run.fault().is_some());
        }
        let most = u32::MAX;
        for (rows, n, fits) in [(3, most, false), (most, 20, false), (most, 0, false), (3, 0, true), (0, most, true)] {
            let p = params::SoftLabels { rows, n, scale: 1.0 };
            let run = Run { params: bytemuck::bytes_of(&p).to_vec(), ..case.run() };
            assert_eq!(run.fault().is_none(), fits, "{p:?}");
        }
    }
}
