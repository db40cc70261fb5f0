//! Source models against what their own implementation computes, and their gradients against differences of the loss.

use std::collections::BTreeMap;

use bolmo_runtime::block_on;
use bolmo_runtime::config::{BlockType, LayerType, QkNorm};
use bolmo_runtime::init::Preset;
use bolmo_tests::{engine, fixtures, in_tree};
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

fn largest_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Hidden states and logits of the golden texts.
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
        let mut worst = largest_difference(&found.embeddings, &floats(&format!("s{s}.embeddings")));
        assert_eq!(worst, 0.0, "{name} s{s}: embeddings");
        for (l, hidden) in found.hidden.iter().enumerate() {
            worst = worst.max(largest_difference(hidden, &floats(&format!("s{s}.hidden.{l}"))));
        }
        worst = worst.max(largest_difference(&found.final_hidden, &floats(&format!("s{s}.final_hidden"))));
        let logits = largest_difference(&found.logits, &floats(&format!("s{s}.logits")));
        eprintln!("{name} s{s}: hidden states off by at most {worst:.1e}, logits by {logits:.1e}");
        assert!(worst <= 1e-4 && logits <= 1e-4, "{name} s{s}: {worst:e}, logits {logits:e}");
    }
}

/// The derivative of the loss along a direction through all parameters, as the gradients say and as differences say.
fn gradients(name: &str, source: &RandomSubword) {
    struct Moved<'a> {
        source: &'a RandomSubword,
        direction: &'a BTreeMap<String, Vec<f32>>,
        step: f32,
    }
    impl TensorSource for Moved<'_> {
        fn read(&self, name: &str) -> bolmo_runtime::Result<Vec<f32>> {
            let values = self.source.read(name)?;
            // Larger than models begin with, so that softmaxes and gates are not flat.
            let larger = if name.contains("norm") { 1.0 } else { 8.0 };
            let direction = self.direction.get(name);
            let moved = |(at, v): (usize, &f32)| larger * v + direction.map_or(0.0, |d| self.step * d[at]);
            Ok(values.iter().enumerate().map(moved).collect())
        }
    }
    let (rows, tokens) = (2, 32);
    let mut seed = 7u64;
    let mut draw = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as u32
    };
    let ids: Vec<u32> = (0..rows * tokens).map(|_| draw() % source.vocabulary as u32).collect();
    let labels: Vec<u32> =
        (0..rows * tokens).map(|i| if i % 7 == 0 { u32::MAX } else { draw() % source.vocabulary as u32 }).collect();
    let nowhere = BTreeMap::new();
    let with = |options, step: f32, direction: &BTreeMap<String, Vec<f32>>, trained: bool| {
        let moved = Moved { source, direction, step };
        let size = (source.vocabulary, false);
        block_on(SubwordModel::new(engine(), &source.config, size, options, &moved, trained)).expect("a model")
    };
    let model = |step: f32, direction: &BTreeMap<String, Vec<f32>>, trained: bool| {
        with(options(rows, tokens), step, direction, trained)
    };
    let mut trained = model(0.0, &nowhere, true);
    block_on(trained.step(&[(&ids, &labels)])).expect("a step");
    let mut gradients = BTreeMap::new();
    let mut keep = |name: &str, values: Vec<f32>| {
        gradients.insert(name.to_owned(), values);
        Ok(())
    };
    block_on(trained.each_gradient(&mut keep)).expect("gradients");
    // Blocks that are run again on the way back give the same.
    let mut again = with(SubwordOptions { recompute: true, ..options(rows, tokens) }, 0.0, &nowhere, true);
    block_on(again.step(&[(&ids, &labels)])).expect("a step");
    let mut same = |tensor: &str, values: Vec<f32>| {
        assert!(gradients[tensor] == values, "{name} {tensor}: other gradients where blocks are run again");
        Ok(())
    };
    block_on(again.each_gradient(&mut same)).expect("gradients");
    let loss = |step: f32, direction: &BTreeMap<String, Vec<f32>>| {
        let (sum, count) = block_on(model(step, direction, false).evaluate(&ids, &labels)).expect("a loss");
        sum / count as f64
    };
    // Along the gradient of one part of the model the loss changes most, and rounding matters least.
    for part in ["embed_tokens", "q_proj", "k_proj", "v_proj", "o_proj", "down_proj", "gate_proj", "norm"] {
        let norm = |values: &[f32]| values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let squares: f64 = gradients.iter().filter(|(name, _)| name.contains(part)).map(|(_, v)| norm(v)).sum();
        let along: BTreeMap<String, Vec<f32>> = gradients
            .iter()
            .map(|(name, values)| {
                let factor = if name.contains(part) { 1.0 / squares.sqrt() } else { 0.0 };
                (name.clone(), values.iter().map(|&v| (f64::from(v) * factor) as f32).collect())
            })
            .collect();
        let step = 0.02f32;
        let slope = (loss(step, &along) - loss(-step, &along)) / f64::from(2.0 * step);
        let expected = squares.sqrt();
        eprintln!("{name} {part}: slope {slope:.6}, norm of the gradient {expected:.6}");
        assert!((slope - expected).abs() <= 5e-3 * expected, "{name} {part}: {slope} {expected}");
    }
}

#[test]
fn olmo2() {
    golden("olmo2");
}

#[test]
fn olmo3() {
    golden("olmo3");
}

#[test]
fn qwen3() {
    golden("qwen3");
}

#[test]
fn qwen3_with_one_table() {
    golden("qwen3_tied");
}

#[test]
fn llama() {
    golden("llama");
}

/// Blocks of every kind: norms behind and a window, norms in front with one for each head and shared keys, norms in front alone.
#[test]
fn gradients_of_every_kind_of_block() {
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
        gradients(name, &RandomSubword { config, vocabulary: 96, seed: 5 });
    }
}
