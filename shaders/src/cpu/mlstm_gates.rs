use super::sizes;
use crate::params;

/// Gates of the mLSTM and their stabilizer, row after row (docs/model.md, "Local layer (mLSTM)").
///
/// With `ig = cap(x_i)` and `lf = logsigmoid(cap(x_f))`: `m' = max(lf + m, ig)`, `f = exp(lf + m - m')`,
/// `i = exp(ig - m')`, and `g` is the sum of `lf + m - m'` since the start of the row's chunk. Sequences of `period`
/// rows are contiguous, each with its own state and chunks.
///
/// Shapes: x `[rows, ...]` at i_offset, f_offset and stride, m `[sequences, heads]`, gates `[rows, heads, 4]` of f, i,
/// m, g.
pub fn mlstm_gates(p: &params::MlstmGates, x: &[f32], m: &mut [f32], gates: &mut [f32]) {
    let [rows, heads, stride, chunk, period] = sizes([p.rows, p.heads, p.stride, p.chunk, p.period]);
    let [i_offset, f_offset] = sizes([p.i_offset, p.f_offset]);
    for (sequence, first) in (0..rows).step_by(period).enumerate() {
        for head in 0..heads {
            let mut state = f64::from(m[sequence * heads + head]);
            let mut g = 0.0;
            for t in first..(first + period).min(rows) {
                let i = cap(p.cap, x[t * stride + i_offset + head]);
                let decayed = log_sigmoid(cap(p.cap, x[t * stride + f_offset + head])) + state;
                state = decayed.max(i);
                let lost = decayed - state;
                g = if (t - first) % chunk == 0 { 0.0 } else { g } + lost;
                let gate = [lost.exp(), (i - state).exp(), state, g];
                let at = (t * heads + head) * 4;
                gates[at..at + 4].copy_from_slice(&gate.map(|v| v as f32));
            }
            m[sequence * heads + head] = state as f32;
        }
    }
}

/// `cap tanh(x / cap)`, or x if the cap is 0.
pub(super) fn cap(cap: f32, x: f32) -> f64 {
    let (cap, x) = (f64::from(cap), f64::from(x));
    if cap == 0.0 { x } else { cap * (x / cap).tanh() }
}

/// `log(1 / (1 + e^-z))`
fn log_sigmoid(z: f64) -> f64 {
    z.min(0.0) - (-z.abs()).exp().ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::noise;

    #[test]
    fn gates_are_plain_gates_divided_by_the_stabilizer() {
        let p = params::MlstmGates {
            rows: 9,
            heads: 2,
            stride: 6,
            i_offset: 1,
            f_offset: 4,
            chunk: 4,
            cap: 15.0,
            period: 9,
        };
        let x = noise(3, 9 * 6, 12.0);
        let mut m = [0.25, -1.5];
        let start = m;
        let mut gates = [0.0; 9 * 2 * 4];
        mlstm_gates(&p, &x, &mut m, &mut gates);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() <= 1e-5 * expected.abs() + 1e-6);
        for head in 0..2 {
            let mut before = f64::from(start[head]);
            let mut product = 1.0;
            for t in 0..9 {
                let pre = |offset: usize| 15.0 * (f64::from(x[t * 6 + offset + head]) / 15.0).tanh();
                let [f, i, m, g] = [0, 1, 2, 3].map(|which| f64::from(gates[(t * 2 + head) * 4 + which]));
                near(f * (m - before).exp(), 1.0 / (1.0 + (-pre(4)).exp()));
                near(i * m.exp(), pre(1).exp());
                near(f.max(i), 1.0);
                product = if t % 4 == 0 { f } else { product * f };
                near(g.exp(), product);
                before = m;
            }
            assert_eq!(before as f32, m[head]);
        }
    }

    #[test]
    fn sequences_are_independent() {
        let p = params::MlstmGates {
            rows: 8,
            heads: 2,
            stride: 4,
            i_offset: 0,
            f_offset: 2,
            chunk: 3,
            cap: 15.0,
            period: 6,
        };
        let x = noise(7, 8 * 4, 5.0);
        let mut m = [0.5, -1.0, 2.0, 0.0];
        let start = m;
        let mut gates = [0.0; 8 * 2 * 4];
        mlstm_gates(&p, &x, &mut m, &mut gates);
        // The second sequence has the last two rows.
        for (first, end, sequence) in [(0, 6, 0), (6, 8, 1)] {
            let mut m_alone = start[2 * sequence..2 * sequence + 2].to_vec();
            let mut alone = vec![0.0; (end - first) * 2 * 4];
            let p = params::MlstmGates { rows: (end - first) as u32, ..p };
            mlstm_gates(&p, &x[first * 4..end * 4], &mut m_alone, &mut alone);
            assert_eq!(m_alone, m[2 * sequence..2 * sequence + 2]);
            assert_eq!(alone, gates[first * 8..end * 8]);
        }
    }

    #[test]
    fn cap_of_zero_disables_the_cap() {
        let p = params::MlstmGates {
            rows: 1,
            heads: 1,
            stride: 2,
            i_offset: 0,
            f_offset: 1,
            chunk: 64,
            cap: 0.0,
            period: 1,
        };
        let mut m = [0.0];
        let mut gates = [0.0; 4];
        mlstm_gates(&p, &[40.0, 0.0], &mut m, &mut gates);
        assert_eq!(m, [40.0]);
        assert_eq!(gates[1..3], [1.0, 40.0]);
        assert_eq!(gates[3], (-(2f64.ln()) - 40.0) as f32);
    }
}
