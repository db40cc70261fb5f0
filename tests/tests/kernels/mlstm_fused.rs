//! The kernel of a whole mLSTM cell.

use bolmo_shaders::params::{MlstmCell, MlstmGates, MlstmStep};
use bolmo_shaders::{KernelId, Reduce, cpu};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, UNREAD, Worst, bytes, edges, forms, hold, largest, run, size};
use super::mlstm::MAX_DK;

/// Rows of q, k, v, output gates and gates of a whole cell, in this order without gaps but for one behind each.
#[derive(Debug, Clone)]
struct Whole {
    rows: usize,
    heads: usize,
    dk: usize,
    dv: usize,
    seed: u64,
}

pub fn cell() {
    let base = Whole { rows: 3, heads: 2, dk: 6, dv: 5, seed: 9 };
    let rows = edges(33).map(|rows| Whole { rows, ..base.clone() });
    let heads = edges(17).map(|heads| Whole { heads, ..base.clone() });
    let dk = edges(MAX_DK).map(|dk| Whole { dk, ..base.clone() });
    let dv = edges(129).filter(|dv| *dv > 1).chain([62, 126, 255, 256]).map(|dv| Whole { dv, ..base.clone() });
    let drawn = (size(9), size(4), size(72), 2..140usize, any::<u64>()).prop_map(|(rows, heads, dk, dv, seed)| Whole {
        rows,
        heads,
        dk,
        dv,
        seed,
    });
    hold(KernelId::MlstmCell, rows.chain(heads).chain(dk).chain(dv).collect::<Vec<_>>(), drawn, whole_case);
}

fn whole_case(worst: &Worst, case: &Whole) -> TestCaseResult {
    let &Whole { rows, heads, dk, dv, seed } = case;
    let mut noise = Noise::new(seed);
    let widths = [heads * dk, heads * dk, heads * dv, heads * dv, heads, heads];
    let mut offsets = [0; 6];
    for i in 1..6 {
        offsets[i] = offsets[i - 1] + widths[i - 1] + 1;
    }
    let stride = offsets[5] + heads + 1;
    let mut x = Rows { rows, width: 0, offset: 0, stride }.array(UNREAD);
    for (i, (&width, &offset)) in widths.iter().zip(&offsets).enumerate() {
        noise.fill(&mut x, Rows { rows, width, offset, stride }, if i < 4 { 1.0 } else { 4.0 });
    }
    let [q_offset, k_offset, v_offset, o_offset, i_offset, f_offset] = offsets.map(|offset| offset as u32);
    let p = MlstmCell {
        rows: rows as u32,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: stride as u32,
        q_offset,
        k_offset,
        v_offset,
        i_offset,
        f_offset,
        o_offset,
        cap: 15.0,
        scale: 1.0 / (dk as f32).sqrt(),
        eps: 1e-6,
    };
    let state = Rows::dense(1, heads * dk * (dv + 1));
    let mut c = state.output();
    noise.fill(&mut c, state, 1.0);
    let mut m = Rows::dense(1, heads).output();
    noise.fill(&mut m, Rows::dense(1, heads), 2.0);
    let norm = noise.rows(Rows::dense(heads, dv), 1.0);
    let out = Rows::dense(rows, heads * dv).output();
    let (mut c_expected, mut m_expected, mut expected) = (c.clone(), m.clone(), out.clone());
    cpu::mlstm_cell(&p, &x, &mut c_expected, &mut m_expected, &norm, &mut expected);
    // The state gathers a few roundings a row, and those of the gates, which are good to 1e-6 or so a row.
    let steps = (rows as f64 + 2.0) * 64.0 * EPS;
    let size = largest(&c_expected).max(1.0);
    // The norm divides by the spread of a head's outputs, which amplifies their errors if the outputs are nearly equal;
    // with few columns that happens. The error of a head's outputs is relative to the magnitude of their sums.
    let spreads = spreads(&p, &x, &c, &m);
    for form in forms(KernelId::MlstmCell) {
        // The runtime does not ask this of one lane either.
        let can = form.0.capabilities();
        if can.reduce == Reduce::SingleLane && rows > can.cell_rows(dk, dv) {
            continue;
        }
        let bindings = [bytes(&x), bytes(&c), bytes(&m), bytes(&norm), bytes(&out)];
        let found = run(form, KernelId::MlstmCell, &p, &bindings, [heads, 1, 1])?;
        worst.compare("c", &found[1], &c_expected, |_| steps * size)?;
        worst.compare("m", &found[2], &m_expected, |_| steps * 8.0)?;
        worst.compare("out", &found[4], &expected, |i| {
            let spread = spreads[i / dv];
            (steps * size * (dk as f64).sqrt() * 2.0 / spread).min(4.0 * (dv as f64).sqrt()) + 16.0 * EPS
        })?;
    }
    Ok(())
}

/// The standard deviation of the outputs before the norm, times the normalizer, for each row and head.
fn spreads(p: &MlstmCell, x: &[f32], c: &[f32], m: &[f32]) -> Vec<f64> {
    let &MlstmCell { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, i_offset, f_offset, .. } = p;
    let mut gates = vec![0.0; (4 * rows * heads) as usize];
    let block = MlstmGates { rows, heads, stride, i_offset, f_offset, chunk: rows, cap: p.cap, period: rows };
    cpu::mlstm_gates(&block, x, &mut m.to_vec(), &mut gates);
    let columns = dv as usize + 1;
    let mut y = vec![0.0; (rows * heads) as usize * columns];
    let block = MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: p.scale };
    cpu::mlstm_step(&block, x, &gates, &mut c.to_vec(), &mut y);
    y.chunks_exact(columns)
        .map(|row| {
            let row: Vec<f64> = row[..columns - 1].iter().map(|&v| f64::from(v)).collect();
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            (row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64).sqrt()
        })
        .collect()
}
