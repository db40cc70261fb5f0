//! Keys that a file lacks, against the defaults of the reference's classes (`docs/model.md`, "Defaults of the reference
//! classes").

use serde_json::{Value, json};

use super::classes::LocalParts;
use super::source::SourceConfig;
use super::*;
use crate::config::preset::Preset;
use crate::error::ErrorKind;

/// The smallest preset's `config.json` without some keys.
fn without(keys: &[&str]) -> Value {
    let mut json = Preset::Nano.config().to_json();
    for key in keys {
        json.as_object_mut().unwrap().remove(*key);
    }
    json
}

fn read(json: &Value) -> Result<(Config, Vec<String>)> {
    Config::from_json(json.to_string().as_bytes(), "folder/config.json")
}

fn source(json: Value) -> Result<SourceConfig> {
    SourceConfig::read(&json, "source/config.json")
}

/// The Bolmo configuration of a source.
fn bolmo(source: &SourceConfig) -> Config {
    let local =
        LocalParts { intermediate_size: 32, heads: 16, encoder_layers: 1, decoder_layers: 1, rms_norm_eps: 1e-5 };
    source.bolmo(local, 100, "source").unwrap()
}

fn kinds(pattern: &str) -> Vec<LayerType> {
    pattern.chars().map(|c| if c == 'f' { LayerType::Full } else { LayerType::Sliding }).collect()
}

#[test]
fn layers_slide_by_default_except_every_fourth() {
    for absent in [without(&["layer_types", "sliding_window"]), {
        let mut json = without(&["sliding_window"]);
        json["layer_types"] = Value::Null;
        json
    }] {
        for (layers, pattern) in [(1, "s"), (3, "sss"), (4, "sssf"), (9, "sssfsssfs")] {
            let mut json = absent.clone();
            json["num_hidden_layers"] = json!(layers);
            let (config, _) = read(&json).unwrap();
            assert_eq!((config.layer_types, config.sliding_window), (kinds(pattern), 4096));
            json["sliding_window"] = json!(8);
            assert_eq!(read(&json).unwrap().0.sliding_window, 8);
            json["sliding_window"] = Value::Null;
            let error = read(&json).unwrap_err();
            assert!(error.message().contains("`sliding_window`") && error.message().contains("null"), "{error}");
        }
    }
}

#[test]
fn sizes_have_the_defaults_of_the_class_and_a_warning() {
    let sizes = [
        "hidden_size",
        "vocab_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "rms_norm_eps",
        "max_position_embeddings",
        "layer_types",
        "sliding_window",
        "num_local_heads",
        "num_local_encoder_layers",
        "num_local_decoder_layers",
        "local_intermediate_size",
        "local_rms_norm_eps",
        "subword_vocab_size",
        "tokenizer_config",
    ];
    let (config, warnings) = read(&without(&sizes)).unwrap();
    let expected = Config {
        rms_norm_eps: 1e-5,
        max_position_embeddings: 2048,
        rope_scaling: RopeScaling::None,
        original_identifier: Some("allenai/dolma2-tokenizer".to_owned()),
        ..Preset::Bolmo7b.config()
    };
    assert_eq!(config, expected);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    for words in ["BolmoConfig", "`hidden_size` 4096", "`rms_norm_eps` 1e-5", "`subword_vocab_size` 100278"] {
        assert!(warning.contains(words), "{warning} lacks {words}");
    }
}

