//! The mLSTM kernels: gates, recurrent step, the three kernels of the chunkwise form, and the norm after them.

use bolmo_shaders::params::{MlstmChunkOut, MlstmChunkScan, MlstmChunkState, MlstmGates, MlstmNorm, MlstmStep};
use bolmo_shaders::sizes::{MLSTM_CHUNK, MLSTM_MAX_DK, WORKGROUP};
use bolmo_shaders::{KernelId, cpu};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, UNREAD, Worst, bytes, edges, forms, hold, largest, magnitudes, run, size};

pub const CHUNK: usize = MLSTM_CHUNK as usize;
pub const MAX_DK: usize = MLSTM_MAX_DK as usize;
/// Added to bounds: the sum of weights below exp(-50).
pub const VANISHING: f64 = 1e-18;

pub fn groups(lanes: usize) -> usize {
    lanes.div_ceil(WORKGROUP as usize)
}

#[derive(Debug, Clone)]
struct Gates {
    rows: usize,
    heads: usize,
    /// Before the input gates, between them and the forget gates, after those.
    gaps: [usize; 3],
    chunk: usize,
    /// Chunks of a sequence; 0: a single sequence of all rows.
    sequence: usize,
    cap: f32,
    size: f32,
    m: f32,
    seed: u64,
}

pub fn gates() {
    let base =
        Gates { rows: 5, heads: 2, gaps: [1, 2, 3], chunk: CHUNK, sequence: 0, cap: 15.0, size: 8.0, m: 3.0, seed: 1 };
    let rows = edges(129).map(|rows| Gates { rows, ..base.clone() });
    let heads = edges(129).map(|heads| Gates { heads, rows: 3, ..base.clone() });
    let chunks = edges(65).map(|chunk| Gates { chunk, rows: 66, ..base.clone() });
    let sequences = [(1, 64), (1, 65), (2, 129), (2, 300), (3, 64)].map(|(sequence, rows)| Gates {
        sequence,
        rows,
        heads: 3,
        ..base.clone()
    });
    let sizes = [0.1, 4.0, 30.0, 100.0].map(|size| Gates { size, rows: 40, ..base.clone() });
    let open = [0.1, 4.0, 30.0, 100.0].map(|size| Gates { size, cap: 0.0, rows: 40, ..base.clone() });
    let drawn = (
        (size(140), size(20), [0..5usize, 0..5, 0..5]),
        (select(vec![CHUNK, 3, 16]), 0..4usize),
        select(vec![15.0f32, 15.0, 30.0, 0.0]),
        select(vec![0.5f32, 3.0, 15.0, 40.0]),
        select(vec![0.0f32, 1.0, 20.0]),
        any::<u64>(),
    )
        .prop_map(|((rows, heads, gaps), (chunk, sequence), cap, size, m, seed)| Gates {
            rows,
            heads,
            gaps,
            chunk,
            sequence,
            cap,
            size,
            m,
            seed,
        });
    let edges = rows.chain(heads).chain(chunks).chain(sequences).chain(sizes).chain(open);
    hold(KernelId::MlstmGates, edges.collect::<Vec<_>>(), drawn, gates_case);
}

