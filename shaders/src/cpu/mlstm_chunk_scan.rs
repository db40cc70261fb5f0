use super::{gate, sizes};
use crate::params;

/// Chunkwise mLSTM, step 2 of 3 (docs/model.md, "Local layer (mLSTM)"): the states at the chunk starts.
///
/// The contribution of each chunk is replaced by the state at its start, and c by the state after the last chunk:
/// `C' = exp(g_end) C + added`. Sequences of `period` rows are contiguous, each with its own state.
///
/// Shapes: gates `[rows, heads, 4]`, c `[sequences, heads, size]`, states `[chunks, heads, size]`,
/// `size = dk (dv + 1)`.
pub fn mlstm_chunk_scan(p: &params::MlstmChunkScan, gates: &[f32], c: &mut [f32], states: &mut [f32]) {
    let [rows, heads, size, chunk, period] = sizes([p.rows, p.heads, p.size, p.chunk, p.period]);
    for (sequence, first) in (0..rows).step_by(period).enumerate() {
        let limit = (first + period).min(rows);
        for (head, element) in (0..heads).flat_map(|head| (0..size).map(move |element| (head, element))) {
            let own = (sequence * heads + head) * size + element;
            let mut state = f64::from(c[own]);
            for begin in (first..limit).step_by(chunk) {
                let end = (begin + chunk).min(limit);
                let at = (begin / chunk * heads + head) * size + element;
                let added = f64::from(states[at]);
                states[at] = state as f32;
                let [_, _, _, g_end] = gate(gates, (end - 1) * heads + head);
                state = g_end.exp() * state + added;
            }
            c[own] = state as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_chunks_of_two_heads_match_a_hand_computation() {
        let p = params::MlstmChunkScan { rows: 3, heads: 2, size: 1, chunk: 2, period: 3 };
        let ln2 = 2f32.ln();
        // g of both heads in rows 0, 1 and 2; the last row of a chunk counts.
        let g = [[-9.0, -9.0], [-ln2, 0.0], [0.0, -ln2]];
        let gates: Vec<f32> = g.iter().flatten().flat_map(|&g| [0.0, 0.0, 0.0, g]).collect();
        let mut c = [8.0, 6.0];
        let mut states = [1.0, 2.0, 3.0, 4.0];
        mlstm_chunk_scan(&p, &gates, &mut c, &mut states);
        // Head 0: 8, then 4 + 1, then 5 + 3; head 1: 6, then 6 + 2, then 4 + 4.
        crate::cpu::noise::assert_close(&states, &[8.0, 6.0, 5.0, 8.0], 1e-6);
        crate::cpu::noise::assert_close(&c, &[8.0, 8.0], 1e-6);

        // The same chunks as two sequences with their own states.
        let mut c = [8.0, 6.0, 2.0, 10.0];
        let mut states = [1.0, 2.0, 3.0, 4.0];
        mlstm_chunk_scan(&params::MlstmChunkScan { period: 2, ..p }, &gates, &mut c, &mut states);
        crate::cpu::noise::assert_close(&states, &[8.0, 6.0, 2.0, 10.0], 1e-6);
        crate::cpu::noise::assert_close(&c, &[5.0, 8.0, 5.0, 9.0], 1e-6);
    }
}
