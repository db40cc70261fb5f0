use super::mlstm_gates::cap;
use super::sizes;
use crate::params;

/// Gradient of the mLSTM gates (docs/model.md, "Local layer (mLSTM)").
///
/// With F the running sum of logsigmoid(fg) over a sequence: `d ig_s = k_s · dk_s`, `dF_t = q_t · dq_t - k_t · dk_t`
/// and `d lf_u = Σ_{t ≥ u} dF_t`. The gradients of the pre-activations follow by the chain rule.
///
/// Shapes: x and dx `[rows, ...]` at i_offset, f_offset and stride, dots `[rows, heads, 2]` of q · dq and k · dk.
pub fn mlstm_gates_grad(p: &params::MlstmGatesGrad, x: &[f32], dots: &[f32], dx: &mut [f32]) {
    let [rows, heads, stride, period] = sizes([p.rows, p.heads, p.stride, p.period]);
    let [i_offset, f_offset] = sizes([p.i_offset, p.f_offset]);
    for first in (0..rows).step_by(period) {
        for head in 0..heads {
            let mut sum = 0.0;
            for t in (first..(first + period).min(rows)).rev() {
                let [query, key] = [0, 1].map(|which| f64::from(dots[2 * (t * heads + head) + which]));
                sum += query - key;
                let (i, f) = (t * stride + i_offset + head, t * stride + f_offset + head);
                dx[i] = (key * slope(p.cap, x[i])) as f32;
                dx[f] = (sum / (1.0 + cap(p.cap, x[f]).exp()) * slope(p.cap, x[f])) as f32;
            }
        }
    }
}

