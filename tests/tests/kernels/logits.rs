//! Kernels over logits: log-softmax and its gradient, entropies, and the next-id probabilities of a subword model.

use bolmo_shaders::params::{Entropy, LogSoftmax, LogSoftmaxGrad, NextIds, SoftLabels};
use bolmo_shaders::sizes::WORKGROUP;
use bolmo_shaders::{KernelId, cpu};
use proptest::prelude::*;
use proptest::sample::select;

use super::harness::{EPS, Noise, Rows, UNREAD, UNWRITTEN, bytes, edges, forms, hold, run, size};

const LANES: usize = WORKGROUP as usize;

#[derive(Debug, Clone)]
struct Logits {
    rows: usize,
    n: usize,
    offset: usize,
    gap: usize,
    size: f32,
    /// Of `n + 1` ids how many are in the set.
    members: usize,
    seed: u64,
}

const LOGITS: Logits = Logits { rows: 3, n: 9, offset: 2, gap: 3, size: 4.0, members: 3, seed: 4 };

impl Logits {
    fn edges(sizes: &[f32]) -> Vec<Self> {
        let all = edges(129).flat_map(|size| {
            let wide = Self { n: size, members: size / 2, ..LOGITS };
            [Self { rows: size, ..LOGITS }, wide, Self { n: size, members: size + 1, ..LOGITS }]
        });
        let few = [0, 1, 520].map(|members| Self { n: 520, members, ..LOGITS });
        all.chain(few).chain(sizes.iter().map(|&size| Self { size, ..LOGITS })).collect()
    }

    fn drawn(sizes: &[f32]) -> impl Strategy<Value = Self> {
        let n = prop_oneof![size(140), 500..600usize];
        (size(20), n, (0..9usize, 0..9usize), select(sizes.to_vec()), 0.0..1.0f32, any::<u64>()).prop_map(
            |(rows, n, (offset, gap), size, share, seed)| {
                let members = (share * (n + 1) as f32) as usize;
                Self { rows, n, offset, gap, size, members, seed }
            },
        )
    }

    fn rows(&self) -> Rows {
        Rows { rows: self.rows, width: self.n, offset: self.offset, stride: self.n + self.gap }
    }

    fn params(&self) -> LogSoftmax {
        let [rows, n, stride, offset] = [self.rows, self.n, self.rows().stride, self.offset].map(|v| v as u32);
        LogSoftmax { rows, n, stride, offset }
    }

    /// Logits, labels and members.
    fn inputs(&self, noise: &mut Noise) -> (Vec<f32>, Vec<u32>, Vec<u32>) {
        let rows = self.rows();
        let mut logits = noise.rows(rows, self.size);
        for row in 0..self.rows {
            let logits = &mut logits[rows.offset + row * rows.stride..][..self.n];
            match noise.below(4) {
                // several maxima
                0 => logits.iter_mut().for_each(|l| *l = l.min(0.5 * self.size)),
                // one far above the others
                1 => logits[noise.below(self.n)] = 25.0 + self.size,
                _ => {}
            }
        }
        let label = (0..self.rows).map(|row| match row % 4 {
            3 => [self.n as u32, u32::MAX][noise.below(2)],
            _ => noise.below(self.n) as u32,
        });
        let label = label.collect();
        let members = (0..self.n).map(|_| u32::from(noise.below(self.n + 1) < self.members)).collect();
        (logits, label, members)
    }
}

