//! Calls of both kernels.

use super::*;
use crate::cpu;
use crate::cpu::noise::noise;
use crate::simd::testing::{Run, cases, words};
use crate::table::KernelId;

/// Sizes of a call, the smallest first.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub sequences: u32,
    pub count: u32,
    pub kv_heads: u32,
    pub group: u32,
    pub dim4: u32,
    pub window: u32,
}

/// From sequences to the window.
pub const fn case([sequences, count, kv_heads, group, dim4, window]: [u32; 6]) -> Case {
    Case { sequences, count, kv_heads, group, dim4, window }
}

/// Edges of chunks, blocks, register tiles and vectors.
pub const CASES: [Case; 17] = [
    case([1, 1, 1, 1, 1, 0]),
    case([2, 3, 2, 2, 1, 2]),
    case([1, 7, 1, 3, 3, 0]),
    case([3, 5, 2, 1, 4, 1]),
    case([2, 31, 1, 1, 5, 0]),
    case([1, 32, 3, 2, 8, 0]),
    case([2, 33, 2, 1, 7, 0]),
    case([1, 65, 1, 2, 2, 64]),
    case([2, 66, 2, 1, 9, 33]),
    case([1, 67, 1, 4, 16, 0]),
    case([1, 133, 2, 1, 4, 32]),
    case([1, 150, 1, 3, 8, 5]),
    case([1, 200, 1, 1, 16, 100]),
    case([1, 40, 1, 70, 1, 0]),
    case([2, 90, 2, 1, 32, u32::MAX]),
    case([1, 20, 1, 1, 33, 1000]),
    case([1, 9, 5, 8, 2, 3]),
];

/// What both kernels read.
pub struct Example {
    pub p: params::AttentionGradQ,
    pub sequences: u32,
    pub q: Vec<f32>,
    pub kv: Vec<f32>,
    pub running: Vec<f32>,
    pub o: Vec<f32>,
    pub d_o: Vec<f32>,
}

impl Example {
    /// Queries up to `size`, and the results of the forward pass.
    pub fn new(case: Case, size: f32) -> Self {
        let Case { sequences, count, kv_heads, group, dim4, window } = case;
        let p = params::AttentionGradQ {
            count,
            heads: kv_heads * group,
            heads_per_kv: group,
            dim4,
            window,
            scale: (4.0 * dim4 as f32).powf(-0.5),
        };
        let items = (sequences * count * kv_heads * group) as usize;
        let dim = 4 * dim4 as usize;
        let q = noise(1, items * dim, size);
        let kv = noise(2, items / group as usize * 2 * dim, 2.0);
        let d_o = noise(3, items * dim, 1.0);
        let (mut running, mut o) = (vec![f32::NAN; 2 * items], vec![f32::NAN; items * dim]);
        let forward = params::Attention {
            count,
            heads: p.heads,
            heads_per_kv: group,
            dim4,
            keys: count,
            window,
            begin: 1,
            end: 1,
            scale: p.scale,
            ..Default::default()
        };
        cpu::attention(&forward, sequences, &q, &kv, &mut running, &mut o);
        Self { p, sequences, q, kv, running, o, d_o }
    }

    /// The gradient by the queries of the reference: delta and dq.
    pub fn grad_q(&self) -> [Vec<f32>; 2] {
        let Self { p, sequences, q, kv, running, o, d_o } = self;
        let (mut delta, mut dq) = (vec![f32::NAN; running.len() / 2], vec![f32::NAN; q.len()]);
        let inputs = cpu::AttentionGradQInputs { q, kv, running, o, d_o };
        cpu::attention_grad_q(p, *sequences, inputs, &mut delta, &mut dq);
        [delta, dq]
    }

    /// The gradient by keys and values of the reference.
    pub fn grad_kv(&self, delta: &[f32]) -> Vec<f32> {
        let Self { p, sequences, q, kv, running, d_o, .. } = self;
        let mut dkv = vec![f32::NAN; kv.len()];
        let inputs = cpu::AttentionGradKvInputs { q, kv, running, d_o, delta };
        cpu::attention_grad_kv(p, *sequences, inputs, &mut dkv);
        dkv
    }

    /// Calls with a value that is not finite in one of the inputs.
    pub fn not_finite() -> impl Iterator<Item = Self> {
        let changes: [fn(&mut Self); 8] = [
            |example| example.q[5 * 32 + 3] = f32::NAN,
            |example| example.kv[7 * 32 + 1] = f32::NAN,
            |example| example.kv[6 * 32 + 17] = f32::NAN,
            |example| example.running[2 * 9] = f32::NAN,
            |example| example.running[2 * 11 + 1] = f32::NAN,
            |example| example.d_o[6 * 32] = f32::NAN,
            |example| example.kv[3 * 32 + 20] = f32::INFINITY,
            |example| example.kv[3 * 32 + 2] = f32::NEG_INFINITY,
        ];
        cases(changes).map(|change| {
            let mut example = Self::new(case([2, 20, 1, 2, 4, 0]), 2.0);
            change(&mut example);
            example
        })
    }

    /// A run of a kernel with these bindings.
    pub fn run(&self, kernel: KernelId, bindings: &[&[f32]]) -> Run {
        Run::new(kernel, &self.p, bindings.iter().map(|b| words(b)).collect(), [1, 1, self.sequences])
    }
}

/// What is not finite in the expected values must not be finite in those that were found.
pub fn assert_not_finite(found: &[f32], expected: &[f32]) {
    assert!(expected.iter().any(|v| !v.is_finite()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(expected.is_finite() || !found.is_finite(), "value {i}: found {found}, expected {expected}");
    }
}

/// Checks that parameters and bindings that don't fit are refused, and that empty calls are not.
pub fn assert_faults(example: &Example, run: &dyn Fn() -> Run) {
    assert!(run().fault().is_none());
    for binding in 0..run().bindings.len() {
        let mut short = run();
        short.bindings[binding].pop();
        assert!(short.fault().is_some(), "binding {binding}");
    }
    let with = |p: params::AttentionGradQ, grid| Run { params: bytemuck::bytes_of(&p).to_vec(), grid, ..run() };
    let (p, grid, max) = (example.p, [1, 1, example.sequences], u32::MAX);
    for wrong in [
        params::AttentionGradQ { heads_per_kv: 0, ..p },
        params::AttentionGradQ { heads_per_kv: p.heads + 1, ..p },
        params::AttentionGradQ { dim4: max, ..p },
        params::AttentionGradQ { count: max, ..p },
        params::AttentionGradQ { count: max, heads: max, heads_per_kv: 1, dim4: max, window: max, ..p },
        params::AttentionGradQ { count: max, heads: max, heads_per_kv: max, dim4: 0, ..p },
    ] {
        assert!(with(wrong, grid).fault().is_some(), "{wrong:?}");
    }
    assert!(with(p, [1, 1, max]).fault().is_some());
    for empty in [
        params::AttentionGradQ { count: 0, ..p },
        params::AttentionGradQ { heads: 0, ..p },
        params::AttentionGradQ { dim4: 0, ..p },
    ] {
        assert!(with(empty, grid).fault().is_none(), "{empty:?}");
    }
    assert!(with(p, [1, 1, 0]).fault().is_none());
}
