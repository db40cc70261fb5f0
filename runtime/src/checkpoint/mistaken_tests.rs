//! What people have in place of a checkpoint: cache folders, pointers, pages, other formats, unfinished downloads.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::convert::random::{InitOptions, write_config};
use crate::error::ErrorKind;

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 2934\n";
const PAGE: &str = "<!DOCTYPE html>\n<html><title>Sign in</title></html>\n";

/// A folder with the sound checkpoint `model`, which has a vocabulary.
fn sound() -> (TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("model");
    write_config(&dir, &crate::checkpoint::tests::tiny(), &InitOptions::default(), &mut |_, _| true).unwrap();
    (parent, dir)
}

/// Asserts that `dir` is refused as a checkpoint and as a folder of tensors, with all `words`.
fn refused(dir: &Path, kind: ErrorKind, words: &[&str]) {
    let checkpoint = Checkpoint::open(dir).unwrap_err();
    let tensors = TensorFolder::open(dir).unwrap_err();
    for error in [checkpoint, tensors] {
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.message().contains(word), "{error} lacks {word}");
        }
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    value.to_string()
}

#[test]
fn ids_and_cache_folders_are_told_what_to_name() {
    refused(
        Path::new("allenai/Bolmo-1B"),
        ErrorKind::NotFound,
        &["`hf download allenai/Bolmo-1B --exclude \"olmo_core/*\" --local-dir Bolmo-1B`"],
    );
    let (parent, dir) = sound();
    let cache = parent.path().join("models--allenai--Bolmo-1B");
    fs::create_dir_all(cache.join("snapshots")).unwrap();
    fs::create_dir_all(cache.join("refs")).unwrap();
    fs::rename(&dir, cache.join("snapshots/0a1b2c")).unwrap();
    fs::write(cache.join("refs/main"), "0a1b2c").unwrap();
    refused(&cache, ErrorKind::NotFound, &["Hugging Face cache", "models--allenai--Bolmo-1B/snapshots/0a1b2c"]);
    refused(&cache.join("snapshots"), ErrorKind::NotFound, &["snapshots/0a1b2c"]);
    Checkpoint::open(cache.join("snapshots/0a1b2c")).unwrap();
    // The folder above a checkpoint that was unpacked into a folder of its own.
    let above = cache.join("snapshots/above");
    fs::create_dir(&above).unwrap();
    fs::rename(cache.join("snapshots/0a1b2c"), above.join("unpacked")).unwrap();
    refused(&above, ErrorKind::NotFound, &["no config.json", "above/unpacked"]);
}

#[test]
fn pointers_and_pages_in_place_of_files_are_recognized() {
    for (contents, words) in [(POINTER, "git lfs pull"), (PAGE, "web page"), ("Entry not found", "\"Entry not found\"")]
    {
        for name in ["config.json", "model.safetensors", "model.safetensors.index.json"] {
            let (_parent, dir) = sound();
            fs::write(dir.join(name), contents).unwrap();
            refused(&dir, ErrorKind::BadCheckpoint, &[name, words]);
        }
        let (_parent, dir) = sound();
        for name in ["tokenizer_config.json", "tokenizer.json"] {
            fs::write(dir.join(name), contents).unwrap();
            let error = Vocabulary::open(dir.join("tokenizer.json")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadCheckpoint, "{error}");
            assert!(error.message().contains(words) && error.message().contains(name), "{error}");
            fs::remove_file(dir.join("tokenizer_config.json")).ok();
        }
    }
}

