use super::{gate, sizes};
use crate::params;

/// Gradient of the chunkwise mLSTM, step 1 of 4 (docs/model.md, "Local layer (mLSTM)"): the contribution of each chunk
/// to the gradient of the state at its start.
///
/// The contribution is `scale * Σ_t exp(g_t) q_t dy_tᵀ`.
///
/// Shapes: x `[rows, ...]` at q_offset and stride, gates `[rows, heads, 4]`, dy `[rows, heads, dv + 1]`,
/// dstates `[chunks, heads, dk, dv + 1]`.
pub fn mlstm_chunk_state_grad(
    p: &params::MlstmChunkStateGrad,
    x: &[f32],
    gates: &[f32],
    dy: &[f32],
    dstates: &mut [f32],
) {
    let [rows, heads, dk, dv, stride, chunk] = sizes([p.rows, p.heads, p.dk, p.dv, p.stride, p.chunk]);
    let columns = dv + 1;
    for (which, begin) in (0..rows).step_by(chunk).enumerate() {
        for head in 0..heads {
            let mut sum = vec![0.0; dk * columns];
            for t in begin..(begin + chunk).min(rows) {
                let [_, _, _, g] = gate(gates, t * heads + head);
                let weight = g.exp() * f64::from(p.scale);
                let q0 = t * stride + p.q_offset as usize + head * dk;
                let dy0 = (t * heads + head) * columns;
                for (at, sum) in sum.iter_mut().enumerate() {
                    *sum += weight * f64::from(x[q0 + at / columns]) * f64::from(dy[dy0 + at % columns]);
                }
            }
            let at = (which * heads + head) * dk * columns;
            dstates[at..at + dk * columns].iter_mut().zip(&sum).for_each(|(state, &sum)| *state = sum as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::gradient;
    use crate::cpu::noise::{assert_close, noise};

    #[test]
    fn matches_central_differences() {
        let (rows, heads, dk, dv, chunk, stride) = (7, 2, 3, 2, 3, 8);
        let p = params::MlstmChunkStateGrad {
            rows: rows as u32,
            heads: heads as u32,
            dk: dk as u32,
            dv: dv as u32,
            stride: stride as u32,
            q_offset: 1,
            chunk: chunk as u32,
            scale: 0.5,
        };
        let x = noise(1, rows * stride, 1.0);
        let gates = noise(2, rows * heads * 4, 1.0);
        let dy = noise(3, rows * heads * (dv + 1), 1.0);
        let mut found = vec![f32::NAN; 3 * heads * dk * (dv + 1)];
        mlstm_chunk_state_grad(&p, &x, &gates, &dy, &mut found);
        // y_t = exp(g_t) q_tᵀ C / 2 for the state C at the start of the chunk.
        let loss = |states: &[f64]| -> f64 {
            let y = |t: usize, head: usize, column: usize| {
                let state = |i: usize| states[((t / chunk * heads + head) * dk + i) * (dv + 1) + column];
                let q = |i: usize| f64::from(x[t * stride + 1 + head * dk + i]);
                let g = f64::from(gates[4 * (t * heads + head) + 3]);
                0.5 * g.exp() * (0..dk).map(|i| q(i) * state(i)).sum::<f64>()
            };
            let all = (0..rows * heads * (dv + 1)).map(|at| (at, at / (dv + 1), at % (dv + 1)));
            all.map(|(at, row, column)| f64::from(dy[at]) * y(row / heads, row % heads, column)).sum()
        };
        let states = vec![0.25; found.len()];
        assert_close(&found, &gradient(loss, &states), 1e-6);
    }
}
