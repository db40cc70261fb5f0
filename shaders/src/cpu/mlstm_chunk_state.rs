use super::{gate, sizes};
use crate::params;

/// Chunkwise mLSTM, step 1 of 3 (docs/model.md, "Local layer (mLSTM)"): the contribution of each chunk to the state at
/// its end.
///
/// The contribution is `Σ_s exp(g_end - g_s) i_s k_s (v_s, 1)ᵀ`.
///
/// Shapes: x `[rows, ...]` at k_offset, v_offset and stride, gates `[rows, heads, 4]`, states
/// `[chunks, heads, dk, dv + 1]`.
pub fn mlstm_chunk_state(p: &params::MlstmChunkState, x: &[f32], gates: &[f32], states: &mut [f32]) {
    let [rows, heads, dk, dv, stride, chunk] = sizes([p.rows, p.heads, p.dk, p.dv, p.stride, p.chunk]);
    let [k_offset, v_offset] = sizes([p.k_offset, p.v_offset]);
    let columns = dv + 1;
    for (which, begin) in (0..rows).step_by(chunk).enumerate() {
        let end = (begin + chunk).min(rows);
        for head in 0..heads {
            let [_, _, _, g_end] = gate(gates, (end - 1) * heads + head);
            let mut sum = vec![0.0; dk * columns];
            for s in begin..end {
                let [_, i, _, g] = gate(gates, s * heads + head);
                let weight = (g_end - g).exp() * i;
                let k0 = s * stride + k_offset + head * dk;
                let v0 = s * stride + v_offset + head * dv;
                for (at, sum) in sum.iter_mut().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let v = if column < dv { f64::from(x[v0 + column]) } else { 1.0 };
                    *sum += weight * v * f64::from(x[k0 + row]);
                }
            }
            let at = (which * heads + head) * dk * columns;
            states[at..at + dk * columns].iter_mut().zip(&sum).for_each(|(state, &sum)| *state = sum as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_two_rows_match_a_hand_computation() {
        // One head, dk = 1, dv = 1; a row of x is k, v.
        let p =
            params::MlstmChunkState { rows: 3, heads: 1, dk: 1, dv: 1, stride: 2, k_offset: 0, v_offset: 1, chunk: 2 };
        let x = [2.0, 10.0, 1.0, 3.0, 4.0, 5.0];
        let ln2 = 2f32.ln();
        let gates = [1.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0 - ln2, 1.0, 0.5, 0.0, -7.0];
        let mut states = [0.0; 4];
        mlstm_chunk_state(&p, &x, &gates, &mut states);
        // Chunk 0: half of the first row and all of the second; chunk 1: half of the third.
        let expected = [10.0 + 3.0, 1.0 + 1.0, 10.0, 2.0];
        crate::cpu::noise::assert_close(&states, &expected, 1e-6);
    }
}
