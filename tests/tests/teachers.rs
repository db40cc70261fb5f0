//! Source models against their own implementation, and their gradients against finite differences of the loss.

use std::collections::BTreeMap;

use bolmo_runtime::Preset;
use bolmo_runtime::{BlockType, LayerType, QkNorm};
use bolmo_runtime::{Config, block_on};
use bolmo_tests::{engine, fixtures, in_tree, slope};
use bolmo_training::init::RandomSubword;
use bolmo_training::{AdamOptions, LocalSizes, Schedule, SourceModel, SubwordModel, SubwordOptions, TensorSource};
use safetensors::SafeTensors;

const LOCAL: LocalSizes = LocalSizes { encoder_layers: 1, decoder_layers: 1, heads: 2, intermediate_size: 32 };

fn options(rows: usize, tokens: usize) -> SubwordOptions {
    SubwordOptions {
        rows,
        tokens,
        adam: AdamOptions::default(),
        schedule: Schedule { steps: 10, warmup: 0.0 },
        half_products: false,
        recompute: false,
        rate: 0.0,
    }
}

fn open(name: &str) -> SourceModel {
    let dir = fixtures().join("teachers").join(name);
    SourceModel::open(&dir, LOCAL, None).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The largest difference relative to the largest expected value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest(expected)
}

/// The roundings of the sums up to the logits: a block has two projections in sequence in its attention and two in its
/// feed-forward part, and a sum over the sequence; the head is one more.
fn roundings(config: &Config, tokens: usize) -> f32 {
    let block = 3 * config.hidden_size + config.intermediate_size + tokens;
    (config.num_hidden_layers * block + config.hidden_size) as f32
}

/// Compares hidden states and logits of the golden texts.
fn golden(name: &str) {
    if !in_tree(&format!("teachers/{name}")) {
        return;
    }
    let source = open(name);
    let path = fixtures().join("teachers/golden").join(format!("{name}.safetensors"));
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let floats = |name: &str| -> Vec<f32> { bytemuck::pod_collect_to_vec(file.tensor(name).expect(name).data()) };
    for s in 0..3 {
        let ids: Vec<i64> = bytemuck::pod_collect_to_vec(file.tensor(&format!("s{s}.ids")).expect("ids").data());
        let ids: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        let model = SubwordModel::new(
            engine(),
            source.config(),
            (source.vocabulary(), source.tied()),
            options(1, ids.len()),
            &source,
            false,
        );
        let found = block_on(block_on(model).expect("a model").hidden_states(&ids)).expect("hidden states");
        assert_eq!(found.embeddings, floats(&format!("s{s}.embeddings")), "{name} s{s}: embeddings");
        let layers = found.hidden.iter().enumerate().map(|(l, hidden)| (format!("hidden.{l}"), hidden));
        let last = [("final_hidden".to_owned(), &found.final_hidden), ("logits".to_owned(), &found.logits)];
        let bound = f32::EPSILON * roundings(source.config(), ids.len());
        let mut worst: f32 = 0.0;
        for (what, found) in layers.chain(last) {
            let difference = difference(found, &floats(&format!("s{s}.{what}")));
            assert!(difference <= bound, "{name} s{s} {what}: off by {difference:.1e}, at most {bound:.1e}");
            worst = worst.max(difference);
        }
        eprintln!("{name} s{s}: off by at most {worst:.1e} of the largest value, bound {bound:.1e}");
    }
}

/// A drawn model whose matrices are `steepness` times larger, moved by `step` along a direction.
struct Moved<'a> {
    source: &'a RandomSubword,
    steepness: f32,
    direction: &'a BTreeMap<String, Vec<f32>>,
    step: f32,
}

impl TensorSource for Moved<'_> {
    fn read(&self, name: &str) -> bolmo_runtime::Result<Vec<f32>> {
        let values = self.source.read(name)?;
        let factor = if name.contains("norm") { 1.0 } else { self.steepness };
        let direction = self.direction.get(name);
        let moved = |(at, v): (usize, &f32)| factor * v + direction.map_or(0.0, |d| self.step * d[at]);
        Ok(values.iter().enumerate().map(moved).collect())
    }
}

/// Drawn ids, and labels some of which are missing.
fn drawn_batch(count: usize, vocabulary: usize) -> [Vec<u32>; 2] {
    let mut seed = 7u64;
    let mut draw = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32 % vocabulary as u32
    };
    let ids = (0..count).map(|_| draw()).collect();
    let labels = (0..count).map(|i| if i % 7 == 0 { u32::MAX } else { draw() }).collect();
    [ids, labels]
}

