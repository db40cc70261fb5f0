//! Opening a checkpoint folder: which files belong to it, and whether its index tells the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind as IoKind, Read};
use std::path::Path;

use serde_json::Value;

use super::header::HeaderEntry;
use super::{Checkpoint, CheckpointFile, IGNORED_SUFFIX, MappedFile, read_headers, shortened};
use crate::error::{Error, Result};

/// The model in one file.
const SINGLE: &str = "model.safetensors";
/// Which shard has which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// A `config.json` or an index above this is refused; real ones have kilobytes.
const MAX_JSON_BYTES: u64 = 16 << 20;
/// Shards above this are refused, before each costs a file handle.
const MAX_SHARDS: usize = 1000;

/// See [`Checkpoint::open`].
pub(super) fn open(dir: &Path) -> Result<Checkpoint> {
    let origin = dir.display().to_string();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(Error::invalid(format!(
                "{origin}: is a file; give the checkpoint folder that holds config.json and the weights"
            )));
        }
        Err(e) if e.kind() == IoKind::NotFound => {
            return Err(Error::not_found(format!("{origin}: there is no such folder")));
        }
        Err(e) => return Err(Error::io(format!("{origin}: cannot be examined: {e}"))),
    }
    let config = read_json_file(&dir.join("config.json"))?
        .ok_or_else(|| Error::not_found(format!("{origin}: has no config.json, so it is not a checkpoint folder")))?;
    let single = dir.join(SINGLE);
    let has_single =
        single.try_exists().map_err(|e| Error::io(format!("{}: cannot be examined: {e}", single.display())))?;

    let Some(index) = read_json_file(&dir.join(INDEX))? else {
        if !has_single {
            return Err(Error::not_found(format!("{origin}: has neither {SINGLE} nor {INDEX}")));
        }
        return Checkpoint::from_parts(&origin, &config, vec![Box::new(MappedFile::open(&single)?)]);
    };
    let index_name = dir.join(INDEX).display().to_string();
    let weight_map = parse_index(&index, &index_name)?;
    let shards: Vec<String> = weight_map.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    if has_single && !shards.iter().any(|shard| shard == SINGLE) {
        return Err(Error::bad_checkpoint(format!(
            "{origin}: holds {SINGLE} and an {INDEX} that names other files; remove the one that is out of date"
        )));
    }
    if shards.len() > MAX_SHARDS {
        return Err(Error::unsupported(format!("{index_name}: names {} shards, more than {MAX_SHARDS}", shards.len())));
    }
    let mut files: Vec<Box<dyn CheckpointFile>> = Vec::with_capacity(shards.len());
    for shard in &shards {
        let file = MappedFile::open(&dir.join(shard)).map_err(|e| e.context(format_args!("{index_name} names it")))?;
        files.push(Box::new(file));
    }
    let headers = read_headers(&files)?;
    check_index(&index_name, &weight_map, &shards, &headers)?;
    Checkpoint::from_headers(&origin, &config, files, headers)
}

/// The contents of a small file, or `None` if it does not exist.
fn read_json_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let name = path.display();
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("{name}: cannot be opened: {e}"))),
    };
    let mut text = Vec::new();
    // The limit holds while reading too: a length can be a lie, as that of a pipe.
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::io(format!("{name}: cannot be read: {e}")))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::bad_checkpoint(format!("{name}: is longer than {MAX_JSON_BYTES} bytes")));
    }
    Ok(Some(text))
}

/// Tensor name to file name, from an index whose file names are plain.
pub(super) fn parse_index(text: &[u8], name: &str) -> Result<BTreeMap<String, String>> {
    let bad = |what: String| Error::bad_checkpoint(format!("{name}: {what}"));
    let value: Value = serde_json::from_slice(text).map_err(|e| bad(format!("not a JSON document: {e}")))?;
    let Some(Value::Object(map)) = value.get("weight_map") else {
        return Err(bad("must have an object `weight_map`".to_owned()));
    };
    if map.is_empty() {
        return Err(bad("its `weight_map` is empty".to_owned()));
    }
    let mut weight_map = BTreeMap::new();
    for (tensor, file) in map {
        let tensor = tensor.clone();
        match file.as_str() {
            Some(file) if is_plain(file) => weight_map.insert(tensor, file.to_owned()),
            Some(file) => {
                return Err(bad(format!(
                    "tensor `{}` is said to be in {:?}; only names of files in the same folder are allowed",
                    shortened(&tensor),
                    shortened(file)
                )));
            }
            None => return Err(bad(format!("the file of tensor `{}` is not a string", shortened(&tensor)))),
        };
    }
    Ok(weight_map)
}

/// Whether `name` can only be a file of the folder itself, on every system: no separator, drive, stream or parent.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control())
}

/// Compares what the index says with what the shards hold; `headers` are those of `shards`.
fn check_index(
    index: &str,
    weight_map: &BTreeMap<String, String>,
    shards: &[String],
    headers: &[Vec<HeaderEntry>],
) -> Result<()> {
    let bad = |what: String| Err(Error::bad_checkpoint(format!("{index}: {what}")));
    let mut actual: BTreeMap<&str, &str> = BTreeMap::new();
    for (shard, entries) in shards.iter().zip(headers) {
        for entry in entries {
            if let Some(other) = actual.insert(&entry.name, shard) {
                return bad(format!(
                    "tensor `{}` is in both {other} and {shard}; each must be in one file",
                    shortened(&entry.name)
                ));
            }
        }
    }
    for (tensor, shard) in weight_map {
        match actual.get(tensor.as_str()) {
            Some(found) if *found == shard.as_str() => {}
            Some(found) => {
                return bad(format!("tensor `{}` is said to be in {shard}, but is in {found}", shortened(tensor)));
            }
            None => {
                return bad(format!("tensor `{}` is said to be in {shard}, but is in no shard", shortened(tensor)));
            }
        }
    }
    for (tensor, shard) in actual {
        if !weight_map.contains_key(tensor) && !tensor.ends_with(IGNORED_SUFFIX) {
            return bad(format!("does not list tensor `{}`, which is in {shard}", shortened(tensor)));
        }
    }
    Ok(())
}