#[test]
fn other_formats_in_place_of_weights_are_recognized() {
    for (contents, words) in [
        (&b"GGUF\x03\0\0\0\x10\0\0\0"[..], "GGUF"),
        (b"PK\x03\x04\x14\0\0\0\0\0", "zip archive"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9", "pickle"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "unpack"),
        (b"", "empty"),
    ] {
        let (_parent, dir) = sound();
        fs::write(dir.join("model.safetensors"), contents).unwrap();
        refused(&dir, ErrorKind::BadCheckpoint, &["model.safetensors", words]);
        // The same files in place of the folder.
        if !contents.is_empty() {
            refused(&dir.join("model.safetensors"), ErrorKind::InvalidArgument, &[words]);
        }
    }
    let (_parent, dir) = sound();
    fs::copy(dir.join("model.safetensors"), dir.join("config.json")).unwrap();
    refused(&dir, ErrorKind::BadCheckpoint, &["config.json", "is a safetensors file"]);
}

#[test]
fn folders_of_other_things_are_recognized() {
    let without_weights = |names: &[&str], words: &[&str]| {
        let (_parent, dir) = sound();
        fs::remove_file(dir.join("model.safetensors")).unwrap();
        for name in names {
            fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            fs::write(dir.join(name), "x").unwrap();
        }
        refused(&dir, ErrorKind::NotFound, words);
    };
    without_weights(&[], &["neither model.safetensors nor model.safetensors.index.json"]);
    without_weights(&["pytorch_model.bin"], &["pytorch_model.bin", "save_pretrained"]);
    without_weights(&["pytorch_model-00001-of-00002.bin"], &["pytorch_model-00001-of-00002.bin", "save_pretrained"]);
    without_weights(&["consolidated.00.pth"], &["consolidated.00.pth", "PyTorch"]);
    without_weights(&["bolmo-q8.gguf"], &["bolmo-q8.gguf", "GGUF"]);
    without_weights(&["tf_model.h5"], &["tf_model.h5"]);
    without_weights(&["adapter_config.json", "adapter_model.safetensors"], &["adapter", "merge_and_unload"]);
    without_weights(&["model-00001-of-00002.safetensors"], &["model-00001-of-00002.safetensors", "fetch the index"]);
    without_weights(&["weights.safetensors"], &["weights.safetensors", "rename it to model.safetensors"]);
    without_weights(&["model.safetensors.part"], &["model.safetensors.part", "unfinished"]);
    without_weights(&[".cache/huggingface/download/xyz.4d7a.incomplete"], &["xyz.4d7a.incomplete", "unfinished"]);

    let without_config = |names: &[&str], words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| fs::write(dir.path().join(name), "x").unwrap());
        refused(dir.path(), ErrorKind::NotFound, words);
    };
    without_config(&["adapter_config.json"], &["adapter", "merge_and_unload"]);
    without_config(&["bolmo.gguf"], &["no config.json", "bolmo.gguf"]);
    without_config(&["bolmo.zip"], &["no config.json", "bolmo.zip", "unpack"]);
    without_config(&["config.json.incomplete"], &["no config.json", "unfinished"]);
}

#[test]
fn byte_order_marks_are_skipped_and_other_encodings_are_named() {
    let (_parent, dir) = sound();
    let config = fs::read_to_string(dir.join("config.json")).unwrap();
    fs::write(dir.join("config.json"), format!("\u{feff}{config}")).unwrap();
    Checkpoint::open(&dir).unwrap();
    TensorFolder::open(&dir).unwrap();
    for little in [true, false] {
        let units = format!("\u{feff}{config}").encode_utf16().collect::<Vec<u16>>();
        let bytes = units.iter().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() });
        fs::write(dir.join("config.json"), bytes.collect::<Vec<u8>>()).unwrap();
        refused(&dir, ErrorKind::BadCheckpoint, &["config.json", "UTF-16", "save it as UTF-8"]);
    }
}

#[test]
fn numbers_that_json_lacks_do_harm_only_where_they_are_read() {
    let (_parent, dir) = sound();
    let path = dir.join("config.json");
    let marked = edit(&path, |config| {
        config["initializer_range"] = json!("@");
        config["notes"] = json!(["NaN", {"time_step_limit": [0.0, "@"]}]);
    });
    for word in ["NaN", "Infinity", "-Infinity"] {
        fs::write(&path, marked.replace("\"@\"", word)).unwrap();
        Checkpoint::open(&dir).unwrap();
        TensorFolder::open(&dir).unwrap();
    }
}

#[test]
fn a_number_that_json_lacks_is_reported_with_its_key() {
    let (_parent, dir) = sound();
    let path = dir.join("config.json");
    for key in ["hidden_size", "rms_norm_eps"] {
        let whole = fs::read_to_string(&path).unwrap();
        let marked = edit(&path, |config| config[key] = json!("@"));
        fs::write(&path, marked.replace("\"@\"", "NaN")).unwrap();
        let error = Checkpoint::open(&dir).unwrap_err();
        assert!(error.message().contains(key) && error.message().contains("NaN"), "{error}");
        fs::write(&path, whole).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn fifos_and_devices_are_refused_at_once() {
    use std::os::unix::fs::symlink;

    let names =
        ["config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json"];
    for name in names {
        for kind in ["a FIFO", "a device"] {
            let (_parent, dir) = sound();
            let path = dir.join(name);
            fs::remove_file(&path).ok();
            match kind {
                "a FIFO" => {
                    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
                    // SAFETY: the path is a string with a final NUL.
                    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
                }
                _ => symlink("/dev/zero", &path).unwrap(),
            }
            let error = match name.starts_with("tokenizer") {
                true => Vocabulary::open(dir.join("tokenizer.json")).unwrap_err(),
                false => Checkpoint::open(&dir).unwrap_err(),
            };
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            assert!(error.message().contains(name) && error.message().contains(kind), "{error}");
        }
    }
    refused(Path::new("/dev/null"), ErrorKind::InvalidArgument, &["is a device"]);
    // A cache whose blob was deleted.
    let (parent, dir) = sound();
    fs::rename(dir.join("model.safetensors"), parent.path().join("blob")).unwrap();
    symlink("../blob", dir.join("model.safetensors")).unwrap();
    Checkpoint::open(&dir).unwrap();
    fs::remove_file(parent.path().join("blob")).unwrap();
    refused(&dir, ErrorKind::NotFound, &["model.safetensors", "is a link to ../blob, which does not exist"]);
}
