use super::sizes;
use crate::params;

/// `h = silu(gate) * up` with `silu(x) = x / (1 + exp(-x))` (docs/model.md, "Local layer (mLSTM)" and "Global blocks").
///
/// Shapes: gate_up `[rows, dim, 2]`, h `[rows, dim]`.
pub fn silu_mul(p: &params::SiluMul, gate_up: &[f32], h: &mut [f32]) {
    let [rows, dim] = sizes([p.rows, 4 * p.dim4]);
    for row in 0..rows {
        for i in 0..dim {
            let at = 2 * (row * dim + i);
            let [gate, up] = [gate_up[at], gate_up[at + 1]].map(f64::from);
            h[row * dim + i] = (gate / (1.0 + (-gate).exp()) * up) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn matches_the_closed_form() {
        // sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4, sigmoid(-ln 3) = 1/4, sigmoid(100) = 1.
        let ln3 = 3f32.ln();
        let row = [0.0, 5.0, ln3, 4.0, -ln3, 4.0, 100.0, 0.5];
        let mut h = [0.0; 8];
        silu_mul(&params::SiluMul { rows: 2, dim4: 1 }, &[row, row].concat(), &mut h);
        let expected = [0.0, 3.0 * ln3, -ln3, 50.0];
        assert_close(&h, &[expected, expected].concat(), 1e-7);
    }
}
