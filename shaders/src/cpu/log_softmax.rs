use super::sizes;
use crate::params;

/// `log p(set)` of an empty set.
const LOWEST: f32 = -3.0e38;

/// Logarithms of a row of logits.
///
/// They are the maximum, the logarithm of the sum of `exp(logit - max)`, the log-probability of the label (0 without a
/// label), and the log-probability that an id is in the set.
///
/// Shapes: logits `[rows, n]` at offset and stride, label `[rows]`, members `[n]`, out `[rows, 4]`.
pub fn log_softmax(p: &params::LogSoftmax, logits: &[f32], label: &[u32], members: &[u32], out: &mut [f32]) {
    let [rows, n, stride, offset] = sizes([p.rows, p.n, p.stride, p.offset]);
    let log_of =
        |sum: &LogSum| if sum.at_max == 1 { sum.others.ln_1p() } else { (sum.at_max as f64 + sum.others).ln() };
    for row in 0..rows {
        let logits = &logits[offset + row * stride..][..n];
        let all = LogSum::of(logits.iter().copied());
        let set = LogSum::of(logits.iter().zip(members).filter(|&(_, &member)| member != 0).map(|(&l, _)| l));
        let max = f64::from(all.max);
        let log_sum = log_of(&all);
        let of_label = logits.get(label[row] as usize).map_or(0.0, |&l| f64::from(l) - max - log_sum);
        let of_set = if set.at_max == 0 { LOWEST.into() } else { f64::from(set.max) - max + log_of(&set) - log_sum };
        out[4 * row..4 * row + 4].copy_from_slice(&[max, log_sum, of_label, of_set].map(|v| v as f32));
    }
}

/// A sum of `exp(logit - max)`.
struct LogSum {
    max: f32,
    /// The number of logits equal to the maximum.
    at_max: usize,
    /// The sum over the other logits.
    others: f64,
}

impl LogSum {
    fn of(logits: impl Iterator<Item = f32> + Clone) -> Self {
        let max = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        let at_max = logits.clone().filter(|&l| l == max).count();
        let others = logits.filter(|&l| l != max).map(|l| (f64::from(l) - f64::from(max)).exp()).sum();
        Self { max, at_max, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn matches_the_closed_form() {
        // Probabilities 1/8, 4/8, 1/8, 2/8; the second row has one logit far above the others.
        let row = [0.0, 4f32.ln(), 0.0, 2f32.ln()];
        let far = row.map(|l| if l == row[1] { 1e30 } else { -1e30 });
        let logits = [row, far].concat();
        let p = params::LogSoftmax { rows: 2, n: 4, stride: 4, offset: 0 };
        let mut out = [0.0; 8];
        log_softmax(&p, &logits, &[3, 1], &[1, 0, 0, 1], &mut out);
        assert_close(&out[..4], &[row[1], 2f32.ln(), -(4f32.ln()), 0.375f32.ln()], 1e-6);
        assert_eq!(out[4..], [1e30, 0.0, 0.0, -2e30]);
        // No label and an empty set.
        log_softmax(&p, &logits, &[4, u32::MAX], &[0; 4], &mut out);
        assert_eq!([&out[2..4], &out[6..]], [[0.0, LOWEST]; 2]);
    }

    #[test]
    fn probability_close_to_one_differs_from_one() {
        let p = params::LogSoftmax { rows: 1, n: 2, stride: 2, offset: 0 };
        let mut out = [0.0; 4];
        log_softmax(&p, &[0.0, -40.0], &[0], &[0, 0], &mut out);
        assert_close(&out[2..3], &[-(-40f32).exp()], 1e-6);
    }
}
