//! The rotary embedding in both forms of `config.json`, and as text.

use serde_json::{Value, json};

use super::source::SourceConfig;
use super::*;
use crate::config::preset::Preset;
use crate::error::ErrorKind;

const YARN: RopeScaling = RopeScaling::Yarn {
    factor: 8.0,
    beta_fast: 32.0,
    beta_slow: 1.0,
    original_max_position_embeddings: 8192,
    attention_factor: 1.25,
    truncate: true,
};

fn yarn() -> Value {
    json!({ "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192, "attention_factor": 1.25 })
}

fn llama3() -> Value {
    json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    })
}

/// `object` with a base.
fn with_theta(mut object: Value, theta: f64) -> Value {
    object["rope_theta"] = json!(theta);
    object
}

/// A Bolmo model with three sliding layers and a full one, without its rotary keys, and with `changes`.
fn windowed(changes: Value) -> Result<(Config, Vec<String>)> {
    let mut json = Preset::Nano.config().to_json();
    let object = json.as_object_mut().unwrap();
    for key in ["rope_theta", "rope_scaling", "layer_types"] {
        object.remove(key);
    }
    object.insert("num_hidden_layers".to_owned(), json!(4));
    object.extend(changes.as_object().unwrap().clone());
    Config::from_json(json.to_string().as_bytes(), "folder/config.json")
}

fn source(kind: &str, changes: Value) -> Result<SourceConfig> {
    let mut json = json!({ "model_type": kind, "num_hidden_layers": 4 });
    json.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    SourceConfig::read(&json, "folder/config.json")
}

fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(words.iter().all(|word| error.message().contains(word)), "{error} lacks one of {words:?}");
}

#[test]
fn both_forms_say_the_same() {
    let old = json!({ "rope_theta": 5e5, "rope_scaling": yarn() });
    let flat = json!({ "rope_parameters": with_theta(yarn(), 5e5) });
    let nested = json!({ "rope_parameters": {
        "full_attention": with_theta(yarn(), 5e5),
        "sliding_attention": { "rope_type": "default", "rope_theta": 5e5 },
    } });
    let beside = json!({ "rope_theta": 5e5, "rope_scaling": yarn(), "rope_parameters": nested["rope_parameters"] });
    let theta_beside = json!({ "rope_theta": 5e5, "rope_parameters": { "full_attention": yarn() } });
    let inside = json!({ "rope_scaling": with_theta(yarn(), 5e5) });
    let old_name = json!({ "rope_theta": 5e5, "rope_scaling": {
        "type": "yarn", "factor": 8, "original_max_position_embeddings": 8192, "attention_factor": 1.25,
    } });
    let expected = windowed(old.clone()).unwrap();
    assert_eq!((expected.0.rope_theta, expected.0.rope_scaling), (5e5, YARN));
    assert_eq!((expected.0.sliding_rope_theta, expected.0.sliding_rope_scaling), (None, RopeScaling::None));
    assert_eq!(expected.1, Vec::<String>::new());
    for form in [&flat, &nested, &beside, &theta_beside, &inside, &old_name] {
        assert_eq!(windowed(form.clone()).unwrap(), expected, "{form}");
    }
    for kind in ["olmo2", "olmo3", "llama"] {
        let expected = source(kind, old.clone()).unwrap();
        assert_eq!((expected.blocks.rotary.theta, expected.blocks.rotary.scaling), (5e5, YARN));
        for form in [&flat, &nested, &beside, &theta_beside, &inside, &old_name] {
            assert_eq!(source(kind, form.clone()).unwrap(), expected, "{kind} {form}");
        }
    }
    for kind in ["olmo2", "olmo3", "qwen3", "llama"] {
        let old = json!({ "rope_theta": 5e5, "rope_scaling": llama3() });
        let expected = source(kind, old.clone()).unwrap();
        let flat = json!({ "rope_parameters": with_theta(llama3(), 5e5), "dtype": "float32" });
        assert_eq!(source(kind, flat).unwrap(), expected, "{kind}");
        let plain = json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 5e5 } });
        assert_eq!(source(kind, plain).unwrap(), source(kind, json!({ "rope_theta": 5e5 })).unwrap(), "{kind}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_named() {
    let bad = ErrorKind::BadCheckpoint;
    let both = |old: Value, new: Value| {
        let mut all = old;
        all["rope_parameters"] = new;
        windowed(all)
    };
    fails(
        both(json!({ "rope_theta": 1e4 }), json!({ "rope_type": "default", "rope_theta": 5e5 })),
        bad,
        &["`rope_parameters.rope_theta` is 500000", "`rope_theta` is 10000"],
    );
    let kinds = |sliding: f64| {
        let theta = |theta: f64| json!({ "rope_theta": theta });
        json!({ "full_attention": theta(5e5), "sliding_attention": theta(sliding) })
    };
    fails(
        both(json!({ "rope_theta": 5e5 }), kinds(1e4)),
        bad,
        &["`rope_parameters.sliding_attention.rope_theta` is 10000", "`rope_theta` is 500000"],
    );
    let other = json!({ "rope_type": "linear", "factor": 2.0 });
    fails(
        both(json!({ "rope_scaling": other }), with_theta(yarn(), 5e5)),
        bad,
        &["`rope_parameters` is yarn:", "`rope_scaling` is linear:factor=2.0"],
    );
    fails(
        both(json!({ "rope_scaling": yarn() }), json!({ "rope_type": "default", "rope_theta": 5e5 })),
        bad,
        &["`rope_parameters` is none", "`rope_scaling` is yarn:"],
    );
    fails(
        both(json!({ "rope_scaling": other }), json!({ "full_attention": with_theta(yarn(), 5e5) })),
        bad,
        &["`rope_parameters.full_attention` is yarn:", "`rope_scaling` is linear:"],
    );
    fails(
        windowed(json!({ "rope_parameters": {
            "rope_theta": 1e6, "full_attention": { "rope_theta": 5e5 }, "sliding_attention": { "rope_theta": 5e5 },
        } })),
        bad,
        &["`rope_parameters.full_attention.rope_theta` is 500000", "`rope_parameters.rope_theta` is 1000000"],
    );
    fails(
        windowed(json!({ "rope_scaling": yarn(), "original_max_position_embeddings": 64 })),
        bad,
        &["`original_max_position_embeddings` is 64", "`rope_scaling.original_max_position_embeddings` is 8192"],
    );
    fails(
        windowed(json!({ "dtype": "float32", "torch_dtype": "bfloat16" })),
        bad,
        &["`dtype` is \"float32\"", "`torch_dtype` is \"bfloat16\""],
    );
    windowed(json!({ "dtype": "bfloat16", "torch_dtype": "bfloat16" })).unwrap();
    windowed(json!({ "torch_dtype": "bfloat16", "dtype": null })).unwrap();
}

