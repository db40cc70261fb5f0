use super::{dot, gate, sizes};
use crate::params;
use crate::sizes::MLSTM_CHUNK;

/// Gradient of the chunkwise mLSTM, step 3 of 4 (docs/model.md, "Local layer (mLSTM)"): the scores within each chunk.
///
/// For each row t and each source s ≤ t of its chunk, with `w = scale * exp(g_t - g_s) i_s`: `a = w (q_t · k_s)` and
/// `b = w (dy_t · (v_s, 1))`. The other elements are 0.
///
/// Shapes: x `[rows, ...]` at q_offset, k_offset, v_offset and stride, gates `[rows, heads, 4]`, dy
/// `[rows, heads, dv + 1]`, a and b `[rows, heads, 64]`.
pub fn mlstm_chunk_scores(
    p: &params::MlstmChunkScores,
    x: &[f32],
    gates: &[f32],
    dy: &[f32],
    a: &mut [f32],
    b: &mut [f32],
) {
    let [rows, heads, dk, dv, stride] = sizes([p.rows, p.heads, p.dk, p.dv, p.stride]);
    let [q_offset, k_offset, v_offset] = sizes([p.q_offset, p.k_offset, p.v_offset]);
    let chunk = MLSTM_CHUNK as usize;
    for t in 0..rows {
        let begin = t / chunk * chunk;
        for head in 0..heads {
            let at = t * heads + head;
            let [_, _, _, g_t] = gate(gates, at);
            let q = &x[t * stride + q_offset + head * dk..][..dk];
            let dy = &dy[at * (dv + 1)..(at + 1) * (dv + 1)];
            let places = at * chunk..(at + 1) * chunk;
            a[places.clone()].fill(0.0);
            b[places].fill(0.0);
            for s in begin..=t {
                let [_, i, _, g] = gate(gates, s * heads + head);
                let weight = f64::from(p.scale) * (g_t - g).exp() * i;
                let k = &x[s * stride + k_offset + head * dk..][..dk];
                let v = &x[s * stride + v_offset + head * dv..][..dv];
                a[at * chunk + s - begin] = (weight * dot(q, k)) as f32;
                b[at * chunk + s - begin] = (weight * (dot(&dy[..dv], v) + f64::from(dy[dv]))) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn three_rows_match_a_hand_computation() {
        // Rows 63, 64 and 65 of one head; row 63 is the last of its chunk. dk = 2, dv = 1; a row of x is q (2), k (2),
        // v.
        let p = params::MlstmChunkScores {
            rows: 66,
            heads: 1,
            dk: 2,
            dv: 1,
            stride: 5,
            q_offset: 0,
            k_offset: 2,
            v_offset: 4,
            scale: 0.5,
        };
        let mut x = vec![0.0; 66 * 5];
        x[63 * 5..].copy_from_slice(&[1.0, 1.0, 2.0, 3.0, 4.0, 1.0, -1.0, 5.0, 1.0, 6.0, 2.0, 0.0, 1.0, 1.0, -2.0]);
        let mut gates = vec![0.0; 66 * 4];
        let ln2 = 2f32.ln();
        gates[63 * 4..].copy_from_slice(&[0.0, 1.0, 0.0, -9.0, 0.0, 0.5, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0 - ln2]);
        let mut dy = vec![0.0; 66 * 2];
        dy[63 * 2..].copy_from_slice(&[1.0, 2.0, -1.0, 3.0, 0.5, 1.0]);
        let (mut a, mut b) = (vec![f32::NAN; 66 * 64], vec![f32::NAN; 66 * 64]);
        mlstm_chunk_scores(&p, &x, &gates, &dy, &mut a, &mut b);
        let mut expected = (vec![0.0; 66 * 64], vec![0.0; 66 * 64]);
        // Row 63 sees itself at index 63, with weight 1/2: q · k = 5, dy · (v, 1) = 6.
        (expected.0[63 * 64 + 63], expected.1[63 * 64 + 63]) = (2.5, 3.0);
        // Row 64 sees itself at index 0, with weight 1/4: 4 and -3.
        (expected.0[64 * 64], expected.1[64 * 64]) = (1.0, -0.75);
        // Row 65 sees row 64 with weight 1/8 (10 and 4), and itself with weight 1/2 (2 and 0).
        (expected.0[65 * 64], expected.1[65 * 64]) = (1.25, 0.5);
        (expected.0[65 * 64 + 1], expected.1[65 * 64 + 1]) = (1.0, 0.0);
        assert_close(&a, &expected.0, 1e-6);
        assert_close(&b, &expected.1, 1e-6);
    }
}
