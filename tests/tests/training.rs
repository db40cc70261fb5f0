//! Losses, gradients and optimiser steps of stage 1 and stage 2 against the reference's.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bolmo_runtime::config::{BlockType, LayerType, QkNorm, RopeScaling, SpecialIds};
use bolmo_runtime::layout::expected_tensors;
use bolmo_runtime::{Config, Engine, Error, Result, Vocabulary, block_on};
use bolmo_tests::{engine, engine_options, fixtures, in_tree};
use bolmo_training::losses::{LossOptions, Targets};
use bolmo_training::{
    AdamOptions, Examples, Schedule, Shape, StepReport, TeacherSource, TensorSource, Trainer, TrainerOptions,
};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The end of text among the subwords of the golden vocabulary is what the teacher's input begins with.
struct Case {
    dir: PathBuf,
    sizes: Value,
}

fn json(path: &std::path::Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // Losses that a run did not have are written as no JSON has them.
    serde_json::from_str(&text.replace("NaN", "null")).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Tensors of a file, by name.
#[derive(Default)]
struct Tensors {
    floats: BTreeMap<String, Vec<f32>>,
    integers: BTreeMap<String, Vec<i64>>,
}

impl Tensors {
    fn read(path: &std::path::Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let mut this = Self::default();
        for (name, tensor) in file.tensors() {
            match tensor.dtype() {
                Dtype::F32 => {
                    this.floats.insert(name, bytemuck::pod_collect_to_vec(tensor.data()));
                }
                Dtype::I64 => {
                    this.integers.insert(name, bytemuck::pod_collect_to_vec(tensor.data()));
                }
                _ => {}
            }
        }
        this
    }
}

impl TensorSource for Tensors {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.floats.get(name).cloned().ok_or_else(|| Error::not_found(format!("no tensor {name}")))
    }
}

/// The name in a checkpoint of a tensor of the reference's training code.
fn published(name: &str) -> String {
    let renamed = |name: &str, pairs: &[(&str, &str)]| {
        pairs.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")))
    };
    let feed_forward = [
        ("feed_forward.w1.", "mlp.gate_proj."),
        ("feed_forward.w2.", "mlp.down_proj."),
        ("feed_forward.w3.", "mlp.up_proj."),
    ];
    let part = |name: &str, pairs: &[(&str, &str)]| {
        renamed(name, pairs).or_else(|| renamed(name, &feed_forward)).unwrap_or_else(|| name.to_owned())
    };
    if let Some(rest) = name.strip_prefix("blocks.") {
        let (layer, rest) = rest.split_once('.').expect("a layer");
        let pairs = [
            ("attention.w_q.", "self_attn.q_proj."),
            ("attention.w_k.", "self_attn.k_proj."),
            ("attention.w_v.", "self_attn.v_proj."),
            ("attention.w_out.", "self_attn.o_proj."),
            ("attention.q_norm.", "self_attn.q_norm."),
            ("attention.k_norm.", "self_attn.k_norm."),
            ("attention_norm.", "post_attention_layernorm."),
            ("feed_forward_norm.", "post_feedforward_layernorm."),
        ];
        return format!("model.layers.{layer}.{}", part(rest, &pairs));
    }
    for side in ["local_encoder", "local_decoder"] {
        if let Some(rest) = name.strip_prefix(&format!("{side}.blocks.")) {
            let (layer, rest) = rest.split_once('.').expect("a layer");
            let pairs = [("feed_forward_norm.", "pre_feedforward_layernorm."), ("xlstm_norm.", "pre_xlstm_layernorm.")];
            return format!("model.{side}.layers.{layer}.{}", part(rest, &pairs));
        }
    }
    match name {
        "lm_head.norm.weight" => "model.norm.weight".to_owned(),
        "lm_head.w_out.weight" => "lm_head.weight".to_owned(),
        "local_encoder.embedding.weight" => "model.local_encoder.byte_embedding.weight".to_owned(),
        "local_encoder.expanded_embeddings.weight" => "model.local_encoder.subword_embedding.weight".to_owned(),
        other => format!("model.{other}"),
    }
}