pub fn log_softmax() {
    let sizes = [0.1, 4.0, 30.0, 1e3, 1e30];
    hold(KernelId::LogSoftmax, Logits::edges(&sizes), Logits::drawn(&sizes), |worst, case| {
        let (logits, label, members) = case.inputs(&mut Noise::new(case.seed));
        let p = case.params();
        let out = Rows::dense(case.rows, 4).output();
        let mut expected = out.clone();
        cpu::log_softmax(&p, &logits, &label, &members, &mut expected);
        let bindings = [bytes(&logits), bytes(&label), bytes(&members), bytes(&out)];
        for form in forms(KernelId::LogSoftmax) {
            let found = run(form, KernelId::LogSoftmax, &p, &bindings, [case.rows, 1, 1])?;
            worst.compare("out", &found[3], &expected, |i| {
                let [_, log_sum, of_label, of_set] = [0, 1, 2, 3].map(|j| f64::from(expected[i / 4 * 4 + j]).abs());
                // A lane of a workgroup of one adds everything up, and an exponent down to -87 is rounded before exp.
                // What that does to the logarithm is no more than the share of what isn't the maximum, which the
                // logarithm is above; a builtin's logarithm is off by 3 units.
                let roundings = case.n as f64 + 100.0;
                let log_error = |log: f64| (roundings * log.min(1.0) + 5.0 * log) * EPS + 1e-35;
                let most = (case.n as f64).ln();
                match i % 4 {
                    0 => 0.0,
                    1 => log_error(log_sum),
                    2 => log_error(log_sum) + 2.0 * EPS * (of_label + log_sum),
                    _ => log_error(log_sum) + log_error(most) + 4.0 * EPS * (of_set + log_sum + most),
                }
            })?;
        }
        Ok(())
    });
}

pub fn log_softmax_grad() {
    let sizes = [0.1, 4.0, 30.0, 1e3];
    hold(KernelId::LogSoftmaxGrad, Logits::edges(&sizes), Logits::drawn(&sizes), |worst, case| {
        let mut noise = Noise::new(case.seed);
        let (mut logits, label, members) = case.inputs(&mut noise);
        let rows = case.rows();
        let mut out = Rows::dense(case.rows, 4).array(UNREAD);
        cpu::log_softmax(&case.params(), &logits, &label, &members, &mut out);
        let mut weight = noise.rows(Rows::dense(case.rows, 2), 2.0);
        for row in 0..case.rows {
            match noise.below(4) {
                // No weight: nothing is read.
                0 => {
                    weight[2 * row..2 * row + 2].fill(0.0);
                    logits[rows.offset + row * rows.stride..][..case.n].fill(UNREAD);
                    out[4 * row..4 * row + 4].fill(UNREAD);
                }
                1 => weight[2 * row] = 0.0,
                2 => weight[2 * row + 1] = 0.0,
                _ => {}
            }
        }
        let LogSoftmax { rows: count, n, stride, offset } = case.params();
        let p = LogSoftmaxGrad { rows: count, n, stride, offset };
        let mut expected = logits.clone();
        // Gaps must stay unwritten.
        (0..expected.len()).filter(|&i| logits[i].is_nan()).for_each(|i| expected[i] = UNWRITTEN);
        let before = expected.clone();
        cpu::log_softmax_grad(&p, &mut expected, &label, &members, &out, &weight);
        let bindings = [bytes(&before), bytes(&label), bytes(&members), bytes(&out), bytes(&weight)];
        // One row and a workgroup more than there is.
        let grid = [case.n.div_ceil(LANES) + 1, case.rows + 1, 1];
        for form in forms(KernelId::LogSoftmaxGrad) {
            let found = run(form, KernelId::LogSoftmaxGrad, &p, &bindings, grid)?;
            worst.compare("logits", &found[0], &expected, |at| {
                let (row, i) = ((at - rows.offset) / rows.stride, (at - rows.offset) % rows.stride);
                let [w0, w1] = [0, 1].map(|j| f64::from(weight[2 * row + j]).abs());
                if w0 == 0.0 && w1 == 0.0 {
                    return 0.0;
                }
                let [max, log_sum, _, of_set] = [0, 1, 2, 3].map(|j| f64::from(out[4 * row + j]));
                let below = max - f64::from(logits[at]);
                // An exponent is off by half a unit of each of its steps, the exp of it by two units more.
                let share = |exponent: f64, terms: f64| exponent.exp() * ((terms * EPS).exp_m1() + 4.0 * EPS);
                let terms = below + log_sum + 1.0;
                let of_all = share(-below - log_sum, terms);
                let in_set =
                    if members[i] != 0 { share(-below - log_sum - of_set, terms + 2.0 * of_set.abs()) } else { 0.0 };
                let whole = 4.0 * EPS * (w0 + w1);
                w0 * of_all + w1 * (of_all + in_set) + whole + 1e-35
            })?;
        }
        Ok(())
    });
}