fn gates_case(worst: &Worst, case: &Gates) -> TestCaseResult {
    let &Gates { rows, heads, gaps, chunk, sequence, cap, size, m, seed } = case;
    let period = if sequence == 0 { rows } else { sequence * chunk };
    let sequences = rows.div_ceil(period);
    let mut noise = Noise::new(seed);
    let f_offset = gaps[0] + heads + gaps[1];
    let stride = f_offset + heads + gaps[2];
    let p = MlstmGates {
        rows: rows as u32,
        heads: heads as u32,
        stride: stride as u32,
        i_offset: gaps[0] as u32,
        f_offset: f_offset as u32,
        chunk: chunk as u32,
        cap,
        period: period as u32,
    };
    let mut x = noise.rows(Rows { rows, width: heads, offset: gaps[0], stride }, size);
    noise.fill(&mut x, Rows { rows, width: heads, offset: f_offset, stride }, size);
    let mut m_before = Rows::dense(sequences, heads).output();
    noise.fill(&mut m_before, Rows::dense(sequences, heads), m);
    let gates = Rows::dense(rows, 4 * heads).output();
    let (mut m_expected, mut expected) = (m_before.clone(), gates.clone());
    cpu::mlstm_gates(&p, &x, &mut m_expected, &mut expected);

    // Error bound of a state after `row` rows: pre-activations and their log-sigmoid are accurate to about 4 units and
    // never exceed `size`, and the state rounds once per row.
    let state = (0..rows * heads).map(|at| f64::from(expected[4 * at + 2].abs())).fold(largest(&m_before), f64::max);
    let state_error = |row: usize| (row as f64 + 2.0) * 4.0 * EPS * state.max(f64::from(size) + 1.0);
    let g = (0..rows * heads).map(|at| f64::from(expected[4 * at + 3].abs())).fold(0.0, f64::max);
    for form in forms(KernelId::MlstmGates) {
        let bindings = [bytes(&x), bytes(&m_before), bytes(&gates)];
        let found = run(form, KernelId::MlstmGates, &p, &bindings, [heads, sequences, 1])?;
        worst.compare("m", &found[1], &m_expected, |_| state_error(rows))?;
        worst.compare("gates", &found[2], &expected, |i| {
            let row = i / (4 * heads);
            match i % 4 {
                // Exponentials of a difference to the state, at most 1.
                0 | 1 => state_error(row) * f64::from(expected[i]) + 4.0 * EPS,
                2 => state_error(row),
                // The errors of the states in between fall out of the sum; a rounding for each row of the chunk stays.
                _ => 2.0 * state_error(row) + ((row % chunk) as f64 + 1.0) * EPS * g,
            }
        })?;
    }
    Ok(())
}

/// Rows of q, k and v with their gates.
#[derive(Debug, Clone)]
pub struct Cell {
    pub rows: usize,
    pub heads: usize,
    pub dk: usize,
    pub dv: usize,
    /// Before q, k and v and after v.
    pub gaps: [usize; 4],
    /// Rows of a chunk, for kernels that take it as a parameter.
    pub chunk: usize,
    /// Chunks of a sequence, for kernels with several sequences; 0: a single sequence of all rows.
    pub sequence: usize,
    /// A row forgets up to exp(-decay).
    pub decay: f32,
    pub seed: u64,
}

pub const CELL: Cell =
    Cell { rows: 5, heads: 2, dk: 6, dv: 5, gaps: [1, 2, 3, 4], chunk: CHUNK, sequence: 0, decay: 0.5, seed: 2 };

impl Cell {
    /// Every edge in one size, the others small.
    pub fn edges(max_rows: usize) -> Vec<Self> {
        let rows = edges(max_rows).map(|rows| Self { rows, ..CELL });
        let heads = edges(17).map(|heads| Self { heads, ..CELL });
        let dk = edges(MAX_DK).map(|dk| Self { dk, rows: 3, ..CELL });
        // One column more than dv.
        let dv = edges(129).chain([62, 126, 256]).map(|dv| Self { dv, rows: 3, ..CELL });
        let decays = [0.0, 1e-3, 8.0, 40.0].map(|decay| Self { decay, rows: max_rows.min(70), ..CELL });
        rows.chain(heads).chain(dk).chain(dv).chain(decays).collect()
    }

    pub fn drawn(max_rows: usize) -> impl Strategy<Value = Self> {
        let sizes = (size(max_rows), size(4), size(72), size(72));
        let decays = select(vec![0.01f32, 0.5, 8.0]);
        (sizes, [0..5usize, 0..5, 0..5, 0..5], (select(vec![CHUNK, CHUNK, 5, 16]), 0..4usize), decays, any::<u64>())
            .prop_map(|((rows, heads, dk, dv), gaps, (chunk, sequence), decay, seed)| Self {
                rows,
                heads,
                dk,
                dv,
                gaps,
                chunk,
                sequence,
                decay,
                seed,
            })
    }

    pub fn chunks(&self) -> usize {
        self.rows.div_ceil(self.chunk)
    }

    /// Rows of a sequence.
    pub fn period(&self) -> usize {
        if self.sequence == 0 { self.rows } else { self.sequence * self.chunk }
    }

    pub fn sequences(&self) -> usize {
        self.rows.div_ceil(self.period())
    }

    /// Offsets of q, k and v.
    pub fn offsets(&self) -> [usize; 3] {
        let width = self.heads * self.dk;
        let q = self.gaps[0];
        let k = q + width + self.gaps[1];
        [q, k, k + width + self.gaps[2]]
    }

    pub fn stride(&self) -> usize {
        self.offsets()[2] + self.heads * self.dv + self.gaps[3]
    }

