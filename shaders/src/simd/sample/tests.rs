use super::*;
use crate::KernelId;
use crate::cpu;
use crate::cpu::noise::noise;
use crate::simd::InstructionSet;
use crate::simd::testing::{Found, Run, Threads, words};

const P: params::Sample = params::Sample {
    temperature: 0.0,
    top_p: 1.0,
    min_p: 0.0,
    penalty: 0.0,
    boundary_bias: 0.0,
    top_k: 257,
    window: 0,
    flags: 0,
    nodes: 0,
    max_len: 0,
    ring: 8,
};

struct Case {
    p: params::Sample,
    logits: Vec<f32>,
    bias: Vec<f32>,
    random: Vec<f32>,
    stops: Vec<u32>,
    trie: Vec<u32>,
    control: Vec<u32>,
    history: Vec<u32>,
}

impl Case {
    fn new(p: params::Sample, seed: u64) -> Self {
        let random = noise(seed + 1, 4, 1.0).iter().map(|v| v.abs()).collect();
        Self {
            p,
            logits: noise(seed, 520, 6.0),
            bias: vec![0.0; 257],
            random,
            stops: vec![0],
            trie: vec![0],
            control: vec![0, 1, 5, 50, 11, 0, 0, 0, 9, 9],
            history: noise(seed + 2, p.ring as usize, 128.0).iter().map(|v| (132.0 + v) as u32).collect(),
        }
    }

    fn run(&self) -> Run {
        let Self { p, logits, bias, random, stops, trie, control, history } = self;
        let next = vec![7; 65];
        let bindings = vec![words(logits), words(bias), words(random)];
        let more = [stops, trie, control, history, &next].map(Vec::clone);
        Run::new(KernelId::Sample, p, bindings.into_iter().chain(more).collect(), [1, 1, 1])
    }

    fn check(&self) {
        let (mut control, mut history, mut next) = (self.control.clone(), self.history.clone(), vec![7; 65]);
        let Self { p, logits, bias, random, stops, trie, .. } = self;
        let inputs = cpu::SampleInputs { logits, bias, random, stops, trie };
        cpu::sample(p, inputs, &mut control, &mut history, &mut next);
        self.run().all(|found| {
            assert_eq!(found.u32(5), control);
            assert_eq!(found.u32(6), history);
            assert_eq!(found.u32(7), next);
        });
    }

    fn fails(&self) -> bool {
        self.run().once(InstructionSet::best(), &Threads(1)).is_err()
    }

    fn found(&self) -> Found {
        self.run().once(InstructionSet::best(), &Threads(1)).expect("a valid call")
    }
}

#[test]
fn greedy_choices_match_the_reference() {
    for seed in 1..40 {
        Case::new(P, seed).check();
        Case::new(params::Sample { penalty: 0.3, window: 20, boundary_bias: 1.0, ..P }, seed).check();
        // Ties.
        let mut case = Case::new(params::Sample { flags: seed as u32 % 3, ..P }, seed);
        case.logits.iter_mut().for_each(|logit| *logit = logit.round());
        case.bias[usize::try_from(seed).unwrap()..200].fill(-3e38);
        case.check();
    }
}

#[test]
fn draws_match_the_reference() {
    for seed in 1..60 {
        let temperature = [0.3, 1.0, 2.5][seed as usize % 3];
        let p = params::Sample { temperature, ..P };
        Case::new(p, seed).check();
        Case::new(params::Sample { top_p: 0.8, ..p }, seed).check();
        Case::new(params::Sample { top_k: 5, min_p: 0.1, ..p }, seed).check();
        Case::new(params::Sample { top_p: 0.95, min_p: 0.01, penalty: 0.2, window: 6, top_k: 40, ..p }, seed).check();
        let mut case = Case::new(params::Sample { temperature: 0.05, ..p }, seed);
        case.logits.iter_mut().for_each(|logit| *logit *= 20.0);
        case.logits[30..90].fill(f32::NEG_INFINITY);
        case.check();
    }
    // Nothing to choose from.
    let mut case = Case::new(params::Sample { temperature: 1.0, top_k: 0, ..P }, 1);
    case.check();
    case.p.top_k = 257;
    case.bias.fill(-3e38);
    case.check();
    case.bias.fill(0.0);
    for faulty in [f32::NAN, f32::INFINITY] {
        case.logits[519] = faulty;
        case.check();
    }
    case.control[0] = 1;
    case.check();
}

#[test]
fn stops_and_suffixes_match_the_reference() {
    let (a, b) = (OFFSET + 97, OFFSET + 98);
    for (last, history_last) in [(97, b), (97, BPE_END_ID), (98, a), (122, b)] {
        let mut case = Case::new(params::Sample { nodes: 3, max_len: 2, ..P }, 3);
        case.trie = vec![0, 1, 2, 2, NONE, 7, 9, a, b];
        // The stop strings "c" and "ba".
        case.stops = vec![2, 5, 1, 6, 2, 99, 98, 97];
        case.history[(10 % case.p.ring) as usize] = history_last;
        case.history[(9 % case.p.ring) as usize] = b;
        case.logits[(OFFSET + last) as usize] = 100.0;
        case.check();
        case.control[2] = 0;
        case.check();
        case.control[3] = 0;
        case.check();
        case.control[4] = 0;
        case.p.ring = 1;
        case.history.truncate(1);
        case.check();
    }
    let mut case = Case::new(P, 4);
    case.logits[END_ID as usize] = 100.0;
    case.check();
    case.logits[(END_ID + FUSED) as usize] = 101.0;
    case.check();
}

#[test]
fn indices_out_of_range_are_faults() {
    let p = params::Sample { nodes: 1, max_len: 4, ..P };
    let case = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::new(p, 5);
        case.trie = vec![0, 0, NONE];
        change(&mut case);
        case
    };
    assert_eq!(case(&|_| {}).found().u32(5)[5], 2);
    let changes: &[&dyn Fn(&mut Case)] = &[
        &|case| (case.p.ring, case.history) = (0, vec![]),
        &|case| case.p.ring = 9,
        &|case| case.control[1] = 2,
        &|case| case.control[1] = u32::MAX,
        &|case| case.control.truncate(7),
        &|case| (case.p.temperature, case.random) = (1.0, vec![0.5; 3]),
        &|case| case.stops = vec![1],
        &|case| case.stops = vec![u32::MAX],
        &|case| case.stops = vec![1, u32::MAX, 1],
        &|case| {
            case.stops = vec![1, 0, u32::MAX - 8];
            (case.control[2], case.control[3]) = (u32::MAX - 4, u32::MAX);
        },
        &|case| case.stops.clear(),
        &|case| case.trie = vec![0, 5, NONE, 3],
        &|case| case.trie = vec![5, 0, NONE, 3],
        &|case| case.trie = vec![0, 0],
        &|case| case.trie = [vec![0, 256, NONE], (OFFSET..FUSED).collect()].concat(),
        &|case| case.p.nodes = u32::MAX,
        &|case| (case.p.penalty, case.p.window, case.history[0]) = (0.1, 8, 5000),
    ];
    for (i, change) in changes.iter().enumerate() {
        assert!(case(change).fails(), "change {i}");
    }
}
