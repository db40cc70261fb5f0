//! `bolmo quantize`, and the use of its output, as a program.

use std::fs;
use std::path::Path;

use crate::common::{bolmo, demo_folder, demo_parameters, fail, message, succeed, succeed_json};
use serde_json::{Value, json};

const TEXT: &str = "def main(self):\n    return 1\n";

/// The built-in model in these formats, in a folder.
fn made(dir: &Path, formats: &str) -> (String, Value) {
    let out = dir.join(formats.replace(['=', ','], "-")).to_str().unwrap().to_owned();
    let report = succeed_json(&["quantize", "--quantize", formats, "--out", &out, "--json"]);
    (out, report)
}

#[test]
fn a_quantized_folder_is_complete_and_describes_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (out, report) = made(dir.path(), "q4,local=q8");
    assert_eq!(
        (&report["out"], &report["formats"], &report["shards"]),
        (&json!(out), &json!("q4,local=q8"), &json!(1))
    );
    assert_eq!((&report["bytes_before"], &report["enlarged"]), (&json!(2 * demo_parameters()), &json!([])));
    let parts = report["parts"].as_object().unwrap();
    for key in ["bytes_before", "bytes_after"] {
        assert_eq!(parts.values().map(|part| part[key].as_u64().unwrap()).sum::<u64>(), report[key].as_u64().unwrap());
    }
    let mut names: Vec<_> =
        fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = ["bolmo-files.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names, expected);
    for name in &names[3..] {
        assert!(fs::read(Path::new(&out).join(name)).unwrap() == fs::read(demo_folder().join(name)).unwrap(), "{name}");
    }

    let info = succeed_json(&["info", "--json", "--model", &out]);
    assert_eq!((&info["quantized"], &info["vocabulary"]["status"]), (&json!("q4,local=q8"), &json!("fits")));
    assert_eq!(info["memory_bytes"], json!({ "q4,local=q8": report["bytes_after"] }));
    let stored: u64 = info["dtypes"].as_object().unwrap().values().map(|d| d["bytes"].as_u64().unwrap()).sum();
    assert_eq!(json!(stored), report["bytes_after"]);
    assert!(String::from_utf8(succeed(&["info", "--model", &out])).unwrap().contains("quantized: q4,local=q8"));
    assert_eq!(succeed_json(&["info", "--json"])["quantized"], json!(null));
}

/// Published folders have a `tokenizer_config.json`, that of the byte-level model, but no `tokenizer.json`.
#[test]
fn a_published_folder_is_quantized_with_its_sources_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (published, source) = (at("published"), at("source"));
    succeed(&["init", "--preset", "nano", "--out", &published]);
    fs::create_dir(&source).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::rename(Path::new(&published).join(name), Path::new(&source).join(name)).unwrap();
    }
    let own = json!({ "tokenizer_class": "BolmoTokenizer", "eos_token": "<bos>", "pad_token": "<pad>" });
    fs::write(Path::new(&published).join("tokenizer_config.json"), own.to_string()).unwrap();
    let stderr = |args: &[&str]| {
        let output = bolmo(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stderr).unwrap()
    };
    let quantize = ["quantize", "--model", &published, "--quantize", "q8", "--out"];
    let lacking = stderr(&[&quantize[..], &[&at("lacking")]].concat());
    assert!(lacking.contains("no tokenizer.json to copy"), "{lacking}");
    let whole = at("whole");
    assert_eq!(stderr(&[&quantize[..], &[&whole, "--subwords", &source]].concat()), "");
    let text = succeed(&["generate", "a", "--max-bytes", "9", "--model", &whole]);
    let original = ["generate", "a", "--max-bytes", "9", "--model", &published, "--quantize", "q8"];
    assert_eq!(succeed(&[&original[..], &["--subwords", &source]].concat()), text);
    // The folder without a tokenizer is compared with that of the other one.
    succeed(&["score", "--text", "a", "--model", &whole, "--against", &published]);
    // Nothing has to be guessed either if the tokenizer is put into the folder.
    fs::copy(Path::new(&source).join("tokenizer.json"), Path::new(&published).join("tokenizer.json")).unwrap();
    assert_eq!(stderr(&["generate", "a", "--max-bytes", "9", "--model", &published]), "");
}

#[test]
fn a_quantized_folder_computes_what_quantizing_on_load_does() {
    let dir = tempfile::tempdir().unwrap();
    for formats in ["q8", "q4,local=q8"] {
        let (out, _) = made(dir.path(), formats);
        for command in [&["generate", TEXT, "--max-bytes", "12"][..], &["score", "--text", TEXT]] {
            let ahead = succeed(&[command, &["--model", &out]].concat());
            assert_eq!(ahead, succeed(&[command, &["--quantize", formats]].concat()), "{command:?} {formats}");
            assert_eq!(ahead, succeed(&[command, &["--model", &out, "--quantize", formats]].concat()));
            fail(&[command, &["--model", &out, "--quantize", "f16"]].concat(), 1, &format!("as {formats} and cannot"));
        }
    }
}

