//! `bolmo score` as a program.

use std::fs;

use crate::common::{self, succeed, succeed_json};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

const TEXT: &str = "def main(self):\n    return caf\u{e9}";

#[test]
fn numbers_are_complete_and_consistent() {
    let score = succeed_json(&["score", "--text", TEXT, "--json"]);
    let number = |key: &str| score[key].as_f64().unwrap_or_else(|| panic!("{key} in {score}"));
    assert_eq!(score["bytes"], json!(TEXT.len()));
    assert!(number("bits_per_byte_folded") > 0.0 && number("bits_per_byte_joint") >= number("bits_per_byte_folded"));
    assert!(number("bits_per_byte_joint") < 20.0);
    assert_eq!(number("bytes_per_patch"), number("bytes") / number("patches"));

    let text = String::from_utf8(succeed(&["score", "--text", TEXT])).unwrap();
    assert!(text.contains(&format!("{:.4}", number("bits_per_byte_joint"))), "{text}");
}

#[test]
fn a_file_scores_as_its_text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text");
    fs::write(&file, TEXT).unwrap();
    let strip = |mut score: Value| {
        score["seconds"] = Value::Null;
        score
    };
    let from_file = succeed_json(&["score", "--file", file.to_str().unwrap(), "--json"]);
    assert_eq!(strip(from_file), strip(succeed_json(&["score", "--text", TEXT, "--json"])));
}

#[test]
fn a_dump_has_every_tensor_with_its_shape() {
    let dir = tempfile::tempdir().unwrap();
    let (ids_file, ends_file, out) =
        (dir.path().join("ids.json"), dir.path().join("ends.json"), dir.path().join("out.safetensors"));
    let ids = [1u16, 104, 105, 106, 36, 113, 101, 109, 114];
    let ends = [1u8, 0, 0, 1, 1, 0, 0, 0, 1];
    fs::write(&ids_file, json!(ids).to_string()).unwrap();
    fs::write(&ends_file, json!(ends).to_string()).unwrap();
    let input = ["score", "--ids", ids_file.to_str().unwrap(), "--json", "--dump", out.to_str().unwrap()];

    let score = succeed_json(&input);
    let n = ids.len();
    assert_eq!(score["bytes"], json!(n - 1));
    check_shapes(&out, n, score["patches"].as_u64().unwrap() as usize);

    let score = succeed_json(&[&input[..], &["--boundaries", ends_file.to_str().unwrap()]].concat());
    assert_eq!(score["patches"], json!(4));
    check_shapes(&out, n, 4);
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("boundary_mask").unwrap().data(), ends);
    let dumped: Vec<u8> = ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect();
    assert_eq!(file.tensor("ids").unwrap().data(), dumped);

    // No temporary file remains, and the ids that frame a text are not dumped.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    let score = succeed_json(&["score", "--text", "def main", "--json", "--dump", out.to_str().unwrap()]);
    check_shapes(&out, 8, score["patches"].as_u64().unwrap() as usize);
}

fn check_shapes(path: &std::path::Path, n: usize, p: usize) {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(common::demo_folder().join("config.json")).unwrap()).unwrap();
    let width = config["hidden_size"].as_u64().unwrap() as usize;
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let expected = [
        ("ids", Dtype::I64, vec![n]),
        ("suffix_ids", Dtype::I64, vec![n]),
        ("encoder_out", Dtype::F32, vec![n, width]),
        ("boundary_logprobs", Dtype::F32, vec![n]),
        ("boundary_mask", Dtype::U8, vec![n]),
        ("patch_embeddings", Dtype::F32, vec![p, width]),
        ("global_out", Dtype::F32, vec![p, width]),
        ("decoder_out", Dtype::F32, vec![n, width]),
        ("final_hidden", Dtype::F32, vec![n, width]),
        ("logits", Dtype::F32, vec![n, 520]),
    ];
    assert_eq!(file.len(), expected.len());
    for (name, dtype, shape) in expected {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, &shape[..]), "{name}");
    }
}