#[test]
fn sources_have_the_defaults_of_their_classes() {
    let minimal = |kind: &str| source(json!({ "model_type": kind })).unwrap();
    let olmo2 = minimal("olmo2");
    let config = bolmo(&olmo2);
    assert_eq!((olmo2.vocab_size, olmo2.tied), (50_304, false));
    assert_eq!((config.hidden_size, config.num_hidden_layers, config.intermediate_size), (4096, 32, 11_008));
    assert_eq!((config.num_attention_heads, config.num_key_value_heads, config.head_dim), (32, 32, 128));
    assert_eq!((config.rms_norm_eps, config.rope_theta, config.max_position_embeddings), (1e-5, 10_000.0, 2048));
    assert_eq!((config.block_type, config.qk_norm), (BlockType::ReorderedNorm, QkNorm::Whole));
    assert_eq!(config.layer_types, vec![LayerType::Full; 32]);

    let olmo3 = minimal("olmo3");
    let expected =
        Config { layer_types: kinds(&"sssf".repeat(8)), sliding_window: 4096, rope_theta: 500_000.0, ..config.clone() };
    assert_eq!((olmo3.vocab_size, bolmo(&olmo3)), (50_304, expected));
    assert!(olmo3.warnings.iter().any(|warning| warning.contains("`rope_theta` is absent, so 500000 is used")));

    let llama = minimal("llama");
    let norms = |block_type, qk_norm| Config { block_type, qk_norm, rms_norm_eps: 1e-6, ..config.clone() };
    assert_eq!((llama.vocab_size, bolmo(&llama)), (32_000, norms(BlockType::PreNorm, QkNorm::None)));

    let qwen3 = minimal("qwen3");
    let expected = Config {
        intermediate_size: 22_016,
        max_position_embeddings: 32_768,
        ..norms(BlockType::PreNorm, QkNorm::PerHead)
    };
    assert_eq!((qwen3.vocab_size, bolmo(&qwen3)), (151_936, expected));
}

#[test]
fn heads_of_qwen_have_defaults_of_their_own() {
    let heads = |change: Value| {
        let mut json = json!({ "model_type": "qwen3", "hidden_size": 1024, "num_attention_heads": 16 });
        json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        source(json).map(|source| (source.blocks.num_key_value_heads, source.blocks.head_dim)).unwrap()
    };
    assert_eq!(heads(json!({})), (32, 128));
    assert_eq!(heads(json!({ "num_key_value_heads": null })), (16, 128));
    assert_eq!(heads(json!({ "num_key_value_heads": 8, "head_dim": 64 })), (8, 64));
}

#[test]
fn windows_of_qwen_follow_their_keys() {
    let layers = |change: Value| {
        let mut json = json!({ "model_type": "qwen3", "num_hidden_layers": 4 });
        json.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        source(json).map(|source| (source.blocks.layer_types, source.blocks.sliding_window))
    };
    let full = (kinds("ffff"), 0);
    assert_eq!(layers(json!({})).unwrap(), full);
    assert_eq!(layers(json!({ "sliding_window": 8, "max_window_layers": 2 })).unwrap(), full);
    assert_eq!(layers(json!({ "use_sliding_window": true })).unwrap(), full);
    let windowed =
        |window: Value| json!({ "use_sliding_window": true, "max_window_layers": 2, "sliding_window": window });
    assert_eq!(layers(windowed(json!(8))).unwrap(), (kinds("ffss"), 8));
    assert_eq!(layers(windowed(json!(null))).unwrap(), full);
    let absent = json!({ "use_sliding_window": true, "max_window_layers": 1 });
    assert_eq!(layers(absent).unwrap(), (kinds("fsss"), 4096));
    let listed = ["full_attention", "sliding_attention", "full_attention", "full_attention"];
    let both = json!({ "layer_types": listed, "use_sliding_window": true, "sliding_window": 8 });
    assert_eq!(layers(both).unwrap(), (kinds("fsff"), 8));
    let error = layers(json!({ "layer_types": listed, "sliding_window": 8 })).unwrap_err();
    assert!(error.message().contains("`layer_types`") && error.message().contains("`use_sliding_window`"), "{error}");
}

#[test]
fn classes_without_windows_refuse_sliding_layers() {
    for kind in ["olmo2", "llama"] {
        let with = |layers| source(json!({ "model_type": kind, "num_hidden_layers": 1, "layer_types": [layers] }));
        assert_eq!(with("full_attention").unwrap().blocks.layer_types, kinds("f"));
        let error = with("sliding_attention").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("`layer_types`"), "{error}");
    }
}

