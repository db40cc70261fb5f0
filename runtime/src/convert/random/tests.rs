//! The contents of written folders, their dependence on options, and what failed runs leave behind.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::checkpoint::layout::expected_tensors;
use crate::checkpoint::{Checkpoint, check_finite};
use crate::error::ErrorKind;

fn write(dir: &Path, options: &InitOptions) -> Result<InitReport> {
    write_checkpoint(dir, Preset::Nano, options, &mut |_, _| true)
}

fn values(checkpoint: &Checkpoint) -> Vec<Vec<f32>> {
    checkpoint
        .tensors()
        .map(|tensor| {
            let mut values = vec![0.0; tensor.element_count() as usize];
            tensor.read_f32(0, &mut values).unwrap();
            check_finite(tensor.name, 0, &values, 1).unwrap();
            values
        })
        .collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn weights_depend_on_seed_and_name_alone() {
    let parent = tempfile::tempdir().unwrap();
    let open = |name: &str, options: &InitOptions| {
        let dir = parent.path().join(name);
        let report = write(&dir, options).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        assert_eq!(report.bytes, checkpoint.contents_bytes());
        assert_eq!(options.dtype.bytes(report.parameters), report.bytes);
        (values(&checkpoint), report)
    };
    let plain = InitOptions { seed: 5, ..InitOptions::default() };
    let (whole, report) = open("whole", &plain);
    assert_eq!(report, InitReport { parameters: 323_404, bytes: 1_293_616, shards: 1 });
    let (shards, report) = open("shards", &InitOptions { max_shard_bytes: 200_000, ..plain.clone() });
    assert!(report.shards > 5);
    assert_eq!(whole, shards);
    let (tiny_shards, report) = open("tiny", &InitOptions { max_shard_bytes: 1, ..plain.clone() });
    assert_eq!(report.shards, expected_tensors(&Preset::Nano.config()).len());
    assert_eq!(whole, tiny_shards);
    let (halves, _) = open("halves", &InitOptions { dtype: DType::F16, ..plain.clone() });
    let rounded: Vec<Vec<f32>> =
        whole.iter().map(|t| t.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect()).collect();
    assert_eq!(halves, rounded);
    let (brains, _) = open("brains", &InitOptions { dtype: DType::BF16, ..plain });
    let rounded: Vec<Vec<f32>> =
        whole.iter().map(|t| t.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect()).collect();
    assert_eq!(brains, rounded);
    let (other, _) = open("other", &InitOptions { seed: 6, ..InitOptions::default() });
    assert_ne!(whole, other);
}

#[test]
fn each_kind_of_tensor_has_its_values() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    write(&dir, &InitOptions::default()).unwrap();
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let read = |name: &str| {
        let tensor = checkpoint.tensor(name).unwrap();
        let mut values = vec![0.0; tensor.element_count() as usize];
        tensor.read_f32(0, &mut values).unwrap();
        values
    };
    let deviation = |name: &str| {
        let values = read(name);
        (values.iter().map(|x| f64::from(x * x)).sum::<f64>() / values.len() as f64).sqrt()
    };
    assert!(read("model.norm.weight").iter().all(|&x| x == 1.0));
    assert!(read("model.local_encoder.out_projection.bias").iter().all(|&x| x == 0.0));
    assert_eq!(read("model.local_encoder.layers.0.xlstm.fgate_preact.bias"), [3.0, 6.0]);
    assert!((deviation("model.local_encoder.subword_embedding.weight") - 0.02).abs() < 0.001);
    assert!((deviation("lm_head.weight") - 0.125).abs() < 0.005);
    assert!((deviation("model.layers.1.mlp.down_proj.weight") - 128f64.powf(-0.5)).abs() < 0.005);
}

#[test]
fn the_folder_has_exactly_the_expected_files() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("some/where/model");
    let mut calls = Vec::new();
    let options = InitOptions { dtype: DType::BF16, ..InitOptions::default() };
    write_checkpoint(&dir, Preset::Nano, &options, &mut |done, total| {
        calls.push((done, total));
        true
    })
    .unwrap();
    let expected =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(names(&dir), expected);
    assert_eq!(names(dir.parent().unwrap()), ["model"]);
    assert!(calls.is_sorted() && calls.last() == Some(&(646_808, 646_808)));
    let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["dtype"], "bfloat16");
}

#[test]
fn too_little_space_is_found_before_the_work() {
    use crate::checkpoint::output::with_free_bytes;

    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let error = with_free_bytes(1_293_615, || write(&dir, &InitOptions::default())).unwrap_err();
    assert_eq!((error.kind(), names(parent.path())), (ErrorKind::Io, Vec::new()), "{error}");
    for words in ["model", "1293616 bytes are needed", "1293615 bytes free"] {
        assert!(error.message().contains(words), "{error} lacks {words}");
    }
    with_free_bytes(1_293_616, || write(&dir, &InitOptions::default())).unwrap();
}

#[test]
fn existing_targets_are_rejected() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    fs::create_dir(&dir).unwrap();
    write(&dir, &InitOptions::default()).unwrap();
    let before = names(&dir);
    let error = write(&dir, &InitOptions::default()).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains("files in it"), "{error}");
    assert_eq!(names(&dir), before);
    let error = write(&dir.join("config.json"), &InitOptions::default()).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains("is a file"), "{error}");
    assert!(write(&parent.path().join("x"), &InitOptions { max_shard_bytes: 0, ..InitOptions::default() }).is_err());
    assert!(write(Path::new("/"), &InitOptions::default()).is_err());
    assert_eq!(names(parent.path()), ["model"]);
}

#[test]
fn a_cancelled_run_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    let result = write_checkpoint(&dir, Preset::Nano, &InitOptions::default(), &mut |done, total| done < total / 2);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(names(parent.path()), Vec::<String>::new());
}

#[test]
fn presets_have_their_names_and_sizes() {
    for preset in Preset::ALL {
        assert_eq!(preset.to_string().parse::<Preset>().unwrap(), preset);
        let parameters: u64 = expected_tensors(&preset.config()).iter().map(|spec| spec.element_count()).sum();
        let expected = match preset {
            Preset::Nano => 323_404..323_405,
            Preset::Demo => 300_000..5_000_000,
            Preset::Mid => 195_000_000..203_000_000,
            Preset::Bolmo1b => 1_465_000_000..1_475_000_000,
            Preset::Bolmo7b => 7_625_000_000..7_635_000_000,
            Preset::Bwen8b => 8_000_000_000..9_000_000_000,
        };
        assert!(expected.contains(&parameters), "{preset} {parameters}");
    }
    assert!("bolmo".parse::<Preset>().unwrap_err().message().contains("nano, demo, mid"));
}
