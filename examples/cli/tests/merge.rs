//! `bolmo merge` as a program.

use std::fs;
use std::path::Path;

use crate::common::{fail, run, succeed, succeed_json, trained_folder};
use serde_json::{Value, json};

/// The golden model's blocks as a subword model whose final norm is larger by `more`.
fn subword_model(dir: &Path, more: f32) -> String {
    fs::create_dir(dir).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(trained_folder().join("config.json")).unwrap()).unwrap();
    config["model_type"] = json!("olmo2");
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut bytes = fs::read(trained_folder().join("model.safetensors")).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let [begin, end] = [0, 1].map(|i| json["model.norm.weight"]["data_offsets"][i].as_u64().unwrap() as usize);
    for number in bytes[8 + header..][begin..end].chunks_exact_mut(4) {
        let moved = f32::from_le_bytes(number.try_into().unwrap()) + more;
        number.copy_from_slice(&moved.to_le_bytes());
    }
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
    dir.to_str().unwrap().to_owned()
}

#[test]
fn merge_writes_the_model_and_reports_every_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (demo, base) = (trained_folder(), subword_model(&dir.path().join("base"), 0.0));
    let post = subword_model(&dir.path().join("post"), 1.0);
    let demo = demo.to_str().unwrap();
    let models = ["merge", "--bolmo", demo, "--base", &base, "--post-trained", &post, "--out"];
    let with = |more: &[&str]| -> Vec<String> { models.iter().chain(more).map(|&arg| arg.to_owned()).collect() };

    let args = with(&[&path("half"), "--alpha", "0.5", "--json"]);
    let report = succeed_json(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(
        (&report["out"], &report["alpha"], &report["embeddings"]),
        (&json!(path("half")), &json!(0.5), &json!(false))
    );
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!(report["moved"].as_u64().unwrap() + report["kept"].as_u64().unwrap(), tensors.len() as u64);
    let tensor = |name: &str| tensors.iter().find(|t| t["name"] == name).unwrap();
    let norm = tensor("model.norm.weight");
    assert!((norm["largest_change"].as_f64().unwrap() - 0.5).abs() < 1e-6, "{norm}");
    assert_eq!(tensor("model.layers.0.mlp.up_proj.weight")["largest_change"], json!(0.0));
    assert!(tensor("lm_head.weight")["why"].as_str().unwrap().contains("bytes"));
    // The result is a model, and a different one.
    let score = |model: &str| {
        succeed_json(&["score", "--text", "def main():", "--json", "--model", model])["bits_per_byte_joint"].clone()
    };
    assert_ne!(score(&path("half")), score(demo));

    // Without --json, standard error has a line per tensor. Adding nothing changes nothing.
    let args = with(&[&path("none"), "--alpha", "0"]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = run(&args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.lines().count(), tensors.len());
    assert_eq!(
        stderr.lines().filter(|line| line.starts_with("moved: ")).count() as u64,
        report["moved"].as_u64().unwrap()
    );
    assert!(stderr.contains("kept: lm_head.weight [520, 64] f32: "), "{stderr}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("tensors moved by 0 of the difference"));
    for file in fs::read_dir(demo).unwrap() {
        let name = file.unwrap().file_name();
        if name != "README.md" {
            let [old, new] = [Path::new(demo), Path::new(&path("none"))].map(|dir| fs::read(dir.join(&name)).unwrap());
            assert!(old == new, "{name:?}");
        }
    }
    let args = with(&[&path("quiet"), "--quiet"]);
    succeed(&args.iter().map(String::as_str).collect::<Vec<_>>());

    let refuse = |more: &[&str], status: i32, word: &str| {
        let args = with(more);
        fail(&args.iter().map(String::as_str).collect::<Vec<_>>(), status, word);
    };
    refuse(&[&path("half")], 1, "files in it");
    refuse(&[&path("new"), "--embeddings"], 1, "model.embed_tokens.weight");
    for alpha in ["nan", "inf", "x"] {
        refuse(&[&path("new"), "--alpha", alpha], 2, "a finite number");
    }
    for option in [
        ["--model", "x"],
        ["--subwords", "x"],
        ["--quantize", "q8"],
        ["--rope-theta", "1e6"],
        ["--rope-scaling", "none"],
    ] {
        refuse(&[&path("new"), option[0], option[1]], 2, option[0]);
    }
    let fail_with = |bolmo: &str, base: &str, status: i32, word: &str| {
        fail(
            &["merge", "--bolmo", bolmo, "--base", base, "--post-trained", &post, "--out", &path("new")],
            status,
            word,
        );
    };
    fail_with("nowhere", &base, 1, "nowhere");
    fail_with(demo, "nowhere", 1, "nowhere");
    fail_with(demo, demo, 1, "model_type");
    succeed(&["quantize", "--model", demo, "--quantize", "q8", "--out", &path("q8")]);
    fail_with(&path("q8"), &base, 1, "quantized already");
    fail(&["merge", "--bolmo", demo, "--base", &base, "--out", &path("new")], 2, "--post-trained");
    assert!(!Path::new(&path("new")).exists());
}
