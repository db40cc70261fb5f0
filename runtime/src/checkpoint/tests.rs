//! Opening and reading of sound checkpoints, and errors for wrong files in a folder.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::config::preset::Preset;
use crate::convert::random::{InitOptions, write_config};
use crate::error::ErrorKind;

/// The smallest model that has every kind of tensor.
pub(super) fn tiny() -> Config {
    Config {
        hidden_size: 8,
        num_hidden_layers: 1,
        layer_types: vec![crate::config::LayerType::Full],
        num_attention_heads: 2,
        num_key_value_heads: 2,
        head_dim: 4,
        intermediate_size: 8,
        local_intermediate_size: 4,
        num_local_heads: 2,
        num_local_decoder_layers: 1,
        subword_vocab_size: 300,
        ..Preset::Nano.config()
    }
}

/// A tiny checkpoint folder; `shard_bytes` determines the number of shards.
fn folder(dtype: DType, shard_bytes: u64) -> TempDir {
    let parent = tempfile::tempdir().unwrap();
    let options = InitOptions { seed: 3, dtype, max_shard_bytes: shard_bytes };
    write_config(&parent.path().join("model"), &tiny(), &options, &mut |_, _| true).unwrap();
    parent
}

fn open(parent: &TempDir) -> Result<Checkpoint> {
    Checkpoint::open(parent.path().join("model"))
}

/// Asserts that opening fails with this kind of error and a message with all `words`.
fn rejected(parent: &TempDir, kind: ErrorKind, words: &[&str]) {
    let error = open(parent).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    for word in words {
        assert!(error.message().contains(word), "{error} lacks {word}");
    }
}

#[test]
fn a_folder_whose_writing_was_interrupted_is_named() {
    let parent = folder(DType::F32, 1 << 30);
    fs::write(parent.path().join("model/bolmo-incomplete.json"), "{}").unwrap();
    rejected(&parent, ErrorKind::BadCheckpoint, &["model: is incomplete", "interrupted", "run it again"]);
    let error = TensorFolder::open(parent.path().join("model")).unwrap_err();
    assert!(error.message().contains("is incomplete"), "{error}");
}

fn edit_json(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

fn read_all(tensor: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; tensor.element_count() as usize];
    tensor.read_f32(0, &mut values).unwrap();
    values
}

#[test]
fn written_tensors_are_read_as_by_another_reader() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let parent = folder(dtype, 1 << 30);
        let checkpoint = open(&parent).unwrap();
        assert_eq!(checkpoint.config(), &tiny());
        assert!(checkpoint.warnings().is_empty());
        assert!(checkpoint.origin().ends_with("model"));
        let bytes = fs::read(parent.path().join("model/model.safetensors")).unwrap();
        let other = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(other.len(), checkpoint.tensors().count());
        let mut total = 0;
        for tensor in checkpoint.tensors() {
            let view = other.tensor(tensor.name).unwrap();
            assert_eq!((view.shape(), view.dtype().to_string()), (tensor.shape, dtype.to_string()));
            let expected: Vec<f32> = match dtype {
                DType::F32 => view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
                DType::BF16 => {
                    view.data().chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
                }
                DType::F16 => view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
                DType::Q8 | DType::Q4 => unreachable!("not among the types above"),
            };
            assert_eq!(read_all(&tensor), expected, "{tensor:?}");
            total += view.data().len() as u64;
        }
        assert_eq!(checkpoint.contents_bytes(), total);
    }
}

#[test]
fn the_vocabulary_is_found_in_the_folder() {
    let parent = folder(DType::F32, 1 << 30);
    let dir = parent.path().join("model");
    assert_eq!(open(&parent).unwrap().vocabulary().unwrap().unwrap().len(), 300);
    fs::remove_file(dir.join("tokenizer.json")).unwrap();
    edit_json(&dir.join("config.json"), |config| {
        config["tokenizer_config"]["original_identifier"] = json!("some/model")
    });
    let error = open(&parent).unwrap().vocabulary().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.hint(), Some(&Hint::VocabularyMissing { source: Some("some/model".to_owned()) }));
    assert!(error.message().contains("tokenizer.json of some/model"), "{error}");

    let config_text = fs::read(dir.join("config.json")).unwrap();
    let file = MappedFile::open(dir.join("model.safetensors")).unwrap();
    let parts = Checkpoint::from_parts("parts", &config_text, vec![Box::new(file)]).unwrap();
    assert_eq!(parts.vocabulary().unwrap_err().kind(), ErrorKind::InvalidArgument);

    let options = InitOptions::default();
    let config = Config { add_expanded_embeddings: false, subword_vocab_size: 0, ..tiny() };
    write_config(&parent.path().join("other"), &config, &options, &mut |_, _| true).unwrap();
    assert!(Checkpoint::open(parent.path().join("other")).unwrap().vocabulary().unwrap().is_none());
}