/// The gradients of a step.
fn step(mut model: SubwordModel, ids: &[u32], labels: &[u32]) -> BTreeMap<String, Vec<f32>> {
    block_on(model.step(&[(ids, labels)])).expect("a step");
    let mut gradients = BTreeMap::new();
    let mut keep = |name: &str, values: Vec<f32>| {
        gradients.insert(name.to_owned(), values);
        Ok(())
    };
    block_on(model.each_gradient(&mut keep)).expect("gradients");
    gradients
}

/// Compares gradients with slopes of the loss along them, and with those of recomputed blocks.
fn gradients(name: &str, source: &RandomSubword, steepness: f32) {
    let (rows, tokens) = (2, 32);
    let [ids, labels] = drawn_batch(rows * tokens, source.vocabulary);
    let nowhere = BTreeMap::new();
    let with = |options, step: f32, direction: &BTreeMap<String, Vec<f32>>, trained: bool| {
        let moved = Moved { source, steepness, direction, step };
        let size = (source.vocabulary, false);
        block_on(SubwordModel::new(engine(), &source.config, size, options, &moved, trained)).expect("a model")
    };
    let plain = options(rows, tokens);
    let gradients = step(with(plain, 0.0, &nowhere, true), &ids, &labels);
    let again = step(with(SubwordOptions { recompute: true, ..plain }, 0.0, &nowhere, true), &ids, &labels);
    assert!(gradients == again, "{name}: different gradients where blocks are recomputed");
    let loss = |step: f64, direction: &BTreeMap<String, Vec<f32>>| {
        let mut model = with(plain, step as f32, direction, false);
        let (sum, count) = block_on(model.evaluate(&ids, &labels)).expect("a loss");
        sum / count as f64
    };
    // The sums on the way to the loss and back, and those of weights' gradients over all positions.
    let rounding = f64::from(f32::EPSILON * (2.0 * roundings(&source.config, tokens) + (rows * tokens) as f32));
    // Along the gradient of one part of the model the loss changes most, and its rounding matters least.
    for part in ["embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "gate_proj", "norm"] {
        let of_part = |name: &str| name.contains(part);
        let squares = gradients.iter().filter(|(name, _)| of_part(name)).flat_map(|(_, values)| values);
        let norm = squares.map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let along = |(name, values): (&String, &Vec<f32>)| {
            let values = values.iter().map(|&v| if of_part(name) { (f64::from(v) / norm) as f32 } else { 0.0 });
            (name.clone(), values.collect())
        };
        let along: BTreeMap<String, Vec<f32>> = gradients.iter().map(along).collect();
        let found = slope(|step| loss(step, &along), 1e-3 * norm);
        eprintln!("{name} {part}: slope {:.6} ± {:.1e}, gradient {norm:.6}", found.value, found.error);
        assert!(found.error <= 4e-3 * norm, "{name} {part}: {found:?} decides nothing about {norm}");
        let off = (found.value - norm).abs();
        assert!(off <= found.error + rounding * norm, "{name} {part}: {found:?}, gradient {norm}");
    }
}

#[test]
fn olmo2_teachers_equal_their_own_implementation() {
    golden("olmo2");
}

#[test]
fn olmo3_teachers_equal_their_own_implementation() {
    golden("olmo3");
}

#[test]
fn qwen3_teachers_equal_their_own_implementation() {
    golden("qwen3");
}

#[test]
fn qwen3_teachers_with_a_tied_head_equal_their_own_implementation() {
    golden("qwen3_tied");
}

#[test]
fn llama_teachers_equal_their_own_implementation() {
    golden("llama");
}

/// Norms after the block and a window; norms before it, with one per query and key head and shared keys; norms before
/// it alone.
#[test]
fn gradients_of_every_kind_of_block_match_finite_differences() {
    let kinds = [
        ("reordered", BlockType::ReorderedNorm, QkNorm::Whole, 4),
        ("norms per head", BlockType::PreNorm, QkNorm::PerHead, 2),
        ("no query norms", BlockType::PreNorm, QkNorm::None, 1),
    ];
    for (name, block_type, qk_norm, kv_heads) in kinds {
        let mut config = Preset::Nano.config();
        (config.block_type, config.qk_norm, config.num_key_value_heads) = (block_type, qk_norm, kv_heads);
        if block_type == BlockType::ReorderedNorm {
            config.layer_types[0] = LayerType::Sliding;
            config.sliding_window = 5;
        }
        // Steeper than models are initialized, so that softmaxes and gates are not flat.
        for (seed, steepness) in [(5, 8.0), (6, 8.0), (7, 12.0)] {
            let source = RandomSubword { config: config.clone(), vocabulary: 96, seed };
            gradients(&format!("{name}, seed {seed}"), &source, steepness);
        }
    }
}
