use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::{extent, size};
use super::scratch::with_shared;
use super::softmax::{BLOCK, Exp, all_finite, each_row};
use super::vector::Vector;
use crate::params;

/// Gradient of `w0 log p(label) + w1 log p(set)` by the logits, in place of the logits; see the
/// [CPU reference](crate::cpu::log_softmax_grad).
pub(super) fn log_softmax_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::LogSoftmaxGrad = call.params()?;
    let [rows, n, stride, offset] = [p.rows, p.n, p.stride, p.offset].map(size);
    if rows == 0 || n == 0 {
        return Ok(());
    }
    if rows > 1 && stride < n {
        return Err(Fault::new("log_softmax_grad: rows of logits overlap"));
    }
    let logits = call.write(0, extent(offset, stride, rows, n))?;
    let label = call.read_u32(1, rows)?;
    let members = call.read_u32(2, n)?;
    let logs = call.read(3, product([rows, 4]))?;
    let weight = call.read(4, product([rows, 2]))?;
    let empty = members.iter().all(|&member| member == 0);
    with_shared(n, |set| {
        set.iter_mut().zip(members).for_each(|(set, &member)| *set = if member != 0 { 1.0 } else { 0.0 });
        let set = if empty { &[] } else { &*set };
        each_row(call, rows, n, |row| {
            let at = offset + row * stride;
            // SAFETY: every row belongs to one task.
            let logits = unsafe { logits.slice(at..at + n) };
            let [logs, weight] = [&logs[4 * row..4 * row + 4], &weight[2 * row..2 * row + 2]];
            if weight == [0.0; 2] {
                // Its other inputs may be unset.
                return logits.fill(0.0);
            }
            let (max, log_sum, of_set) = (logs[0], logs[1], logs[3]);
            let weights = [weight[0], weight[1]];
            call.instructions.run(Row { logits, label: size(label[row]), set, max, log_sum, of_set, weights });
        });
    });
    Ok(())
}

/// One row.
struct Row<'a> {
    /// `[n]`
    logits: &'a mut [f32],
    label: usize,
    /// 1 for ids in the set, 0 for others, `[n]`; none if the set is empty.
    set: &'a [f32],
    max: f32,
    log_sum: f32,
    /// The logarithm of the set's probability.
    of_set: f32,
    weights: [f32; 2],
}