#[test]
fn shards_have_the_same_tensors_as_one_file() {
    let (one, many) = (folder(DType::F32, 1 << 30), folder(DType::F32, 10_000));
    let (one, many) = (open(&one).unwrap(), open(&many).unwrap());
    assert!(many.files.len() > 2);
    for (a, b) in one.tensors().zip(many.tensors()) {
        assert_eq!((a.name, read_all(&a)), (b.name, read_all(&b)));
    }
}

/// A file whose contents are not in memory.
struct Reader(MemoryFile);

impl CheckpointFile for Reader {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, out)
    }
}

#[test]
fn parts_of_a_tensor_are_read_from_memory_and_by_reader() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let parent = folder(dtype, 1 << 30);
        let config = fs::read(parent.path().join("model/config.json")).unwrap();
        let bytes = fs::read(parent.path().join("model/model.safetensors")).unwrap();
        let file = Reader(MemoryFile::new("weights", bytes));
        let read = Checkpoint::from_parts("parts", &config, vec![Box::new(file)]).unwrap();
        let mapped = open(&parent).unwrap();
        // More than one chunk of the conversion.
        let name = "lm_head.weight";
        let (read, mapped) = (read.tensor(name).unwrap(), mapped.tensor(name).unwrap());
        let whole = read_all(&mapped);
        assert!(whole.len() > 4100);
        assert_eq!(read_all(&read), whole);
        for (first, count) in [(0, 0), (1, 7), (4159, 1), (4160, 0), (13, 4133)] {
            for tensor in [&read, &mapped] {
                let mut out = vec![f32::NAN; count];
                tensor.read_f32(first as u64, &mut out).unwrap();
                assert_eq!(out, whole[first..first + count]);
            }
        }
        for first in [4160, u64::MAX] {
            let error = mapped.read_f32(first, &mut [0.0]).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains(name), "{error}");
        }
    }
}

