//! Quantized checkpoints: their contents, how they are written, and every kind of damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bolmo_shaders::WeightFormat;
use bolmo_shaders::quant::{quantize, weight};
use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::*;
use crate::convert::quantize::{QuantizeOptions, QuantizeReport, write_quantized};
use crate::convert::random::{InitOptions, write_config};
use crate::error::ErrorKind;

/// Rows of 32, and some of 40, which is no multiple of a block.
fn config() -> Config {
    Config {
        hidden_size: 32,
        head_dim: 16,
        intermediate_size: 40,
        local_intermediate_size: 64,
        ..crate::checkpoint::tests::tiny()
    }
}

fn source(parent: &TempDir) -> PathBuf {
    let dir = parent.path().join("source");
    let options = InitOptions { seed: 5, dtype: DType::BF16, max_shard_bytes: 20_000 };
    write_config(&dir, &config(), &options, &mut |_, _| true).unwrap();
    dir
}

fn quantized(parent: &TempDir, name: &str, formats: &str, shard_bytes: u64) -> (PathBuf, QuantizeReport) {
    let dir = parent.path().join(name);
    let checkpoint = Checkpoint::open(source_once(parent)).unwrap();
    let options = QuantizeOptions { max_shard_bytes: shard_bytes, ..QuantizeOptions::default() };
    let report = write_quantized(&checkpoint, &dir, formats.parse().unwrap(), &options, &mut |_, _| true).unwrap();
    (dir, report)
}

fn source_once(parent: &TempDir) -> PathBuf {
    let dir = parent.path().join("source");
    if dir.exists() { dir } else { source(parent) }
}

fn values(tensor: &Tensor<'_>) -> Vec<f32> {
    let mut values = vec![0.0; tensor.element_count() as usize];
    tensor.read_f32(0, &mut values).unwrap();
    values
}

/// Type, shape and bytes of each tensor, according to another reader.
fn raw(dir: &Path) -> BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                all.insert(name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            }
        }
    }
    all
}

#[test]
fn every_tensor_is_stored_as_described() {
    let parent = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(source(&parent)).unwrap();
    for (name, formats, shard_bytes) in [
        ("q8", "q8", 1 << 30),
        ("q4", "q4", 15_000),
        ("mixed", "q4,local=q8,embeddings=f16", 1),
        ("f16", "f16", 1 << 30),
    ] {
        let (dir, report) = quantized(&parent, name, formats, shard_bytes);
        let formats: Formats = formats.parse().unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert_eq!((checkpoint.formats(), checkpoint.config()), (Some(formats), source.config()));
        assert_eq!(
            (report.bytes_before(), report.bytes_after()),
            (source.contents_bytes(), checkpoint.contents_bytes())
        );
        let raw = raw(&dir);
        let total: usize = raw.values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(total as u64, report.bytes_after());
        let mut scales_seen = 0;
        for (spec, tensor) in expected_tensors(source.config()).iter().zip(checkpoint.tensors()) {
            let exact = values(&source.tensor(&spec.name).unwrap());
            let (dtype, shape, bytes) = &raw[&spec.name];
            let format = match spec.shape[..] {
                [_, k] => formats.of(spec.part).fitting(k),
                _ => WeightFormat::F32,
            };
            assert_eq!((tensor.name, tensor.shape), (spec.name.as_str(), &spec.shape[..]));
            match format {
                WeightFormat::F32 => {
                    assert_eq!((*dtype, shape), (Dtype::F32, &spec.shape));
                    assert_eq!(values(&tensor), exact);
                }
                WeightFormat::F16 => {
                    assert_eq!((*dtype, shape), (Dtype::F16, &spec.shape));
                    assert_eq!(values(&tensor), exact.iter().map(|&x| f16::from_f32(x).to_f32()).collect::<Vec<_>>());
                }
                WeightFormat::Q8 | WeightFormat::Q4 => {
                    let (n, k) = (spec.shape[0], spec.shape[1]);
                    let packed = if format == WeightFormat::Q8 { (Dtype::I8, k) } else { (Dtype::U8, k / 2) };
                    assert_eq!((*dtype, &shape[..]), (packed.0, &[n, packed.1][..]));
                    let (mut weights, mut scales) = (Vec::new(), Vec::new());
                    quantize(format, &exact, &mut weights, &mut scales).unwrap();
                    assert_eq!(bytes, &weights, "{}", spec.name);
                    let (dtype, shape, bytes) = &raw[&format!("{}.scales", spec.name)];
                    assert_eq!((*dtype, &shape[..]), (Dtype::F16, &[n, k / 32][..]));
                    assert_eq!(bytes, &scales.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<u8>>());
                    scales_seen += 1;
                    // Read as f32, completely and from positions within a block.
                    let all: Vec<f32> = (0..n * k).map(|i| weight(format, &weights, &scales, i)).collect();
                    assert_eq!(values(&tensor), all);
                    for (first, count) in
                        [(1, 1), (31, 2), (k - 5, 40.min(n * k - k + 5)), (n * k - 1, 1), (7, n * k - 7), (n * k, 0)]
                    {
                        let mut some = vec![0.0; count];
                        tensor.read_f32(first as u64, &mut some).unwrap();
                        assert_eq!(some, all[first..first + count]);
                    }
                    assert!(tensor.read_f32(n as u64 * k as u64, &mut [0.0]).is_err());
                }
            }
        }
        assert_eq!(raw.len(), expected_tensors(source.config()).len() + scales_seen);
        // Rows of 40 don't fit blocks.
        let down = "model.layers.0.mlp.down_proj.weight".to_owned();
        assert_eq!(report.enlarged, if name == "f16" { Vec::new() } else { vec![down] });
        assert_eq!(report.shards == 1, shard_bytes == 1 << 30);
    }
}

