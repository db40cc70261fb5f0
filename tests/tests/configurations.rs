//! Golden models whose `config.json` is written in another form: the same results, bit for bit.

use std::path::Path;
use std::sync::Mutex;

use bolmo_runtime::convert::merge::{Merge, write_merged};
use bolmo_runtime::{
    Checkpoint, LoadOptions, Model, RopeScaling, ScoreOptions, Session, Tensors, WeightFormat, block_on,
};
use bolmo_tests::{engine, fixtures, load_on, session_with, vocabulary};
use bolmo_training::{LocalSizes, SourceModel};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

const MODELS: [(&str, &str); 4] =
    [("infer", "nano_trained"), ("infer", "swa"), ("prenorm", "blama"), ("prenorm", "bwen")];

fn config_of(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("config.json")).expect("config.json")).expect("JSON")
}

/// A copy of the folder `dir` with another `config.json`.
fn copy_with(dir: &Path, config: &Value) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    std::fs::write(copy.path().join("config.json"), config.to_string()).expect("config.json");
    let weights = std::fs::read(dir.join("model.safetensors")).expect("weights");
    std::fs::write(copy.path().join("model.safetensors"), weights).expect("weights");
    copy
}

fn ids(n: usize) -> Vec<u32> {
    let text = b"def main(self):\n    return [x for x in self.rows if x]\n";
    std::iter::once(1).chain(text.iter().cycle().take(n).map(|&byte| u32::from(byte) + 4)).collect()
}

/// The bits of all outputs of the global blocks and of all logits.
fn forward(model: &Model) -> Vec<u32> {
    let mut options = ScoreOptions::default();
    options.dump = true;
    let score = block_on(model.score_ids(&ids(90), &options, &mut |_, _| {})).expect("a score");
    let Tensors { global_out, logits, .. } = score.dump.expect("a dump");
    global_out.iter().chain(&logits).map(|x| x.to_bits()).collect()
}

fn loaded(dir: &Path) -> Model {
    load_on(engine(), dir, WeightFormat::F32)
}

/// A configuration without the keys of transformers 4, and the value that takes their place.
fn newer(config: &Value) -> (Value, Map<String, Value>) {
    let mut config = config.clone();
    let object = config.as_object_mut().expect("an object");
    let theta = object.remove("rope_theta").expect("a base");
    let mut parameters = match object.remove("rope_scaling") {
        Some(Value::Object(scaling)) => scaling,
        _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
    };
    parameters.insert("rope_theta".to_owned(), theta);
    (config, parameters)
}

/// Both forms of transformers 5.
fn newer_forms(config: &Value) -> [Value; 2] {
    let (config, parameters) = newer(config);
    let (mut flat, mut nested) = (config.clone(), config);
    let theta = &parameters["rope_theta"];
    nested["rope_parameters"] = json!({
        "full_attention": parameters,
        "sliding_attention": { "rope_type": "default", "rope_theta": theta },
    });
    flat["rope_parameters"] = Value::Object(parameters);
    [flat, nested]
}

#[test]
fn folders_of_transformers_5_compute_the_same() {
    for (family, name) in MODELS {
        let dir = fixtures().join(family).join("models").join(name);
        let expected = forward(&loaded(&dir));
        for form in newer_forms(&config_of(&dir)) {
            let copy = copy_with(&dir, &form);
            let model = loaded(copy.path());
            assert_eq!(model.warnings(), loaded(&dir).warnings(), "{name}");
            assert!(forward(&model) == expected, "{name}: {}", form["rope_parameters"]);
        }
    }
}

#[test]
fn absent_layer_types_are_those_of_the_reference() {
    let dir = fixtures().join("infer/models/swa");
    let expected = forward(&loaded(&dir));
    let mut config = config_of(&dir);
    let kinds = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"];
    assert_eq!(config["layer_types"], json!(kinds));
    config["layer_types"] = Value::Null;
    assert!(forward(&loaded(copy_with(&dir, &config).path())) == expected);
    config.as_object_mut().expect("an object").remove("layer_types");
    assert!(forward(&loaded(copy_with(&dir, &config).path())) == expected);
    config["layer_types"] = json!(vec!["full_attention"; 4]);
    assert!(forward(&loaded(copy_with(&dir, &config).path())) != expected);
}

#[test]
fn overrides_restore_a_lost_rotary_embedding() {
    let dir = fixtures().join("infer/models/swa");
    let expected = forward(&loaded(&dir));
    let mut config = config_of(&dir);
    let scaling: RopeScaling = config["rope_scaling"].to_string().parse().expect("a scaling");
    for key in ["rope_theta", "rope_scaling"] {
        config.as_object_mut().expect("an object").remove(key);
    }
    let copy = copy_with(&dir, &config);
    let lossy = loaded(copy.path());
    assert!(lossy.warnings().iter().any(|w| w.contains("`rope_theta` is absent")), "{:?}", lossy.warnings());
    assert!(forward(&lossy) != expected);

    let mut checkpoint = Checkpoint::open(copy.path()).expect("a checkpoint");
    let options = || LoadOptions::default().vocabulary(vocabulary());
    let restored = options().rope_theta(5e5).rope_scaling(scaling);
    let model = block_on(Model::load(engine(), &checkpoint, restored)).expect("a model");
    assert_eq!(model.warnings(), Vec::<String>::new());
    assert!(forward(&model) == expected);
    // The base alone leaves the warning about the scaling.
    let model = block_on(Model::load(engine(), &checkpoint, options().rope_theta(5e5))).expect("a model");
    let [warning] = model.warnings() else { panic!("{:?}", model.warnings()) };
    assert!(warning.contains("`rope_scaling` is absent"), "{warning}");
    assert!(block_on(Model::load(engine(), &checkpoint, options().rope_theta(1.0))).is_err());

    checkpoint.override_rope_theta(5e5).expect("a base");
    checkpoint.override_rope_scaling(scaling).expect("a scaling");
    assert_eq!(checkpoint.warnings(), Vec::<String>::new());
    let model = block_on(Model::load(engine(), &checkpoint, options())).expect("a model");
    assert!(forward(&model) == expected);
}

