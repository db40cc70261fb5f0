//! Kernels over heads of queries and keys: rotary positions, attention, and the boundary's cosine.

use bolmo_shaders::params::{Attention, Boundary, Rope};
use bolmo_shaders::{KernelId, cpu};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, UNREAD, Worst, bytes, edges, forms, hold, largest, run, size};

/// Shapes of rotary positions, forwards and backwards.
#[derive(Debug, Clone)]
pub struct Rotation {
    pub count: usize,
    pub first: usize,
    pub per_kv: usize,
    pub kv_heads: usize,
    pub half_dim: usize,
    /// All heads share a norm, each has its own, or there is none.
    pub norm: Option<bool>,
    /// Before the queries, between them and the keys, before the values and after them.
    pub gaps: [usize; 4],
    pub kv_row: usize,
    pub seed: u64,
}

impl Rotation {
    /// Sizes around every edge, and drawn ones.
    pub fn cases(seed: u64) -> (Vec<Self>, impl Strategy<Value = Self>) {
        let base = Self {
            count: 3,
            first: 1,
            per_kv: 2,
            kv_heads: 1,
            half_dim: 4,
            norm: None,
            gaps: [1, 2, 3, 4],
            kv_row: 2,
            seed,
        };
        let norms = [None, Some(true), Some(false)];
        let all = edges(65).flat_map(|size| {
            [
                Self { count: size, ..base.clone() },
                Self { per_kv: size, ..base.clone() },
                Self { kv_heads: size, per_kv: 1, ..base.clone() },
                Self { half_dim: size, ..base.clone() },
                Self { half_dim: size, first: 0, kv_row: 0, gaps: [0; 4], ..base.clone() },
            ]
        });
        let all = all.flat_map(|case| norms.map(|norm| Self { norm, ..case.clone() }));
        let sizes = (size(17), 0..5usize, 1..5usize, 1..4usize, size(65));
        let drawn = (sizes, select(norms.to_vec()), [0..7usize, 0..7, 0..7, 0..7], 0..9usize, any::<u64>()).prop_map(
            |((count, first, per_kv, kv_heads, half_dim), norm, gaps, kv_row, seed)| Self {
                count,
                first,
                per_kv,
                kv_heads,
                half_dim,
                norm,
                gaps,
                kv_row,
                seed,
            },
        );
        (all.collect(), drawn)
    }

    /// The kernel's parameters: queries, keys and values in one row, with gaps.
    pub fn params(&self) -> Rope {
        let &Self { first, per_kv, kv_heads, half_dim, norm, gaps, kv_row, .. } = self;
        let heads = per_kv * kv_heads;
        let (q_width, kv_width) = (2 * heads * half_dim, 2 * kv_heads * half_dim);
        let k_offset = gaps[0] + q_width + gaps[1];
        let v_offset = k_offset + kv_width + gaps[2];
        let (q_group, k_group) = if norm == Some(true) { (heads, kv_heads) } else { (1, 1) };
        Rope {
            first: first as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            half_dim: half_dim as u32,
            q_group: q_group as u32,
            k_group: k_group as u32,
            norm: norm.is_some().into(),
            q_offset: gaps[0] as u32,
            k_offset: k_offset as u32,
            v_offset: v_offset as u32,
            stride: (v_offset + kv_width + gaps[3]) as u32,
            kv_row: kv_row as u32,
            eps: 1e-5,
        }
    }
}

pub fn rope() {
    let (edges, drawn) = Rotation::cases(1);
    hold(KernelId::Rope, edges, drawn, rope_case);
}