/// Tensors of the reference's training code as those of a checkpoint, and the teacher's own.
fn checkpoint(tensors: &Tensors) -> (Tensors, Tensors) {
    let (mut student, mut teacher) = (Tensors::default(), Tensors::default());
    for (name, values) in &tensors.floats {
        match name.strip_prefix("teacher.") {
            Some(name) => {
                let name = match name {
                    "embeddings.weight" => "model.embed_tokens.weight",
                    "lm_head.norm.weight" => "model.norm.weight",
                    _ => "lm_head.weight",
                };
                teacher.floats.insert(name.to_owned(), values.clone());
            }
            None => {
                student.floats.insert(published(name), values.clone());
            }
        }
    }
    (student, teacher)
}

impl Case {
    fn new() -> Self {
        let dir = fixtures().join("train");
        let sizes = json(&dir.join("config.json"));
        Self { dir, sizes }
    }

    fn size(&self, name: &str) -> usize {
        self.sizes[name].as_u64().unwrap_or_else(|| panic!("no {name}")) as usize
    }

    fn shape(&self) -> Shape {
        Shape { rows: 3, bytes: self.size("L"), patches: self.size("P") }
    }

    fn config(&self) -> Config {
        let d = self.size("D");
        let heads = self.size("n_heads");
        let layers = self.size("n_layers");
        Config {
            hidden_size: d,
            vocab_size: self.size("byte_vocab_rows"),
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: d / heads,
            intermediate_size: self.size("ffn"),
            local_intermediate_size: self.size("local_ffn"),
            num_local_heads: self.size("local_heads"),
            num_local_encoder_layers: self.size("n_enc"),
            num_local_decoder_layers: self.size("n_dec"),
            subword_vocab_size: self.size("subword_vocab"),
            rms_norm_eps: 1e-6,
            local_rms_norm_eps: 1e-5,
            rope_theta: self.size("rope_theta") as f64,
            rope_scaling: RopeScaling::None,
            layer_types: vec![LayerType::Full; layers],
            sliding_window: 0,
            max_position_embeddings: 4096,
            add_expanded_embeddings: true,
            block_type: BlockType::ReorderedNorm,
            qk_norm: QkNorm::Whole,
            special: SpecialIds { pad: 0, bos: 1, eos: 1, bpe_token_end: 3 },
            special_tokens: ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"].map(str::to_owned).to_vec(),
            byte_offset: 4,
            original_identifier: None,
        }
    }
}

/// A batch of the golden files, and what follows from it.
struct Batch {
    shape: Shape,
    ids: Vec<u32>,
    suffixes: Vec<u32>,
    subwords: Vec<u32>,
    labels: Vec<i32>,
    truth: Vec<bool>,
    patch_lens: Vec<u32>,
    patch_of: Vec<u32>,
}

impl Batch {
    fn read(case: &Case, which: usize, eos: u32) -> Self {
        let shape = case.shape();
        let tensors = Tensors::read(&case.dir.join(format!("batch{which}.safetensors")));
        let column = |name: &str| tensors.integers[name].iter().map(|&v| v as u32).collect::<Vec<_>>();
        let (ids, patch_lens) = (column("input_ids"), column("patch_lens"));
        let labels: Vec<i32> = tensors.integers["labels"].iter().map(|&v| v as i32).collect();
        let mut subwords = Vec::new();
        for row in column("original_input_ids").chunks(shape.patches) {
            subwords.push(eos);
            subwords.extend(&row[..shape.patches - 1]);
        }
        let (mut truth, mut patch_of) = (vec![false; ids.len()], Vec::new());
        for (row, lens) in patch_lens.chunks(shape.patches).enumerate() {
            let mut starts = vec![0];
            let mut end = 0;
            for &len in lens {
                end += len as usize;
                starts.push(end);
                if end <= shape.bytes {
                    truth[row * shape.bytes + end - 1] = true;
                }
            }
            for t in 0..shape.bytes {
                patch_of.push(starts.iter().filter(|&&start| start <= t).count() as u32 - 1);
                let at = row * shape.bytes + t;
                if t + 1 < shape.bytes && ids[at + 1] == 1 {
                    truth[at] = false;
                }
            }
            truth[row * shape.bytes] = true;
        }
        Self { shape, ids, suffixes: column("expanded_input_ids"), subwords, labels, truth, patch_lens, patch_of }
    }