#[test]
fn a_base_for_full_layers_only_is_reported() {
    let nested = json!({ "rope_parameters": { "full_attention": with_theta(yarn(), 5e5) } });
    let (config, warnings) = windowed(nested).unwrap();
    assert_eq!(config.sliding_rope_theta, Some(1e4));
    let reported = "`rope_parameters` has a base for full layers only, so sliding layers use the default 10000";
    assert!(warnings.iter().any(|warning| warning.contains(reported)), "{warnings:?}");
}

#[test]
fn layers_of_one_kind_may_have_a_rotary_embedding_of_their_own() {
    let nested = json!({ "rope_parameters": {
        "full_attention": with_theta(yarn(), 1e6),
        "sliding_attention": with_theta(json!({ "rope_type": "linear", "factor": 2.0 }), 1e4),
    } });
    let (config, warnings) = windowed(nested).unwrap();
    let linear = RopeScaling::Linear { factor: 2.0 };
    assert_eq!((config.rope_theta, config.rope_scaling), (1e6, YARN));
    assert_eq!((config.sliding_rope_theta, config.sliding_rope_scaling), (Some(1e4), linear));
    assert_eq!(warnings, Vec::<String>::new());
    let dim = config.head_dim;
    let expected =
        [rope::inverse_frequencies(dim, 1e6, &YARN, 65_536), rope::inverse_frequencies(dim, 1e4, &linear, 65_536)];
    assert_eq!([LayerType::Full, LayerType::Sliding].map(|kind| config.rotary_frequencies(kind)), expected);
    // Written and read again it is the same.
    let json = config.to_json();
    assert!(json.get("rope_theta").is_none() && json.get("rope_scaling").is_none(), "{json}");
    assert_eq!(Config::from_json(json.to_string().as_bytes(), "here").unwrap().0, config);
    // An override is one for all layers.
    let mut config = config;
    config.override_rope_theta(5e5).unwrap();
    assert_eq!((config.rope_theta, config.sliding_rope_theta), (5e5, None));
}

