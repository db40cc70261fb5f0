use super::sizes;
use crate::params;

/// The entropy of the softmax of each row of logits, `-Σ p log p` in nats.
///
/// Shapes: logits `[rows, n]`, logs `[rows, 4]` as computed by [`log_softmax`](super::log_softmax), of which the
/// maximum and the logarithm of the sum are used, out `[rows]`.
pub fn entropy(p: &params::Entropy, logits: &[f32], logs: &[f32], out: &mut [f32]) {
    let [rows, n] = sizes([p.rows, p.n]);
    for row in 0..rows {
        let [max, log_sum] = [0, 1].map(|i| f64::from(logs[4 * row + i]));
        let of = |&logit: &f32| {
            let log_p = f64::from(logit) - max - log_sum;
            // p is 0, however large its logarithm.
            if log_p < -700.0 { 0.0 } else { -log_p.exp() * log_p }
        };
        out[row] = logits[row * n..(row + 1) * n].iter().map(of).sum::<f64>() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::super::log_softmax;
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn matches_the_closed_form() {
        // Equal probabilities; probabilities 1/2, 1/4, 1/8, 1/8; a single certain id.
        let logits = [[7.0; 4], [4f32.ln(), 2f32.ln(), 0.0, 0.0], [0.0, -1e30, -1e30, -1e30]].concat();
        let mut logs = [0.0; 12];
        let p = params::LogSoftmax { rows: 3, n: 4, stride: 4, offset: 0 };
        log_softmax(&p, &logits, &[0; 3], &[0; 4], &mut logs);
        let mut out = [f32::NAN; 3];
        entropy(&params::Entropy { rows: 3, n: 4 }, &logits, &logs, &mut out);
        assert_close(&out, &[4f32.ln(), 1.75 * 2f32.ln(), 0.0], 1e-6);
    }
}