    fn examples(&self) -> Examples<'_> {
        Examples {
            ids: &self.ids,
            suffixes: &self.suffixes,
            subwords: &self.subwords,
            targets: Targets {
                shape: self.shape,
                labels: &self.labels,
                truth: &self.truth,
                patch_lens: &self.patch_lens,
                patch_of: &self.patch_of,
            },
        }
    }
}

/// Subwords of the golden vocabulary that begin with a space, a tab or a newline, and the end of text.
fn subwords() -> (Vec<u32>, u32) {
    let path = fixtures().join("infer/subword_tokenizer/tokenizer.json");
    let file = json(&path);
    let vocabulary = file["model"]["vocab"].as_object().expect("a vocabulary");
    let spaces = vocabulary.iter().filter(|(text, _)| text.starts_with(['Ġ', 'Ċ', 'ĉ']));
    let spaces = spaces.map(|(_, id)| id.as_u64().expect("an id") as u32).collect();
    let config = json(&path.with_file_name("tokenizer_config.json"));
    let eos = config["eos_token"].as_str().or(config["eos_token"]["content"].as_str()).expect("an end of text");
    let added = file["added_tokens"].as_array().expect("added tokens");
    let id = added.iter().find(|token| token["content"] == eos).and_then(|token| token["id"].as_u64());
    (spaces, id.expect("the id of the end of text") as u32)
}

fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let difference = (found - expected).abs() / expected.abs();
    eprintln!("{what}: {found} against {expected}, relative difference {difference:.1e}");
    assert!(difference <= tolerance, "{what}: found {found}, expected {expected}");
}

/// Runs the three recorded steps of one of the reference's runs.
fn run(name: &str) {
    if !in_tree(&format!("train/{name}/init.safetensors")) {
        return;
    }
    let case = Case::new();
    let dir = case.dir.join(name);
    let report = json(&dir.join("report.json"));
    let (student, teacher) = checkpoint(&Tensors::read(&dir.join("init.safetensors")));
    let stage1 = !teacher.floats.is_empty();
    let (spaces, eos) = subwords();
    let config = case.config();
    let options = TrainerOptions {
        shape: case.shape(),
        losses: if stage1 { LossOptions::stage1() } else { LossOptions::stage2() },
        adam: AdamOptions { beta2: if stage1 { 0.999 } else { 0.95 }, ..AdamOptions::default() },
        schedule: Schedule { steps: 20, warmup: 0.1 },
        half_products: false,
        recompute: false,
        local_rate: if stage1 { 7e-4 } else { 5.2e-5 },
        encoder_rate: if stage1 { 7e-4 } else { 5.2e-5 },
        global_rate: 2.6e-5,
    };
    let source = TeacherSource {
        tensors: &teacher,
        vocabulary: case.size("teacher_vocab"),
        tied: false,
        spaces: &spaces,
        sequences: &[],
    };
    let mut trainer =
        block_on(Trainer::new(engine(), &config, options, &student, stage1.then_some(source))).expect("a trainer");
    for step in 0..3 {
        let batch = Batch::read(&case, step, eos);
        let found: StepReport = block_on(trainer.step(&[batch.examples()])).expect("a step");
        let expected = &report["steps"][step];
        let number = |value: &Value| value.as_f64().expect("a number");
        close(&format!("{name} step {step} loss"), found.losses.total, number(&expected["loss"]), 1e-4);
        close(&format!("{name} step {step} cross-entropy"), found.losses.cross_entropy, number(&expected["ce"]), 1e-4);
        close(&format!("{name} step {step} rate"), found.rate, number(&expected["lrs"][0]), 1e-6);
        if step == 0 {
            let losses = &report["finalized_losses"];
            close("boundary", found.losses.boundary, number(&losses["loss_boundary"]), 1e-4);
            if stage1 {
                close("encoder", found.losses.encoder, number(&losses["loss_local_encoder"]), 1e-4);
                close("distill", found.losses.distill, number(&losses["loss_local_decoder"]), 1e-4);
            }
            let accuracy = number(&expected["metrics"]["bolmo/boundary_acc"]);
            eprintln!("{name}: boundary accuracy {} against {accuracy}", found.losses.predictor.accuracy());
            gradients(name, &mut trainer, &dir);
        }
        close(&format!("{name} step {step} norm"), found.gradient_norm, number(&expected["grad_norm"]), 1e-3);
    }
    parameters(name, &mut trainer, &dir);
}

