use super::{dot, sizes};
use crate::params;

/// The dot products that the gradients of the mLSTM gates are made of (docs/model.md, "Local layer (mLSTM)"): `q · dq`
/// and `k · dk`.
///
/// Shapes: x and dx `[rows, ...]` at q_offset, k_offset and stride, dots `[rows, heads, 2]`.
pub fn mlstm_gate_dots(p: &params::MlstmGateDots, x: &[f32], dx: &[f32], dots: &mut [f32]) {
    let [rows, heads, dk, stride] = sizes([p.rows, p.heads, p.dk, p.stride]);
    for at in 0..rows * heads {
        for (which, offset) in sizes([p.q_offset, p.k_offset]).into_iter().enumerate() {
            let first = at / heads * stride + offset + at % heads * dk;
            dots[2 * at + which] = dot(&x[first..first + dk], &dx[first..first + dk]) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_of_two_heads_match_a_hand_computation() {
        // A row is q (2) of two heads, one unused value, and k (2) of two heads.
        let p = params::MlstmGateDots { rows: 2, heads: 2, dk: 2, stride: 9, q_offset: 0, k_offset: 5 };
        let x: Vec<f32> = (0..18).map(|i| i as f32).collect();
        let dx = [1.0, 0.0, 0.0, 1.0, 99.0, 1.0, 1.0, -1.0, 1.0, 2.0, 0.0, 0.0, 0.5, 99.0, 0.0, 0.0, 1.0, -1.0];
        let mut dots = [f32::NAN; 8];
        mlstm_gate_dots(&p, &x, &dx, &mut dots);
        assert_eq!(dots, [0.0, 11.0, 3.0, 1.0, 18.0, 0.0, 6.0, -1.0]);
    }
}