#[test]
fn source_folders_of_transformers_5_are_read_alike() {
    let local = LocalSizes { encoder_layers: 1, decoder_layers: 1, heads: 2, intermediate_size: 32 };
    let dir = fixtures().join("arith/base");
    let mut config = config_of(&dir);
    // The selection of golden files has no head.
    config["tie_word_embeddings"] = json!(true);
    let expected = SourceModel::open(copy_with(&dir, &config).path(), local, None).expect("a source");
    for form in newer_forms(&config) {
        let source = SourceModel::open(copy_with(&dir, &form).path(), local, None).expect("a source");
        assert_eq!(source.config(), expected.config());
        assert_eq!((source.tied(), source.vocabulary()), (expected.tied(), expected.vocabulary()));
        assert_eq!(source.warnings(), expected.warnings());
    }
    // A base that contradicts the other form.
    let mut both = newer_forms(&config)[0].clone();
    both["rope_theta"] = json!(10_000.0);
    let error = SourceModel::open(copy_with(&dir, &both).path(), local, None).expect_err("a contradiction");
    for word in ["`rope_parameters.rope_theta` is 500000", "`rope_theta` is 10000"] {
        assert!(error.message().contains(word), "{error} lacks {word}");
    }
    // Unless the file says otherwise, the head is a matrix of its own.
    config.as_object_mut().expect("an object").remove("tie_word_embeddings");
    match SourceModel::open(copy_with(&dir, &config).path(), local, None) {
        Ok(source) => assert!(!source.tied()),
        Err(error) => {
            assert!(error.message().contains("lm_head.weight is missing, but `tie_word_embeddings`"), "{error}")
        }
    }
}

#[test]
fn folders_of_both_forms_are_merged_alike() {
    let original = |name: &str| fixtures().join("arith").join(name);
    let merged = |names: [&Path; 3]| {
        let out = tempfile::tempdir().expect("a folder");
        let dir = out.path().join("merged");
        let report = write_merged(&Merge::new(names[0], names[1], names[2]), &dir, &mut |_, _| true);
        report.map(|_| (std::fs::read(dir.join("model.safetensors")).expect("weights"), config_of(&dir)))
    };
    let [bolmo, base, post] = ["bolmo", "base", "post"].map(original);
    let expected = merged([&bolmo, &base, &post]).expect("a merge");
    let newer = |dir: &Path, form: usize| copy_with(dir, &newer_forms(&config_of(dir))[form]);
    let (new_bolmo, new_base, new_post) = (newer(&bolmo, 0), newer(&base, 1), newer(&post, 0));
    assert_eq!(merged([&bolmo, &base, new_post.path()]).expect("a merge"), expected);
    assert_eq!(merged([&bolmo, new_base.path(), &post]).expect("a merge"), expected);
    let (weights, config) = merged([new_bolmo.path(), new_base.path(), new_post.path()]).expect("a merge");
    assert!(weights == expected.0);
    assert_eq!(config, config_of(new_bolmo.path()));

    let mut other = config_of(new_post.path());
    other["rope_parameters"]["rope_theta"] = json!(10_000.0);
    let error = merged([&bolmo, &base, copy_with(&post, &other).path()]).expect_err("another base");
    assert!(error.message().contains("`rope_theta` of its config.json is different"), "{error}");
}

/// Messages of the library's log.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keep;

impl log::Log for Keep {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        LOG.lock().expect("the log").push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn a_session_beyond_the_trained_length_warns_once() {
    log::set_logger(&Keep).expect("no other logger");
    log::set_max_level(log::LevelFilter::Warn);
    let dir = fixtures().join("infer/models/nano_trained");
    let mut config = config_of(&dir);
    config["max_position_embeddings"] = json!(7);
    let copy = copy_with(&dir, &config);
    let model = loaded(copy.path());
    // Other tests run at the same time, on models with a longer context.
    let count = || LOG.lock().expect("the log").iter().filter(|line| line.contains("more than 7 patches")).count();
    let mut short = session_with(&model, &ids(8));
    assert!(short.patches() <= 7);
    block_on(short.logits(0.0)).expect("logits");
    assert_eq!(count(), 0);
    let mut long = session_with(&model, &ids(80));
    assert!(long.patches() > 7);
    assert_eq!(count(), 1);
    block_on(long.append(b"more and more text")).expect("text");
    assert_eq!(count(), 1);
    drop(block_on(Session::new(&model)).expect("a session"));
    session_with(&model, &ids(80));
    assert_eq!(count(), 2);
}