/// Every gradient after the first step, against the reference's and against its own in f64.
fn gradients(name: &str, trainer: &mut Trainer, dir: &std::path::Path) {
    let (expected, _) = checkpoint(&Tensors::read(&dir.join("grads.safetensors")));
    let exact = fixtures().join("train_grads64").join(format!("{name}.safetensors"));
    let exact = exact.exists().then(|| checkpoint(&Tensors::read(&exact)).0);
    let mut left: Vec<String> = expected.floats.keys().cloned().collect();
    let mut worst = (0.0, String::new());
    let mut worst_exact = (0.0, String::new());
    let mut failures = Vec::new();
    let mut each = |tensor: &str, found: Vec<f32>| {
        let Some(expected) = expected.floats.get(tensor) else {
            assert!(found.iter().all(|&v| v == 0.0), "{tensor} has a gradient, the reference has none");
            return Ok(());
        };
        left.retain(|name| name != tensor);
        let (difference, cosine) = compare(&found, expected);
        if difference > worst.0 {
            worst = (difference, tensor.to_owned());
        }
        if difference > 1e-3 || cosine < 0.99999 {
            failures.push(format!("{tensor}: difference {difference:.1e} of the norm, cosine {cosine}"));
        }
        if let Some(exact) = exact.as_ref().and_then(|exact| exact.floats.get(tensor)) {
            let (difference, _) = compare(&found, exact);
            if difference > worst_exact.0 {
                worst_exact = (difference, tensor.to_owned());
            }
        }
        Ok(())
    };
    block_on(trainer.each_gradient(&mut each)).expect("gradients");
    eprintln!(
        "{name}: largest difference of a gradient {:.1e} of its norm ({}), of f64's {:.1e} ({})",
        worst.0, worst.1, worst_exact.0, worst_exact.1
    );
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
    assert!(left.is_empty(), "{name}: no gradient of {left:?}");
}

/// The norm of the difference as a share of the expected norm, and the cosine.
fn compare(found: &[f32], expected: &[f32]) -> (f64, f64) {
    assert_eq!(found.len(), expected.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let norm = dot(expected, expected).sqrt();
    if norm == 0.0 {
        return (dot(found, found).sqrt(), 1.0);
    }
    (dot(&difference, &difference).sqrt() / norm, dot(found, expected) / norm / dot(found, found).sqrt())
}

/// The parameters after three steps.
fn parameters(name: &str, trainer: &mut Trainer, dir: &std::path::Path) {
    let (expected, _) = checkpoint(&Tensors::read(&dir.join("after3.safetensors")));
    let (mut all, mut off, mut largest) = (0usize, 0usize, 0.0f32);
    let mut each = |tensor: &str, found: Vec<f32>| {
        if let Some(expected) = expected.floats.get(tensor) {
            for (found, expected) in found.iter().zip(expected) {
                let difference = (found - expected).abs();
                all += 1;
                off += usize::from(difference > 1e-5);
                largest = largest.max(difference);
            }
        }
        Ok(())
    };
    block_on(trainer.each_weight(&mut each)).expect("weights");
    eprintln!("{name}: {off} of {all} parameters off by more than 1e-5, at most {largest:.1e}");
    assert!(all > 10_000 && off * 1000 <= all, "{name}: {off} of {all} parameters off by more than 1e-5");
}

#[test]
fn stage1() {
    run("stage1");
}

#[test]
fn stage1_as_it_begins() {
    run("stage1_fixinit");
}

#[test]
fn stage2() {
    run("stage2");
}

/// Weights at random, by the names and shapes of a byte-level model, or of a subword model's embeddings, norm and head.
struct AtRandom<'a> {
    config: &'a Config,
    vocabulary: Option<usize>,
}