#[test]
fn a_failed_run_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(source(&parent)).unwrap();
    let (q8, _) = quantized(&parent, "q8", "q8", 1 << 30);
    let there = |parent: &TempDir| fs::read_dir(parent.path()).unwrap().count();
    let before = there(&parent);
    let rejected = |checkpoint: &Checkpoint, name: &str, formats: &str, kind, words: &[&str]| {
        let result = write_quantized(
            checkpoint,
            parent.path().join(name),
            formats.parse().unwrap(),
            &QuantizeOptions::default(),
            &mut |_, _| true,
        );
        let error = result.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.message().contains(word), "{error} lacks {word}");
        }
        assert_eq!(there(&parent), before);
    };
    let again = Checkpoint::open(&q8).unwrap();
    rejected(&again, "new", "q4", ErrorKind::InvalidArgument, &["q8", "already"]);
    rejected(&source, "new", "f32", ErrorKind::InvalidArgument, &["f32", "q4"]);
    // Neither the source nor a folder with other files is an earlier output.
    rejected(&source, "source", "q8", ErrorKind::InvalidArgument, &["source", "files in it"]);
    fs::write(q8.join("notes.txt"), "mine").unwrap();
    rejected(&source, "q8", "q8", ErrorKind::InvalidArgument, &["q8", "files in it"]);
    assert_eq!(fs::read(q8.join("notes.txt")).unwrap(), b"mine");
    fs::remove_file(q8.join("notes.txt")).unwrap();

    let mut options = QuantizeOptions::default();
    let cancelled =
        write_quantized(&source, parent.path().join("new"), "q8".parse().unwrap(), &options, &mut |done, _| {
            done < 9000
        });
    assert_eq!((cancelled.unwrap_err().kind(), there(&parent)), (ErrorKind::Cancelled, before));
    options.others.push(("../evil".to_owned(), Vec::new()));
    let evil = write_quantized(&source, parent.path().join("new"), "q8".parse().unwrap(), &options, &mut |_, _| true);
    assert_eq!((evil.unwrap_err().kind(), there(&parent)), (ErrorKind::InvalidArgument, before));

    // An earlier output is replaced as a whole.
    let (_, report) = quantized(&parent, "q8", "q4", 1 << 30);
    assert_eq!(there(&parent), before);
    let replaced = Checkpoint::open(&q8).unwrap();
    assert_eq!((replaced.formats(), replaced.contents_bytes()), (Some("q4".parse().unwrap()), report.bytes_after()));
}

#[test]
fn a_file_that_a_user_put_beside_an_output_stays() {
    let parent = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(source(&parent)).unwrap();
    let (q8, _) = quantized(&parent, "q8", "q8", 20_000);
    let again = || {
        let formats = "q4".parse().unwrap();
        write_quantized(&source, &q8, formats, &QuantizeOptions::default(), &mut |_, _| true).map(drop)
    };
    for name in ["model-mine.safetensors", "model.safetensors.bak", "generation_config.json", "chat_template.jinja"] {
        fs::write(q8.join(name), "mine").unwrap();
        let error = again().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().contains(name) && error.message().contains("files in it"), "{error}");
        assert_eq!(fs::read(q8.join(name)).unwrap(), b"mine");
        fs::remove_file(q8.join(name)).unwrap();
    }
    // So does one that the user has changed, and a folder of a version that kept no list.
    let config = fs::read(q8.join("config.json")).unwrap();
    fs::write(q8.join("config.json"), [&config[..], b"\n"].concat()).unwrap();
    assert!(again().unwrap_err().message().contains("(config.json), which have changed"));
    fs::write(q8.join("config.json"), config).unwrap();
    let list = fs::read(q8.join("bolmo-files.json")).unwrap();
    fs::remove_file(q8.join("bolmo-files.json")).unwrap();
    assert!(again().unwrap_err().message().contains("no bolmo-files.json"));
    fs::write(q8.join("bolmo-files.json"), list).unwrap();
    again().unwrap();
    assert_eq!(Checkpoint::open(&q8).unwrap().formats(), Some("q4".parse().unwrap()));
}

