//! Damaged files: every defect that a header can have, and random ones.

use serde_json::{Map, Value, json};

use super::*;
use crate::config::Config;
use crate::convert::random::{InitOptions, write_config};
use crate::error::ErrorKind;
use crate::fuzz::{self, Random};

/// The parts of a tiny checkpoint.
struct Parts {
    config: Vec<u8>,
    header: Map<String, Value>,
    data: Vec<u8>,
}

fn parts() -> Parts {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let options = InitOptions { dtype: DType::BF16, ..InitOptions::default() };
    let config: Config = crate::checkpoint::tests::tiny();
    write_config(&dir, &config, &options, &mut |_, _| true).unwrap();
    let file = std::fs::read(dir.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    Parts {
        config: std::fs::read(dir.join("config.json")).unwrap(),
        header: serde_json::from_slice(&file[8..8 + length]).unwrap(),
        data: file[8 + length..].to_vec(),
    }
}

impl Parts {
    fn file(&self) -> Vec<u8> {
        file_of(Value::Object(self.header.clone()).to_string().as_bytes(), &self.data)
    }

    /// Adds a tensor after the others.
    fn append(&mut self, name: &str, dtype: &str, shape: &[u64], bytes: usize) {
        let start = self.data.len();
        self.data.resize(start + bytes, 0);
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, start + bytes] });
        self.header.insert(name.to_owned(), entry);
    }

    fn open(&self) -> Result<Checkpoint> {
        open(&self.config, self.file())
    }
}

fn file_of(header: &[u8], data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header, data].concat()
}

fn open(config: &[u8], file: Vec<u8>) -> Result<Checkpoint> {
    Checkpoint::from_parts("parts", config, vec![Box::new(MemoryFile::new("weights.safetensors", file))])
}

/// Asserts that opening failed with a message with all `words`.
fn rejected(result: Result<Checkpoint>, words: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BadCheckpoint | ErrorKind::Unsupported), "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "{error} lacks {word}");
    }
}

const NORM: &str = "model.norm.weight";

#[test]
fn wrong_lengths_are_rejected() {
    let parts = parts();
    let file = parts.file();
    let name = "weights.safetensors";
    rejected(open(&parts.config, Vec::new()), &[name, "empty"]);
    rejected(open(&parts.config, file[..7].to_vec()), &[name, "7 bytes"]);
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 100_000_001] {
        let damaged = [&length.to_le_bytes(), &file[8..]].concat();
        rejected(open(&parts.config, damaged), &[name, "header of", &length.to_string()]);
    }
    let longer = [&90_000_000u64.to_le_bytes(), &file[8..]].concat();
    rejected(open(&parts.config, longer), &[name, "cut short"]);
    rejected(open(&parts.config, [&0u64.to_le_bytes(), &file[8..]].concat()), &[name, "JSON"]);
    for cut in [1, 100, parts.data.len()] {
        rejected(open(&parts.config, file[..file.len() - cut].to_vec()), &[name, "cut short"]);
    }
    rejected(open(&parts.config, [&file[..], &[0; 3]].concat()), &[name, "3 bytes after"]);
}

#[test]
fn headers_that_are_not_json_are_rejected() {
    let parts = parts();
    for header in
        [&b"[]"[..], b"7", b"{", b"\xff{}", b"", "[".repeat(5000).as_bytes(), "{\"a\":".repeat(5000).as_bytes()]
    {
        rejected(open(&parts.config, file_of(header, &parts.data)), &["weights.safetensors", "header"]);
    }
}