impl TensorSource for AtRandom<'_> {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let count = match (self.vocabulary, name) {
            (Some(rows), "model.embed_tokens.weight" | "lm_head.weight") => rows * self.config.hidden_size,
            _ => {
                let all = expected_tensors(self.config).into_iter();
                let mut named = all.filter(|spec| spec.name == name);
                named.next().map(|spec| spec.element_count() as usize).expect("a tensor")
            }
        };
        let mut state = name.bytes().fold(17u32, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
        let mut draw = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        let norm = name.ends_with("norm.weight");
        Ok((0..count).map(|_| if norm { 1.0 + 0.1 * draw() } else { 0.2 * draw() }).collect())
    }
}

/// A step's report and its gradients, with random weights.
type Made = (StepReport, Vec<(String, Vec<f32>)>);

/// A step from random weights, of stage 1 if `teach`, else of stage 2.
fn made(engine: &Engine, teach: bool, half_products: bool, recompute: bool) -> Made {
    let case = Case::new();
    let config = case.config();
    let (spaces, eos) = subwords();
    let batch = Batch::read(&case, 0, eos);
    let vocabulary = case.size("teacher_vocab");
    let options = TrainerOptions {
        shape: case.shape(),
        losses: LossOptions::stage1(),
        adam: AdamOptions::default(),
        schedule: Schedule { steps: 20, warmup: 0.1 },
        half_products,
        recompute,
        local_rate: 1e-3,
        encoder_rate: 1e-3,
        global_rate: 0.0,
    };
    let teacher = AtRandom { config: &config, vocabulary: Some(vocabulary) };
    let source = TeacherSource { tensors: &teacher, vocabulary, tied: false, spaces: &spaces, sequences: &[] };
    let student = AtRandom { config: &config, vocabulary: None };
    let source = teach.then_some(source);
    let mut trainer = block_on(Trainer::new(engine, &config, options, &student, source)).expect("a trainer");
    let report = block_on(trainer.step(&[batch.examples()])).expect("a step");
    assert!(!report.skipped);
    let mut gradients = Vec::new();
    let mut keep = |name: &str, values: Vec<f32>| {
        gradients.push((name.to_owned(), values));
        Ok(())
    };
    block_on(trainer.each_gradient(&mut keep)).expect("gradients");
    (report, gradients)
}

/// Gradients of weights whose sums are made in parts, as GPUs make them, are those of sums made in one go, to rounding.
#[test]
fn sums_in_parts() {
    let with_groups = |groups| {
        let mut options = engine_options();
        options.product_groups = Some(groups);
        made(&block_on(Engine::open(&options)).expect("an adapter"), true, false, false)
    };
    let (whole, parts) = (with_groups(1), with_groups(64));
    close("loss", parts.0.losses.total, whole.0.losses.total, 1e-6);
    let mut differ = 0;
    for ((name, whole), (same, parts)) in whole.1.iter().zip(&parts.1) {
        assert_eq!(name, same);
        let (difference, cosine) = compare(parts, whole);
        assert!(difference < 1e-4 && cosine > 0.999_999, "{name}: {difference:.1e}, cosine {cosine}");
        differ += usize::from(whole != parts);
    }
    assert!(differ > 10, "only {differ} gradients were made in parts");
}

/// Layers that are run again on the way back leave losses and gradients as they are, in less memory.
#[test]
fn layers_that_are_run_again() {
    for teach in [true, false] {
        let [kept, again] = [false, true].map(|recompute| {
            let engine = block_on(Engine::open(&engine_options())).expect("an adapter");
            let made = made(&engine, teach, false, recompute);
            (made, engine.memory().peak_bytes)
        });
        assert!(again.1 < kept.1, "{} bytes, {} with everything kept", again.1, kept.1);
        assert_eq!(again.0.0, kept.0.0);
        assert!(again.0.1 == kept.0.1, "other gradients");
    }
}