#[test]
fn quantizing_looks_at_the_free_space_first() {
    let parent = tempfile::tempdir().unwrap();
    let source = Checkpoint::open(source(&parent)).unwrap();
    let needed = quantized(&parent, "q8", "q8", 1 << 30).1.bytes_after();
    let run = || {
        let formats = "q8".parse().unwrap();
        let mut never = |_: u64, _: u64| -> bool { panic!("the work began") };
        write_quantized(&source, parent.path().join("new"), formats, &QuantizeOptions::default(), &mut never)
    };
    let error = crate::checkpoint::output::with_free_bytes(needed - 1, run).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let words = format!("{needed} bytes are needed, but the file system has {} bytes free", needed - 1);
    assert!(error.message().contains(&words) && error.message().contains("new"), "{error}");
}

#[test]
fn weights_that_no_format_represents_are_named() {
    let name = "model.local_encoder.out_projection.weight";
    for (value, formats, kind, words) in [
        (f32::NAN, "q8", ErrorKind::BadCheckpoint, "[3, 5] is NaN"),
        (f32::INFINITY, "f16", ErrorKind::BadCheckpoint, "[3, 5] is inf"),
        (1e6, "f16", ErrorKind::Unsupported, "row 3, column 5 is beyond"),
        (1e30, "q8", ErrorKind::Unsupported, "row 3, column 5 is in a block"),
        (-1e30, "q4", ErrorKind::Unsupported, "row 3, column 5 is in a block"),
    ] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("source");
        write_config(&dir, &config(), &InitOptions::default(), &mut |_, _| true).unwrap();
        let path = dir.join("model.safetensors");
        let mut file = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        let at = 8 + length + header[name]["data_offsets"][0].as_u64().unwrap() as usize + 4 * (3 * 32 + 5);
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(&path, file).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let out = parent.path().join("out");
        let error =
            write_quantized(&checkpoint, &out, formats.parse().unwrap(), &QuantizeOptions::default(), &mut |_, _| true)
                .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(name) && error.message().contains(words), "{error}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}

/// The parts of a checkpoint in q4 and q8, to be damaged.
struct Parts {
    config: Value,
    header: Map<String, Value>,
    data: Vec<u8>,
}

const HEAD: &str = "lm_head.weight";
const SCALES: &str = "lm_head.weight.scales";

impl Parts {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let (dir, _) = quantized(&parent, "mixed", "q4,local=q8", 1 << 30);
        let file = fs::read(dir.join("model.safetensors")).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        Self {
            config: serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap(),
            header: serde_json::from_slice(&file[8..8 + length]).unwrap(),
            data: file[8 + length..].to_vec(),
        }
    }

    fn file(&self) -> Vec<u8> {
        let header = Value::Object(self.header.clone()).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &self.data].concat()
    }

    fn open_file(&self, file: Vec<u8>) -> Result<Checkpoint> {
        let file = Box::new(MemoryFile::new("weights.safetensors", file));
        Checkpoint::from_parts("parts", self.config.to_string().as_bytes(), vec![file])
    }

    fn start(&self, name: &str) -> usize {
        self.header[name]["data_offsets"][0].as_u64().unwrap() as usize
    }
}

/// Asserts that the damaged checkpoint is rejected with a message with all `words`.
fn rejected(damage: impl FnOnce(&mut Parts), words: &[&str]) {
    let mut parts = Parts::new();
    damage(&mut parts);
    let error = parts.open_file(parts.file()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BadCheckpoint | ErrorKind::Unsupported), "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "{error} lacks {word}");
    }
}