/// The derivative of [`cap`].
fn slope(cap: f32, x: f32) -> f64 {
    if cap == 0.0 { 1.0 } else { (f64::from(x) / f64::from(cap)).cosh().powi(-2) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{central_differences, gradient, wide};
    use crate::cpu::noise::{assert_close, noise};
    use crate::cpu::{
        MlstmChunkOutGradInputs, MlstmNormGradInputs, mlstm_chunk_out, mlstm_chunk_out_grad, mlstm_chunk_scan,
        mlstm_chunk_scan_grad, mlstm_chunk_scores, mlstm_chunk_state, mlstm_chunk_state_grad, mlstm_gate_dots,
        mlstm_gates, mlstm_norm, mlstm_norm_grad,
    };
    use crate::sizes::MLSTM_CHUNK;

    fn log_sigmoid(z: f64) -> f64 {
        -(-z).exp().ln_1p()
    }

    #[test]
    fn cap_and_running_sum_match_central_differences() {
        let (rows, heads, stride) = (11usize, 2, 7);
        let x = noise(1, rows * stride, 9.0);
        let dots = noise(2, rows * heads * 2, 1.0);
        for (cap, period) in [(15.0, rows), (15.0, 4), (0.0, 4), (4.0, rows)] {
            let p = params::MlstmGatesGrad {
                rows: rows as u32,
                heads: heads as u32,
                stride: stride as u32,
                i_offset: 1,
                f_offset: 4,
                cap,
                period: period as u32,
            };
            let mut found = vec![0.0; x.len()];
            mlstm_gates_grad(&p, &x, &dots, &mut found);
            // Σ k · dk ig + Σ (q · dq - k · dk) F
            let loss = |x: &[f64]| -> f64 {
                let soft = |x: f64| if cap == 0.0 { x } else { f64::from(cap) * (x / f64::from(cap)).tanh() };
                let mut sum = 0.0;
                for head in 0..heads {
                    let mut total = 0.0;
                    for t in 0..rows {
                        let [query, key] = [0, 1].map(|which| f64::from(dots[2 * (t * heads + head) + which]));
                        total = if t % period == 0 { 0.0 } else { total };
                        total += log_sigmoid(soft(x[t * stride + 4 + head]));
                        sum += key * soft(x[t * stride + 1 + head]) + (query - key) * total;
                    }
                }
                sum
            };
            assert_close(&found, &gradient(loss, &wide(&x)), 1e-6);
        }
    }

    const HEADS: usize = 2;
    const DK: usize = 4;
    const DV: usize = 3;
    const CAP: f32 = 15.0;
    const EPS: f32 = 1e-6;
    /// For q, k, v, o, i and f: the width of a head, and the offset of head 0 in a row.
    const PARTS: [(usize, usize); 6] = [(DK, 1), (DK, 10), (DV, 18), (DV, 25), (1, 31), (1, 33)];
    const STRIDE: usize = 36;

    /// The sum of `c` times the outputs of the plain recurrent cell, with norm and output gate (docs/model.md, "Local
    /// layer (mLSTM)").
    fn recurrent(rows: usize, period: usize, c: &[f32], x: &[f64], scale: &[f64]) -> f64 {
        let soft = |x: f64| f64::from(CAP) * (x / f64::from(CAP)).tanh();
        let mut sum = 0.0;
        for head in 0..HEADS {
            let (mut state, mut n, mut m) = ([[0.0; DV]; DK], [0.0; DK], 0.0f64);
            for t in 0..rows {
                if t % period == 0 {
                    (state, n, m) = ([[0.0; DV]; DK], [0.0; DK], 0.0);
                }
                let [q, k, v, o, i, f] = PARTS.map(|(width, first)| &x[t * STRIDE + first + head * width..][..width]);
                let (i, decayed) = (soft(i[0]), log_sigmoid(soft(f[0])) + m);
                m = decayed.max(i);
                let (keep, add) = ((decayed - m).exp(), (i - m).exp());
                let mut y = [0.0; DV];
                let mut product = 0.0;
                for (a, (state, n)) in state.iter_mut().zip(&mut n).enumerate() {
                    let q = q[a] / (DK as f64).sqrt();
                    *n = keep * *n + add * k[a];
                    product += q * *n;
                    for (j, state) in state.iter_mut().enumerate() {
                        *state = keep * *state + add * k[a] * v[j];
                        y[j] += q * *state;
                    }
                }
                let h = y.map(|y| y / (product.abs().max((-m).exp()) + 1e-6));
                let mean = h.iter().sum::<f64>() / DV as f64;
                let root = (h.iter().map(|h| (h - mean).powi(2)).sum::<f64>() / DV as f64 + f64::from(EPS)).sqrt();
                for j in 0..DV {
                    let at = head * DV + j;
                    let out = (h[j] - mean) / root * scale[at] / (1.0 + (-o[j]).exp());
                    sum += f64::from(c[t * HEADS * DV + at]) * out;
                }
            }
        }
        sum
    }

    /// The outputs by the CPU references, and the gradients of x and of the norm's weight.
    fn chunkwise(rows: usize, period: usize, c: &[f32], x: &[f32], scale: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let [rows_u, period_u, heads, dk, dv, stride] = [rows, period, HEADS, DK, DV, STRIDE].map(|n| n as u32);
        let [q_offset, k_offset, v_offset, o_offset, i_offset, f_offset] = PARTS.map(|(_, first)| first as u32);
        let (chunk, factor, size) = (MLSTM_CHUNK, (DK as f32).powf(-0.5), DK * (DV + 1));
        let (rows, sequences, chunks) = (rows_u, rows.div_ceil(period), rows.div_ceil(chunk as usize));
        let count = rows as usize * HEADS;
        let mut m = vec![0.0; sequences * HEADS];
        let mut gates = vec![f32::NAN; count * 4];
        let p = params::MlstmGates { rows, heads, stride, i_offset, f_offset, chunk, cap: CAP, period: period_u };
        mlstm_gates(&p, x, &mut m, &mut gates);
        let mut states = vec![f32::NAN; chunks * HEADS * size];
        let p = params::MlstmChunkState { rows, heads, dk, dv, stride, k_offset, v_offset, chunk };
        mlstm_chunk_state(&p, x, &gates, &mut states);
        let p = params::MlstmChunkScan { rows, heads, size: size as u32, chunk, period: period_u };
        mlstm_chunk_scan(&p, &gates, &mut vec![0.0; sequences * HEADS * size], &mut states);
        let mut y = vec![f32::NAN; count * (DV + 1)];
        let p = params::MlstmChunkOut { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: factor };
        mlstm_chunk_out(&p, x, &gates, &states, &mut y);
        let mut out = vec![f32::NAN; count * DV];
        let p = params::MlstmNorm { rows, heads, dv, x_stride: stride, o_offset, eps: EPS };
        mlstm_norm(&p, &y, &gates, x, scale, &mut out);

        let (mut dy, mut dx, mut dscale) = (vec![f32::NAN; y.len()], vec![0.0; x.len()], vec![f32::NAN; out.len()]);
        let p = params::MlstmNormGrad { rows, heads, dv, x_stride: stride, o_offset, eps: EPS };
        let inputs = MlstmNormGradInputs { y: &y, gates: &gates, x, scale, dout: c };
        mlstm_norm_grad(&p, inputs, &mut dy, &mut dx, &mut dscale);
        let mut dstates = vec![f32::NAN; states.len()];
        let p = params::MlstmChunkStateGrad { rows, heads, dk, dv, stride, q_offset, chunk, scale: factor };
        mlstm_chunk_state_grad(&p, x, &gates, &dy, &mut dstates);
        let p = params::MlstmChunkScanGrad { rows, heads, size: size as u32, chunk, period: period_u };
        mlstm_chunk_scan_grad(&p, &gates, &mut dstates);
        let (mut a, mut b) = (vec![f32::NAN; count * chunk as usize], vec![f32::NAN; count * chunk as usize]);
        let p = params::MlstmChunkScores { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: factor };
        mlstm_chunk_scores(&p, x, &gates, &dy, &mut a, &mut b);
        let p = params::MlstmChunkOutGrad { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: factor };
        let inputs =
            MlstmChunkOutGradInputs { x, gates: &gates, states: &states, dstates: &dstates, dy: &dy, a: &a, b: &b };
        mlstm_chunk_out_grad(&p, inputs, &mut dx);
        let mut dots = vec![f32::NAN; count * 2];
        let p = params::MlstmGateDots { rows, heads, dk, stride, q_offset, k_offset };
        let dqk = dx.clone();
        mlstm_gate_dots(&p, x, &dqk, &mut dots);
        let p = params::MlstmGatesGrad { rows, heads, stride, i_offset, f_offset, cap: CAP, period: period_u };
        mlstm_gates_grad(&p, x, &dots, &mut dx);
        let summed = (0..HEADS * DV).map(|j| dscale.iter().skip(j).step_by(HEADS * DV).sum()).collect();
        (out, dx, summed)
    }

    /// Compares the gradients of the whole chunkwise form with central differences of the plain recurrent cell.
    ///
    /// `gates` holds the center and the range of the pre-activations of the input and forget gates. `tolerance` is
    /// relative to the largest gradient of the same part of a row.
    fn check(rows: usize, period: usize, gates: [(f32, f32); 2], tolerance: f64) {
        let seed = (rows * 1000 + period) as u64;
        let mut x = noise(seed, rows * STRIDE, 1.5);
        for (&(_, first), (center, range)) in PARTS[4..].iter().zip(gates) {
            for row in x.chunks_exact_mut(STRIDE) {
                row[first..first + HEADS].iter_mut().for_each(|x| *x = center + range / 1.5 * *x);
            }
        }
        let scale = noise(seed + 1, HEADS * DV, 1.0);
        let c = noise(seed + 2, rows * HEADS * DV, 1.0);
        let (out, dx, dscale) = chunkwise(rows, period, &c, &x, &scale);
        let (x, scale) = (wide(&x), wide(&scale));
        let forward = recurrent(rows, period, &c, &x, &scale);
        let sum: f64 = out.iter().zip(&c).map(|(&out, &c)| f64::from(out) * f64::from(c)).sum();
        assert!((sum - forward).abs() <= 1e-4 * (rows as f64).sqrt(), "forwards: {sum}, expected {forward}");

        let loss = |x: &[f64]| recurrent(rows, period, &c, x, &scale);
        // A difference costs two whole sequences, so of long ones some rows must do, with those around the ends of
        // chunks.
        let sampled: Vec<usize> = (0..rows).filter(|t| rows < 100 || t % 9 == 0 || (t + 2) % 64 < 4).collect();
        let parts: Vec<Vec<[f64; 2]>> = PARTS
            .into_iter()
            .map(|(width, first)| {
                let places = sampled.iter().flat_map(|t| (0..HEADS * width).map(move |j| t * STRIDE + first + j));
                places.map(|at| [f64::from(dx[at]), central_differences(loss, &x, at)]).collect()
            })
            .collect();
        let largest = |part: &[[f64; 2]]| part.iter().fold(0.0f64, |largest, [_, v]| largest.max(v.abs()));
        let whole = parts.iter().map(|part| largest(part)).fold(0.0, f64::max);
        for (part, name) in parts.iter().zip(["q", "k", "v", "o", "i", "f"]) {
            // The norm is invariant to scale, so gradients of short sequences cancel up to rounding errors.
            let bound = tolerance * largest(part) + 1e-6 * whole;
            let worst = part.iter().map(|[found, v]| (found - v).abs()).fold(0.0, f64::max);
            eprintln!(
                "{rows} rows, sequences of {period}, d{name}: off by {worst:.1e}, largest {:.1e}, bound {bound:.1e}",
                largest(part)
            );
            assert!(worst <= bound, "d{name} of {rows} rows: off by {worst:.1e}, at most {bound:.1e}");
        }
        assert_close(&dscale, &gradient(|scale| recurrent(rows, period, &c, &x, scale), &scale), 1e-4);
    }

    const LENGTHS: [(usize, usize); 7] = [(1, 1), (5, 5), (64, 64), (65, 65), (200, 200), (128, 64), (200, 128)];

    #[test]
    fn moderate_gates_match_central_differences() {
        LENGTHS.into_iter().for_each(|(rows, period)| check(rows, period, [(0.0, 2.0), (3.0, 2.0)], 1e-5));
    }

    #[test]
    fn wide_gates_match_central_differences() {
        LENGTHS.into_iter().for_each(|(rows, period)| check(rows, period, [(0.0, 20.0), (0.0, 20.0)], 1e-4));
    }

    /// Gates as initialized at the start of training.
    #[test]
    fn closed_gates_match_central_differences() {
        LENGTHS.into_iter().for_each(|(rows, period)| check(rows, period, [(-10.0, 0.5), (4.5, 1.5)], 1e-5));
    }
}