pub fn entropy() {
    let sizes = [0.1, 4.0, 30.0, 1e3, 1e30];
    let dense = |case: Logits| Logits { offset: 0, gap: 0, ..case };
    let edges: Vec<_> = Logits::edges(&sizes).into_iter().map(dense).collect();
    hold(KernelId::Entropy, edges, Logits::drawn(&sizes).prop_map(dense), |worst, case| {
        let (logits, label, members) = case.inputs(&mut Noise::new(case.seed));
        let mut logs = Rows::dense(case.rows, 4).output();
        cpu::log_softmax(&case.params(), &logits, &label, &members, &mut logs);
        let out = Rows::dense(case.rows, 1).output();
        let mut expected = out.clone();
        let p = Entropy { rows: case.rows as u32, n: case.n as u32 };
        cpu::entropy(&p, &logits, &logs, &mut expected);
        let bindings = [bytes(&logits), bytes(&logs), bytes(&out)];
        for form in forms(KernelId::Entropy) {
            let found = run(form, KernelId::Entropy, &p, &bindings, [case.rows, 1, 1])?;
            worst.compare("out", &found[2], &expected, |row| {
                // The mean of d, between 0 and the logarithm's distance to the entropy, has as many roundings as there
                // are logits; the logarithm is that of f32.
                let log_sum = f64::from(logs[4 * row + 1]);
                (case.n as f64 + 100.0) * EPS * (f64::from(expected[row]).abs() + log_sum) + 1e-35
            })?;
        }
        Ok(())
    });
}

/// A tree over subwords, and rows at some of its nodes.
#[derive(Debug, Clone)]
struct Spelt {
    rows: usize,
    ids: usize,
    vocabulary: usize,
    nodes: usize,
    size: f32,
    seed: u64,
}

const SPELT: Spelt = Spelt { rows: 5, ids: 9, vocabulary: 12, nodes: 3, size: 4.0, seed: 7 };

impl Spelt {
    fn edges() -> Vec<Self> {
        let all = edges(257).flat_map(|size| {
            [Self { rows: size, ..SPELT }, Self { ids: size, ..SPELT }, Self { vocabulary: size, nodes: 1, ..SPELT }]
        });
        all.chain([1e-3, 30.0, 1e3].map(|size| Self { size, ids: 520, vocabulary: 300, ..SPELT })).collect()
    }

    fn drawn() -> impl Strategy<Value = Self> {
        (size(20), size(140), size(300), 1..6usize, select(vec![1e-3f32, 4.0, 30.0, 1e3]), any::<u64>())
            .prop_map(|(rows, ids, vocabulary, nodes, size, seed)| Self { rows, ids, vocabulary, nodes, size, seed })
    }

    /// The first row of a subword model, the number of rows, and places; some places are missing, some are in missing
    /// rows.
    fn places(&self, noise: &mut Noise) -> (u32, u32, Vec<u32>) {
        let (first, count) = (noise.below(3) as u32, 1 + noise.below(3) as u32);
        let place = |_| match noise.below(4) {
            0 => [first, u32::MAX],
            1 => [noise.below(8) as u32, noise.below(self.nodes) as u32],
            _ => [first + noise.below(count as usize) as u32, noise.below(self.nodes) as u32],
        };
        (first, count, (0..self.rows).flat_map(place).collect())
    }
}