/// The reference of a comparison multiplies in f32, so that the cost of integers shows.
#[test]
fn products_in_integers_are_compared_with_those_in_f32() {
    let score = ["score", "--text", TEXT, "--quantize", "q8", "--json", "--adapter", "cpu"];
    let found = succeed_json(&[&score[..], &["--products", "int8", "--against", "q8"]].concat());
    let same = succeed_json(&[&score[..], &["--products", "f32", "--against", "q8"]].concat());
    assert_eq!(same["logit_difference_max"], 0.0);
    let apart = found["logit_difference_max"].as_f64().unwrap();
    assert!(apart > 0.0 && apart < 2.0, "{found}");
    assert!(found["boundary_agreement"].as_f64().unwrap() > 0.95, "{found}");
    assert_eq!(found["reference"], same["reference"]);
    fail(&["score", "--text", TEXT, "--products", "int4"], 2, "expected f32 or int8");
    let help = String::from_utf8(succeed(&["generate", "--help"])).unwrap();
    assert!(help.contains("--products <KIND>"));
}

#[test]
fn score_against_compares_formats_and_folders() {
    let dir = tempfile::tempdir().unwrap();
    let (out, _) = made(dir.path(), "q8");
    let by_formats = succeed_json(&["score", "--text", TEXT, "--quantize", "q8", "--against", "f32", "--json"]);
    let demo = demo_folder();
    let by_folders =
        succeed_json(&["score", "--text", TEXT, "--model", &out, "--against", demo.to_str().unwrap(), "--json"]);
    let strip = |mut score: Value| {
        score["seconds"] = Value::Null;
        score
    };
    assert_eq!(strip(by_formats.clone()), strip(by_folders));
    let alone = succeed_json(&["score", "--text", TEXT, "--json"]);
    assert_eq!((&by_formats["formats"], &by_formats["reference"]["formats"]), (&json!("q8"), &json!("f32")));
    assert_eq!(by_formats["reference"]["bits_per_byte_joint"], alone["bits_per_byte_joint"]);
    for key in ["boundary_agreement", "greedy_agreement"] {
        assert!((0.5..=1.0).contains(&by_formats[key].as_f64().unwrap()), "{by_formats}");
    }
    let (most, mean) = (&by_formats["logit_difference_max"], &by_formats["logit_difference_mean"]);
    assert!(0.0 < mean.as_f64().unwrap() && mean.as_f64() < most.as_f64(), "{by_formats}");
    let text = String::from_utf8(succeed(&["score", "--text", TEXT, "--quantize", "q8", "--against", "f32"])).unwrap();
    for word in ["against f32", "same most probable id", &format!("{:.4}", most.as_f64().unwrap())] {
        assert!(text.contains(word), "{text} lacks {word}");
    }

    fail(&["score", "--text", TEXT, "--against", "nowhere"], 1, "--against nowhere");
    fail(&["score", "--text", TEXT, "--model", &out, "--against", "f32"], 1, "as q8 and cannot be loaded as f32");
    fail(&["score", "--text", TEXT, "--against", "f16", "--dump", "x"], 2, "cannot be used with");
    fail(&["score", "--text", TEXT, "--against", "f16", "--boundaries", "x"], 2, "cannot be used with");
}

#[test]
fn mistakes_give_one_clean_message_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let out = path("out");
    fail(&["quantize", "--quantize", "q8"], 2, "--out");
    fail(&["quantize", "--out", &out], 2, "--quantize");
    fail(&["quantize", "--out", &out, "--quantize", "f32"], 1, "nothing to quantize");
    fail(&["quantize", "--out", &out, "--quantize", "q8", "--model", "nowhere"], 1, "nowhere");
    fail(&["quantize", "--out", &out, "--quantize", "q8", "--subwords", "nowhere"], 1, "nowhere");
    let (q8, _) = made(dir.path(), "q8");
    fail(&["quantize", "--out", &out, "--quantize", "q4", "--model", &q8], 1, "already, as q8");
    fs::write(path("file"), "mine").unwrap();
    fail(&["quantize", "--out", &path("file"), "--quantize", "q8"], 1, "is a file");
    fs::create_dir(path("full")).unwrap();
    fs::write(path("full/mine"), "mine").unwrap();
    fail(&["quantize", "--out", &path("full"), "--quantize", "q8"], 1, "files in it");

    // An earlier output is replaced; a folder without a tokenizer gives a warning.
    succeed(&["quantize", "--out", &q8, "--quantize", "q4"]);
    assert_eq!(succeed_json(&["info", "--json", "--model", &q8])["quantized"], json!("q4"));
    fs::create_dir(path("bare")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(demo_folder().join(name), dir.path().join("bare").join(name)).unwrap();
    }
    let output = bolmo(&["quantize", "--model", &path("bare"), "--out", &out, "--quantize", "q8"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.starts_with("warning: ") && stderr.contains("--subwords"), "{stderr}");
    let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["bare", "file", "full", "out", "q8"]);
}

/// A write that fails half-way, as on a full disk, is reported with the file's name and leaves nothing behind.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let args = ["quantize", "--quantize", "q8", "--out", out.to_str().unwrap()];
    // The tokenizer is below the limit, the weights are above it.
    let script = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\"";
    let output =
        std::process::Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_bolmo")]).args(args).output().unwrap();
    assert!(message(&args, &output, 1).contains("model.safetensors: cannot be written"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