    /// `[rows, ...]` of q if wanted, k and v.
    pub fn x(&self, noise: &mut Noise, with_q: bool) -> Vec<f32> {
        let part = |offset: usize, width: usize| Rows { rows: self.rows, width, offset, stride: self.stride() };
        let [q, k, v] = self.offsets();
        let mut x = part(0, 0).array(UNREAD);
        if with_q {
            noise.fill(&mut x, part(q, self.heads * self.dk), 1.0);
        }
        noise.fill(&mut x, part(k, self.heads * self.dk), 1.0);
        noise.fill(&mut x, part(v, self.heads * self.dv), 1.0);
        x
    }

    /// `[rows, heads, 4]` of gates, of which only those in `read` aren't padding.
    pub fn gates(&self, noise: &mut Noise, read: [bool; 4]) -> Vec<f32> {
        let mut gates = Rows::dense(self.rows, 4 * self.heads).array(UNREAD);
        for t in 0..self.rows {
            for head in 0..self.heads {
                let at = 4 * (t * self.heads + head);
                let lost = -self.decay * noise.unit();
                let before = if t % self.chunk == 0 { 0.0 } else { gates[at + 3 - 4 * self.heads] };
                gates[at..at + 4].copy_from_slice(&[lost.exp(), noise.unit(), UNREAD, before + lost]);
            }
        }
        for (gate, read) in gates.iter_mut().zip(read.into_iter().cycle()) {
            *gate = if read { *gate } else { UNREAD };
        }
        gates
    }

    /// `[times, heads, dk, dv + 1]`
    pub fn states(&self, times: usize) -> Rows {
        Rows::dense(times, self.heads * self.dk * (self.dv + 1))
    }

    pub fn y(&self) -> Rows {
        Rows::dense(self.rows, self.heads * (self.dv + 1))
    }

    /// Roundings that a weight exp(g) makes: a device's exp may be off by 3 + 2 |x| units, and the difference of two g
    /// by half a unit of |x|.
    pub fn exp_roundings(&self) -> f64 {
        let reach = f64::from(self.decay) * self.rows.min(self.chunk) as f64;
        4.0 + 3.0 * reach.min(50.0)
    }
}

pub fn step() {
    hold(KernelId::MlstmStep, Cell::edges(33), Cell::drawn(20), step_case);
}

fn step_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [q_offset, k_offset, v_offset] = case.offsets().map(|offset| offset as u32);
    let p = MlstmStep {
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
    let gates = case.gates(&mut noise, [true, true, false, false]);
    let mut c = case.states(1).output();
    noise.fill(&mut c, case.states(1), 1.0);
    let y = case.y().output();
    let (mut c_expected, mut y_expected) = (c.clone(), y.clone());
    cpu::mlstm_step(&p, &x, &gates, &mut c_expected, &mut y_expected);
    let (mut c_sums, mut y_sums) = (magnitudes(&c), magnitudes(&y));
    cpu::mlstm_step(&p, &magnitudes(&x), &gates, &mut c_sums, &mut y_sums);
    for form in forms(KernelId::MlstmStep) {
        let bindings = [bytes(&x), bytes(&gates), bytes(&c), bytes(&y)];
        let found = run(form, KernelId::MlstmStep, &p, &bindings, [groups(dv + 1), heads, 1])?;
        // Three roundings a row in the state; the output adds up dk products of it.
        let state = 1.5 * rows as f64 + 2.0;
        worst.compare("c", &found[2], &c_expected, |i| state * EPS * f64::from(c_sums[i]))?;
        worst.compare("y", &found[3], &y_expected, |i| (state + dk as f64 / 2.0 + 2.0) * EPS * f64::from(y_sums[i]))?;
    }
    Ok(())
}

pub fn chunk_state() {
    let mut edges = Cell::edges(129);
    edges.extend([1, 7, 16].map(|chunk| Cell { chunk, rows: 33, ..CELL }));
    hold(KernelId::MlstmChunkState, edges, Cell::drawn(140), chunk_state_case);
}

