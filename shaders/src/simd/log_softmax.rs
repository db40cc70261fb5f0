use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::{extent, size};
use super::scratch::{with_scratch, with_shared};
use super::softmax::{each_row, max_if_finite, sum_exp};
use super::vector::Vector;
use crate::params;

/// `log p(set)` of an empty set.
const LOWEST: f32 = -3.0e38;

/// Logarithms of the probabilities of a label and of a set of ids; see the [CPU reference](crate::cpu::log_softmax).
pub(super) fn log_softmax(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::LogSoftmax = call.params()?;
    let [rows, n, stride, offset] = [p.rows, p.n, p.stride, p.offset].map(size);
    if rows == 0 {
        return Ok(());
    }
    let logits = call.read(0, extent(offset, stride, rows, n))?;
    let label = call.read_u32(1, rows)?;
    let members = call.read_u32(2, n)?;
    let out = call.write(3, product([rows, 4]))?;
    let count = members.iter().filter(|&&member| member != 0).count();
    with_shared(count, |set| {
        // The ids of the set, which all rows share.
        let set: &mut [u32] = bytemuck::cast_slice_mut(set);
        let ids = (0..p.n).zip(members).filter(|&(_, &member)| member != 0);
        set.iter_mut().zip(ids).for_each(|(to, (id, _))| *to = id);
        let set = &*set;
        each_row(call, rows, n.saturating_add(count), |row| {
            let logits = &logits[offset + row * stride..][..n];
            // SAFETY: every row belongs to one task.
            let out = unsafe { out.slice(4 * row..4 * row + 4) };
            with_scratch(count, |of_set| {
                of_set.iter_mut().zip(set).for_each(|(logit, &id)| *logit = logits[size(id)]);
                call.instructions.run(Row { logits, of_set, label: size(label[row]), out });
            });
        });
    });
    Ok(())
}

/// One row.
struct Row<'a> {
    /// `[n]`
    logits: &'a [f32],
    /// The logits of the ids in the set.
    of_set: &'a [f32],
    label: usize,
    /// `[4]`
    out: &'a mut [f32],
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (max, log_sum) = log_sum::<V>(self.logits);
        let of_label = self.logits.get(self.label).map_or(0.0, |&logit| f64::from(logit) - max - log_sum);
        let mut of_set = f64::from(LOWEST);
        if !self.of_set.is_empty() {
            let (set_max, set_log_sum) = self::log_sum::<V>(self.of_set);
            of_set = set_max - max + set_log_sum - log_sum;
        }
        self.out.copy_from_slice(&[max, log_sum, of_label, of_set].map(|v| v as f32));
    }
}

/// The maximum, and the logarithm of the sum of `exp(logit - max)`.
#[inline(always)]
fn log_sum<V: Vector>(logits: &[f32]) -> (f64, f64) {
    let Some((max, first)) = max_if_finite::<V>(logits) else {
        return log_sum_of_any(logits);
    };
    // One logit that is the maximum is left out. Where it is far above the others, they carry the whole result.
    match logits[first..].iter().position(|&logit| logit == max) {
        Some(after) => {
            let at = first + after;
            let others = sum_exp::<V>(&logits[..at], max) + sum_exp::<V>(&logits[at + 1..], max);
            (max.into(), others.ln_1p())
        }
        None => log_sum_of_any(logits),
    }
}

