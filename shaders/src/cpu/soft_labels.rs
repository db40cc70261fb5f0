use super::sizes;
use crate::params;

/// The node of a row without a place.
const NOWHERE: u32 = u32::MAX;

/// The divergence of the softmax of logits from target probabilities, and its gradient by the logits.
///
/// The gradient `scale (p - t)` replaces the target. Rows without a place become zeros.
///
/// Shapes: logits `[rows, n]`, logs `[rows, 4]` of `log_softmax`, place `[rows, 2]`, target `[rows, n]`,
/// divergence `[rows]`.
pub fn soft_labels(
    p: &params::SoftLabels,
    logits: &[f32],
    logs: &[f32],
    place: &[u32],
    target: &mut [f32],
    divergence: &mut [f32],
) {
    let [rows, n] = sizes([p.rows, p.n]);
    for row in 0..rows {
        let target = &mut target[row * n..][..n];
        if place[2 * row + 1] == NOWHERE {
            target.fill(0.0);
            divergence[row] = 0.0;
            continue;
        }
        let [max, log_sum] = [0, 1].map(|i| f64::from(logs[4 * row + i]));
        let mut sum = 0.0;
        for (target, &logit) in target.iter_mut().zip(&logits[row * n..]) {
            let (t, l) = (f64::from(*target), f64::from(logit) - max - log_sum);
            if t > 0.0 {
                sum += t * (t.ln() - l);
            }
            *target = (f64::from(p.scale) * (l.exp() - t)) as f32;
        }
        divergence[row] = sum as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{central_differences, wide};
    use crate::cpu::log_softmax;
    use crate::cpu::noise::{assert_close, noise};

    #[test]
    fn matches_central_differences() {
        let (rows, n) = (3, 6);
        let logits = noise(3, rows * n, 4.0);
        let mut target = vec![0.0; rows * n];
        target[0] = 1.0;
        target[n..2 * n].copy_from_slice(&[0.5, 0.0, 0.25, 0.125, 0.125, 0.0]);
        let place = [0, 4, 1, 0, 2, u32::MAX];
        let of = |logits: &[f64]| -> f64 {
            let row = |row: usize| {
                let l = &logits[row * n..][..n];
                let total = l.iter().map(|l| l.exp()).sum::<f64>().ln();
                let terms = l.iter().zip(&target[row * n..]).filter(|&(_, &t)| t > 0.0);
                terms.map(|(l, &t)| f64::from(t) * (f64::from(t).ln() - l + total)).sum::<f64>()
            };
            row(0) + row(1)
        };
        let wide = wide(&logits);
        let expected: Vec<f32> = (0..rows * n).map(|i| 2.0 * central_differences(of, &wide, i) as f32).collect();
        let mut logs = vec![0.0; 4 * rows];
        let [rows, n] = [rows, n].map(|size| size as u32);
        let p = params::LogSoftmax { rows, n, stride: n, offset: 0 };
        log_softmax(&p, &logits, &[u32::MAX; 3], &[0; 6], &mut logs);
        let (mut gradient, mut divergence) = (target.clone(), [9.0; 3]);
        soft_labels(
            &params::SoftLabels { rows, n, scale: 2.0 },
            &logits,
            &logs,
            &place,
            &mut gradient,
            &mut divergence,
        );
        assert_close(&gradient, &expected, 1e-6);
        assert!((f64::from(divergence[0] + divergence[1]) - of(&wide)).abs() < 1e-5 && divergence[2] == 0.0);
    }
}
