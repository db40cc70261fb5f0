use super::sizes;
use crate::params;

/// Gradient of `w0 log p(label) + w1 log p(set)` by the logits, in place of the logits.
///
/// Logit `i` becomes `w0 ((i == label) - p_i) + w1 ((i in set) p_i / p(set) - p_i)`, or 0 if both weights are 0.
///
/// Shapes: logits `[rows, n]` at offset and stride, label `[rows]`, members `[n]`, out `[rows, 4]` of `log_softmax`,
/// weight `[rows, 2]`.
pub fn log_softmax_grad(
    p: &params::LogSoftmaxGrad,
    logits: &mut [f32],
    label: &[u32],
    members: &[u32],
    out: &[f32],
    weight: &[f32],
) {
    let [rows, n, stride, offset] = sizes([p.rows, p.n, p.stride, p.offset]);
    for row in 0..rows {
        let [max, log_sum, _, of_set] = [0, 1, 2, 3].map(|i| f64::from(out[4 * row + i]));
        let [w0, w1] = [0, 1].map(|i| f64::from(weight[2 * row + i]));
        for (i, logit) in logits[offset + row * stride..][..n].iter_mut().enumerate() {
            if w0 == 0.0 && w1 == 0.0 {
                *logit = 0.0;
                continue;
            }
            let l = f64::from(*logit) - max - log_sum;
            let probability = l.exp();
            let is_label = f64::from(u8::from(i == label[row] as usize));
            let in_set = if members[i] != 0 { (l - of_set).exp() } else { 0.0 };
            *logit = (w0 * (is_label - probability) + w1 * (in_set - probability)) as f32;
        }
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
        let (rows, n) = (5, 7);
        let logits = noise(3, rows * n, 6.0);
        let label = [3u32, 0, 6, 7, 2];
        let members = [0u32, 1, 1, 0, 0, 1, 0];
        let mut weight = noise(4, 2 * rows, 2.0);
        // The row without a label has no weight for it, and the last row has no weight at all.
        weight[6] = 0.0;
        weight[8..].fill(0.0);
        let loss = |logits: &[f64]| -> f64 {
            let of_row = |(row, l): (usize, &[f64])| {
                let total: f64 = l.iter().map(|l| l.exp()).sum();
                let set: f64 = l.iter().zip(members).filter(|&(_, member)| member == 1).map(|(l, _)| l.exp()).sum();
                let of_label = l.get(label[row] as usize).map_or(0.0, |l| l - total.ln());
                f64::from(weight[2 * row]) * of_label + f64::from(weight[2 * row + 1]) * (set / total).ln()
            };
            logits.chunks(n).enumerate().map(of_row).sum()
        };
        let wide = wide(&logits);
        let expected: Vec<f32> = (0..rows * n).map(|i| central_differences(loss, &wide, i) as f32).collect();
        let [rows, n] = [rows, n].map(|size| size as u32);
        let mut out = vec![0.0; 4 * rows as usize];
        log_softmax(&params::LogSoftmax { rows, n, stride: n, offset: 0 }, &logits, &label, &members, &mut out);
        // The kernel must ignore the values of a row without weight.
        out[16..].fill(f32::NAN);
        let mut grad = logits;
        let p = params::LogSoftmaxGrad { rows, n, stride: n, offset: 0 };
        log_softmax_grad(&p, &mut grad, &label, &members, &out, &weight);
        assert_close(&grad, &expected, 1e-6);
        assert_eq!(grad[28..], [0.0; 7]);
    }

    #[test]
    fn weight_of_an_empty_set_lowers_all_logits() {
        let p = params::LogSoftmaxGrad { rows: 1, n: 4, stride: 4, offset: 0 };
        let mut out = [0.0; 4];
        let mut logits = [1.0; 4];
        log_softmax(&params::LogSoftmax { rows: 1, n: 4, stride: 4, offset: 0 }, &logits, &[9], &[0; 4], &mut out);
        log_softmax_grad(&p, &mut logits, &[9], &[0; 4], &out, &[0.0, 2.0]);
        assert_close(&logits, &[-0.5; 4], 1e-6);
    }
}
