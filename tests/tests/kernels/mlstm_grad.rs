//! The backward kernels of the mLSTM.

use bolmo_shaders::params::{
    MlstmChunkOutGrad, MlstmChunkScanGrad, MlstmChunkScores, MlstmChunkStateGrad, MlstmGateDots, MlstmGatesGrad,
    MlstmNormGrad,
};
use bolmo_shaders::sizes::{mlstm_chunk_out_grad_grid, mlstm_chunk_scores_grid};
use bolmo_shaders::{KernelId, cpu};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, UNREAD, UNWRITTEN, Worst, bytes, edges, forms, hold, magnitudes, run, size};
use super::mlstm::{CELL, CHUNK, Cell, HeadNorm, VANISHING, groups};

pub fn chunk_state() {
    let mut edges = Cell::edges(129);
    edges.extend([1, 7, 16].map(|chunk| Cell { chunk, rows: 33, ..CELL }));
    hold(KernelId::MlstmChunkStateGrad, edges, Cell::drawn(140), chunk_state_case);
}

fn chunk_state_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, chunk, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [q_offset, ..] = case.offsets();
    let p = MlstmChunkStateGrad {
        rows: rows as u32,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: case.stride() as u32,
        q_offset: q_offset as u32,
        chunk: chunk as u32,
        scale: 1.0 / (dk as f32).sqrt(),
    };
    let x = noise.rows(Rows { rows, width: heads * dk, offset: q_offset, stride: case.stride() }, 1.0);
    let gates = case.gates(&mut noise, [false, false, false, true]);
    let dy = noise.rows(case.y(), 1.0);
    let dstates = case.states(case.chunks()).output();
    let (mut expected, mut sums) = (dstates.clone(), dstates.clone());
    cpu::mlstm_chunk_state_grad(&p, &x, &gates, &dy, &mut expected);
    cpu::mlstm_chunk_state_grad(&p, &magnitudes(&x), &gates, &magnitudes(&dy), &mut sums);
    let grid = [groups(dk.div_ceil(4) * (dv + 1)), heads, case.chunks()];
    for form in forms(KernelId::MlstmChunkStateGrad) {
        let bindings = [bytes(&x), bytes(&gates), bytes(&dy), bytes(&dstates)];
        let found = run(form, KernelId::MlstmChunkStateGrad, &p, &bindings, grid)?;
        // Half a unit for each row of the chunk and a few for the weight and the products.
        let roundings = rows.min(chunk) as f64 / 2.0 + case.exp_roundings() + 3.0;
        worst.compare("dstates", &found[3], &expected, |i| roundings * EPS * f64::from(sums[i]) + VANISHING)?;
    }
    Ok(())
}

pub fn chunk_scan() {
    let mut edges = Cell::edges(129);
    edges.extend([1, 7, 16].map(|chunk| Cell { chunk, rows: 33, ..CELL }));
    edges.extend([(1, 64), (1, 65), (2, 300), (3, 64)].map(|(sequence, rows)| Cell { sequence, rows, ..CELL }));
    hold(KernelId::MlstmChunkScanGrad, edges, Cell::drawn(300), chunk_scan_case);
}

fn chunk_scan_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, chunk, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let size = dk * (dv + 1);
    let p = MlstmChunkScanGrad {
        rows: rows as u32,
        heads: heads as u32,
        size: size as u32,
        chunk: chunk as u32,
        period: case.period() as u32,
    };
    let mut gates = case.gates(&mut noise, [false, false, false, true]);
    // Only the last row of each chunk is read.
    for t in (0..rows - 1).filter(|t| (t + 1) % chunk != 0) {
        gates[4 * t * heads..4 * (t + 1) * heads].fill(UNREAD);
    }
    let mut dstates = case.states(case.chunks()).output();
    noise.fill(&mut dstates, case.states(case.chunks()), 1.0);
    let (mut expected, mut sums) = (dstates.clone(), magnitudes(&dstates));
    cpu::mlstm_chunk_scan_grad(&p, &gates, &mut expected);
    cpu::mlstm_chunk_scan_grad(&p, &gates, &mut sums);
    for form in forms(KernelId::MlstmChunkScanGrad) {
        let grid = [groups(size), heads, case.sequences()];
        let found = run(form, KernelId::MlstmChunkScanGrad, &p, &[bytes(&gates), bytes(&dstates)], grid)?;
        // A weight, a product and a sum for each chunk that a state comes through.
        let roundings = case.chunks() as f64 * (case.exp_roundings() + 1.0);
        worst.compare("dstates", &found[1], &expected, |i| roundings * EPS * f64::from(sums[i]) + VANISHING)?;
    }
    Ok(())
}