pub fn next_ids() {
    hold(KernelId::NextIds, Spelt::edges(), Spelt::drawn(), |worst, case| {
        let &Spelt { rows, ids, vocabulary, nodes, size, seed } = case;
        let mut noise = Noise::new(seed);
        // Each node has a run of the order, divided among some ids; the kernel needs no more of a tree.
        let order: Vec<u32> = (0..vocabulary).map(|_| noise.below(vocabulary) as u32).collect();
        let (mut starts, mut children) = (vec![0u32], Vec::new());
        for _ in 0..nodes {
            let mut at = noise.below(vocabulary);
            let mut id = 0;
            loop {
                let count = 1 + noise.below((vocabulary - at).min(40));
                children.extend([id as u32, at as u32, count as u32, 0]);
                at += count;
                id += 1 + noise.below(3);
                if at >= vocabulary || id >= ids || noise.below(8) == 0 {
                    break;
                }
            }
            starts.push(children.len() as u32 / 4);
        }
        let (first, count, place) = case.places(&mut noise);
        let logits = noise.rows(Rows::dense(count as usize, vocabulary), size);
        let [rows32, n, vocabulary] = [rows, ids, vocabulary].map(|v| v as u32);
        let p = NextIds { rows: rows32, n, vocabulary, first, count };
        let out = Rows::dense(rows, ids).output();
        let mut expected = out.clone();
        cpu::next_ids(&p, &logits, &order, &starts, &children, &place, &mut expected);
        let bindings = [bytes(&logits), bytes(&order), bytes(&starts), bytes(&children), bytes(&place), bytes(&out)];
        for form in forms(KernelId::NextIds) {
            let found = run(form, KernelId::NextIds, &p, &bindings, [rows, 1, 1])?;
            // Exponents down to -87 are rounded before exp, and a lane of a workgroup of one adds everything up.
            let roundings = 2.0 * f64::from(p.vocabulary) + 200.0;
            worst.compare("out", &found[5], &expected, |i| roundings * EPS * f64::from(expected[i]) + 1e-35)?;
        }
        Ok(())
    });
}

pub fn soft_labels() {
    hold(KernelId::SoftLabels, Spelt::edges(), Spelt::drawn(), |worst, case| {
        let &Spelt { rows, ids, size, seed, .. } = case;
        let mut noise = Noise::new(seed);
        let (_, _, place) = case.places(&mut noise);
        let logits = noise.rows(Rows::dense(rows, ids), size);
        let [rows32, n] = [rows, ids].map(|v| v as u32);
        let mut logs = Rows::dense(rows, 4).array(UNREAD);
        let of_all = LogSoftmax { rows: rows32, n, stride: n, offset: 0 };
        cpu::log_softmax(&of_all, &logits, &vec![u32::MAX; rows], &vec![0; ids], &mut logs);
        // Shares that sum to 1, 0 for two ids in three.
        let mut target = Rows::dense(rows, ids).output();
        for target in target[..rows * ids].chunks_exact_mut(ids) {
            target.fill_with(|| if noise.below(3) == 0 { noise.unit() } else { 0.0 });
            target[noise.below(ids)] += 0.5;
            let sum: f32 = target.iter().sum();
            target.iter_mut().for_each(|share| *share /= sum);
        }
        let divergence = Rows::dense(rows, 1).output();
        let p = SoftLabels { rows: rows32, n, scale: 0.5 };
        let (mut expected, mut sums) = (target.clone(), divergence.clone());
        cpu::soft_labels(&p, &logits, &logs, &place, &mut expected, &mut sums);
        let bindings = [bytes(&logits), bytes(&logs), bytes(&place), bytes(&target), bytes(&divergence)];
        for form in forms(KernelId::SoftLabels) {
            let found = run(form, KernelId::SoftLabels, &p, &bindings, [rows, 1, 1])?;
            let log_p =
                |at: usize| f64::from(logits[at]) - f64::from(logs[at / ids * 4]) - f64::from(logs[at / ids * 4 + 1]);
            worst.compare("gradient", &found[3], &expected, |at| {
                let l = log_p(at);
                // An exponent is off by half a unit of each of its steps, the exp of it by two units more.
                let terms = l.abs() + f64::from(logs[at / ids * 4]).abs() + f64::from(logits[at]).abs() + 1.0;
                0.5 * (l.exp() * ((terms * EPS).exp_m1() + 4.0 * EPS) + 2.0 * EPS * f64::from(target[at])) + 1e-35
            })?;
            worst.compare("divergence", &found[4], &sums, |row| {
                let parts = (row * ids..(row + 1) * ids).map(|at| {
                    let t = f64::from(target[at]);
                    if t > 0.0 {
                        t * (t.ln().abs() + log_p(at).abs() + 2.0 * f64::from(logits[at]).abs() + 1.0)
                    } else {
                        0.0
                    }
                });
                (ids as f64 + 20.0) * EPS * parts.sum::<f64>() + 1e-35
            })?;
        }
        Ok(())
    });
}
