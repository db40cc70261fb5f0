//! Duration of a training step: stage 2 of a byte-level model, and a subword model.
//!
//! Method: criterion measures whole steps, that is forward pass, backward pass and optimizer, of small random models on
//! the adapter that `BOLMO_ADAPTER` names, or on a software driver in place of the CPU device. There is no control. The
//! first line of the output names the adapter.

use std::time::Duration;

use bolmo_runtime::Preset;
use bolmo_runtime::layout::expected_tensors;
use bolmo_runtime::{AdapterChoice, Config, Engine, EngineOptions, Result, block_on};
use bolmo_training::bench::StepBench;
use bolmo_training::init::RandomSubword;
use bolmo_training::{AdamOptions, Schedule, Shape, SubwordModel, SubwordOptions, TensorSource};
use criterion::{Criterion, Throughput};

struct RandomWeights<'a>(&'a Config);

impl TensorSource for RandomWeights<'_> {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let spec = expected_tensors(self.0).into_iter().find(|spec| spec.name == name).expect("a tensor");
        let mut state = name.len() as u32;
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let norm = name.ends_with("norm.weight");
        Ok((0..spec.element_count()).map(|_| if norm { 1.0 } else { 0.05 * draw() }).collect())
    }
}

fn config(width: usize, blocks: usize) -> Config {
    let mut config = Preset::Demo.config();
    config.hidden_size = width;
    config.num_attention_heads = width / 32;
    config.num_key_value_heads = width / 32;
    config.head_dim = 32;
    config.num_hidden_layers = blocks;
    config.layer_types.resize(blocks, config.layer_types[0]);
    config.intermediate_size = 3 * width;
    config.local_intermediate_size = 3 * width / 2;
    config.num_local_heads = 4;
    config.num_local_encoder_layers = 1;
    config.num_local_decoder_layers = 2;
    config.subword_vocab_size = 1024;
    config
}

fn main() {
    let mut options = EngineOptions::default();
    options.adapter = AdapterChoice::parse(&std::env::var("BOLMO_ADAPTER").unwrap_or_default());
    let engine = block_on(Engine::open(&options)).expect("an adapter");
    println!("adapter: {} ({})", engine.adapter().name, engine.adapter().driver);
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    for (width, blocks) in [(128, 4), (192, 4)] {
        byte_level(&mut criterion, &engine, &config(width, blocks));
        subword(&mut criterion, &engine, &config(width, blocks));
    }
    criterion.final_summary();
}

fn byte_level(criterion: &mut Criterion, engine: &Engine, config: &Config) {
    let shape = Shape { rows: 8, bytes: 512, patches: 128 };
    let mut bench = block_on(StepBench::new(engine, config, &RandomWeights(config), shape, false)).expect("a trainer");
    let mut group = criterion.benchmark_group("stage 2");
    group.throughput(Throughput::Bytes(shape.all_bytes() as u64));
    group.bench_function(format!("width {}, {} blocks", config.hidden_size, config.num_hidden_layers), |b| {
        b.iter(|| block_on(bench.step()).expect("a step"));
    });
    group.finish();
}

fn subword(criterion: &mut Criterion, engine: &Engine, config: &Config) {
    let (rows, tokens, vocabulary) = (16, 128, 1024);
    let options = SubwordOptions {
        rows,
        tokens,
        adam: AdamOptions::default(),
        schedule: Schedule { steps: 1000, warmup: 0.1 },
        half_products: false,
        recompute: false,
        rate: 1e-4,
    };
    let source = RandomSubword { config: config.clone(), vocabulary, seed: 1 };
    let mut model =
        block_on(SubwordModel::new(engine, config, (vocabulary, false), options, &source, true)).expect("a model");
    let ids: Vec<u32> = (0..(rows * tokens) as u32).map(|i| i * 37 % vocabulary as u32).collect();
    let labels: Vec<u32> = ids.iter().map(|id| (id + 37) % vocabulary as u32).collect();
    let mut group = criterion.benchmark_group("subword");
    group.throughput(Throughput::Elements(ids.len() as u64));
    group.bench_function(format!("width {}, {} blocks", config.hidden_size, config.num_hidden_layers), |b| {
        b.iter(|| block_on(model.step(&[(&ids, &labels)])).expect("a step"));
    });
    group.finish();
}
