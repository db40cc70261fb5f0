//! Gradients of attention within sequences.

use bolmo_shaders::params::{Attention, AttentionGradQ};
use bolmo_shaders::sizes::{attention_grad_kv_grid, attention_grad_q_grid};
use bolmo_shaders::{KernelId, cpu};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, Worst, bytes, edges, forms, hold, run, size};

#[derive(Debug, Clone)]
struct Sequences {
    count: usize,
    sequences: usize,
    kv_heads: usize,
    heads_per_kv: usize,
    dim4: usize,
    window: usize,
    size: f32,
    seed: u64,
}

/// Sizes around every tile.
fn all_edges() -> Vec<Sequences> {
    let base =
        Sequences { count: 9, sequences: 2, kv_heads: 2, heads_per_kv: 2, dim4: 3, window: 0, size: 1.0, seed: 1 };
    let counts = edges(129).map(|count| Sequences { count, ..base.clone() });
    let sequences = edges(9).map(|sequences| Sequences { sequences, ..base.clone() });
    let heads = edges(33).flat_map(|size| {
        [Sequences { kv_heads: size, ..base.clone() }, Sequences { heads_per_kv: size, ..base.clone() }]
    });
    let dims = edges(32).chain([32]).map(|dim4| Sequences { dim4, ..base.clone() });
    let windows = edges(65).map(|window| Sequences { window, count: 33, ..base.clone() });
    counts.chain(sequences).chain(heads).chain(dims).chain(windows).collect()
}

fn drawn() -> impl Strategy<Value = Sequences> {
    let sizes = (size(70), 1..4usize, 1..4usize, 1..5usize, size(32));
    (sizes, prop_oneof![Just(0), size(80)], select(vec![1.0f32, 4.0]), any::<u64>()).prop_map(
        |((count, sequences, kv_heads, heads_per_kv, dim4), window, size, seed)| Sequences {
            count,
            sequences,
            kv_heads,
            heads_per_kv,
            dim4,
            window,
            size,
            seed,
        },
    )
}

/// A case, the results of its forward pass, and how far its gradients may be off.
struct Example {
    p: AttentionGradQ,
    q: Vec<f32>,
    kv: Vec<f32>,
    running: Vec<f32>,
    o: Vec<f32>,
    d_o: Vec<f32>,
    /// Magnitude and error bound of the gradient of a score, both divided by the weight.
    ds: f64,
    ds_error: f64,
    /// Relative error bound of a weight.
    weight_error: f64,
}

impl Example {
    fn new(case: &Sequences) -> Self {
        let &Sequences { count, sequences, kv_heads, heads_per_kv, dim4, window, size, seed } = case;
        let mut noise = Noise::new(seed);
        let (heads, dim) = (kv_heads * heads_per_kv, 4 * dim4);
        let rows = sequences * count;
        let scale = 1.0 / (dim as f32).sqrt();
        let p = AttentionGradQ {
            count: count as u32,
            heads: heads as u32,
            heads_per_kv: heads_per_kv as u32,
            dim4: dim4 as u32,
            window: window as u32,
            scale,
        };
        let q = noise.rows(Rows::dense(rows, heads * dim), size);
        let kv = noise.rows(Rows::dense(rows, 2 * kv_heads * dim), size);
        let d_o = noise.rows(Rows::dense(rows, heads * dim), 1.0);
        let mut running = Rows::dense(rows, heads * 2).output();
        let mut o = Rows::dense(rows, heads * dim).output();
        let forward = Attention {
            count: p.count,
            heads: p.heads,
            heads_per_kv: p.heads_per_kv,
            dim4: p.dim4,
            keys: p.count,
            window: p.window,
            begin: 1,
            end: 1,
            scale,
            ..Default::default()
        };
        cpu::attention(&forward, sequences as u32, &q, &kv, &mut running, &mut o);
        let norm = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let longest =
            |values: &[f32], width: usize| values[..rows * width].chunks_exact(dim).map(norm).fold(0.0, f64::max);
        // Nothing that is added up to a score exceeds this, by Cauchy and Schwarz, nor what goes into do . v and do .
        // o, whose rows are means of values, that.
        let reach = f64::from(scale) * longest(&q, heads * dim) * longest(&kv, 2 * kv_heads * dim);
        let product = longest(&d_o, heads * dim) * longest(&kv, 2 * kv_heads * dim);
        // Sums over the head's width; the exponential of a difference of two scores may be off by 3 + 2 |x| units.
        let sum_error = (dim4 as f64 + 8.0) * EPS;
        let weight_error = sum_error * reach + (16.0 + 4.0 * reach) * EPS;
        let ds = 2.0 * product;
        Self { p, q, kv, running, o, d_o, ds, ds_error: ds * (weight_error + sum_error), weight_error }
    }

