//! Configurations that are accepted, and errors for the others.

use serde_json::{Value, json};

use super::*;
use crate::config::preset::Preset;
use crate::error::ErrorKind;

/// Reads the `config.json` of the smallest preset with some keys replaced; `null` removes a key.
fn read(changes: Value) -> Result<(Config, Vec<String>)> {
    let mut json = Preset::Nano.config().to_json();
    for (key, value) in changes.as_object().unwrap() {
        json[key] = value.clone();
    }
    Config::from_json(json.to_string().as_bytes(), "folder/config.json")
}

/// Asserts that [`read`] fails with this kind of error and a message with all `words`.
fn rejected(changes: Value, kind: ErrorKind, words: &[&str]) {
    let error = read(changes.clone()).err().unwrap_or_else(|| panic!("{changes} was accepted"));
    assert_eq!(error.kind(), kind, "{error}");
    for word in words.iter().chain(&["folder/config.json"]) {
        assert!(error.message().contains(word), "{error} lacks {word}");
    }
}

#[test]
fn every_preset_round_trips() {
    for preset in Preset::ALL {
        let config = preset.config();
        let text = config.to_json().to_string();
        let (again, warnings) = Config::from_json(text.as_bytes(), "here").unwrap();
        assert_eq!(again, config, "{preset}");
        assert_eq!(warnings, Vec::<String>::new());
    }
}

#[test]
fn rare_values_round_trip() {
    let mut config = Preset::Nano.config();
    let llama = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 0,
    };
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 16.0,
        beta_slow: 2.0,
        original_max_position_embeddings: 64,
        attention_factor: 1.5,
        truncate: false,
    };
    let blocks = [BlockType::ReorderedNorm, BlockType::PreNorm];
    let norms = [QkNorm::None, QkNorm::Whole, QkNorm::PerHead];
    for rope_scaling in [RopeScaling::Linear { factor: 2.5 }, llama, yarn] {
        for (block_type, qk_norm) in blocks.into_iter().flat_map(|block| norms.map(|norm| (block, norm))) {
            config = Config {
                rope_scaling,
                block_type,
                qk_norm,
                head_dim: 24,
                num_key_value_heads: 2,
                sliding_window: 0,
                add_expanded_embeddings: false,
                subword_vocab_size: 0,
                original_identifier: Some("some/tokenizer".to_owned()),
                byte_offset: 0,
                special: SpecialIds { pad: 256, bos: 257, eos: 258, bpe_token_end: 259 },
                ..config
            };
            let (again, _) = Config::from_json(config.to_json().to_string().as_bytes(), "here").unwrap();
            assert_eq!(again, config);
        }
    }
}

#[test]
fn absent_keys_have_their_documented_meaning() {
    let absent = json!({
        "num_key_value_heads": null, "head_dim": null, "sliding_window": null, "rope_scaling": null,
        "hidden_act": null, "boundary_threshold": null, "boundary_predictor_lookahead": null,
        "attention_bias": null, "tie_word_embeddings": null, "add_expanded_embeddings": null,
    });
    let (config, warnings) = read(absent).unwrap();
    assert_eq!(config, Config { sliding_window: 0, ..Preset::Nano.config() });
    assert_eq!(warnings, Vec::<String>::new());
    let (config, _) = read(json!({ "add_expanded_embeddings": null, "subword_vocab_size": 0 })).unwrap();
    assert!(!config.add_expanded_embeddings);
    let (config, _) = read(json!({ "add_expanded_embeddings": false, "subword_vocab_size": null })).unwrap();
    assert_eq!((config.add_expanded_embeddings, config.subword_vocab_size), (false, 0));
}

#[test]
fn text_that_is_not_a_json_object_is_rejected() {
    for text in [&b""[..], b"{", b"[]", b"7", b"\xff\xfe", b"{\"a\": 1e999}", "[".repeat(100_000).as_bytes()] {
        let error = Config::from_json(text, "folder/config.json").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
        assert!(error.message().starts_with("folder/config.json: "));
    }
}

#[test]
fn sizes_are_checked() {
    let keys = [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "local_intermediate_size",
        "num_local_heads",
        "num_local_encoder_layers",
        "num_local_decoder_layers",
    ];
    for key in keys {
        for value in [json!(0), json!(-4), json!(4.5), json!("4"), json!([4]), json!(true), json!(u64::MAX)] {
            rejected(json!({ key: value }), ErrorKind::BadCheckpoint, &[key, "integer from 1 to"]);
        }
    }
    rejected(json!({ "hidden_size": 1 << 20 }), ErrorKind::BadCheckpoint, &["65536", "1048576"]);
    rejected(json!({ "subword_vocab_size": -1 }), ErrorKind::BadCheckpoint, &["subword_vocab_size", "-1"]);
    rejected(json!({ "subword_vocab_size": 0 }), ErrorKind::BadCheckpoint, &["add_expanded_embeddings"]);
    rejected(json!({ "vocab_size": 640 }), ErrorKind::BadCheckpoint, &["vocab_size", "520", "640"]);
    rejected(json!({ "num_attention_heads": 3 }), ErrorKind::BadCheckpoint, &["num_attention_heads", "64"]);
}

