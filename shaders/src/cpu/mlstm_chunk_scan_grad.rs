use super::{gate, sizes};
use crate::params;

/// Gradient of the chunkwise mLSTM, step 2 of 4 (docs/model.md, "Local layer (mLSTM)"): the gradients of the states at
/// the chunk ends.
///
/// The gradient contribution of each chunk is replaced by the gradient of the state at its end, last chunk of a
/// sequence first: `dC = exp(g_end) dC' + added`, and 0 at the end of a sequence.
///
/// Shapes: gates `[rows, heads, 4]`, dstates `[chunks, heads, size]`, `size = dk (dv + 1)`.
pub fn mlstm_chunk_scan_grad(p: &params::MlstmChunkScanGrad, gates: &[f32], dstates: &mut [f32]) {
    let [rows, heads, size, chunk, period] = sizes([p.rows, p.heads, p.size, p.chunk, p.period]);
    for first in (0..rows).step_by(period) {
        let limit = (first + period).min(rows);
        for (head, element) in (0..heads).flat_map(|head| (0..size).map(move |element| (head, element))) {
            let mut state = 0.0;
            for begin in (first..limit).step_by(chunk).rev() {
                let end = (begin + chunk).min(limit);
                let at = (begin / chunk * heads + head) * size + element;
                let added = f64::from(dstates[at]);
                dstates[at] = state as f32;
                let [_, _, _, g_end] = gate(gates, (end - 1) * heads + head);
                state = g_end.exp() * state + added;
            }
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
        let (rows, heads, size, chunk, chunks) = (11usize, 2, 3, 2usize, 6usize);
        let gates = noise(1, rows * heads * 4, 1.0);
        let own = noise(2, chunks * heads * size, 1.0);
        for period in [rows, 6, 2] {
            let p = params::MlstmChunkScanGrad {
                rows: rows as u32,
                heads: heads as u32,
                size: size as u32,
                chunk: chunk as u32,
                period: period as u32,
            };
            let mut found = own.clone();
            mlstm_chunk_scan_grad(&p, &gates, &mut found);
            // The gradient by the contribution of each chunk, through the states at the starts of the later chunks.
            let loss = |added: &[f64]| -> f64 {
                let mut states = vec![0.0; heads * size];
                let mut sum = 0.0;
                for which in 0..chunks {
                    let end = ((which + 1) * chunk).min(rows);
                    if which * chunk % period == 0 {
                        states.fill(0.0);
                    }
                    for (at, state) in states.iter_mut().enumerate() {
                        let from = which * heads * size + at;
                        sum += f64::from(own[from]) * *state;
                        let g = f64::from(gates[4 * ((end - 1) * heads + at / size) + 3]);
                        *state = g.exp() * *state + added[from];
                    }
                }
                sum
            };
            let added = vec![0.5; own.len()];
            let expected = gradient(loss, &added);
            assert_close(&found, &expected, 1e-6);
        }
    }
}