fn rope_case(worst: &Worst, case: &Rotation) -> TestCaseResult {
    let &Rotation { count, first, per_kv, kv_heads, half_dim, norm, gaps, kv_row, seed } = case;
    let mut noise = Noise::new(seed);
    let heads = per_kv * kv_heads;
    let dim = 2 * half_dim;
    let (q_width, kv_width) = (heads * dim, kv_heads * dim);
    let p = case.params();
    let [k_offset, v_offset, stride] = [p.k_offset, p.v_offset, p.stride].map(|n| n as usize);
    let [q_group, k_group] = [p.q_group, p.k_group].map(|n| n as usize);
    // Rows before the first one belong to another dispatch.
    let part = |offset: usize, width: usize, stride: usize| Rows {
        rows: count,
        width,
        offset: first * stride + offset,
        stride,
    };
    let mut qkv = part(0, 0, stride).array(UNREAD);
    noise.fill(&mut qkv, part(gaps[0], q_width, stride), 1.0);
    noise.fill(&mut qkv, part(k_offset, kv_width, stride), 1.0);
    noise.fill(&mut qkv, part(v_offset, kv_width, stride), 1.0);
    let normed = usize::from(norm.is_some());
    let [q_scale, k_scale] = [q_group, k_group].map(|group| noise.rows(Rows::dense(normed, group * dim), 2.0));
    let mut cos_sin = part(0, dim, dim).array(UNREAD);
    for pair in cos_sin[first * dim..(first + count) * dim].chunks_exact_mut(2) {
        let angle = noise.value(3.2);
        pair.copy_from_slice(&[angle.cos(), angle.sin()]);
    }
    let q = part(0, q_width, q_width).output();
    let kv = Rows { rows: kv_row + count, ..Rows::dense(0, 2 * kv_width) }.output();
    let (mut q_expected, mut kv_expected) = (q.clone(), kv.clone());
    let inputs = cpu::RopeInputs { qkv: &qkv, q_scale: &q_scale, k_scale: &k_scale, cos_sin: &cos_sin };
    cpu::rope(&p, count as u32, inputs, &mut q_expected, &mut kv_expected);
    let grid = [heads / q_group + kv_heads / k_group + 1, count, 1];
    // Two products and their sum, of values up to 1; values are copied. A norm of values drawn evenly takes them to 4
    // or so, and beyond where a group is small; its sum has a lane's share of steps.
    let largest = largest(&q_expected).max(largest(&kv_expected));
    let bound = if norm.is_some() { (32.0 + q_width as f64 / 32.0) * EPS * (1.0 + largest) } else { 2.0 * EPS };
    for form in forms(KernelId::Rope) {
        let bindings = [bytes(&qkv), bytes(&q_scale), bytes(&k_scale), bytes(&cos_sin), bytes(&q), bytes(&kv)];
        let found = run(form, KernelId::Rope, &p, &bindings, grid)?;
        worst.compare("q", &found[4], &q_expected, |_| bound)?;
        worst.compare("kv", &found[5], &kv_expected, |i| if i / kv_width % 2 == 0 { bound } else { 0.0 })?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Segments {
    sequences: usize,
    count: usize,
    kv_heads: usize,
    heads_per_kv: usize,
    dim4: usize,
    query_first: usize,
    window: usize,
    /// Where positions are divided into segments, in thousandths.
    cuts: Vec<usize>,
    /// Rows of each segment that hold no keys yet.
    room: usize,
    size: f32,
    seed: u64,
}

pub fn attention() {
    let base = Segments {
        sequences: 1,
        count: 3,
        kv_heads: 1,
        heads_per_kv: 2,
        dim4: 4,
        query_first: 20,
        window: 0,
        cuts: vec![400],
        room: 1,
        size: 1.0,
        seed: 2,
    };
    let counts = edges(65).map(|count| Segments { count, ..base.clone() });
    let starts = edges(129).map(|query_first| Segments { query_first, ..base.clone() });
    let dims = edges(32).chain([32]).map(|dim4| Segments { dim4, ..base.clone() });
    let windows = edges(65).map(|window| Segments { window, count: 17, query_first: 31, ..base.clone() });
    let cuts =
        (0..10).map(|cut| Segments { cuts: vec![100 * cut, 100 * cut + 50], count: 17, window: 6, ..base.clone() });
    let fresh = edges(33).map(|count| Segments { count, query_first: 0, cuts: Vec::new(), room: 0, ..base.clone() });
    let several = edges(9).map(|sequences| Segments { sequences, count: 17, ..base.clone() });
    let drawn = (
        (1..4usize, size(40), 1..4usize, 1..5usize, size(32)),
        prop_oneof![Just(0), size(140)],
        prop_oneof![Just(0), size(70)],
        vec(0..1000usize, 0..4),
        0..4usize,
        select(vec![1.0f32, 4.0]),
        any::<u64>(),
    )
        .prop_map(
            |((sequences, count, kv_heads, heads_per_kv, dim4), query_first, window, cuts, room, size, seed)| {
                Segments { sequences, count, kv_heads, heads_per_kv, dim4, query_first, window, cuts, room, size, seed }
            },
        );
    let edges = counts.chain(starts).chain(dims).chain(windows).chain(cuts).chain(fresh).chain(several);
    hold(KernelId::Attention, edges.collect::<Vec<_>>(), drawn, attention_case);
}

/// Segments in turn, each from the device's results for the one before.
fn attention_case(worst: &Worst, case: &Segments) -> TestCaseResult {
    let &Segments { sequences, count, kv_heads, heads_per_kv, dim4, query_first, window, ref cuts, room, size, seed } =
        case;
    let mut noise = Noise::new(seed);
    let (heads, dim) = (kv_heads * heads_per_kv, 4 * dim4);
    let (positions, kv_width) = (query_first + count, kv_heads * dim);
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut * positions / 1000).chain([0, positions]).collect();
    bounds.sort_unstable();
    bounds.dedup();

    let rows = sequences * count;
    let q = noise.rows(Rows::dense(rows, heads * dim), size);
    let all_kv = noise.values(sequences * positions * 2 * kv_width, size);
    let scale = 1.0 / (dim as f32).sqrt();
    let norm = |values: &[f32]| values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let longest = |values: &[f32]| values.chunks_exact(dim).map(norm).fold(0.0, f64::max);
    // Nothing that is added up to a score exceeds this, by Cauchy and Schwarz.
    let reach = f64::from(scale) * longest(&q[..rows * heads * dim]) * longest(&all_kv);
    // Four sums run side by side over the head's width, between scaling and putting them together.
    let score_error = (dim4 as f64 + 8.0) * EPS * reach;
    // Weights are exponentials of differences of two scores, up to 2 reach, for which exp may be off by 3 + 2 |x|
    // units; then as many roundings as there are keys.
    let relative = 2.0 * score_error + (16.0 + 4.0 * reach + positions as f64) * EPS;

    for form in forms(KernelId::Attention) {
        let grid = form.0.capabilities().tiles.attention_grid(count, heads, sequences);
        let mut running = Rows::dense(rows, heads * 2).output();
        let mut o = Rows::dense(rows, heads * dim).output();
        for span in bounds.windows(2) {
            let p = Attention {
                count: count as u32,
                heads: heads as u32,
                heads_per_kv: heads_per_kv as u32,
                dim4: dim4 as u32,
                query_first: query_first as u32,
                key_first: span[0] as u32,
                keys: (span[1] - span[0]) as u32,
                window: window as u32,
                begin: (span[0] == 0).into(),
                end: (span[1] == positions).into(),
                scale,
            };
            let of_sequence = |all: &[f32]| all[span[0] * 2 * kv_width..span[1] * 2 * kv_width].to_vec();
            let mut kv: Vec<f32> = all_kv.chunks_exact(positions * 2 * kv_width).flat_map(of_sequence).collect();
            kv.resize(kv.len() + room * 2 * kv_width, UNREAD);
            let bindings = [bytes(&q), bytes(&kv), bytes(&running), bytes(&o)];
            let found = run(form, KernelId::Attention, &p, &bindings, grid)?;
            let (mut running_expected, mut o_expected) = (running.clone(), o.clone());
            cpu::attention(&p, sequences as u32, &q, &kv, &mut running_expected, &mut o_expected);
            worst.compare("running", &found[2], &running_expected, |i| {
                if i % 2 == 0 { score_error } else { relative * f64::from(running_expected[i]) }
            })?;
            worst.compare("o", &found[3], &o_expected, |i| {
                let sum = f64::from(running_expected[i / dim * 2 + 1]);
                relative * f64::from(size) * if p.end == 1 { 1.0 } else { sum }
            })?;
            running.clone_from(&found[2]);
            o.clone_from(&found[3]);
        }
        // By then every query has seen at least itself.
        prop_assert!(
            largest(&o[..rows * heads * dim]) <= f64::from(size) * (1.0 + 2.0 * relative),
            "no mean of values"
        );
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Cosine {
    rows: usize,
    dim4: usize,
    size: f32,
    seed: u64,
}

pub fn boundary() {
    let all = edges(129).flat_map(|size| {
        [Cosine { rows: size, dim4: 3, size: 1.0, seed: 3 }, Cosine { rows: 3, dim4: size, size: 1.0, seed: 4 }]
    });
    let widest = [255, 256, 257, 1024].map(|dim4| Cosine { rows: 2, dim4, size: 1.0, seed: 5 });
    let drawn = (size(20), size(140), select(vec![0.0f32, 1e-3, 1.0, 1e3]), any::<u64>())
        .prop_map(|(rows, dim4, size, seed)| Cosine { rows, dim4, size, seed });
    hold(KernelId::Boundary, all.chain(widest).collect::<Vec<_>>(), drawn, boundary_case);
}

fn boundary_case(worst: &Worst, case: &Cosine) -> TestCaseResult {
    let &Cosine { rows, dim4, size, seed } = case;
    let mut noise = Noise::new(seed);
    let dim = 4 * dim4;
    let p = Boundary { rows: rows as u32, dim4: dim4 as u32 };
    let mut x = noise.rows(Rows::dense(rows + 1, 2 * dim), size);
    // k of the first byte and q of the last one don't count.
    x[dim..2 * dim].fill(UNREAD);
    x[rows * 2 * dim..(rows * 2 + 1) * dim].fill(UNREAD);
    // Some pairs are parallel, some antiparallel.
    for t in (0..rows).step_by(3) {
        let factor = if t % 2 == 0 { 2.0 } else { -0.5 };
        for i in 0..dim {
            x[(t * 2 + 3) * dim + i] = factor * x[t * 2 * dim + i];
        }
    }
    let cosine = Rows::dense(rows, 1).output();
    let mut expected = cosine.clone();
    cpu::boundary(&p, &x, &mut expected);
    for form in forms(KernelId::Boundary) {
        let found = run(form, KernelId::Boundary, &p, &[bytes(&x), bytes(&cosine)], [rows, 1, 1])?;
        // Three sums over dim / 256 values a lane and 16 steps from lane to lane, two roots and two quotients. What is
        // added up is at most 1 when it is over the norms.
        let roundings = dim4 as f64 / 64.0 + 24.0;
        worst.compare("cosine", &found[1], &expected, |_| roundings * EPS)?;
    }
    Ok(())
}