#[test]
fn constants_are_checked() {
    for key in ["rms_norm_eps", "local_rms_norm_eps"] {
        for value in [json!(0.0), json!(-1e-6), json!(1e-60), json!(2.0), json!("1e-6")] {
            rejected(json!({ key: value }), ErrorKind::BadCheckpoint, &[key]);
        }
    }
    for value in [json!(0), json!(-5.0), json!(1.0), json!(1e300), json!("10000")] {
        rejected(json!({ "rope_theta": value }), ErrorKind::BadCheckpoint, &["rope_theta"]);
    }
}

#[test]
fn a_confirmed_rope_base_gives_no_warning() {
    let config = Config { rope_theta: 10_000.0, ..Preset::Nano.config() };
    let text = config.to_json().to_string();
    let (found, warnings) = Config::from_json(text.as_bytes(), "config.json").unwrap();
    assert_eq!((found, warnings), (config, vec![]));
}

#[test]
fn a_lost_rope_base_gives_a_warning_and_can_be_overridden() {
    for theta in [json!(null), json!(10000), json!(10000.0)] {
        let (mut config, warnings) = read(json!({ "rope_theta": theta })).unwrap();
        assert_eq!(config.rope_theta, 10_000.0);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("rope_theta") && warnings[0].contains("override"), "{warnings:?}");
        config.override_rope_theta(500_000.0).unwrap();
        assert_eq!(config, Preset::Nano.config());
        for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0] {
            assert_eq!(config.override_rope_theta(bad).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
    }
}

#[test]
fn other_computations_are_rejected_by_key_and_value() {
    let cases = [
        ("model_type", json!("llama"), "llama"),
        ("hidden_act", json!("gelu"), "gelu"),
        ("attention_bias", json!(true), "true"),
        ("mlp_bias", json!(true), "true"),
        ("tie_word_embeddings", json!(true), "true"),
        ("boundary_threshold", json!("topk:4"), "topk:4"),
        ("boundary_predictor_lookahead", json!(2), "2"),
        ("block_type", json!("parallel"), "parallel"),
        ("rope_scaling", json!({ "rope_type": "dynamic", "factor": 2.0 }), "dynamic"),
        ("layer_types", json!(["full_attention", "linear_attention"]), "linear_attention"),
        ("partial_rotary_factor", json!(0.5), "0.5"),
        ("norm_type", json!("layer_norm"), "layer_norm"),
    ];
    for (key, value, shown) in cases {
        rejected(
            json!({ key: value }),
            ErrorKind::Unsupported,
            &[if key == "rope_scaling" { "rope_type" } else { key }, shown],
        );
    }
    rejected(json!({ "model_type": null }), ErrorKind::BadCheckpoint, &["model_type", "missing"]);
}

#[test]
fn keys_determine_the_kind_of_block() {
    let kind = |changes| read(changes).map(|(config, _)| (config.block_type, config.qk_norm)).unwrap();
    assert_eq!(kind(json!({})), (BlockType::ReorderedNorm, QkNorm::Whole));
    assert_eq!(kind(json!({ "block_type": "reordered_norm" })), (BlockType::ReorderedNorm, QkNorm::Whole));
    assert_eq!(kind(json!({ "block_type": "pre_norm", "use_qk_norm": false })), (BlockType::PreNorm, QkNorm::None));
    assert_eq!(
        kind(json!({ "block_type": "default", "use_head_qk_norm": true })),
        (BlockType::PreNorm, QkNorm::PerHead)
    );
    assert_eq!(kind(json!({ "use_qk_norm": false, "use_head_qk_norm": true })).1, QkNorm::None);
    rejected(json!({ "use_qk_norm": "no" }), ErrorKind::BadCheckpoint, &["use_qk_norm", "true or false"]);
    rejected(json!({ "block_type": 3 }), ErrorKind::BadCheckpoint, &["block_type", "a string"]);
}

