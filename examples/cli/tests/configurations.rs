//! Folders whose `config.json` is written in another form, and options that override it.

use std::fs;
use std::path::Path;

use crate::common::{fail, run, succeed, succeed_json, trained_folder};
use serde_json::{Value, json};

const TEXT: &str = "def main(self):\n    return caf\u{e9}";

/// A copy of the golden model with a changed `config.json`.
fn edited(edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        if trained_folder().join(name).exists() {
            fs::copy(trained_folder().join(name), dir.path().join(name)).unwrap();
        }
    }
    let mut config: Value = serde_json::from_slice(&fs::read(trained_folder().join("config.json")).unwrap()).unwrap();
    edit(&mut config);
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

/// The form of transformers 5.
fn newer(config: &mut Value) {
    let theta = config["rope_theta"].clone();
    let dtype = config["dtype"].clone();
    config.as_object_mut().unwrap().retain(|key, _| !key.starts_with("rope_"));
    config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": theta });
    config["torch_dtype"] = dtype;
}

fn bits(model: &Path, options: &[&str]) -> Value {
    let score = ["score", "--text", TEXT, "--json", "--quiet", "--model", model.to_str().unwrap()];
    succeed_json(&[&score[..], options].concat())["bits_per_byte_joint"].clone()
}

#[test]
fn a_folder_of_transformers_5_does_what_the_older_one_does() {
    let (folder, older) = (edited(newer), trained_folder());
    let (newer, older) = (folder.path().to_str().unwrap(), older.to_str().unwrap());
    assert_eq!(bits(newer.as_ref(), &[]), bits(older.as_ref(), &[]));
    let generated = |model| succeed(&["generate", "def ", "--max-bytes", "20", "--model", model, "--quiet"]);
    assert_eq!(generated(newer), generated(older));
    let info = |model| succeed_json(&["info", "--json", "--model", model])["config"].clone();
    assert_eq!(info(newer), info(older));
    // What is made of it is a folder of the same kind.
    let out = folder.path().join("q8");
    succeed(&["quantize", "--model", newer, "--out", out.to_str().unwrap(), "--quantize", "q8", "--quiet"]);
    assert_eq!(bits(&out, &[]), bits(older.as_ref(), &["--quantize", "q8"]));
}

#[test]
fn contradictions_name_both_keys() {
    let folder = edited(|config| config["rope_parameters"] = json!({ "rope_type": "default", "rope_theta": 123.0 }));
    let model = folder.path().to_str().unwrap();
    for command in [&["info"][..], &["score", "--text", "a"], &["generate", "a"]] {
        let args = [command, &["--model", model]].concat();
        fail(&args, 1, "`rope_parameters.rope_theta` is 123, but `rope_theta` is 500000");
    }
}

#[test]
fn a_scaling_can_be_overridden() {
    let yarn = "yarn:factor=8,original=64";
    let folder = edited(|config| {
        config["rope_scaling"] = json!({ "rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 64 });
    });
    let (plain, scaled) = (bits(&trained_folder(), &[]), bits(folder.path(), &[]));
    assert_ne!(plain, scaled);
    assert_eq!(bits(&trained_folder(), &["--rope-scaling", yarn]), scaled);
    assert_eq!(bits(folder.path(), &["--rope-scaling", "none"]), plain);
    let json = r#"{"rope_type": "yarn", "factor": 8, "original_max_position_embeddings": 64}"#;
    let info = succeed_json(&["info", "--json", "--model", trained_folder().to_str().unwrap(), "--rope-scaling", json]);
    assert_eq!(
        info["rope_scaling"].as_str().unwrap().parse::<bolmo_runtime::RopeScaling>().unwrap(),
        yarn.parse().unwrap()
    );
}

#[test]
fn a_lost_scaling_is_reported_until_it_is_given() {
    let folder = edited(|config| config["layer_types"] = json!(["sliding_attention", "full_attention"]));
    let model = folder.path().to_str().unwrap();
    let stderr = |options: &[&str]| {
        let output = run(&[&["score", "--text", "a", "--model", model][..], options].concat());
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = stderr(&[]);
    assert!(warned.starts_with("warning: ") && warned.contains("`rope_scaling` is absent"), "{warned}");
    assert_eq!(stderr(&["--rope-scaling", "none"]), "");
    assert_eq!(stderr(&["--rope-scaling", "yarn:factor=8,original=8192"]), "");
}

#[test]
fn texts_beyond_the_trained_length_are_reported() {
    let folder = edited(|config| config["max_position_embeddings"] = json!(3));
    let model = folder.path().to_str().unwrap();
    for command in [&["score", "--text", TEXT][..], &["generate", TEXT, "--max-bytes", "4"]] {
        let args = [command, &["--model", model]].concat();
        let output = run(&args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert_eq!(stderr.matches("more than 3 patches").count(), 1, "{args:?}: {stderr}");
        succeed(&[&args[..], &["--quiet"]].concat());
    }
    // Within it there is nothing to report.
    succeed(&["score", "--text", TEXT, "--model", trained_folder().to_str().unwrap()]);
}

#[test]
fn enormous_biases_count_as_the_largest() {
    let generated = |bias: &str, more: &[&str]| {
        let args = ["generate", "def main(", "--max-bytes", "24", "--json", "--boundary-bias", bias];
        let made = succeed_json(&[&args[..], more].concat());
        made["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect::<Vec<_>>()
    };
    let most = generated("1000", &[]);
    assert!(most.iter().all(|id| *id >= 260), "{most:?}");
    assert_ne!(most, generated("0", &[]));
    for bias in ["1e4", "1e8", "1e30", "1e39", "1e300"] {
        assert_eq!(generated(bias, &[]), most, "{bias}");
    }
    let least = generated("-1000", &[]);
    assert_eq!(generated("-1e8", &[]), least);
    assert_eq!(
        generated("0", &["--logit-bias", "a=1e8", "--logit-bias", "b=1e300"]),
        generated("0", &["--logit-bias", "a=1000", "--logit-bias", "b=1000"])
    );
}

#[test]
fn factors_that_no_device_can_compute_are_refused_by_name() {
    for factor in [json!(1e300), json!(1e-320)] {
        let folder = edited(|config| config["rope_scaling"] = json!({ "rope_type": "yarn", "factor": factor }));
        let args = ["generate", "a", "--model", folder.path().to_str().unwrap()];
        fail(&args, 1, "`rope_scaling.factor` must be from 1e-6 to 1000000");
    }
}