fn chunk_state_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, chunk, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [_, k_offset, v_offset] = case.offsets().map(|offset| offset as u32);
    let p = MlstmChunkState {
        rows: rows as u32,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: case.stride() as u32,
        k_offset,
        v_offset,
        chunk: chunk as u32,
    };
    let x = case.x(&mut noise, false);
    let gates = case.gates(&mut noise, [false, true, false, true]);
    let states = case.states(case.chunks()).output();
    let mut expected = states.clone();
    cpu::mlstm_chunk_state(&p, &x, &gates, &mut expected);
    let mut sums = states.clone();
    cpu::mlstm_chunk_state(&p, &magnitudes(&x), &gates, &mut sums);
    let grid = [groups(dk.div_ceil(4) * (dv + 1)), heads, case.chunks()];
    for form in forms(KernelId::MlstmChunkState) {
        let found = run(form, KernelId::MlstmChunkState, &p, &[bytes(&x), bytes(&gates), bytes(&states)], grid)?;
        // Half a unit for each row of the chunk and a few for the weight and the products.
        let roundings = rows.min(chunk) as f64 / 2.0 + case.exp_roundings() + 2.0;
        worst.compare("states", &found[2], &expected, |i| roundings * EPS * f64::from(sums[i]) + VANISHING)?;
    }
    Ok(())
}

pub fn chunk_scan() {
    let mut edges = Cell::edges(129);
    edges.extend([1, 7, 16].map(|chunk| Cell { chunk, rows: 33, ..CELL }));
    edges.extend([(1, 64), (1, 65), (2, 300), (3, 64)].map(|(sequence, rows)| Cell { sequence, rows, ..CELL }));
    hold(KernelId::MlstmChunkScan, edges, Cell::drawn(300), chunk_scan_case);
}

fn chunk_scan_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, chunk, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let size = dk * (dv + 1);
    let p = MlstmChunkScan {
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
    let mut c = case.states(case.sequences()).output();
    noise.fill(&mut c, case.states(case.sequences()), 1.0);
    let mut states = case.states(case.chunks()).output();
    noise.fill(&mut states, case.states(case.chunks()), 1.0);
    let (mut c_expected, mut expected) = (c.clone(), states.clone());
    cpu::mlstm_chunk_scan(&p, &gates, &mut c_expected, &mut expected);
    let (mut c_sums, mut sums) = (magnitudes(&c), magnitudes(&states));
    cpu::mlstm_chunk_scan(&p, &gates, &mut c_sums, &mut sums);
    for form in forms(KernelId::MlstmChunkScan) {
        let bindings = [bytes(&gates), bytes(&c), bytes(&states)];
        let found = run(form, KernelId::MlstmChunkScan, &p, &bindings, [groups(size), heads, case.sequences()])?;
        // A weight, a product and a sum for each chunk that a state comes through.
        let roundings = case.chunks() as f64 * (case.exp_roundings() + 1.0);
        worst.compare("c", &found[1], &c_expected, |i| roundings * EPS * f64::from(c_sums[i]) + VANISHING)?;
        worst.compare("states", &found[2], &expected, |i| roundings * EPS * f64::from(sums[i]) + VANISHING)?;
    }
    Ok(())
}

pub fn chunk_out() {
    let drawn = Cell::drawn(140).prop_map(|case| Cell { chunk: CHUNK, ..case });
    hold(KernelId::MlstmChunkOut, Cell::edges(129), drawn, chunk_out_case);
}