#[test]
fn an_unused_context_or_window_may_be_any_number() {
    let changed = |key: &str, value: Value| {
        let mut json = Preset::Nano.config().to_json();
        json[key] = value;
        json
    };
    for value in [json!(null), json!(-1), json!(1e30), json!(0), json!(u64::MAX)] {
        let (config, warnings) = read(&changed("max_position_embeddings", value.clone())).unwrap();
        assert_eq!(config.max_position_embeddings, 0, "{value}");
        assert_eq!(warnings, Vec::<String>::new());
        // It is written so that it is read again.
        assert_eq!(read(&config.to_json()).unwrap().0, config);
        // A scaling needs it.
        let mut json = changed("max_position_embeddings", value.clone());
        json["rope_scaling"] = json!({ "rope_type": "yarn", "factor": 8.0 });
        let error = read(&json).unwrap_err();
        let words = ["max_position_embeddings", "original_max_position_embeddings"];
        assert!(words.iter().all(|word| error.message().contains(word)), "{error}");
        json["rope_scaling"]["original_max_position_embeddings"] = json!(64);
        assert_eq!(read(&json).unwrap().0.max_position_embeddings, 0);
    }
    for value in [json!("4096"), json!([4096]), json!(true)] {
        let error = read(&changed("max_position_embeddings", value)).unwrap_err();
        assert!(error.message().contains("`max_position_embeddings` must be an integer"), "{error}");
    }
    for value in [json!(-1), json!(1e30)] {
        assert_eq!(read(&changed("sliding_window", value)).unwrap().0.sliding_window, 0);
    }
}

#[test]
fn a_lost_scaling_gives_a_warning_and_can_be_overridden() {
    let mut json = Preset::Bolmo7b.config().to_json();
    json["rope_scaling"] = Value::Null;
    let (mut config, warnings) = read(&json).unwrap();
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("`rope_scaling` is absent") && warning.ends_with("override `rope_scaling`"), "{warning}");
    let (_, suggested) = warning.split_once("(\"").unwrap();
    config.override_rope_scaling(suggested.split_once('"').unwrap().0.parse().unwrap()).unwrap();
    let RopeScaling::Yarn { attention_factor, .. } = config.rope_scaling else { panic!("{config:?}") };
    assert!((attention_factor - 1.2079441541679836).abs() < 1e-15);

    // Without a scaling on purpose, with a context from before it, or without windows.
    json["rope_scaling"] = json!({ "rope_type": "default" });
    let (unscaled, warnings) = read(&json).unwrap();
    assert_eq!((unscaled.rope_scaling, warnings), (RopeScaling::None, vec![]));
    assert_eq!(read(&unscaled.to_json()).unwrap(), (unscaled, vec![]));
    json["rope_scaling"] = Value::Null;
    json["max_position_embeddings"] = json!(8192);
    assert_eq!(read(&json).unwrap().1, Vec::<String>::new());
    json["max_position_embeddings"] = json!(65_536);
    json["layer_types"] = json!(vec!["full_attention"; 32]);
    assert_eq!(read(&json).unwrap().1, Vec::<String>::new());

    let olmo3 = source(json!({ "model_type": "olmo3", "rope_theta": 5e5, "max_position_embeddings": 65_536 })).unwrap();
    assert!(olmo3.warnings.iter().any(|warning| warning.contains("`rope_scaling` is absent")), "{:?}", olmo3.warnings);
}

#[test]
fn values_in_messages_are_short() {
    let digits = "9".repeat(400);
    for (key, value) in [
        ("hidden_size", digits.clone()),
        ("rope_theta", "1e300".to_owned()),
        ("rope_theta", digits[..300].to_owned()),
        ("rms_norm_eps", digits[..300].to_owned()),
        ("model_type", format!("\"{digits}\"")),
        ("bos_token_id", format!("[{digits}]")),
        ("pad_token_id", digits[..300].to_owned()),
    ] {
        let mut json = without(&[key]).to_string();
        json.replace_range(..1, &format!("{{\"{key}\": {value},"));
        let texts = match Config::from_json(json.as_bytes(), "config.json") {
            Ok((_, warnings)) => warnings,
            Err(error) => vec![error.message().to_owned()],
        };
        assert!(
            !texts.is_empty() && texts.iter().all(|text| text.len() < 400 && !text.contains(&digits[..80])),
            "{texts:?}"
        );
    }
}

#[test]
fn texts_beyond_the_trained_length_give_a_warning() {
    let config = Config { max_position_embeddings: 40, ..Preset::Nano.config() };
    assert_eq!(config.beyond_context(40), None);
    let warning = config.beyond_context(41).unwrap();
    assert!(warning.contains("more than 40 patches") && warning.contains("max_position_embeddings"), "{warning}");
    assert_eq!(Config { max_position_embeddings: 0, ..config }.beyond_context(usize::MAX), None);
}