pub fn chunk_scores() {
    let drawn = Cell::drawn(200).prop_map(|case| Cell { chunk: CHUNK, ..case });
    hold(KernelId::MlstmChunkScores, Cell::edges(129), drawn, chunk_scores_case);
}

fn chunk_scores_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [q_offset, k_offset, v_offset] = case.offsets().map(|offset| offset as u32);
    let p = MlstmChunkScores {
        rows: rows as u32,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: case.stride() as u32,
        q_offset,
        k_offset,
        v_offset,
        scale: 1.0 / (dk as f32).sqrt(),
    };
    let x = case.x(&mut noise, true);
    let gates = case.gates(&mut noise, [false, true, false, true]);
    let dy = noise.rows(case.y(), 1.0);
    let scores = Rows::dense(rows, heads * CHUNK).output();
    let (mut a, mut b, mut a_sums, mut b_sums) = (scores.clone(), scores.clone(), scores.clone(), scores.clone());
    cpu::mlstm_chunk_scores(&p, &x, &gates, &dy, &mut a, &mut b);
    cpu::mlstm_chunk_scores(&p, &magnitudes(&x), &gates, &magnitudes(&dy), &mut a_sums, &mut b_sums);
    for form in forms(KernelId::MlstmChunkScores) {
        let bindings = [bytes(&x), bytes(&gates), bytes(&dy), bytes(&scores), bytes(&scores)];
        let found = run(form, KernelId::MlstmChunkScores, &p, &bindings, mlstm_chunk_scores_grid(rows, heads))?;
        // Half a unit for each product, and a few for the weight and the products. What has no weight is 0 exactly.
        let bound = |width: usize, sum: f32| {
            let roundings = width as f64 / 2.0 + case.exp_roundings() + 4.0;
            if sum == 0.0 { 0.0 } else { roundings * EPS * f64::from(sum) + VANISHING }
        };
        worst.compare("a", &found[3], &a, |i| bound(dk, a_sums[i]))?;
        worst.compare("b", &found[4], &b, |i| bound(dv, b_sums[i]))?;
    }
    Ok(())
}

pub fn chunk_out() {
    let drawn = Cell::drawn(200).prop_map(|case| Cell { chunk: CHUNK, ..case });
    hold(KernelId::MlstmChunkOutGrad, Cell::edges(129), drawn, chunk_out_case);
}

fn chunk_out_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [q_offset, k_offset, v_offset] = case.offsets().map(|offset| offset as u32);
    let p = MlstmChunkOutGrad {
        rows: rows as u32,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: case.stride() as u32,
        q_offset,
        k_offset,
        v_offset,
        scale: 1.0 / (dk as f32).sqrt(),
    };
    let x = case.x(&mut noise, true);
    let gates = case.gates(&mut noise, [false, true, false, true]);
    let states = noise.rows(case.states(case.chunks()), 1.0);
    let dstates = noise.rows(case.states(case.chunks()), 1.0);
    let dy = noise.rows(case.y(), 1.0);
    // As they come: 0 for sources behind the row.
    let mut scores = || {
        let mut scores = noise.rows(Rows::dense(rows, heads * CHUNK), 1.0);
        for at in 0..rows * heads {
            scores[at * CHUNK..(at + 1) * CHUNK][at / heads % CHUNK + 1..].fill(0.0);
        }
        scores
    };
    let (a, b) = (scores(), scores());
    let dx = vec![UNWRITTEN; x.len()];
    let (mut expected, mut sums) = (dx.clone(), dx.clone());
    let inputs = cpu::MlstmChunkOutGradInputs {
        x: &x,
        gates: &gates,
        states: &states,
        dstates: &dstates,
        dy: &dy,
        a: &a,
        b: &b,
    };
    cpu::mlstm_chunk_out_grad(&p, inputs, &mut expected);
    let [x_sizes, states_sizes, dstates_sizes, dy_sizes, a_sizes, b_sizes] =
        [&x, &states, &dstates, &dy, &a, &b].map(|values| magnitudes(values));
    let inputs = cpu::MlstmChunkOutGradInputs {
        x: &x_sizes,
        gates: &gates,
        states: &states_sizes,
        dstates: &dstates_sizes,
        dy: &dy_sizes,
        a: &a_sizes,
        b: &b_sizes,
    };
    cpu::mlstm_chunk_out_grad(&p, inputs, &mut sums);
    for form in forms(KernelId::MlstmChunkOutGrad) {
        let bindings = [&x, &gates, &states, &dstates, &dy, &a, &b, &dx].map(|values| bytes(values));
        let grid = mlstm_chunk_out_grad_grid(rows, heads, dk, dv);
        let found = run(form, KernelId::MlstmChunkOutGrad, &p, &bindings, grid)?;
        // Half a unit for each row of the chunk and each product with the state, and a few for the weight and the
        // products.
        let roundings = (rows.min(CHUNK) + dk.max(dv + 1)) as f64 / 2.0 + case.exp_roundings() + 4.0;
        worst.compare("dx", &found[7], &expected, |i| roundings * EPS * f64::from(sums[i]) + VANISHING)?;
    }
    Ok(())
}

