use super::{mlstm_gates, mlstm_norm, mlstm_step};
use crate::params;

/// A whole mLSTM cell for few rows (docs/model.md, "Local layer (mLSTM)").
///
/// It equals [`mlstm_gates`], [`mlstm_step`] and [`mlstm_norm`] in sequence.
///
/// Shapes: x `[rows, ...]` at the offsets and stride, c `[heads, dk, dv + 1]`, m `[heads]`, norm `[heads, dv]`,
/// out `[rows, heads, dv]`.
pub fn mlstm_cell(p: &params::MlstmCell, x: &[f32], c: &mut [f32], m: &mut [f32], norm: &[f32], out: &mut [f32]) {
    let &params::MlstmCell { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, i_offset, f_offset, .. } = p;
    let mut gates = vec![0.0; (4 * rows * heads) as usize];
    let block = params::MlstmGates { rows, heads, stride, i_offset, f_offset, chunk: rows, cap: p.cap, period: rows };
    mlstm_gates(&block, x, m, &mut gates);
    let mut y = vec![0.0; (rows * heads * (dv + 1)) as usize];
    let block = params::MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: p.scale };
    mlstm_step(&block, x, &gates, c, &mut y);
    let block = params::MlstmNorm { rows, heads, dv, x_stride: stride, o_offset: p.o_offset, eps: p.eps };
    mlstm_norm(&block, &y, &gates, x, norm, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn first_row_matches_a_hand_computation() {
        // One head, dk = 1, dv = 2; a row of x is q, k, v (2), o (2), i, f.
        let p = params::MlstmCell {
            rows: 1,
            heads: 1,
            dk: 1,
            dv: 2,
            stride: 8,
            q_offset: 0,
            k_offset: 1,
            v_offset: 2,
            o_offset: 4,
            i_offset: 6,
            f_offset: 7,
            cap: 15.0,
            scale: 1.0,
            eps: 3.0,
        };
        // From an empty state with m = 0: f = 1 and log f = 0 up to rounding, so m' = 0, i = 1, C' = k v and n' = k.
        let x = [2.0, 0.5, 2.0, 6.0, 0.0, 3f32.ln(), 0.0, 1e9];
        let (mut c, mut m, mut out) = ([0.0; 3], [0.0], [0.0; 2]);
        mlstm_cell(&p, &x, &mut c, &mut m, &[1.0, 2.0], &mut out);
        assert_close(&c, &[1.0, 3.0, 0.5], 1e-6);
        assert!(m[0].abs() < 1e-6);
        // h = (2, 6) / max(1, 1): mean 4, variance 4, root of 7; gates 1/2 and 3/4.
        let root = 7f32.sqrt();
        assert_close(&out, &[-2.0 / root * 0.5, 2.0 / root * 0.75 * 2.0], 1e-5);
    }
}