impl Row<'_> {
    /// The logarithm of the sum of the exponentials of the set's logits, as a sum in f32. Subtracting its parts one
    /// after the other loses nothing where a logit is close to it, however improbable the set is.
    fn set_total(&self) -> [f32; 2] {
        let [max, of_set, log_sum] = [self.max, self.of_set, self.log_sum].map(f64::from);
        let first = (max + of_set) as f32;
        // In this order, nothing is lost where the maximum is large and the set is probable.
        [first, (max - f64::from(first) + of_set + log_sum) as f32]
    }

    /// The gradient by one logit.
    fn gradient(&self, id: usize, logit: f32) -> f32 {
        let [w0, w1] = self.weights.map(f64::from);
        let l = f64::from(logit) - f64::from(self.max) - f64::from(self.log_sum);
        let share = l.exp();
        let in_set = match self.set.get(id) {
            Some(1.0) => (l - f64::from(self.of_set)).exp(),
            _ => 0.0,
        };
        let label = if id == self.label { 1.0 } else { 0.0 };
        (w0 * (label - share) + w1 * (in_set - share)) as f32
    }

    /// The gradients by a block of finite logits from `first` on, as if none were the label.
    #[inline(always)]
    fn block<V: Vector>(&mut self, first: usize, end: usize) {
        let exp = Exp::<V>::new();
        let [minus_w0, w1] = [V::splat(-self.weights[0]), V::splat(self.weights[1])];
        let (max, log_sum) = (V::splat(self.max), V::splat(self.log_sum));
        let [set_total, set_rest] = self.set_total().map(V::splat);
        let has_set = self.weights[1] != 0.0 && !self.set.is_empty();
        for at in (first..end).step_by(V::LANES) {
            let count = V::LANES.min(end - at);
            // SAFETY: `logits` has values up to `end`, and so has a set that isn't empty.
            unsafe {
                let logits = self.logits.as_mut_ptr().add(at);
                let logit = V::load_first(logits, count);
                let share = exp.of(logit.sub(max).sub(log_sum));
                let mut in_set = V::splat(0.0);
                if has_set {
                    let set = V::load_first(self.set.as_ptr().add(at), count);
                    in_set = exp.of(logit.sub(set_total).sub(set_rest)).mul(set);
                }
                in_set.sub(share).mul_add(w1, share.mul(minus_w0)).store_first(logits, count);
            }
        }
    }
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let n = self.logits.len();
        assert!(self.set.is_empty() || self.set.len() == n);
        let of_label = self.logits.get(self.label).copied();
        // Vectors turn NaN into some other exponential.
        let logs_are_finite = all_finite(&[self.max, self.log_sum, self.of_set]) && all_finite(&self.set_total());
        for first in (0..n).step_by(BLOCK) {
            let end = (first + BLOCK).min(n);
            if logs_are_finite && all_finite(&self.logits[first..end]) {
                self.block::<V>(first, end);
            } else {
                for id in first..end {
                    self.logits[id] = self.gradient(id, self.logits[id]);
                }
            }
        }
        if let Some(logit) = of_label {
            self.logits[self.label] = self.gradient(self.label, logit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    struct Case {
        p: params::LogSoftmaxGrad,
        logits: Vec<f32>,
        label: Vec<u32>,
        members: Vec<u32>,
        logs: Vec<f32>,
        weight: Vec<f32>,
    }

    impl Case {
        /// One id in `every` is in the set. Rows have each kind of weights.
        fn new(rows: u32, n: u32, every: u32, width: f32) -> Self {
            let p = params::LogSoftmaxGrad { rows, n, stride: n + 3, offset: 2 };
            let logits = noise(u64::from(n) + 9, (2 + rows * (n + 3)) as usize, width);
            let label: Vec<u32> = (0..rows).map(|row| if row % 3 == 2 { u32::MAX } else { 7 * row % n }).collect();
            let members: Vec<u32> = (0..n).map(|id| u32::from(id % every == every / 2) << (id % 3)).collect();
            let mut logs = vec![0.0; 4 * rows as usize];
            let forward = params::LogSoftmax { rows, n, stride: n + 3, offset: 2 };
            cpu::log_softmax(&forward, &logits, &label, &members, &mut logs);
            let mut weight = noise(3, 2 * rows as usize, 2.0);
            for row in 0..rows as usize {
                match row % 4 {
                    1 => weight[2 * row] = 0.0,
                    2 => weight[2 * row + 1] = 0.0,
                    3 => {
                        weight[2 * row..2 * row + 2].fill(0.0);
                        logs[4 * row..4 * row + 4].fill(f32::NAN);
                    }
                    _ => {}
                }
            }
            Self { p, logits, label, members, logs, weight }
        }

        fn run(&self) -> Run {
            let Self { p, logits, label, members, logs, weight } = self;
            let bindings = vec![words(logits), label.clone(), members.clone(), words(logs), words(weight)];
            Run::new(KernelId::LogSoftmaxGrad, p, bindings, [p.n.div_ceil(64), p.rows, 1])
        }

        fn check(&self) {
            let mut expected = self.logits.clone();
            cpu::log_softmax_grad(&self.p, &mut expected, &self.label, &self.members, &self.logs, &self.weight);
            self.run().all(|found| {
                for (i, (&found, &expected)) in found.f32(0).iter().zip(&expected).enumerate() {
                    let tolerance = 2e-6 * expected.abs() + 5e-7;
                    let close = found == expected || (found - expected).abs() <= tolerance;
                    assert!(
                        close || (found.is_nan() && expected.is_nan()),
                        "{i}: found {found}, expected {expected}, {:?}",
                        self.p
                    );
                }
            });
        }
    }

    #[test]
    fn matches_the_reference() {
        for (rows, n, every, width) in cases([
            (4, 17, 2, 4.0),
            (3, 1, 1, 1.0),
            (5, 15, 20, 30.0),
            (20, 16, 1, 0.1),
            (33, 65, 9, 1e3),
            (9, 520, 2, 4.0),
            (5, 520, 3, 1e30),
            (4, 1025, 600, 8.0),
            (3, 20_000, 2, 12.0),
        ]) {
            Case::new(rows, n, every, width).check();
        }
    }

    #[test]
    fn ties_of_large_logits_share_the_probability() {
        let mut case = Case::new(1, 20, 2, 1.0);
        case.logits.fill(1e30);
        case.logs = vec![1e30, 20f32.ln(), 0.0, 0.5f32.ln()];
        case.check();
    }

    #[test]
    fn infinity_and_nan_are_not_hidden() {
        for (faulty, at) in cases([(f32::NAN, 37), (f32::NEG_INFINITY, 4), (f32::INFINITY, 3)]) {
            let mut case = Case::new(4, 1100, 2, 4.0);
            case.logits[2 + at] = faulty;
            // Of a row without weight.
            case.logits[2 + 3 * 1103 + at] = faulty;
            case.check();
        }
        for at in cases(0..4) {
            let mut case = Case::new(4, 40, 2, 4.0);
            case.logs[at] = f32::NAN;
            case.check();
            case.weight[1] = f32::NAN;
            case.run().all(|found| assert!(found.f32(0)[2..42].iter().all(|v| v.is_nan())));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let case = Case::new(3, 20, 2, 4.0);
        for (binding, words) in cases([(0, 2 + 2 * 23 + 20), (1, 3), (2, 20), (3, 12), (4, 6)]) {
            let mut run = case.run();
            run.bindings[binding].truncate(words);
            assert!(run.fault().is_none());
            run.bindings[binding].truncate(words - 1);
            assert!(run.fault().is_some());
        }
        let run = |p: params::LogSoftmaxGrad| Run { params: bytemuck::bytes_of(&p).to_vec(), ..case.run() };
        let most = u32::MAX;
        for p in [
            params::LogSoftmaxGrad { n: most, stride: most, ..case.p },
            params::LogSoftmaxGrad { stride: most, ..case.p },
            params::LogSoftmaxGrad { stride: 19, ..case.p },
            params::LogSoftmaxGrad { offset: most, ..case.p },
            params::LogSoftmaxGrad { rows: most, ..case.p },
            params::LogSoftmaxGrad { rows: most, n: most, stride: most, offset: most },
        ] {
            assert!(run(p).fault().is_some(), "{p:?}");
        }
        for p in [
            params::LogSoftmaxGrad { rows: 0, ..case.p },
            params::LogSoftmaxGrad { n: 0, stride: most, ..case.p },
            params::LogSoftmaxGrad { rows: 1, stride: 0, ..case.p },
        ] {
            assert!(run(p).fault().is_none(), "{p:?}");
        }
    }
}
