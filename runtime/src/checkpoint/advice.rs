//! What to do about a path that is no checkpoint folder: what it is instead, and which folder or file is meant.

use std::fs;
use std::path::Path;

use crate::checkpoint::{INDEX, SINGLE};
use crate::error::{Error, Result};
use crate::input::file::{kind, open_file};
use crate::input::foreign::{START_BYTES, foreign};
use crate::input::hub;

/// Maximum number of names that are looked at in a folder.
const MAX_NAMES: usize = 10_000;
/// File that describes an adapter.
const ADAPTER: &str = "adapter_config.json";
/// Advice for weights of PyTorch.
const PYTORCH: &str = "load the model with transformers and save it with `save_pretrained`, which writes safetensors";
/// Endings of unfinished downloads, of `hf download`, browsers, curl and aria2.
const UNFINISHED: [&str; 5] = [".incomplete", ".crdownload", ".part", ".partial", ".aria2"];

/// The error that nothing exists at `dir`.
pub(super) fn missing(dir: &Path) -> Error {
    let origin = dir.display();
    if let Ok(target) = fs::read_link(dir) {
        return Error::not_found(format!("{origin}: is a link to {}, which does not exist", target.display()));
    }
    let advice = hub::advice(dir, "").unwrap_or_else(|| "check the path".to_owned());
    Error::not_found(format!("{origin}: there is no such folder; {advice}"))
}

/// The error that `dir` is not a folder.
pub(super) fn no_folder(dir: &Path, metadata: &fs::Metadata) -> Error {
    use std::io::Read;

    let mut start = Vec::new();
    if let Ok(Some(file)) = open_file(dir) {
        // A file that cannot be read is still no folder.
        let _ = file.take(START_BYTES as u64).read_to_end(&mut start);
    }
    let what = foreign(&start)
        .unwrap_or_else(|| format!("is {}; name the folder that holds config.json and the weights", kind(metadata)));
    Error::invalid(format!("{}: {what}", dir.display()))
}

/// The error that `dir` has no `config.json`.
pub(super) fn without_config(dir: &Path) -> Error {
    let origin = dir.display();
    if let Some(advice) = hub::advice(dir, "") {
        return Error::not_found(format!("{origin}: has no config.json; {advice}"));
    }
    let names = names(dir);
    let what = if let Some(what) = adapter(&names) {
        what
    } else if let Some(name) = ending(&names, ".gguf") {
        format!("has no config.json but {name}; GGUF files are not supported, so name the folder of the original model")
    } else if let Some(name) = unfinished(dir, &names) {
        format!("has no config.json, and the download of {name} is unfinished; run the download again")
    } else if let Some(name) = names.iter().find(|name| dir.join(name).join("config.json").is_file()) {
        format!("has no config.json, but its subfolder {name} does; use {}", dir.join(name).display())
    } else if let Some(name) = ending(&names, ".zip") {
        format!("has no config.json but {name}; unpack it")
    } else {
        "has no config.json; name a checkpoint folder".to_owned()
    };
    Error::not_found(format!("{origin}: {what}"))
}

/// The error that `dir` has a `config.json` but no weights.
pub(super) fn without_weights(dir: &Path) -> Error {
    let names = names(dir);
    let neither = format!("has neither {SINGLE} nor {INDEX}");
    let pytorch = |name: &&String| {
        name.starts_with("pytorch_model") && name.ends_with(".bin") || name.ends_with(".pth") || name.ends_with(".pt")
    };
    let what = if let Some(what) = adapter(&names) {
        what
    } else if let Some(name) = unfinished(dir, &names) {
        format!("{neither}, and the download of {name} is unfinished; run the download again")
    } else if let Some(name) = names.iter().find(pytorch) {
        format!("{neither} but {name}; files of PyTorch are not supported: {PYTORCH}")
    } else if let Some(name) = ending(&names, ".gguf") {
        format!("{neither} but {name}; GGUF files are not supported, so name the folder of the original model")
    } else if let Some(name) = names.iter().find(|name| name.contains("-of-") && name.ends_with(".safetensors")) {
        format!("has {name} but no {INDEX}, which says what the shards hold; fetch the index")
    } else if let Some(name) = ending(&names, ".safetensors") {
        format!("{neither} but {name}; if it holds the weights of this model, rename it to {SINGLE}")
    } else if let Some(name) = [".h5", ".msgpack", ".onnx", ".zip"].iter().find_map(|end| ending(&names, end)) {
        format!("{neither} but {name}; name a folder with weights in the safetensors format")
    } else {
        format!("{neither}; name a folder with weights in the safetensors format")
    };
    Error::not_found(format!("{}: {what}", dir.display()))
}

/// The error that the index names `shard`, which `dir` lacks.
pub(super) fn without_shard(dir: &Path, shard: &str) -> Error {
    let fetch = match unfinished(dir, &names(dir)) {
        Some(name) => format!("the download of {name} is unfinished; run the download again"),
        None => "fetch it".to_owned(),
    };
    Error::not_found(format!("{}: named by {INDEX}, but missing; {fetch}", dir.join(shard).display()))
}

/// The names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().take(MAX_NAMES).flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

fn ending<'a>(names: &'a [String], end: &str) -> Option<&'a str> {
    names.iter().find(|name| name.ends_with(end)).map(String::as_str)
}

fn adapter(names: &[String]) -> Option<String> {
    names.iter().any(|name| name == ADAPTER).then(|| {
        format!(
            "is a LoRA-style adapter ({ADAPTER}), which holds only changes to a model; merge it into its base model, \
             with `merge_and_unload` of peft, and name the folder of the result"
        )
    })
}

/// The name of an unfinished download, in the folder or where `hf download` keeps it.
fn unfinished(dir: &Path, here: &[String]) -> Option<String> {
    let is_unfinished = |name: &&String| UNFINISHED.iter().any(|end| name.ends_with(end));
    let there = names(&dir.join(".cache/huggingface/download"));
    here.iter().chain(&there).find(is_unfinished).cloned()
}

/// Fails if `dir` is not a folder.
pub(super) fn check_folder(dir: &Path) -> Result<()> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(metadata) => Err(no_folder(dir, &metadata)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing(dir)),
        Err(e) => Err(Error::io(format!("{}: cannot be read: {e}", dir.display()))),
    }
}