#[test]
fn impossible_entries_are_rejected() {
    let cases = [
        (json!(7), "is missing"),
        (json!({ "shape": [8], "data_offsets": [0, 16] }), "`dtype` is missing"),
        (json!({ "dtype": "BF16", "data_offsets": [0, 16] }), "`shape` is missing"),
        (json!({ "dtype": "BF16", "shape": [8] }), "`data_offsets` is missing"),
        (json!({ "dtype": "Q4", "shape": [8], "data_offsets": [0, 16] }), "Q4"),
        (json!({ "dtype": 1, "shape": [8], "data_offsets": [0, 16] }), "`dtype` 1"),
        (json!({ "dtype": "BF16", "shape": 8, "data_offsets": [0, 16] }), "`shape` is not a list"),
        (json!({ "dtype": "BF16", "shape": [-8], "data_offsets": [0, 16] }), "`shape` has an entry"),
        (json!({ "dtype": "BF16", "shape": [8], "data_offsets": [0, 16, 32] }), "a begin and an end"),
        (json!({ "dtype": "BF16", "shape": [8], "data_offsets": [0, 14] }), "takes 16 bytes, but it has 14"),
        (json!({ "dtype": "BF16", "shape": [8], "data_offsets": [16, 0] }), "before it begins"),
        (json!({ "dtype": "BF16", "shape": [u64::MAX, 2], "data_offsets": [0, 16] }), "impossible"),
        (json!({ "dtype": "BF16", "shape": vec![1 << 20; 50], "data_offsets": [0, 16] }), "impossible"),
        (json!({ "dtype": "F4", "shape": [3], "data_offsets": [0, 1] }), "impossible"),
        (json!({ "dtype": "BF16", "shape": [8], "data_offsets": [u64::MAX - 16, u64::MAX] }), "past any file"),
        (json!({ "dtype": "BF16", "shape": [8], "data_offsets": [0, 16] }), "overlaps"),
    ];
    for (entry, words) in cases {
        let mut parts = parts();
        parts.header.insert(NORM.to_owned(), entry);
        rejected(parts.open(), &["weights.safetensors", "tensor `", words]);
    }
    // A gap: the data of a tensor that was removed from the header.
    let mut gap = parts();
    gap.header.remove(NORM);
    rejected(gap.open(), &["unclaimed bytes"]);
}

#[test]
fn tensors_that_do_not_match_the_configuration_are_rejected() {
    let tables = |edit: &dyn Fn(&mut Parts), words: &[&str]| {
        let mut parts = parts();
        edit(&mut parts);
        rejected(parts.open(), words);
    };
    let rename = |parts: &mut Parts, name: &str, to: &str| {
        let entry = parts.header.remove(name).unwrap();
        parts.header.insert(to.to_owned(), entry);
    };
    tables(&|p| rename(p, NORM, "model.other"), &["1 tensor (`model.norm.weight`) is missing"]);
    tables(&|p| p.append("model.other", "BF16", &[2], 4), &["1 tensor (`model.other`) is too many"]);
    tables(&|p| p.header[NORM]["shape"] = json!([2, 4]), &[NORM, "[8]", "[2, 4]"]);
    tables(&|p| p.header[NORM]["dtype"] = json!("I16"), &[NORM, "F32, BF16 or F16", "I16"]);
    let many: &dyn Fn(&mut Parts) = &|p| {
        let names: Vec<String> = p.header.keys().filter(|name| name.starts_with("model.layers")).cloned().collect();
        for name in names {
            rename(p, &name, &format!("x.{name}"));
        }
    };
    tables(many, &["11 tensors (`model.layers.0.self_attn.q_proj.weight`, ", ", ...) are missing"]);

    let mut parts = parts();
    parts.append("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", &[2], 8);
    assert!(parts.open().is_ok());
}

#[test]
fn a_tensor_in_two_files_is_rejected() {
    let parts = parts();
    let file = |name: &str| Box::new(MemoryFile::new(name, parts.file())) as Box<dyn CheckpointFile>;
    let result = Checkpoint::from_parts("parts", &parts.config, vec![file("a"), file("b")]);
    rejected(result, &["is in both a and b"]);
    rejected(Checkpoint::from_parts("parts", &parts.config, Vec::new()), &["parts", "missing"]);
}