/// As [`log_sum`], also where logits are infinite or NaN, or where there are none.
fn log_sum_of_any(logits: &[f32]) -> (f64, f64) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &logit| max.max(logit));
    let share = |&logit: &f32| if logit == max { 1.0 } else { (f64::from(logit) - f64::from(max)).exp() };
    (max.into(), logits.iter().map(share).sum::<f64>().ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Found, Run, cases, words};

    struct Case {
        p: params::LogSoftmax,
        logits: Vec<f32>,
        label: Vec<u32>,
        members: Vec<u32>,
    }

    impl Case {
        /// One id in `every` is in the set.
        fn new(rows: u32, n: u32, every: u32, width: f32) -> Self {
            let p = params::LogSoftmax { rows, n, stride: n + 3, offset: 2 };
            Self {
                p,
                logits: noise(u64::from(n) + 7, (2 + rows * (n + 3)) as usize, width),
                label: (0..rows).map(|row| if row % 3 == 2 { u32::MAX - row % 2 } else { 7 * row % n }).collect(),
                members: (0..n).map(|id| u32::from(id % every == every / 2) << (id % 3)).collect(),
            }
        }

        fn row(&mut self, row: u32) -> &mut [f32] {
            let at = self.p.offset + row * self.p.stride;
            &mut self.logits[at as usize..][..self.p.n as usize]
        }

        fn run(&self) -> Run {
            let out = vec![5f32; 4 * self.p.rows as usize + 1];
            let bindings = vec![words(&self.logits), self.label.clone(), self.members.clone(), words(&out)];
            Run::new(KernelId::LogSoftmax, &self.p, bindings, [self.p.rows, 1, 1])
        }

        fn expected(&self) -> Vec<f32> {
            let mut out = vec![5.0; 4 * self.p.rows as usize + 1];
            cpu::log_softmax(&self.p, &self.logits, &self.label, &self.members, &mut out);
            out
        }

        fn check(&self) {
            let expected = self.expected();
            self.run().all(|found: &Found| {
                for (i, (&found, &expected)) in found.f32(3).iter().zip(&expected).enumerate() {
                    // Nothing is rounded to more than the size of the logarithms that are subtracted.
                    let tolerance = if i % 4 == 0 { 0.0 } else { 2e-6 * expected.abs() + 1e-35 };
                    let most = if i % 4 == 3 { 1e-6 * (self.p.n as f32).ln() } else { 0.0 };
                    let same = found.to_bits() == expected.to_bits();
                    assert!(
                        same || (found - expected).abs() <= tolerance + most,
                        "{i}: {found} {expected}, {:?}",
                        self.p
                    );
                }
            });
        }
    }

    #[test]
    fn matches_the_reference() {
        for (rows, n, every, width) in cases([
            (3, 1, 1, 1.0),
            (4, 17, 2, 4.0),
            (1, 15, 20, 30.0),
            (20, 16, 1, 0.1),
            (33, 65, 9, 1e3),
            (9, 520, 2, 4.0),
            (5, 520, 3, 1e30),
            (2, 1025, 600, 8.0),
            (3, 20_000, 2, 12.0),
        ]) {
            let mut case = Case::new(rows, n, every, width);
            case.check();
            // Several maxima in one row, a maximum far above the others in another.
            case.row(0).iter_mut().for_each(|logit| *logit = logit.min(0.25 * width));
            let last = case.row(rows - 1);
            last[last.len() / 2] = 25.0 + width;
            case.check();
        }
    }

    #[test]
    fn the_shares_of_few_others_are_kept() {
        let mut case = Case::new(1, 600, 2, 1.0);
        case.row(0).fill(-40.0);
        case.row(0)[300] = 0.0;
        case.run().all(|found| {
            let expected = -599.0 * (-40f64).exp();
            assert!((f64::from(found.f32(3)[1]) / -expected - 1.0).abs() < 1e-6);
        });
    }

    #[test]
    fn halted_rows_are_skipped() {
        let case = Case::new(3, 20, 2, 4.0);
        let mut run = case.run();
        let mut guard = vec![0; 129];
        guard[64] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            assert_eq!(found.f32(3)[4..8], [5.0; 4]);
            assert!(found.f32(3)[..4].iter().chain(&found.f32(3)[8..12]).all(|&v| v != 5.0));
        });
    }

    #[test]
    fn infinity_and_nan_are_not_hidden() {
        for (faulty, at) in cases([(f32::NAN, 37), (f32::INFINITY, 4), (f32::NEG_INFINITY, 3), (f32::NAN, 0)]) {
            let mut case = Case::new(3, 40, 2, 4.0);
            case.label[1] = at as u32;
            case.row(1)[at] = faulty;
            let expected = case.expected();
            case.run().all(|found| {
                for (&found, &expected) in found.f32(3).iter().zip(&expected) {
                    let close = found == expected || (found - expected).abs() < 1e-5;
                    assert!(close || (found.is_nan() && expected.is_nan()), "{faulty}: {found} {expected}");
                }
                assert!(!found.f32(3)[6].is_finite());
            });
        }
        // Nothing but minus infinity.
        let mut case = Case::new(1, 40, 2, 4.0);
        case.row(0).fill(f32::NEG_INFINITY);
        case.run().all(|found| assert!(found.f32(3)[2].is_nan()));
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let case = Case::new(3, 20, 2, 4.0);
        for (binding, words) in cases([(0, 2 + 2 * 23 + 20), (1, 3), (2, 20), (3, 12)]) {
            let mut run = case.run();
            run.bindings[binding].truncate(words);
            assert!(run.fault().is_none());
            run.bindings[binding].truncate(words - 1);
            assert!(run.fault().is_some());
        }
        for size in [0, 1, u32::MAX] {
            for p in [
                params::LogSoftmax { n: size, ..case.p },
                params::LogSoftmax { stride: size, ..case.p },
                params::LogSoftmax { offset: size, ..case.p },
                params::LogSoftmax { rows: size, n: 0, ..case.p },
                params::LogSoftmax { rows: size, n: size, stride: size, offset: size },
            ] {
                let run = Run { params: bytemuck::bytes_of(&p).to_vec(), ..case.run() };
                assert!(run.fault().is_some() == (size == u32::MAX), "{p:?}");
            }
        }
    }
}
