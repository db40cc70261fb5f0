use super::{gate, sizes};
use crate::params;

/// The inputs of [`mlstm_norm_grad`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct MlstmNormGradInputs<'a> {
    /// `[rows, heads, dv + 1]` with q · n last.
    pub y: &'a [f32],
    /// `[rows, heads, 4]`
    pub gates: &'a [f32],
    /// `[rows, ...]` at o_offset and x_stride.
    pub x: &'a [f32],
    /// `[heads, dv]`
    pub scale: &'a [f32],
    /// `[rows, heads, dv]`
    pub dout: &'a [f32],
}

/// Gradient of `mlstm_norm` (docs/model.md, "Local layer (mLSTM)").
///
/// From the gradient of the output to the gradients of the cell's sums, of the output gates and, row by row, of the
/// norm's weight. The stabilizer is a constant.
///
/// Shapes: dy `[rows, heads, dv + 1]`, dx `[rows, ...]` at o_offset and x_stride, dscale `[rows, heads, dv]`.
pub fn mlstm_norm_grad(
    p: &params::MlstmNormGrad,
    inputs: MlstmNormGradInputs,
    dy: &mut [f32],
    dx: &mut [f32],
    dscale: &mut [f32],
) {
    let MlstmNormGradInputs { y, gates, x, scale, dout } = inputs;
    let [rows, heads, dv, x_stride, o_offset] = sizes([p.rows, p.heads, p.dv, p.x_stride, p.o_offset]);
    let (eps, width) = (f64::from(p.eps), dv as f64);
    for at in 0..rows * heads {
        let (t, head) = (at / heads, at % heads);
        let (y0, o0) = (at * (dv + 1), t * x_stride + o_offset + head * dv);
        let [_, _, m, _] = gate(gates, at);
        let product = f64::from(y[y0 + dv]);
        let normalizer = product.abs().max((-m).exp()) + 1e-6;
        let h: Vec<f64> = y[y0..y0 + dv].iter().map(|&y| f64::from(y) / normalizer).collect();
        let mean = h.iter().sum::<f64>() / width;
        let variance = h.iter().map(|h| (h - mean) * (h - mean)).sum::<f64>() / width;
        let r = 1.0 / (variance + eps).sqrt();
        let normed: Vec<f64> = h.iter().map(|h| (h - mean) * r).collect();

        let mut z_grad = vec![0.0; dv];
        for (j, &z) in normed.iter().enumerate() {
            let o = f64::from(x[o0 + j]);
            let wanted = f64::from(dout[at * dv + j]) / (1.0 + (-o).exp());
            z_grad[j] = wanted * f64::from(scale[head * dv + j]);
            dscale[at * dv + j] = (wanted * z) as f32;
            dx[o0 + j] = (z_grad[j] * z / (1.0 + o.exp())) as f32;
        }
        let sum: f64 = z_grad.iter().sum();
        let dot: f64 = z_grad.iter().zip(&normed).map(|(e, z)| e * z).sum();
        for (j, &z) in normed.iter().enumerate() {
            dy[y0 + j] = ((z_grad[j] - sum / width - z * dot / width) * r / normalizer) as f32;
        }
        // Σ dh h equals eps r² Σ z_grad z.
        let shrinks = -eps * r * r * dot / normalizer * product.signum();
        dy[y0 + dv] = if product.abs() > (-m).exp() { shrinks as f32 } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{gradient, wide};
    use crate::cpu::noise::{assert_close, noise};

    #[test]
    fn matches_central_differences() {
        let (rows, heads, dv) = (5, 2, 4);
        let [count, stride] = [rows * heads, 1 + heads * dv + 2];
        // eps small and large compared to the variance.
        for eps in [1e-6, 0.3] {
            let p = params::MlstmNormGrad {
                rows: rows as u32,
                heads: heads as u32,
                dv: dv as u32,
                x_stride: stride as u32,
                o_offset: 1,
                eps,
            };
            let y = noise(1, count * (dv + 1), 2.0);
            let gates = noise(2, count * 4, 0.7);
            let x = noise(3, rows * stride, 3.0);
            let scale = noise(4, heads * dv, 1.0);
            let dout = noise(5, count * dv, 1.0);
            let least = |at: usize| (-gates[4 * at + 2]).exp();
            let outweighing = (0..count).filter(|&at| y[at * (dv + 1) + dv].abs() > least(at)).count();
            assert!(outweighing > 0 && outweighing < count, "the inputs must cover both sides of the normalizer");

            let loss = |y: &[f64], x: &[f64], scale: &[f64]| -> f64 {
                let row = |at: usize| {
                    let y = &y[at * (dv + 1)..(at + 1) * (dv + 1)];
                    let normalizer = y[dv].abs().max((-f64::from(gates[4 * at + 2])).exp()) + 1e-6;
                    let mean = y[..dv].iter().sum::<f64>() / normalizer / dv as f64;
                    let h: Vec<f64> = y[..dv].iter().map(|y| y / normalizer - mean).collect();
                    let root = (h.iter().map(|h| h * h).sum::<f64>() / dv as f64 + f64::from(eps)).sqrt();
                    let o = &x[at / heads * stride + 1 + at % heads * dv..];
                    let out = |j: usize| h[j] / root * scale[at % heads * dv + j] / (1.0 + (-o[j]).exp());
                    (0..dv).map(|j| f64::from(dout[at * dv + j]) * out(j)).sum::<f64>()
                };
                (0..count).map(row).sum()
            };
            let mut dy = vec![f32::NAN; y.len()];
            let mut dx = vec![0.0; x.len()];
            let mut dscale = vec![f32::NAN; count * dv];
            let inputs = MlstmNormGradInputs { y: &y, gates: &gates, x: &x, scale: &scale, dout: &dout };
            mlstm_norm_grad(&p, inputs, &mut dy, &mut dx, &mut dscale);
            let [y, x, scale] = [&y, &x, &scale].map(|values| wide(values));
            assert_close(&dy, &gradient(|y| loss(y, &x, &scale), &y), 1e-6);
            assert_close(&dx, &gradient(|x| loss(&y, x, &scale), &x), 1e-6);
            let summed: Vec<f32> = (0..heads * dv).map(|j| dscale.iter().skip(j).step_by(heads * dv).sum()).collect();
            assert_close(&summed, &gradient(|scale| loss(&y, &x, scale), &scale), 1e-6);
            // The last column is small compared to the others, so it is compared separately.
            let last = |dy: &[f32]| dy.iter().skip(dv).step_by(dv + 1).copied().collect::<Vec<_>>();
            assert_close(&last(&dy), &last(&gradient(|y| loss(y, &x, &scale), &y)), 1e-3);
        }
    }
}
