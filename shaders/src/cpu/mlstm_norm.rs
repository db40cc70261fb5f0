use super::{gate, sizes};
use crate::params;

/// Normalizer, head norm and output gate of the mLSTM (docs/model.md, "Local layer (mLSTM)").
///
/// `h = y / (max(|q · n|, exp(-m)) + 1e-6)` and `out = sigmoid(o) * LayerNorm(h) * scale`. The norm subtracts the mean
/// and has no bias.
///
/// Shapes: y `[rows, heads, dv + 1]` with q · n last, gates `[rows, heads, 4]`, x `[rows, ...]` at o_offset and
/// x_stride, scale `[heads, dv]`, out `[rows, heads, dv]`.
pub fn mlstm_norm(p: &params::MlstmNorm, y: &[f32], gates: &[f32], x: &[f32], scale: &[f32], out: &mut [f32]) {
    let [rows, heads, dv, x_stride, o_offset] = sizes([p.rows, p.heads, p.dv, p.x_stride, p.o_offset]);
    for t in 0..rows {
        for head in 0..heads {
            let y0 = (t * heads + head) * (dv + 1);
            let [_, _, m, _] = gate(gates, t * heads + head);
            let normalizer = f64::from(y[y0 + dv]).abs().max((-m).exp()) + 1e-6;
            let h: Vec<f64> = y[y0..y0 + dv].iter().map(|&y| f64::from(y) / normalizer).collect();
            let mean = h.iter().sum::<f64>() / dv as f64;
            let variance = h.iter().map(|h| (h - mean) * (h - mean)).sum::<f64>() / dv as f64;
            let r = 1.0 / (variance + f64::from(p.eps)).sqrt();
            for (j, h) in h.iter().enumerate() {
                let at = head * dv + j;
                let gate = 1.0 / (1.0 + (-f64::from(x[t * x_stride + o_offset + at])).exp());
                out[t * heads * dv + at] = (gate * (h - mean) * r * f64::from(scale[at])) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn two_heads_match_a_hand_computation() {
        let p = params::MlstmNorm { rows: 1, heads: 2, dv: 2, x_stride: 5, o_offset: 1, eps: 3.0 };
        let ln3 = 3f32.ln();
        // Head 0 is divided by |q · n| = 2, head 1 by exp(-m) = 3. Both give h = (1, 3): mean 2, variance 1, root of 4.
        let y = [2.0, 6.0, -2.0, 3.0, 9.0, 0.5];
        let gates = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -ln3, 0.0];
        let x = [9.0, 0.0, ln3, -ln3, 0.0];
        let mut out = [0.0; 4];
        mlstm_norm(&p, &y, &gates, &x, &[1.0, 2.0, 3.0, 4.0], &mut out);
        assert_close(&out, &[-0.25, 0.75, -0.375, 1.0], 2e-6);
    }
}
