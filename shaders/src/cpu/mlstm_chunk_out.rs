use super::{dot, gate, sizes};
use crate::params;
use crate::sizes::MLSTM_CHUNK;

/// Chunkwise mLSTM, step 3 of 3 (docs/model.md, "Local layer (mLSTM)"): the output of every row.
///
/// The output depends on the row's own chunk and on the state at the start of the chunk: `y_t = scale * (Σ_{s ≤ t}
/// exp(g_t - g_s) i_s (q_t · k_s) (v_s, 1) + exp(g_t) q_tᵀ C)`. Chunks have [`MLSTM_CHUNK`] rows. Column dv of y is
/// `scale * q · n`, as in `mlstm_step`.
///
/// Shapes: x `[rows, ...]` at q_offset, k_offset, v_offset and stride, gates `[rows, heads, 4]`,
/// states `[chunks, heads, dk, dv + 1]`, y `[rows, heads, dv + 1]`.
pub fn mlstm_chunk_out(p: &params::MlstmChunkOut, x: &[f32], gates: &[f32], states: &[f32], y: &mut [f32]) {
    let [rows, heads, dk, dv, stride] = sizes([p.rows, p.heads, p.dk, p.dv, p.stride]);
    let [q_offset, k_offset, v_offset] = sizes([p.q_offset, p.k_offset, p.v_offset]);
    let chunk_rows = MLSTM_CHUNK as usize;
    let columns = dv + 1;
    for t in 0..rows {
        let chunk = t / chunk_rows;
        for head in 0..heads {
            let [_, _, _, g_t] = gate(gates, t * heads + head);
            let q0 = t * stride + q_offset + head * dk;
            let q = &x[q0..q0 + dk];
            let mut sum = vec![0.0; columns];
            for (i, &q) in q.iter().enumerate() {
                let state0 = ((chunk * heads + head) * dk + i) * columns;
                let keep = g_t.exp() * f64::from(q);
                for (sum, &state) in sum.iter_mut().zip(&states[state0..state0 + columns]) {
                    *sum += keep * f64::from(state);
                }
            }
            for s in chunk * chunk_rows..=t {
                let [_, i, _, g] = gate(gates, s * heads + head);
                let k0 = s * stride + k_offset + head * dk;
                let v0 = s * stride + v_offset + head * dv;
                let weight = (g_t - g).exp() * i * dot(q, &x[k0..k0 + dk]);
                for (column, sum) in sum.iter_mut().enumerate() {
                    *sum += weight * if column < dv { f64::from(x[v0 + column]) } else { 1.0 };
                }
            }
            let y0 = (t * heads + head) * columns;
            for (y, sum) in y[y0..y0 + columns].iter_mut().zip(sum) {
                *y = (sum * f64::from(p.scale)) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::{assert_close, noise};
    use crate::cpu::{mlstm_chunk_scan, mlstm_chunk_state, mlstm_gates, mlstm_step};

    /// Compares the three chunkwise kernels in two calls with the recurrent kernel in one.
    #[test]
    fn chunkwise_form_matches_recurrent_form() {
        let (heads, dk, dv, chunk) = (2u32, 6u32, 5u32, MLSTM_CHUNK);
        let stride = heads * (2 * dk + dv + 2) + 3;
        let [q_offset, k_offset, v_offset] = [1, 1 + heads * dk, 1 + 2 * heads * dk];
        let i_offset = v_offset + heads * dv;
        let f_offset = i_offset + heads;
        let size = dk * (dv + 1);
        let scale = (dk as f32).powf(-0.5);
        let start = noise(4, (heads * size) as usize, 1.0);
        let m_start = noise(5, heads as usize, 2.0);
        let all = 200;
        let x = noise(6, (all * stride) as usize, 3.0);

        let run = |first: u32, rows: u32, chunkwise: bool, m: &mut [f32], c: &mut [f32]| {
            let x = &x[(first * stride) as usize..((first + rows) * stride) as usize];
            let mut gates = vec![0.0; (rows * heads * 4) as usize];
            let mut y = vec![0.0; (rows * heads * (dv + 1)) as usize];
            mlstm_gates(
                &params::MlstmGates { rows, heads, stride, i_offset, f_offset, chunk, cap: 15.0, period: rows },
                x,
                m,
                &mut gates,
            );
            if chunkwise {
                let mut states = vec![0.0; (rows.div_ceil(chunk) * heads * size) as usize];
                let state = params::MlstmChunkState { rows, heads, dk, dv, stride, k_offset, v_offset, chunk };
                mlstm_chunk_state(&state, x, &gates, &mut states);
                mlstm_chunk_scan(
                    &params::MlstmChunkScan { rows, heads, size, chunk, period: rows },
                    &gates,
                    c,
                    &mut states,
                );
                let out = params::MlstmChunkOut { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
                mlstm_chunk_out(&out, x, &gates, &states, &mut y);
            } else {
                let step = params::MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
                mlstm_step(&step, x, &gates, c, &mut y);
            }
            y
        };

        let (mut m, mut c) = (m_start.clone(), start.clone());
        let expected = run(0, all, false, &mut m, &mut c);
        for cut in [1, 64, 150] {
            let (mut m_cut, mut c_cut) = (m_start.clone(), start.clone());
            let mut y = run(0, cut, true, &mut m_cut, &mut c_cut);
            y.extend(run(cut, all - cut, true, &mut m_cut, &mut c_cut));
            // The tolerance reflects that g is a sum stored in f32.
            assert_close(&y, &expected, 1e-5);
            assert_close(&c_cut, &c, 1e-5);
            assert_close(&m_cut, &m, 1e-6);
        }
    }
}