fn chunk_out_case(worst: &Worst, case: &Cell) -> TestCaseResult {
    let &Cell { rows, heads, dk, dv, seed, .. } = case;
    let mut noise = Noise::new(seed);
    let [q_offset, k_offset, v_offset] = case.offsets().map(|offset| offset as u32);
    let p = MlstmChunkOut {
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
    let y = case.y().output();
    let mut expected = y.clone();
    cpu::mlstm_chunk_out(&p, &x, &gates, &states, &mut expected);
    let mut sums = y.clone();
    cpu::mlstm_chunk_out(&p, &magnitudes(&x), &gates, &magnitudes(&states), &mut sums);
    for form in forms(KernelId::MlstmChunkOut) {
        let grid = form.0.capabilities().tiles.chunk_out_grid(rows, heads, dv);
        let bindings = [bytes(&x), bytes(&gates), bytes(&states), bytes(&y)];
        let found = run(form, KernelId::MlstmChunkOut, &p, &bindings, grid)?;
        // Half a unit for each of dk products and for each row of the chunk, and a few for the weight and the products.
        let roundings = (dk + rows.min(CHUNK)) as f64 / 2.0 + case.exp_roundings() + 4.0;
        worst.compare("y", &found[3], &expected, |i| roundings * EPS * f64::from(sums[i]) + VANISHING)?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
pub struct HeadNorm {
    pub rows: usize,
    pub heads: usize,
    pub dv: usize,
    /// Before and after the output gates.
    pub gaps: [usize; 2],
    pub eps: f32,
    /// Largest m either way.
    pub m: f32,
    pub seed: u64,
}

pub fn norm() {
    let (edges, drawn) = HeadNorm::cases();
    hold(KernelId::MlstmNorm, edges, drawn, norm_case);
}

impl HeadNorm {
    /// Edges, and what to draw.
    pub fn cases() -> (Vec<Self>, impl Strategy<Value = Self>) {
        let base = HeadNorm { rows: 3, heads: 2, dv: 6, gaps: [1, 2], eps: 1e-6, m: 2.0, seed: 6 };
        let all = edges(129).flat_map(|size| {
            [
                HeadNorm { rows: size, ..base.clone() },
                HeadNorm { heads: size, ..base.clone() },
                HeadNorm { dv: size, ..base.clone() },
            ]
        });
        let widest = [255, 256, 257].map(|dv| HeadNorm { dv, ..base.clone() });
        let ranges = [0.0, 10.0, 20.0].map(|m| HeadNorm { m, ..base.clone() });
        let drawn = (
            (size(20), size(8), size(140), [0..5usize, 0..5]),
            select(vec![1e-6f32, 1e-6, 0.1]),
            select(vec![0.5f32, 3.0, 20.0]),
            any::<u64>(),
        )
            .prop_map(|((rows, heads, dv, gaps), eps, m, seed)| HeadNorm {
                rows,
                heads,
                dv,
                gaps,
                eps,
                m,
                seed,
            });
        (all.chain(widest).chain(ranges).collect(), drawn)
    }
}

fn norm_case(worst: &Worst, case: &HeadNorm) -> TestCaseResult {
    let &HeadNorm { rows, heads, dv, gaps, eps, m, seed } = case;
    let mut noise = Noise::new(seed);
    let x_stride = gaps[0] + heads * dv + gaps[1];
    let p = MlstmNorm {
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
    let out = Rows::dense(rows, heads * dv).output();
    let mut expected = out.clone();
    cpu::mlstm_norm(&p, &y, &gates, &x, &scale, &mut expected);

    // How far values of a head may be off before gate and scale: h by some roundings of its largest value, which the
    // division by the deviation makes larger, and the deviation by as much again.
    let head_errors: Vec<f64> = (0..rows * heads)
        .map(|at| {
            let (y, m) = (&y[at * (dv + 1)..(at + 1) * (dv + 1)], f64::from(gates[4 * at + 2]));
            let normaliser = f64::from(y[dv]).abs().max((-m).exp()) + 1e-6;
            let h: Vec<f64> = y[..dv].iter().map(|&y| f64::from(y) / normaliser).collect();
            let mean = h.iter().sum::<f64>() / dv as f64;
            let variance = h.iter().map(|h| (h - mean) * (h - mean)).sum::<f64>() / dv as f64;
            let r = 1.0 / (variance + f64::from(eps)).sqrt();
            let furthest = h.iter().fold(0.0f64, |furthest, h| furthest.max((h - mean).abs()));
            let largest = h.iter().fold(0.0f64, |largest, h| largest.max(h.abs()));
            // A device's exp may be off by 3 + 2 |x| units; sums run over dv / 64 values a lane and 16 steps from lane
            // to lane.
            let roundings = 2.0 * m.abs() + dv as f64 / 64.0 + 24.0;
            roundings * EPS * largest * r * (1.0 + furthest * r)
        })
        .collect();
    for form in forms(KernelId::MlstmNorm) {
        let bindings = [bytes(&y), bytes(&gates), bytes(&x), bytes(&scale), bytes(&out)];
        let found = run(form, KernelId::MlstmNorm, &p, &bindings, [heads, rows, 1])?;
        worst.compare("out", &found[4], &expected, |i| {
            let (t, at) = (i / (heads * dv), i % (heads * dv));
            let o = f64::from(x[t * x_stride + gaps[0] + at]);
            let gate = f64::from(scale[at]).abs() / (1.0 + (-o).exp());
            gate * head_errors[t * heads + at / dv] + (8.0 + 2.0 * o.abs()) * EPS * f64::from(expected[i].abs())
        })?;
    }
    Ok(())
}