#[test]
fn headers_with_too_much_in_them_are_rejected() {
    let parts = parts();
    let whole = Value::Object(parts.header.clone()).to_string();
    let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let with = |more: &str| {
        open(&parts.config, file_of(format!("{},{more}}}", &whole[..whole.len() - 1]).as_bytes(), &parts.data))
    };
    rejected(with(&format!("\"a\":{entry},\"b\":{entry},\"a\":{entry}")), &["weights.safetensors", "tensor `a` twice"]);
    rejected(with(&format!("\"{}\":{entry}", "x".repeat(1025))), &["weights.safetensors", "1025 bytes", "1024"]);
    rejected(with(&format!("\"a\":[{}0]", "0,".repeat(10_000))), &["tensor `a`", "20003 bytes"]);
    rejected(with(&format!("\"a\":{}{}", "[".repeat(20_000), "]".repeat(20_000))), &["tensor `a`", "40000 bytes"]);
    rejected(with("\"\\ud800\":{}"), &["header", "JSON"]);
    // What metadata holds does not matter.
    let deep = format!("\"__metadata__\":{}{}", r#"{"":"#.repeat(50_000), "}".repeat(50_000)).replace(":}", ":1}");
    assert!(with(&deep).is_ok());
    let many: Vec<String> = (0..=header::MAX_TENSORS).map(|i| format!("\"t{i}\":{entry}")).collect();
    rejected(with(&many.join(",")), &["more than 262144 tensors"]);
}

#[test]
fn indices_with_too_much_in_them_are_rejected() {
    let refused = |text: &str, words: &str| {
        let error = Index::parse(text.as_bytes(), "index").map(|_| ()).unwrap_err();
        assert!(error.message().contains(words), "{error} lacks {words}");
    };
    let many: Vec<String> = (0..=header::MAX_TENSORS).map(|i| format!("\"t{i}\":\"f\"")).collect();
    refused(&format!("{{\"weight_map\":{{{}}}}}", many.join(",")), "more than 262144 tensors");
    refused(&format!("{{\"weight_map\":{{\"{}\":\"f\"}}}}", "x".repeat(1025)), "1025 bytes");
    refused(&format!("{{\"weight_map\":{{\"a\":{}}}}}", "[".repeat(9) + &"]".repeat(9)), "not a string");
    refused(&format!("{}{{}}", " ".repeat(16 << 20)), "longer than");
    let deep =
        format!("{{\"metadata\":{}1{},\"weight_map\":{{\"a\":\"f\"}}}}", r#"{"":"#.repeat(9999), "}".repeat(9999));
    assert_eq!(Index::parse(deep.as_bytes(), "index").unwrap().shards(), ["f"]);
}

/// Damages some bytes: flips, numbers in place of digits, cuts, repeats.
pub(super) fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    const NUMBERS: [&str; 9] =
        ["0", "1", "-1", "1e9", "4294967296", "9223372036854775807", "18446744073709551615", "null", "\"\""];
    for _ in 0..1 + random.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = b"{}[]\",:0\\ "[random.below(10)],
            2 | 3 => {
                // Replaces a whole number.
                let Some(first) = bytes[at..].iter().position(u8::is_ascii_digit).map(|i| at + i) else { continue };
                let length = bytes[first..].iter().take_while(|b| b.is_ascii_digit()).count();
                let number = NUMBERS[random.below(NUMBERS.len())];
                bytes.splice(first..first + length, number.bytes());
            }
            4 => drop(bytes.drain(at..(at + random.below(20)).min(bytes.len()))),
            _ => {
                let piece = bytes[at..(at + random.below(200)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Every damaged checkpoint is rejected or can be read, without a panic.
#[test]
fn random_damage_never_panics() {
    let parts = parts();
    let header = Value::Object(parts.header.clone()).to_string().into_bytes();
    let index = json!({ "metadata": {}, "weight_map": { "a": "model-1.safetensors", "b": "model-2.safetensors" } });
    let index = index.to_string().into_bytes();
    let mut values = Vec::new();
    for mut case in fuzz::cases(0x2545_f491_4f6c_dd1d, 7000) {
        let random = &mut case.random;
        let (mut config, mut header, mut index) = (parts.config.clone(), header.clone(), index.clone());
        match random.below(8) {
            0 => damage(&mut config, random),
            1 => damage(&mut index, random),
            _ => damage(&mut header, random),
        }
        if let Ok(index) = crate::checkpoint::Index::parse(&index, "index") {
            assert!(index.shards().iter().all(|file| !file.contains(['/', '\\']) && file != ".."));
        }
        let mut file = file_of(&header, &parts.data);
        if random.below(4) == 0 {
            let at = random.below(8);
            file[at] ^= 1 << random.below(8);
        }
        if random.below(4) == 0 {
            file.truncate(random.below(file.len() + 1));
        }
        if let Ok(checkpoint) = open(&config, file) {
            for tensor in checkpoint.tensors() {
                values.resize(tensor.element_count() as usize, 0.0);
                tensor.read_f32(0, &mut values).unwrap();
            }
        }
    }
}
