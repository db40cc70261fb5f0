use super::sizes;
use crate::params;

/// Gradient of `h = silu(gate) * up`.
///
/// `d gate = dh up (σ + gate σ (1 - σ))` with the sigmoid `σ` of gate, and `d up = dh silu(gate)`.
///
/// Shapes: gate_up and d_gate_up `[rows, dim, 2]`, dh `[rows, dim]`.
pub fn silu_mul_grad(p: &params::SiluMulGrad, gate_up: &[f32], dh: &[f32], d_gate_up: &mut [f32]) {
    let [rows, dim] = sizes([p.rows, 4 * p.dim4]);
    for at in 0..rows * dim {
        let [gate, up, dh] = [gate_up[2 * at], gate_up[2 * at + 1], dh[at]].map(f64::from);
        let [sigmoid, rest] = [-gate, gate].map(|x| 1.0 / (1.0 + x.exp()));
        d_gate_up[2 * at] = (dh * up * (sigmoid + gate * sigmoid * rest)) as f32;
        d_gate_up[2 * at + 1] = (dh * gate * sigmoid) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{gradient, loss};
    use crate::cpu::noise::{assert_close, noise};

    #[test]
    fn matches_central_differences() {
        let (rows, dim) = (3, 8);
        let silu_mul = |gate_up: &[f64]| -> Vec<f64> {
            gate_up.chunks_exact(2).map(|pair| pair[0] / (1.0 + (-pair[0]).exp()) * pair[1]).collect()
        };
        for size in [0.1, 3.0, 30.0] {
            let gate_up = noise(1, rows * dim * 2, size);
            let dh = noise(2, rows * dim, 1.0);
            let mut d_gate_up = vec![f32::NAN; gate_up.len()];
            silu_mul_grad(&params::SiluMulGrad { rows: 3, dim4: 2 }, &gate_up, &dh, &mut d_gate_up);
            assert_close(&d_gate_up, &gradient(|gate_up| loss(&dh, &silu_mul(gate_up)), &gate_up), 1e-6);
        }
    }

    #[test]
    fn saturated_gates_are_exact() {
        // The sigmoid is exactly 0 or 1.
        let gate_up = [-1e4, 3.0, 1e4, 3.0, -1e4, -3.0, 1e4, -3.0];
        let mut d_gate_up = [f32::NAN; 8];
        silu_mul_grad(&params::SiluMulGrad { rows: 1, dim4: 1 }, &gate_up, &[2.0; 4], &mut d_gate_up);
        assert_eq!(d_gate_up, [0.0, 0.0, 6.0, 2e4, 0.0, 0.0, -6.0, 2e4]);
    }
}
