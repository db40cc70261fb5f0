//! The choice of the next id. It is discrete: device and CPU reference agree exactly on cases that rounding does not
//! decide, as these are.

use bolmo_shaders::params::Sample;
use bolmo_shaders::{KernelId, cpu};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{Noise, Worst, bytes, forms, hold, run};

const RING: usize = 16;
const STEPS: usize = 3;

#[derive(Debug, Clone)]
struct Choice {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    penalty: f32,
    boundary_bias: f32,
    window: u32,
    flags: u32,
    /// Ids that the text has, the last of them in the ring.
    ids: u32,
    budget: u32,
    halted: bool,
    with_trie: bool,
    /// How far apart logits are.
    size: f32,
    /// Share of the candidates that are not allowed.
    masked: f32,
    seed: u64,
}

pub fn sample() {
    let base = Choice {
        temperature: 0.0,
        top_k: 257,
        top_p: 1.0,
        min_p: 0.0,
        penalty: 0.0,
        boundary_bias: 0.0,
        window: 8,
        flags: 0,
        ids: 5,
        budget: 100,
        halted: false,
        with_trie: true,
        size: 4.0,
        masked: 0.0,
        seed: 1,
    };
    let warm = Choice { temperature: 1.0, ..base.clone() };
    let mut all = vec![
        base.clone(),
        Choice { size: 0.0, ..base.clone() },
        Choice { halted: true, ..base.clone() },
        Choice { ids: 40, penalty: 0.3, ..base.clone() },
        Choice { masked: 0.99, ..base.clone() },
        Choice { flags: 1, ..base.clone() },
        Choice { flags: 2, ..base.clone() },
        Choice { budget: 3, ..base.clone() },
        Choice { with_trie: false, ..base.clone() },
        Choice { top_k: 1, ..warm.clone() },
        Choice { top_p: 0.01, ..warm.clone() },
        Choice { min_p: 1.0, ..warm.clone() },
        Choice { masked: 0.9, ..warm.clone() },
    ];
    all.extend((0..32).map(|seed| Choice { seed, ..warm.clone() }));
    let draws = (
        select(vec![0.0f32, 0.3, 1.0, 3.0]),
        select(vec![257u32, 1, 5, 40]),
        select(vec![1.0f32, 0.9, 0.5]),
        select(vec![0.0f32, 0.01, 0.2]),
        select(vec![0.0f32, 0.2, -0.2]),
        select(vec![0.0f32, 0.5, -0.5]),
    );
    let rest = (0..20u32, 0..3u32, 1..60u32, 1..4u32, any::<bool>(), select(vec![0.5f32, 4.0, 20.0]), any::<u64>());
    let drawn = (draws, rest).prop_map(
        |(
            (temperature, top_k, top_p, min_p, penalty, boundary_bias),
            (window, flags, ids, budget, with_trie, size, seed),
        )| {
            let masked = if seed % 3 == 0 { 0.5 } else { 0.0 };
            let budget = 2 + budget;
            let halted = false;
            Choice {
                temperature,
                top_k,
                top_p,
                min_p,
                penalty,
                boundary_bias,
                window,
                flags,
                ids,
                budget,
                halted,
                with_trie,
                size,
                masked,
                seed,
            }
        },
    );
    hold(KernelId::Sample, all, drawn, sample_case);
}

fn sample_case(_: &Worst, case: &Choice) -> TestCaseResult {
    let mut noise = Noise::new(case.seed);
    let logits = noise.values(520, case.size);
    let bias: Vec<f32> = (0..257).map(|_| if noise.unit() < case.masked { -3e38 } else { noise.value(0.5) }).collect();
    let random: Vec<f32> = (0..2 * STEPS).map(|_| noise.unit().min(0.999_999)).collect();
    // Every byte is an entry of one, and "ba" to "bz" are entries of two: the root, 256 nodes, 26 behind those of a to
    // z.
    let nodes = 1 + 256 + 26;
    let mut trie = vec![0u32, 256];
    trie.extend((0..256u32).scan(256, |edge, byte| {
        *edge += u32::from((97..123).contains(&byte));
        Some(*edge)
    }));
    trie.resize(nodes + 1, 256 + 26);
    trie.push(u32::MAX);
    trie.extend((1..nodes as u32).map(|node| 1000 + node));
    trie.extend((0..256u32).map(|byte| 4 + byte));
    trie.extend([4 + 98; 26]);
    let history: Vec<u32> = (0..RING).map(|i| if i % 5 == 4 { 3 } else { 4 + 97 + noise.below(3) as u32 }).collect();
    // "x" and whatever came last with any of a few bytes behind it
    let stops = [2, 5, 1, 6, 1, 120, 101];
    let p = Sample {
        temperature: case.temperature,
        top_p: case.top_p,
        min_p: case.min_p,
        penalty: case.penalty,
        boundary_bias: case.boundary_bias,
        top_k: case.top_k,
        window: case.window.min(RING as u32),
        flags: case.flags,
        nodes: if case.with_trie { nodes as u32 } else { 0 },
        max_len: 2,
        ring: RING as u32,
    };
    let control = [u32::from(case.halted), 1, 2, case.budget, case.ids, 0, 0, 0, 77, 0, 0, 99];
    let next = [7u32; 66];
    let (mut control_expected, mut history_expected, mut next_expected) = (control, history.clone(), next);
    let inputs = cpu::SampleInputs { logits: &logits, bias: &bias, random: &random, stops: &stops, trie: &trie };
    cpu::sample(&p, inputs, &mut control_expected, &mut history_expected, &mut next_expected);
    for form in forms(KernelId::Sample) {
        let bindings = [
            bytes(&logits),
            bytes(&bias),
            bytes(&random),
            bytes(&stops),
            bytes(&trie),
            bytes(&control),
            bytes(&history),
            bytes(&next),
        ];
        let found = run(form, KernelId::Sample, &p, &bindings, [1, 1, 1])?;
        let words = |i: usize| found[i].iter().map(|v: &f32| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(&words(5)[..], &control_expected[..], "control");
        prop_assert_eq!(&words(6), &history_expected, "history");
        prop_assert_eq!(&words(7)[..], &next_expected[..], "next");
    }
    Ok(())
}