pub fn gate_dots() {
    hold(KernelId::MlstmGateDots, Cell::edges(129), Cell::drawn(140), gate_dots_case);
}

fn gate_dots_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [q_offset, k_offset, _] = case.offsets();
    let p = MlstmGateDots {
        rows: rows as u32,
        heads: heads as u32,
        dk: dk as u32,
        stride: case.stride() as u32,
        q_offset: q_offset as u32,
        k_offset: k_offset as u32,
    };
    let mut both = || {
        let part = |offset: usize| Rows { rows, width: heads * dk, offset, stride: case.stride() };
        let mut both = noise.rows(part(q_offset), 1.0);
        noise.fill(&mut both, part(k_offset), 1.0);
        both
    };
    let (x, dx) = (both(), both());
    let dots = Rows::dense(rows, 2 * heads).output();
    let (mut expected, mut sums) = (dots.clone(), dots.clone());
    cpu::mlstm_gate_dots(&p, &x, &dx, &mut expected);
    cpu::mlstm_gate_dots(&p, &magnitudes(&x), &magnitudes(&dx), &mut sums);
    for form in forms(KernelId::MlstmGateDots) {
        let bindings = [bytes(&x), bytes(&dx), bytes(&dots)];
        let found = run(form, KernelId::MlstmGateDots, &p, &bindings, [groups(rows * heads), 1, 1])?;
        let roundings = dk as f64 / 2.0 + 1.0;
        worst.compare("dots", &found[2], &expected, |i| roundings * EPS * f64::from(sums[i]))?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Gates {
    rows: usize,
    heads: usize,
    /// Before the input gates, between them and the forget gates, after those.
    gaps: [usize; 3],
    /// 0: all rows are one sequence.
    period: usize,
    cap: f32,
    size: f32,
    seed: u64,
}

pub fn gates() {
    let base = Gates { rows: 5, heads: 2, gaps: [1, 2, 3], period: 0, cap: 15.0, size: 8.0, seed: 1 };
    let rows = edges(129).chain([3000]).map(|rows| Gates { rows, ..base.clone() });
    let heads = edges(129).map(|heads| Gates { heads, rows: 3, ..base.clone() });
    let periods = edges(65).map(|period| Gates { period, rows: 66, ..base.clone() });
    let sizes = [0.1, 4.0, 30.0, 100.0].map(|size| Gates { size, rows: 40, ..base.clone() });
    let open = [0.1, 4.0, 30.0, 100.0].map(|size| Gates { size, cap: 0.0, rows: 40, ..base.clone() });
    let drawn = (
        (size(140), size(20), [0..5usize, 0..5, 0..5]),
        select(vec![0, CHUNK, 3, 200]),
        select(vec![15.0f32, 15.0, 30.0, 0.0]),
        select(vec![0.5f32, 3.0, 15.0, 40.0]),
        any::<u64>(),
    )
        .prop_map(|((rows, heads, gaps), period, cap, size, seed)| Gates {
            rows,
            heads,
            gaps,
            period,
            cap,
            size,
            seed,
        });
    let edges = rows.chain(heads).chain(periods).chain(sizes).chain(open);
    hold(KernelId::MlstmGatesGrad, edges.collect::<Vec<_>>(), drawn, gates_case);
}

fn gates_case(worst: &Worst, case: &Gates) -> TestCaseResult {
    let &Gates { rows, heads, gaps, period, cap, size, seed } = case;
    let period = if period == 0 { rows } else { period };
    let mut noise = Noise::new(seed);
    let f_offset = gaps[0] + heads + gaps[1];
    let stride = f_offset + heads + gaps[2];
    let p = MlstmGatesGrad {
        rows: rows as u32,
        heads: heads as u32,
        stride: stride as u32,
        i_offset: gaps[0] as u32,
        f_offset: f_offset as u32,
        cap,
        period: period as u32,
    };
    let mut x = noise.rows(Rows { rows, width: heads, offset: gaps[0], stride }, size);
    noise.fill(&mut x, Rows { rows, width: heads, offset: f_offset, stride }, size);
    let dots = noise.rows(Rows::dense(rows, 2 * heads), 1.0);
    let dx = vec![UNWRITTEN; x.len()];
    let mut expected = dx.clone();
    cpu::mlstm_gates_grad(&p, &x, &dots, &mut expected);
    // Second-order error of the compensated running sum.
    let lost = (2.0 * period.min(rows) as f64).powi(2) * EPS * EPS;
    for form in forms(KernelId::MlstmGatesGrad) {
        let grid = [heads, rows.div_ceil(period), 1];
        let found = run(form, KernelId::MlstmGatesGrad, &p, &[bytes(&x), bytes(&dots), bytes(&dx)], grid)?;
        // Exponentials of pre-activations that are good to a few units; the smallest ones come out as 0.
        let roundings = |i: usize| 12.0 + 8.0 * f64::from(x[i].abs());
        let most = 2.0 * period.min(rows) as f64;
        worst.compare("dx", &found[2], &expected, |i| {
            roundings(i) * EPS * f64::from(expected[i].abs()) + lost + most * VANISHING
        })?;
    }
    Ok(())
}

pub fn norm() {
    let (edges, drawn) = HeadNorm::cases();
    hold(KernelId::MlstmNormGrad, edges, drawn, norm_case);
}

/// How far the gradients of a row and head may be off.
struct NormBounds {
    dscale: Vec<f64>,
    gates: Vec<f64>,
    /// The last column too.
    dy: Vec<f64>,
}

fn norm_case(worst: &Worst, case: &HeadNorm) -> TestCaseResult {
    let &HeadNorm { rows, heads, dv, gaps, eps, m, seed } = case;
    let mut noise = Noise::new(seed);
    let x_stride = gaps[0] + heads * dv + gaps[1];
    let p = MlstmNormGrad {
        rows: rows as u32,
        heads: heads as u32,
        dv: dv as u32,
        x_stride: x_stride as u32,
        o_offset: gaps[0] as u32,
        eps,
    };
    let y = noise.rows(Rows::dense(rows, heads * (dv + 1)), 4.0);
    let gates = noise.rows(Rows { rows: rows * heads, width: 1, offset: 2, stride: 4 }, m);
    let x = noise.rows(Rows { rows, width: heads * dv, offset: gaps[0], stride: x_stride }, 6.0);
    let scale = noise.rows(Rows::dense(1, heads * dv), 2.0);
    let dout = noise.rows(Rows::dense(rows, heads * dv), 1.0);
    let [dy, dscale] = [heads * (dv + 1), heads * dv].map(|width| Rows::dense(rows, width).output());
    let dx = vec![UNWRITTEN; x.len()];
    let (mut dy_expected, mut dx_expected, mut dscale_expected) = (dy.clone(), dx.clone(), dscale.clone());
    let inputs = cpu::MlstmNormGradInputs { y: &y, gates: &gates, x: &x, scale: &scale, dout: &dout };
    cpu::mlstm_norm_grad(&p, inputs, &mut dy_expected, &mut dx_expected, &mut dscale_expected);

    let bounds: Vec<NormBounds> = (0..rows * heads)
        .map(|at| {
            let (t, head) = (at / heads, at % heads);
            let o0 = t * x_stride + gaps[0] + head * dv;
            norm_bounds(
                &y[at * (dv + 1)..(at + 1) * (dv + 1)],
                f64::from(gates[4 * at + 2]),
                &x[o0..o0 + dv],
                &scale[head * dv..(head + 1) * dv],
                &dout[at * dv..(at + 1) * dv],
                f64::from(eps),
            )
        })
        .collect();
    for form in forms(KernelId::MlstmNormGrad) {
        let bindings = [&y, &gates, &x, &scale, &dout, &dy, &dx, &dscale].map(|values| bytes(values));
        let found = run(form, KernelId::MlstmNormGrad, &p, &bindings, [heads, rows, 1])?;
        worst.compare("dy", &found[5], &dy_expected, |i| bounds[i / (dv + 1)].dy[i % (dv + 1)])?;
        worst.compare("dx", &found[6], &dx_expected, |i| {
            let (t, at) = (i / x_stride, i % x_stride - gaps[0]);
            bounds[t * heads + at / dv].gates[at % dv]
        })?;
        worst.compare("dscale", &found[7], &dscale_expected, |i| bounds[i / dv].dscale[i % dv])?;
    }
    Ok(())
}

fn norm_bounds(y: &[f32], m: f64, o: &[f32], scale: &[f32], dout: &[f32], eps: f64) -> NormBounds {
    let dv = o.len();
    let width = dv as f64;
    let normaliser = f64::from(y[dv]).abs().max((-m).exp()) + 1e-6;
    let h: Vec<f64> = y[..dv].iter().map(|&y| f64::from(y) / normaliser).collect();
    let mean = h.iter().sum::<f64>() / width;
    let variance = h.iter().map(|h| (h - mean) * (h - mean)).sum::<f64>() / width;
    let r = 1.0 / (variance + eps).sqrt();
    let z: Vec<f64> = h.iter().map(|h| (h - mean) * r).collect();
    let largest = |values: &[f64]| values.iter().fold(0.0f64, |largest, v| largest.max(v.abs()));
    // As in the forward kernel, but that one lane adds up all values: h is off by some roundings of its largest value,
    // r by as much of itself as that is of the deviation, z by both.
    let roundings = (2.0 * m.abs() + width + 24.0) * EPS;
    let r_error = roundings * largest(&h) * r;
    let z_error = r_error * (1.0 + largest(&z));

    // Sigmoids are good to 3 + 2 |o| units.
    let o: Vec<f64> = o.iter().map(|&o| f64::from(o)).collect();
    let gate_error = |o: f64| (10.0 + 2.0 * o.abs()) * EPS;
    let wanted: Vec<f64> = dout.iter().zip(&o).map(|(&d, o)| f64::from(d) / (1.0 + (-o).exp())).collect();
    let e: Vec<f64> = wanted.iter().zip(scale).map(|(w, &scale)| w * f64::from(scale)).collect();
    // Sums of e and of e z over the head, each by its absolute values.
    let e_error = gate_error(largest(&o)) + width * EPS;
    let sum: f64 = e.iter().map(|e| e.abs()).sum();
    let along: f64 = e.iter().zip(&z).map(|(e, z)| (e * z).abs()).sum();
    let along_error = along * e_error + sum * z_error;
    let factor_error = r_error + (8.0 + 2.0 * m.abs()) * EPS;
    let dy = (0..dv).map(|j| {
        let terms = e[j].abs() + sum / width + z[j].abs() * along / width;
        let errors = (e[j].abs() + sum / width) * e_error + (z[j].abs() * along_error + z_error * along) / width;
        (errors + terms * factor_error) * r / normaliser
    });
    let last = (along_error + along * 2.0 * factor_error) * eps * r * r / normaliser;
    NormBounds {
        dscale: (0..dv).map(|j| wanted[j].abs() * (z_error + z[j].abs() * gate_error(o[j]))).collect(),
        gates: (0..dv)
            .map(|j| e[j].abs() / (1.0 + o[j].exp()) * (z_error + z[j].abs() * 2.0 * gate_error(o[j])))
            .collect(),
        dy: dy.chain([last]).collect(),
    }
}