#[test]
fn layer_types_and_windows_are_checked() {
    let (config, _) =
        read(json!({ "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8 })).unwrap();
    assert_eq!((config.layer_types, config.sliding_window), (vec![LayerType::Sliding, LayerType::Full], 8));
    rejected(json!({ "layer_types": ["full_attention"] }), ErrorKind::BadCheckpoint, &["layer_types", "found 1"]);
    let slides = json!(["sliding_attention", "sliding_attention"]);
    for window in [json!(null), json!(0), json!(-1), json!("4096")] {
        let changes = json!({ "layer_types": slides, "sliding_window": window });
        rejected(changes, ErrorKind::BadCheckpoint, &["sliding_window"]);
    }
}

#[test]
fn rope_scalings_are_read_and_checked() {
    let scaling = |value| read(json!({ "rope_scaling": value })).map(|(config, _)| config.rope_scaling);
    assert_eq!(scaling(json!({ "rope_type": "default" })).unwrap(), RopeScaling::None);
    assert_eq!(scaling(json!({ "type": "linear", "factor": 2 })).unwrap(), RopeScaling::Linear { factor: 2.0 });
    assert_eq!(
        scaling(json!({ "type": "linear", "rope_type": "linear", "factor": 2 })).unwrap(),
        RopeScaling::Linear { factor: 2.0 }
    );
    let yarn =
        scaling(json!({ "rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 8192 })).unwrap();
    let RopeScaling::Yarn { beta_fast, beta_slow, attention_factor, truncate, .. } = yarn else { panic!("{yarn:?}") };
    assert_eq!((beta_fast, beta_slow, truncate), (32.0, 1.0, true));
    assert!((attention_factor - 1.2079441541679836).abs() < 1e-15);

    let llama = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0 });
    for (value, words) in [
        (json!("yarn"), "an object"),
        (json!({ "factor": 2.0 }), "rope_scaling.rope_type"),
        (json!({ "rope_type": "linear" }), "rope_scaling.factor"),
        (json!({ "rope_type": "linear", "factor": 0 }), "rope_scaling.factor"),
        (json!({ "rope_type": "linear", "factor": -1.0 }), "rope_scaling.factor"),
        (json!({ "rope_type": "yarn", "factor": 2.0, "beta_fast": "x" }), "rope_scaling.beta_fast"),
        (json!({ "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 0 }), "original_max"),
        (json!({ "rope_type": "yarn", "type": "linear", "factor": 2.0 }), "`type` is \"linear\""),
        (
            json!({ "rope_type": "yarn", "factor": 1e300 }),
            "rope_scaling.factor` must be from 1e-6 to 1000000.0, found 1e300",
        ),
        (json!({ "rope_type": "yarn", "factor": 1e-320 }), "rope_scaling.factor"),
        (json!({ "rope_type": "linear", "factor": 1e-320 }), "rope_scaling.factor"),
        (json!({ "rope_type": "yarn", "factor": 2, "attention_factor": 1e300 }), "rope_scaling.attention_factor"),
        (json!({ "rope_type": "yarn", "factor": 2, "attention_factor": 1e-320 }), "rope_scaling.attention_factor"),
        (json!({ "rope_type": "yarn", "factor": 2, "beta_fast": 1e300 }), "rope_scaling.beta_fast"),
        (json!({ "rope_type": "yarn", "factor": 2, "beta_slow": 1e-320 }), "rope_scaling.beta_slow"),
        (json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1e-320, "high_freq_factor": 4 }), "low_freq"),
        (json!({ "rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 1e300 }), "high_freq"),
        (llama, "low_freq_factor"),
    ] {
        rejected(json!({ "rope_scaling": value }), ErrorKind::BadCheckpoint, &[words]);
    }
}

#[test]
fn kernel_limits_name_their_key() {
    for (changes, key) in [
        (json!({ "hidden_size": 66, "head_dim": 16, "num_local_heads": 1 }), "hidden_size"),
        (json!({ "intermediate_size": 130 }), "intermediate_size"),
        (json!({ "local_intermediate_size": 97 }), "local_intermediate_size"),
        (json!({ "head_dim": 18 }), "head_dim"),
        (json!({ "head_dim": 132 }), "head_dim"),
        (json!({ "num_key_value_heads": 3 }), "num_key_value_heads"),
        (json!({ "num_local_heads": 3 }), "num_local_heads"),
        (json!({ "num_local_heads": 64 }), "num_local_heads"),
        (json!({ "hidden_size": 520, "num_local_heads": 2, "head_dim": 128 }), "num_local_heads"),
    ] {
        rejected(changes, ErrorKind::Unsupported, &[key]);
    }
}

#[test]
fn special_tokens_are_read_and_checked() {
    let tokenizer = |key: &str, value: Value| {
        let mut json = Preset::Nano.config().to_json()["tokenizer_config"].clone();
        json[key] = value;
        json!({ "tokenizer_config": json })
    };
    let (config, _) = read(json!({})).unwrap();
    assert_eq!(config.special, SpecialIds { pad: 0, bos: 1, eos: 1, bpe_token_end: 3 });
    assert_eq!(config.byte_offset, 4);
    for (key, value) in [
        ("special_tokens", json!(["<pad>"])),
        ("special_tokens", json!(["a", "b", "c", "c"])),
        ("special_tokens", json!([1, 2, 3, 4])),
        ("special_tokens", json!(null)),
        ("special_tokens_first", json!(1)),
        ("pad_token_id", json!(4)),
        ("pad_token_id", json!(1)),
        ("bos_token_id", json!(-1)),
        ("eos_token_id", json!(null)),
        ("bpe_token_end_id", json!("3")),
        ("vocab_size", json!(512)),
        ("vocab_size", json!(null)),
        ("original_identifier", json!(5)),
    ] {
        rejected(tokenizer(key, value), ErrorKind::BadCheckpoint, &["tokenizer_config.", key]);
    }
    let (_, warnings) = read(json!({ "eos_token_id": 2 })).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("eos_token_id"), "{warnings:?}");
}
