use super::{gate, sizes};
use crate::params;

/// Backwards through the chunkwise mLSTM, second (SPEC 4): replaces what each chunk asks of the state at its start by the gradient
/// of the state at its end, last chunk of a sequence first: `dC = exp(g_end) dC' + added`, and 0 behind a sequence.
///
/// Shapes: gates `[rows, heads, 4]`, dstates `[chunks, heads, size]`, `size = dk (dv + 1)`.
pub fn mlstm_chunk_scan_grad(p: &params::MlstmChunkScanGrad, gates: &[f32], dstates: &mut [f32]) {
    let [rows, heads, size, chunk, period] = sizes([p.rows, p.heads, p.size, p.chunk, p.period]);
    for first in (0..rows).step_by(period) {
        let behind = (first + period).min(rows);
        for (head, element) in (0..heads).flat_map(|head| (0..size).map(move |element| (head, element))) {
            let mut state = 0.0;
            for begin in (first..behind).step_by(chunk).rev() {
                let end = (begin + chunk).min(behind);
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
    fn central_differences() {
        let (rows, heads, size, chunk, chunks) = (11usize, 2, 3, 2usize, 6usize);
        let gates = noise(1, rows * heads * 4, 1.0);
        let asked = noise(2, chunks * heads * size, 1.0);
        for period in [rows, 6, 2] {
            let p = params::MlstmChunkScanGrad {
                rows: rows as u32,
                heads: heads as u32,
                size: size as u32,
                chunk: chunk as u32,
                period: period as u32,
            };
            let mut found = asked.clone();
            mlstm_chunk_scan_grad(&p, &gates, &mut found);
            // By what each chunk adds to the state at its end, the states at the starts of those behind it.
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
                        sum += f64::from(asked[from]) * *state;
                        let g = f64::from(gates[4 * ((end - 1) * heads + at / size) + 3]);
                        *state = g.exp() * *state + added[from];
                    }
                }
                sum
            };
            let added = vec![0.5; asked.len()];
            let expected = gradient(loss, &added);
            assert_close(&found, &expected, 1e-6);
        }
    }
}
