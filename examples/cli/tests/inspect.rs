//! `bolmo info`, `bolmo devices` and `bolmo init` as programs.

use std::fs;

use crate::common::{bolmo, demo_parameters, succeed, succeed_json, trained_folder};
use serde_json::json;

#[test]
fn info_describes_the_demo_model() {
    let info = succeed_json(&["info", "--json"]);
    let parameters = demo_parameters() as u64;
    assert_eq!(info["parameters"], json!(parameters));
    let parts = info["parameters_by_part"].as_object().unwrap();
    assert_eq!(parts.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), parameters);
    assert_eq!(info["memory_bytes"]["f32"], json!(4 * parameters));
    assert!(info["memory_bytes"]["f16"].as_u64().unwrap() < 4 * parameters * 6 / 10);
    assert_eq!(info["dtypes"]["F16"]["bytes"], json!(2 * parameters));
    assert_eq!((&info["suffix_table_rows"], &info["vocabulary"]["status"]), (&json!(4096), &json!("fits")));
    assert_eq!((&info["rope_theta"], &info["full_attention_layers"]), (&json!(10_000.0), &json!(4)));
    assert_eq!(succeed_json(&["info", "--json", "--rope-theta", "1e6"])["rope_theta"], json!(1e6));
    let thousands = format!("{} {:03} {:03}", parameters / 1_000_000, parameters / 1000 % 1000, parameters % 1000);
    assert!(String::from_utf8(succeed(&["info"])).unwrap().contains(&thousands));
}

#[test]
fn info_needs_no_adapter() {
    let output = bolmo(&["info", "--adapter", "no such adapter"]).env("VK_DRIVER_FILES", "/nowhere").output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn info_reports_a_missing_or_unusable_vocabulary() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(trained_folder().join(name), dir.path().join(name)).unwrap();
    }
    let folder = dir.path().to_str().unwrap();
    let status = || succeed_json(&["info", "--json", "--model", folder]);
    assert_eq!(status()["vocabulary"], json!({ "status": "missing", "needed": "allenai/dolma2-tokenizer" }));
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert_eq!(status()["vocabulary"]["status"], json!("unusable"));
    // Without tokenizer_config.json the vocabulary fits, and its end of text is guessed.
    fs::copy(trained_folder().join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let info = status();
    assert_eq!(info["vocabulary"]["status"], json!("fits"));
    assert!(info["warnings"][0].as_str().unwrap().contains("<|endoftext|>"), "{info}");
    succeed(&["generate", "a", "--model", folder, "--max-bytes", "2", "--quiet"]);
}

/// Drivers look for a display where there is none, and must not print that they found none.
#[test]
fn devices_are_listed_silently_without_a_display() {
    let mut command = bolmo(&["devices"]);
    for variable in ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "DISPLAY"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn devices_are_listed_with_reasons() {
    let list = succeed_json(&["devices", "--json"]);
    for adapter in list["adapters"].as_array().unwrap() {
        assert!(adapter["name"].is_string() && adapter["reason"].is_string(), "{adapter}");
        assert_eq!(adapter["chosen"], json!(adapter["index"] == list["chosen"]));
    }
    let none = succeed_json(&["devices", "--json", "--adapter", "no such adapter"]);
    assert_eq!((&none["chosen"], none["adapters"].is_array()), (&json!(null), true));
    succeed(&["devices"]);
}

#[test]
fn the_cpu_device_is_listed_last_and_needs_no_driver() {
    let args = ["devices", "--json", "--adapter", "cpu"];
    for drivers in [None, Some("/nowhere")] {
        let mut command = bolmo(&args);
        if let Some(drivers) = drivers {
            command.env("VK_DRIVER_FILES", drivers);
        }
        let output = command.output().unwrap();
        let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let adapters = list["adapters"].as_array().unwrap();
        let (cpu, others) = adapters.split_last().unwrap();
        assert_eq!((&cpu["kind"], &cpu["backend"]), (&json!("cpu"), &json!("cpu")), "{list}");
        assert_eq!((&cpu["usable"], &cpu["software"]), (&json!(true), &json!(false)), "{list}");
        assert_eq!((&cpu["chosen"], &list["chosen"]), (&json!(true), &json!(others.len())), "{list}");
        assert!(others.iter().all(|other| other["kind"] != "cpu" && other["chosen"] == false), "{list}");
    }
    let text = String::from_utf8(succeed(&args[..1])).unwrap();
    assert!(text.contains("the CPU itself"), "{text}");
    let output =
        bolmo(&["generate", "a", "--max-bytes", "1", "--adapter", "cpu"]).env("VK_DRIVER_FILES", "/nowhere").output();
    assert_eq!(output.unwrap().stdout.len(), 1);
}

#[test]
fn init_writes_a_usable_checkpoint_determined_by_its_seed() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let made =
        succeed_json(&["init", "--preset", "nano", "--out", &out("a"), "--seed", "3", "--dtype", "bf16", "--json"]);
    assert_eq!((&made["preset"], &made["dtype"], &made["shards"]), (&json!("nano"), &json!("bf16"), &json!(1)));

    let info = succeed_json(&["info", "--json", "--model", &out("a")]);
    assert_eq!((&info["parameters"], &info["vocabulary"]["status"]), (&made["parameters"], &json!("fits")));
    assert!(info["dtypes"]["BF16"].is_object());
    assert_eq!(info["warnings"], json!([]));
    let generated = succeed(&["generate", "a", "--model", &out("a"), "--max-bytes", "4", "--logit-bias", "b=1000"]);
    assert_eq!(generated, b"bbbb");

    succeed(&["init", "--preset", "nano", "--out", &out("b"), "--seed", "3", "--dtype", "bf16"]);
    succeed(&["init", "--preset", "nano", "--out", &out("c"), "--seed", "4", "--dtype", "bf16"]);
    let weights = |name: &str| fs::read(dir.path().join(name).join("model.safetensors")).unwrap();
    assert!(weights("a") == weights("b") && weights("a") != weights("c"));
}