/// What products of f16 change: losses and gradients are those of f32 to f16's precision, small gradients included, and a step is made.
#[test]
fn products_of_f16() {
    let made = [false, true].map(|half_products| made(engine(), true, half_products, false));
    let [(exact, gradients), (found, halves)] = &made;
    assert!(exact != found, "both are in f32");
    close("loss", found.losses.total, exact.losses.total, 2e-3);
    close("cross-entropy", found.losses.cross_entropy, exact.losses.cross_entropy, 2e-3);
    close("encoder", found.losses.encoder, exact.losses.encoder, 2e-3);
    close("norm", found.gradient_norm, exact.gradient_norm, 1e-2);
    let mut worst = (0.0, "");
    for ((name, exact_values), (same, half)) in gradients.iter().zip(halves) {
        assert_eq!(name, same);
        let (difference, cosine) = compare(half, exact_values);
        let norm = exact_values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        // Some gradients are small sums of large parts; none is lost.
        let bound = 0.05 * norm + 5e-4 * exact.gradient_norm;
        assert!(difference * norm < bound && cosine > 0.9, "{name}: {difference:.1e} of {norm:.1e}, cosine {cosine}");
        if difference > worst.0 {
            worst = (difference, name);
        }
    }
    eprintln!("products of f16: gradients off by {:.1e} of their norm at most ({})", worst.0, worst.1);
}

/// Tensors of which one is moved along a direction.
struct Moved<'a> {
    from: AtRandom<'a>,
    name: &'a str,
    by: Vec<f32>,
}

impl TensorSource for Moved<'_> {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut values = self.from.read(name)?;
        if name == self.name {
            values.iter_mut().zip(&self.by).for_each(|(value, by)| *value += by);
        }
        Ok(values)
    }
}

/// The divergence of next ids' probabilities from the teacher's: its gradient by weights of every kind on the way is what differences say.
#[test]
fn what_the_teacher_says_of_each_byte() {
    let case = Case::new();
    let config = case.config();
    let (spaces, eos) = subwords();
    let batch = Batch::read(&case, 0, eos);
    let vocabulary = case.size("teacher_vocab");
    let spelt = Vocabulary::open(&fixtures().join("infer/subword_tokenizer/tokenizer.json")).expect("a vocabulary");
    let sequences: Vec<Vec<u16>> =
        (0..vocabulary as u32).map(|id| spelt.sequence(id).unwrap_or_default().to_vec()).collect();
    let none = LossOptions { encoder: 0.0, cross_entropy: 0.0, distill: 0.0, boundary: 0.0, ..LossOptions::stage1() };
    let options = TrainerOptions {
        shape: case.shape(),
        losses: LossOptions { spelling: 2.0, ..none },
        adam: AdamOptions { clip: 0.0, ..AdamOptions::default() },
        schedule: Schedule { steps: 20, warmup: 0.1 },
        half_products: false,
        recompute: false,
        local_rate: 0.0,
        encoder_rate: 0.0,
        global_rate: 0.0,
    };
    let teacher = AtRandom { config: &config, vocabulary: Some(vocabulary) };
    let step = |student: &dyn TensorSource| {
        let source =
            TeacherSource { tensors: &teacher, vocabulary, tied: false, spaces: &spaces, sequences: &sequences };
        let mut trainer = block_on(Trainer::new(engine(), &config, options, student, Some(source))).expect("a trainer");
        let report = block_on(trainer.step(&[batch.examples()])).expect("a step");
        (report, trainer)
    };
    let (report, mut trainer) = step(&AtRandom { config: &config, vocabulary: None });
    assert!(report.losses.spelling > 0.1, "{:?}", report.losses);
    assert_eq!(report.losses.total, report.losses.spelling);
    let mut gradients = HashMap::new();
    let mut keep = |name: &str, values: Vec<f32>| {
        gradients.insert(name.to_owned(), values);
        Ok(())
    };
    block_on(trainer.each_gradient(&mut keep)).expect("gradients");
    let ways =
        ["lm_head.weight", "model.local_decoder.layers.0.xlstm.v.weight", "model.local_decoder.in_projection.bias"];
    for name in ways {
        let gradient = &gradients[name];
        let norm = gradient.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 1e-3, "{name}: {norm}");
        let moved = |length: f64| {
            let by = gradient.iter().map(|&v| (f64::from(v) / norm * length) as f32).collect();
            step(&Moved { from: AtRandom { config: &config, vocabulary: None }, name, by }).0.losses.spelling
        };
        let length = 0.02;
        close(name, (moved(length) - moved(-length)) / (2.0 * length), norm, 5e-3);
    }
}
