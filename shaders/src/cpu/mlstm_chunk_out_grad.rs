use super::{gate, sizes};
use crate::params;
use crate::sizes::MLSTM_CHUNK;

/// The inputs of [`mlstm_chunk_out_grad`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct MlstmChunkOutGradInputs<'a> {
    /// `[rows, ...]` at q_offset, k_offset, v_offset and stride.
    pub x: &'a [f32],
    /// `[rows, heads, 4]`
    pub gates: &'a [f32],
    /// `[chunks, heads, dk, dv + 1]`
    pub states: &'a [f32],
    /// `[chunks, heads, dk, dv + 1]`
    pub dstates: &'a [f32],
    /// `[rows, heads, dv + 1]`
    pub dy: &'a [f32],
    /// `[rows, heads, 64]`
    pub a: &'a [f32],
    /// `[rows, heads, 64]`
    pub b: &'a [f32],
}

/// Gradient of the chunkwise mLSTM, step 4 of 4 (docs/model.md, "Local layer (mLSTM)"): the gradients of q, k and v.
///
/// They follow from the scores a and b of `mlstm_chunk_scores`, the state C at the start of each chunk and the gradient
/// dC of the state at its end, with `w_s = exp(g_end - g_s) i_s`:
/// `dq_t = Σ_{s ≤ t} b_ts k_s + scale * exp(g_t) C dy_t`, `dk_s = Σ_{t ≥ s} b_ts q_t + w_s dC (v_s, 1)` and
/// `dv_s = Σ_{t ≥ s} a_ts dy_t + w_s dCᵀ k_s` without the last column.
///
/// Shapes: dx `[rows, ...]` at q_offset, k_offset, v_offset and stride.
pub fn mlstm_chunk_out_grad(p: &params::MlstmChunkOutGrad, inputs: MlstmChunkOutGradInputs, dx: &mut [f32]) {
    let MlstmChunkOutGradInputs { x, gates, states, dstates, dy, a, b } = inputs;
    let [rows, heads, dk, dv, stride] = sizes([p.rows, p.heads, p.dk, p.dv, p.stride]);
    let [q_offset, k_offset, v_offset] = sizes([p.q_offset, p.k_offset, p.v_offset]);
    let chunk = MLSTM_CHUNK as usize;
    let columns = dv + 1;
    for (row, head) in (0..rows).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        let begin = row / chunk * chunk;
        let end = (begin + chunk).min(rows);
        let at = |row: usize| row * heads + head;
        let [_, i, _, g] = gate(gates, at(row));
        let [_, _, _, g_end] = gate(gates, at(end - 1));
        let carried = g.exp() * f64::from(p.scale);
        let kept = (g_end - g).exp() * i;
        let [q0, k0] = [q_offset, k_offset].map(|offset| offset + head * dk);
        let v0 = v_offset + head * dv;
        let x = |row: usize, at: usize| f64::from(x[row * stride + at]);
        let dy = |row: usize, column: usize| f64::from(dy[at(row) * columns + column]);
        let score = |of: &[f32], t: usize, s: usize| f64::from(of[at(t) * chunk + s - begin]);
        let state = |of: &[f32], i: usize, column: usize| {
            f64::from(of[((row / chunk * heads + head) * dk + i) * columns + column])
        };
        let value = |column: usize| if column < dv { x(row, v0 + column) } else { 1.0 };
        for i in 0..dk {
            let near: f64 = (begin..=row).map(|s| score(b, row, s) * x(s, k0 + i)).sum();
            let far: f64 = (0..columns).map(|column| state(states, i, column) * dy(row, column)).sum();
            dx[row * stride + q0 + i] = (near + carried * far) as f32;
            let near: f64 = (row..end).map(|t| score(b, t, row) * x(t, q0 + i)).sum();
            let far: f64 = (0..columns).map(|column| state(dstates, i, column) * value(column)).sum();
            dx[row * stride + k0 + i] = (near + kept * far) as f32;
        }
        for column in 0..dv {
            let near: f64 = (row..end).map(|t| score(a, t, row) * dy(t, column)).sum();
            let far: f64 = (0..dk).map(|i| state(dstates, i, column) * x(row, k0 + i)).sum();
            dx[row * stride + v0 + column] = (near + kept * far) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{gradient, wide};
    use crate::cpu::mlstm_chunk_scores;
    use crate::cpu::noise::{assert_close, noise};

    /// Runs [`mlstm_chunk_scores`] first. The loss covers the outputs and the contributions to the states at the chunk
    /// ends.
    #[test]
    fn matches_central_differences() {
        let (rows, heads, dk, dv, chunk) = (67usize, 2, 3, 2, MLSTM_CHUNK as usize);
        let (stride, q0, k0, v0) = (20, 1, 8, 15);
        let p = params::MlstmChunkOutGrad {
            rows: rows as u32,
            heads: heads as u32,
            dk: dk as u32,
            dv: dv as u32,
            stride: stride as u32,
            q_offset: q0 as u32,
            k_offset: k0 as u32,
            v_offset: v0 as u32,
            scale: 0.6,
        };
        let x = noise(1, rows * stride, 1.0);
        let mut gates = noise(2, rows * heads * 4, 1.0);
        for at in 0..rows * heads {
            // g decreases within a chunk.
            gates[4 * at + 3] = -0.05 * (at / heads % chunk) as f32 - 0.05 * gates[4 * at + 3].abs();
        }
        let states = noise(3, 2 * heads * dk * (dv + 1), 1.0);
        let dstates = noise(4, states.len(), 1.0);
        let dy = noise(5, rows * heads * (dv + 1), 1.0);
        let (mut a, mut b) = (vec![f32::NAN; rows * heads * chunk], vec![f32::NAN; rows * heads * chunk]);
        // The two blocks have the same fields.
        let block: params::MlstmChunkScores = bytemuck::cast(p);
        mlstm_chunk_scores(&block, &x, &gates, &dy, &mut a, &mut b);
        let mut found = vec![0.0; x.len()];
        let inputs =
            MlstmChunkOutGradInputs { x: &x, gates: &gates, states: &states, dstates: &dstates, dy: &dy, a: &a, b: &b };
        mlstm_chunk_out_grad(&p, inputs, &mut found);

        let loss = |x: &[f64]| -> f64 {
            let mut sum = 0.0;
            for (t, head) in (0..rows).flat_map(|t| (0..heads).map(move |head| (t, head))) {
                let begin = t / chunk * chunk;
                let end = (begin + chunk).min(rows);
                let [_, i_t, _, g_t] = gate(&gates, t * heads + head);
                let [_, _, _, g_end] = gate(&gates, (end - 1) * heads + head);
                let part = |row: usize, first: usize, width: usize| &x[row * stride + first + head * width..][..width];
                let (q, k) = (part(t, q0, dk), part(t, k0, dk));
                let value = |row: usize, column: usize| if column < dv { part(row, v0, dv)[column] } else { 1.0 };
                let weights: Vec<f64> = (begin..=t)
                    .map(|s| {
                        let [_, i, _, g] = gate(&gates, s * heads + head);
                        (g_t - g).exp() * i * part(s, k0, dk).iter().zip(q).map(|(k, q)| k * q).sum::<f64>()
                    })
                    .collect();
                for column in 0..=dv {
                    let near: f64 = weights.iter().zip(begin..).map(|(w, s)| w * value(s, column)).sum();
                    let at = |i: usize| ((t / chunk * heads + head) * dk + i) * (dv + 1) + column;
                    let far: f64 = (0..dk).map(|i| q[i] * f64::from(states[at(i)])).sum();
                    let y = f64::from(p.scale) * (near + g_t.exp() * far);
                    sum += f64::from(dy[(t * heads + head) * (dv + 1) + column]) * y;
                    let kept = (g_end - g_t).exp() * i_t * value(t, column);
                    sum += (0..dk).map(|i| f64::from(dstates[at(i)]) * kept * k[i]).sum::<f64>();
                }
            }
            sum
        };
        assert_close(&found, &gradient(loss, &wide(&x)), 1e-6);
    }
}