    fn delta_and_dq(&self, sequences: usize) -> [Vec<f32>; 2] {
        let (p, rows) = (&self.p, sequences * self.p.count as usize);
        let mut delta = Rows::dense(rows, p.heads as usize).output();
        let mut dq = Rows::dense(rows, (p.heads * 4 * p.dim4) as usize).output();
        let Self { q, kv, running, o, d_o, .. } = self;
        cpu::attention_grad_q(
            p,
            sequences as u32,
            cpu::AttentionGradQInputs { q, kv, running, o, d_o },
            &mut delta,
            &mut dq,
        );
        [delta, dq]
    }
}

pub fn queries() {
    hold(KernelId::AttentionGradQ, all_edges(), drawn(), queries_case);
}

fn queries_case(worst: &Worst, case: &Sequences) -> TestCaseResult {
    let &Sequences { count, sequences, size, .. } = case;
    let example = Example::new(case);
    let Example { p, q, kv, running, o, d_o, ds, ds_error, .. } = &example;
    let [delta_expected, dq_expected] = example.delta_and_dq(sequences);
    let (rows, heads, dim) = (sequences * count, p.heads as usize, 4 * p.dim4 as usize);
    let delta = Rows::dense(rows, heads).output();
    let dq = Rows::dense(rows, heads * dim).output();
    // One workgroup more than there is work for.
    let mut grid = attention_grad_q_grid(count, heads, sequences);
    grid[0] += 1;
    for form in forms(KernelId::AttentionGradQ) {
        let bindings = [bytes(q), bytes(kv), bytes(running), bytes(o), bytes(d_o), bytes(&delta), bytes(&dq)];
        let found = run(form, KernelId::AttentionGradQ, p, &bindings, grid)?;
        worst.compare("delta", &found[5], &delta_expected, |i| {
            let products = o[i * dim..][..dim].iter().zip(&d_o[i * dim..]).map(|(o, d_o)| f64::from((o * d_o).abs()));
            (p.dim4 as f64 + 8.0) * EPS * products.sum::<f64>()
        })?;
        // The weights of a query sum to 1, and adding up takes as many roundings as there are keys.
        worst.compare("dq", &found[6], &dq_expected, |_| {
            f64::from(p.scale * size) * (ds_error + count as f64 * EPS * ds)
        })?;
    }
    Ok(())
}

pub fn keys_and_values() {
    hold(KernelId::AttentionGradKv, all_edges(), drawn(), keys_and_values_case);
}

fn keys_and_values_case(worst: &Worst, case: &Sequences) -> TestCaseResult {
    let &Sequences { count, sequences, kv_heads, heads_per_kv, size, .. } = case;
    let example = Example::new(case);
    let Example { p, q, kv, running, d_o, ds, ds_error, weight_error, .. } = &example;
    let [delta, _] = example.delta_and_dq(sequences);
    let kv_width = kv_heads * 4 * p.dim4 as usize;
    let dkv = Rows::dense(sequences * count, 2 * kv_width).output();
    let expected_of = |d_o: &[f32]| {
        let mut expected = dkv.clone();
        let inputs = cpu::AttentionGradKvInputs { q, kv, running, d_o, delta: &delta };
        cpu::attention_grad_kv(p, sequences as u32, inputs, &mut expected);
        expected
    };
    let expected = expected_of(d_o);
    // The gradient of a value is the sum of its weights, where all outputs have gradients of 1.
    let ones = expected_of(&vec![1.0; d_o.len()]);
    // Adding up takes as many roundings as there are queries.
    let adding = (count * heads_per_kv) as f64 * EPS;
    // One workgroup more than there is work for.
    let mut grid = attention_grad_kv_grid(count, kv_heads, sequences);
    grid[0] += 1;
    for form in forms(KernelId::AttentionGradKv) {
        let bindings = [bytes(q), bytes(kv), bytes(running), bytes(d_o), bytes(&delta), bytes(&dkv)];
        let found = run(form, KernelId::AttentionGradKv, p, &bindings, grid)?;
        worst.compare("dkv", &found[5], &expected, |i| {
            let is_value = i / kv_width % 2 == 1;
            let weight = f64::from(ones[if is_value { i } else { i + kv_width }]);
            let [dk, dv] = [f64::from(p.scale * size) * (ds_error + adding * ds), weight_error + adding];
            weight * if is_value { dv } else { dk } + f64::from(f32::MIN_POSITIVE)
        })?;
    }
    Ok(())
}