#[test]
fn qwen_scales_its_sliding_layers_like_the_full_ones() {
    let windows = json!({ "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2 });
    let with = |kind: &str, rotary: Value| {
        let mut all = windows.clone();
        all["layer_types"] = json!(["full_attention", "full_attention", "sliding_attention", "sliding_attention"]);
        all.as_object_mut().unwrap().extend(rotary.as_object().unwrap().clone());
        let rotary = source(kind, all).unwrap().blocks.rotary;
        (rotary.scaling, rotary.sliding_scaling)
    };
    for rotary in
        [json!({ "rope_theta": 1e6, "rope_scaling": yarn() }), json!({ "rope_parameters": with_theta(yarn(), 1e6) })]
    {
        assert_eq!(with("qwen3", rotary.clone()), (YARN, YARN));
        assert_eq!(with("olmo3", rotary), (YARN, RopeScaling::None));
    }
}

#[test]
fn absent_parts_have_the_defaults_of_the_class() {
    let (config, warnings) = windowed(json!({ "rope_parameters": {} })).unwrap();
    assert_eq!((config.rope_theta, config.sliding_rope_theta, config.rope_scaling), (1e4, None, RopeScaling::None));
    assert!(warnings.iter().any(|warning| warning.contains("`rope_theta` is absent")), "{warnings:?}");
    let only_full =
        json!({ "rope_parameters": { "full_attention": with_theta(yarn(), 1e6), "sliding_attention": null } });
    assert_eq!(source("olmo3", only_full.clone()).unwrap().blocks.rotary.sliding_theta, Some(5e5));
    assert_eq!(windowed(only_full).unwrap().0.sliding_rope_theta, Some(1e4));
    // Where no layer slides, nothing reads the part.
    let nested = json!({ "rope_parameters": { "full_attention": { "rope_theta": 1e6 }, "sliding_attention": yarn() } });
    let rotary = source("olmo2", nested).unwrap().blocks.rotary;
    assert_eq!((rotary.theta, rotary.sliding_theta, rotary.sliding_scaling), (1e6, None, RopeScaling::None));
    // The original context may stand outside.
    let outside = json!({ "rope_theta": 5e5, "original_max_position_embeddings": 8192, "rope_scaling": {
        "rope_type": "yarn", "factor": 8, "attention_factor": 1.25,
    } });
    assert_eq!(windowed(outside).unwrap().0.rope_scaling, YARN);
}

#[test]
fn rotary_keys_are_checked_by_path() {
    let bad = ErrorKind::BadCheckpoint;
    let parameters = |value: Value| windowed(json!({ "rope_parameters": value }));
    fails(parameters(json!("yarn")), bad, &["`rope_parameters` must be an object"]);
    fails(parameters(json!({ "rope_theta": 1 })), bad, &["`rope_parameters.rope_theta` must be above 1"]);
    fails(parameters(json!({ "factor": 8.0 })), bad, &["`rope_parameters.rope_type` is missing"]);
    fails(parameters(json!({ "full_attention": 5 })), bad, &["`rope_parameters.full_attention` must be an object"]);
    fails(
        parameters(json!({ "sliding_attention": { "rope_type": "yarn", "factor": 1e300 } })),
        bad,
        &["`rope_parameters.sliding_attention.factor`", "1e300"],
    );
    fails(
        parameters(json!({ "rope_type": "longrope", "rope_theta": 5e5 })),
        ErrorKind::Unsupported,
        &["`rope_parameters.rope_type`", "longrope"],
    );
    fails(
        parameters(json!({ "rope_theta": 5e5, "partial_rotary_factor": 0.5 })),
        ErrorKind::Unsupported,
        &["`rope_parameters.partial_rotary_factor`", "0.5"],
    );
    parameters(json!({ "rope_theta": 5e5, "partial_rotary_factor": 1.0 })).unwrap();
}

#[test]
fn scalings_are_read_from_text() {
    let parse = |text: &str| text.parse::<RopeScaling>();
    assert_eq!(parse("none").unwrap(), RopeScaling::None);
    assert_eq!(parse("linear:factor=2").unwrap(), RopeScaling::Linear { factor: 2.0 });
    assert_eq!(parse(" yarn : factor = 8 , original = 8192, attention_factor=1.25 ").unwrap(), YARN);
    assert_eq!(parse(&yarn().to_string()).unwrap(), YARN);
    assert_eq!(parse("yarn:factor=8,original_max_position_embeddings=8192,attention_factor=1.25").unwrap(), YARN);
    let all = [
        parse("llama3:factor=8,low_freq_factor=1,high_freq_factor=4,original=64").unwrap(),
        parse("yarn:factor=4,truncate=false,beta_fast=16").unwrap(),
        YARN,
        RopeScaling::Linear { factor: 2.5 },
        RopeScaling::None,
    ];
    for scaling in all {
        assert_eq!(parse(&scaling.to_string()).unwrap(), scaling);
    }
    for (text, words) in [
        ("", "rope_scaling"),
        ("yarn", "`factor` is missing"),
        ("ntk:factor=2", "ntk"),
        ("yarn:factor=x", "number after `factor=`"),
        ("yarn:factor", "number after `factor=`"),
        ("yarn:factor=8,factor=9", "twice"),
        ("yarn:factor=8,fast=9", "known: factor"),
        ("yarn:factor=1e300", "1e300"),
        ("yarn:factor=1e-320", "factor"),
        ("{\"rope_type\": ", "JSON"),
        ("{\"factor\": 2}", "rope_type"),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().contains(words), "{error} lacks {words}");
    }
    let mut config = Config { max_position_embeddings: 0, ..Preset::Nano.config() };
    let error = config.override_rope_scaling(parse("yarn:factor=8").unwrap()).unwrap_err();
    assert!(error.message().contains("original_max_position_embeddings"), "{error}");
    config.override_rope_scaling(YARN).unwrap();
}