#[test]
fn every_half_is_converted_exactly() {
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    // An odd start, since no alignment is guaranteed.
    let shifted: Vec<u8> = std::iter::once(0).chain(bytes).collect();
    let (map, reader) = (MemoryFile::new("x", shifted.clone()), Reader(MemoryFile::new("x", shifted)));
    for dtype in [DType::BF16, DType::F16] {
        for file in [&map as &dyn CheckpointFile, &reader] {
            let tensor = Tensor { name: "t", dtype, shape: &[65_536], file, start: 1, scales: None };
            for (bits, x) in (0..=u16::MAX).zip(read_all(&tensor)) {
                let expected = match dtype {
                    DType::BF16 => bf16::from_bits(bits).to_f32(),
                    _ => f16::from_bits(bits).to_f32(),
                };
                assert!(x.to_bits() == expected.to_bits() || (x.is_nan() && expected.is_nan()), "{dtype} {bits:04x}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    let mut values = vec![1.0f32; 20_000];
    check_finite("a.weight", 0, &values, 100).unwrap();
    check_finite("a.weight", 0, &[], 0).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        (values[12_345], values[12_346]) = (bad, bad);
        let error = check_finite("a.weight", 1000, &values, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
        assert!(error.message().contains("a.weight") && error.message().contains("[133, 45]"), "{error}");
    }
    assert!(check_finite("a", u64::MAX, &[f32::NAN], 0).is_err());
}

#[test]
fn other_folders_and_files_are_rejected() {
    let parent = tempfile::tempdir().unwrap();
    rejected(&parent, ErrorKind::NotFound, &["model", "no such folder"]);
    fs::write(parent.path().join("model"), "text").unwrap();
    rejected(&parent, ErrorKind::InvalidArgument, &["model", "is a file"]);

    let parent = folder(DType::F32, 1 << 30);
    fs::rename(parent.path().join("model/config.json"), parent.path().join("config.json")).unwrap();
    rejected(&parent, ErrorKind::NotFound, &["config.json"]);
    fs::create_dir(parent.path().join("model/config.json")).unwrap();
    rejected(&parent, ErrorKind::Io, &["config.json"]);

    let parent = folder(DType::F32, 1 << 30);
    fs::remove_file(parent.path().join("model/model.safetensors")).unwrap();
    rejected(&parent, ErrorKind::NotFound, &["model.safetensors", "model.safetensors.index.json"]);
    fs::create_dir(parent.path().join("model/model.safetensors")).unwrap();
    rejected(&parent, ErrorKind::Io, &["model.safetensors", "must be a file"]);

    let parent = folder(DType::F32, 1 << 30);
    fs::write(parent.path().join("model/config.json"), vec![b' '; (16 << 20) + 1]).unwrap();
    rejected(&parent, ErrorKind::BadCheckpoint, &["config.json", "longer"]);
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission_is_rejected() {
    use std::os::unix::fs::PermissionsExt;
    let parent = folder(DType::F32, 1 << 30);
    let dir = parent.path().join("model");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o0)).unwrap();
    // A privileged user can read the folder nevertheless.
    if fs::read_dir(&dir).is_err() {
        rejected(&parent, ErrorKind::Io, &["model"]);
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn wrong_indices_are_rejected() {
    let with_index = |edit: &dyn Fn(&mut Value), kind, words: &[&str]| {
        let parent = folder(DType::F32, 20_000);
        edit_json(&parent.path().join("model/model.safetensors.index.json"), |index| edit(index));
        rejected(&parent, kind, words);
    };
    let name = "lm_head.weight";
    let bad = ErrorKind::BadCheckpoint;
    let moved = |file: &'static str| move |index: &mut Value| index["weight_map"][name] = json!(file);
    for file in ["../x.safetensors", "/etc/passwd", "a\\b", "", "..", ".", "C:x", "a/b", "nul\0"] {
        with_index(&moved(file), bad, &["index.json", name, "same folder"]);
    }
    with_index(&moved("other.safetensors"), ErrorKind::NotFound, &["index.json", "other.safetensors"]);
    with_index(&|index| index["weight_map"][name] = json!(7), bad, &["index.json", name]);
    let first = |index: &Value| index["weight_map"]["model.local_encoder.byte_embedding.weight"].clone();
    with_index(&|index| index["weight_map"][name] = first(index), bad, &[name, "is said to be in", "but is in"]);
    with_index(&|index| index["weight_map"]["extra"] = first(index), bad, &["extra", "is in no shard"]);
    let unlist = |index: &mut Value| drop(index["weight_map"].as_object_mut().unwrap().remove("model.norm.weight"));
    with_index(&unlist, bad, &["model.norm.weight", "does not list"]);
    with_index(&|index| index["weight_map"] = json!({}), bad, &["weight_map", "empty"]);
    with_index(&|index| index["weight_map"] = json!([]), bad, &["weight_map"]);
    with_index(&|index| *index = json!(7), bad, &["weight_map"]);

    let parent = folder(DType::F32, 20_000);
    let index = parent.path().join("model/model.safetensors.index.json");
    fs::write(&index, "{").unwrap();
    rejected(&parent, bad, &["index.json", "JSON"]);

    let parent = folder(DType::F32, 20_000);
    fs::write(parent.path().join("model/model.safetensors"), "x").unwrap();
    rejected(&parent, bad, &["model.safetensors", "out of date"]);

    let parent = folder(DType::F32, 20_000);
    fs::remove_file(parent.path().join("model/model-00002-of-00003.safetensors")).unwrap();
    rejected(&parent, ErrorKind::NotFound, &["model-00002-of-00003.safetensors", "index.json"]);

    // A tensor in two shards: the second shard is a copy of the first.
    let parent = folder(DType::F32, 20_000);
    let shard = |i: u32| parent.path().join(format!("model/model-0000{i}-of-00003.safetensors"));
    fs::copy(shard(1), shard(2)).unwrap();
    rejected(&parent, bad, &["is in both", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"]);
}
