use super::{gate, sizes};
use crate::params;

/// The mLSTM cell in its recurrent form (docs/model.md, "Local layer (mLSTM)"): `C' = f C + i k vᵀ`,
/// `y = scale * qᵀ C'`, row after row.
///
/// The normalizer n is column dv of C, as if v had one more value that is always 1, so column dv of y is
/// `scale * q · n'`.
///
/// Shapes: x `[rows, ...]` at q_offset, k_offset, v_offset and stride, gates `[rows, heads, 4]`, c
/// `[heads, dk, dv + 1]`, y `[rows, heads, dv + 1]`.
pub fn mlstm_step(p: &params::MlstmStep, x: &[f32], gates: &[f32], c: &mut [f32], y: &mut [f32]) {
    let [rows, heads, dk, dv, stride] = sizes([p.rows, p.heads, p.dk, p.dv, p.stride]);
    let [q_offset, k_offset, v_offset] = sizes([p.q_offset, p.k_offset, p.v_offset]);
    let columns = dv + 1;
    for head in 0..heads {
        for column in 0..columns {
            // The kernel keeps the state in f32 from row to row. Rounding it only at the end is more accurate.
            let at = |i: usize| (head * dk + i) * columns + column;
            let mut state: Vec<f64> = (0..dk).map(|i| f64::from(c[at(i)])).collect();
            for t in 0..rows {
                let [keep, write, _, _] = gate(gates, t * heads + head);
                let q0 = t * stride + q_offset + head * dk;
                let k0 = t * stride + k_offset + head * dk;
                let v = if column < dv { f64::from(x[t * stride + v_offset + head * dv + column]) } else { 1.0 };
                let mut sum = 0.0;
                for (i, state) in state.iter_mut().enumerate() {
                    *state = keep * *state + write * f64::from(x[k0 + i]) * v;
                    sum += f64::from(x[q0 + i]) * *state;
                }
                y[(t * heads + head) * columns + column] = (sum * f64::from(p.scale)) as f32;
            }
            for (i, &state) in state.iter().enumerate() {
                c[at(i)] = state as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rows_match_a_hand_computation() {
        // One head, dk = 2, dv = 1; a row of x is q (2), k (2), v (1).
        let p = params::MlstmStep {
            rows: 2,
            heads: 1,
            dk: 2,
            dv: 1,
            stride: 5,
            q_offset: 0,
            k_offset: 2,
            v_offset: 4,
            scale: 0.5,
        };
        let x = [1.0, 1.0, 2.0, 3.0, 10.0, 1.0, -1.0, 1.0, 0.0, 4.0];
        let gates = [0.5, 1.0, 0.0, 0.0, 1.0, 0.25, 0.0, 0.0];
        let mut c = [2.0, 4.0, 0.0, 2.0]; // (C, n) per row of C
        let mut y = [0.0; 4];
        mlstm_step(&p, &x, &gates, &mut c, &mut y);
        // Row 0: C = (1 + 20, 0 + 30), n = (2 + 2, 1 + 3); row 1 adds (1, 0) and (0.25, 0).
        assert_eq!(c, [22.0, 4.25, 30.0, 4.0]);
        assert_eq!(y, [25.5, 4.0, -4.0, 0.125]);
    }
}