#[test]
fn tensors_that_contradict_the_formats_are_rejected() {
    assert!(Parts::new().open_file(Parts::new().file()).is_ok());
    rejected(|p| p.header[HEAD]["dtype"] = json!("U8"), &["weights", HEAD, "I8", "found U8"]);
    rejected(|p| p.header[HEAD]["shape"] = json!([32, 520]), &[HEAD, "[520, 32]", "[32, 520]"]);
    rejected(|p| p.header[SCALES]["dtype"] = json!("BF16"), &[SCALES, "F16", "found BF16"]);
    rejected(|p| p.header[SCALES]["shape"] = json!([260, 2]), &[SCALES, "[520, 1]", "[260, 2]"]);
    rejected(|p| p.header[SCALES]["shape"] = json!([520]), &[SCALES, "[520, 1]", "[520]"]);
    let rename = |p: &mut Parts, from: &str, to: &str| {
        let entry = p.header.remove(from).unwrap();
        p.header.insert(to.to_owned(), entry);
    };
    rejected(|p| rename(p, SCALES, "scales"), &["1 tensor", SCALES, "missing"]);
    rejected(|p| rename(p, HEAD, "head"), &["1 tensor", HEAD, "missing"]);
    // Scales of a tensor that has none.
    rejected(
        |p| {
            let at = p.data.len();
            p.data.extend([0; 64]);
            p.header.insert(
                "model.norm.weight.scales".to_owned(),
                json!({ "dtype": "F16", "shape": [32, 1], "data_offsets": [at, at + 64] }),
            );
        },
        &["model.norm.weight.scales", "too many"],
    );
    // The key in the configuration contradicts the files.
    rejected(|p| p.config["bolmo_quantization"]["local"] = json!("q4"), &["U8", "found I8"]);
    rejected(|p| p.config["bolmo_quantization"]["version"] = json!(2), &["version", "2", "known: 1"]);
    rejected(|p| p.config["bolmo_quantization"]["block"] = json!(64), &["block", "64", "known: 32"]);
    rejected(|p| p.config["bolmo_quantization"] = json!(null), &["shape"]);
}

#[test]
fn truncated_files_are_rejected() {
    let parts = Parts::new();
    let file = parts.file();
    for cut in [1, 2, 700, parts.data.len()] {
        let error = parts.open_file(file[..file.len() - cut].to_vec()).unwrap_err();
        assert!(error.message().contains("cut short"), "{error}");
    }
}

#[test]
fn scales_that_are_not_finite_are_named() {
    for (value, words) in [(f16::NAN, "[7, 0] is NaN"), (f16::NEG_INFINITY, "[7, 0] is -inf")] {
        let mut parts = Parts::new();
        let at = parts.start(SCALES) + 2 * 7;
        parts.data[at..at + 2].copy_from_slice(&value.to_le_bytes());
        let checkpoint = parts.open_file(parts.file()).unwrap();
        let head = checkpoint.tensor(HEAD).unwrap();
        for error in [
            head.read_f32(0, &mut vec![0.0; 520 * 32]).unwrap_err(),
            head.read_rows(6, 2, &mut Vec::new(), &mut Vec::new()).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
            assert!(error.message().contains(SCALES) && error.message().contains(words), "{error}");
        }
        head.read_rows(8, 512, &mut Vec::new(), &mut Vec::new()).unwrap();
        assert!(head.read_rows(8, 513, &mut Vec::new(), &mut Vec::new()).is_err());
    }
}

/// Checkpoints with damaged configuration, header or data are rejected when opened or read, without a panic.
#[test]
fn random_damage_never_panics() {
    let parts = Parts::new();
    let config = parts.config.to_string().into_bytes();
    let (mut opened, mut rejected) = (0, 0);
    for mut case in crate::fuzz::cases(0x6a09_e667_f3bc_c909, 1000) {
        let random = &mut case.random;
        let (mut config, mut file) = (config.clone(), parts.file());
        match random.below(3) {
            0 => damage_tests::damage(&mut config, random),
            1 => {
                let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
                let mut header = file[8..8 + length].to_vec();
                damage_tests::damage(&mut header, random);
                file = [&(header.len() as u64).to_le_bytes(), &header[..], &parts.data].concat();
            }
            _ => {
                let at = file.len() - 1 - random.below(parts.data.len());
                file[at] ^= 1 << random.below(8);
            }
        }
        let file = Box::new(MemoryFile::new("weights", file)) as Box<dyn CheckpointFile>;
        let Ok(checkpoint) = Checkpoint::from_parts("parts", &config, vec![file]) else {
            rejected += 1;
            continue;
        };
        opened += 1;
        for tensor in checkpoint.tensors() {
            let mut values = vec![0.0; tensor.element_count() as usize];
            if let Err(error) = tensor.read_f32(0, &mut values) {
                assert!(error.message().contains(".scales"), "{error}");
            }
        }
    }
    assert!(opened > 0 && rejected > 0, "{opened} opened, {rejected} rejected");
}
