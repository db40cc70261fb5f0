//! The index of sharded weights: which tensor is in which file, compared with the files themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checkpoint::header::HeaderEntry;
use crate::checkpoint::{Checkpoint, CheckpointFile, IGNORED_SUFFIX, read_headers, shortened};
use crate::config::keys::shown;
use crate::error::{Error, Result};

/// Maximum number of shards, checked before each takes a file handle.
const MAX_SHARDS: usize = 1000;

/// A parsed `model.safetensors.index.json`.
pub struct Index {
    name: String,
    /// File name of each tensor.
    weight_map: BTreeMap<String, String>,
    shards: Vec<String>,
}

impl Index {
    /// Name of the index, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the weight files, which are in the folder of the index.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// Parses the text of an index; `name` is for messages.
    ///
    /// # Errors
    /// `BadCheckpoint` if the text is not an index or names files outside its folder; `Unsupported` for more than 1000
    /// files.
    pub fn parse(text: &[u8], name: &str) -> Result<Self> {
        let weight_map = parse_index(text, name)?;
        let shards: Vec<String> = weight_map.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if shards.len() > MAX_SHARDS {
            return Err(Error::unsupported(format!(
                "{name}: names {} shards; at most {MAX_SHARDS} are supported",
                shards.len()
            )));
        }
        Ok(Self { name: name.to_owned(), weight_map, shards })
    }

    /// Reads the headers of `files`, which are in the order of [`Self::shards`], and compares them with the index.
    pub(super) fn headers(&self, files: &[Box<dyn CheckpointFile>]) -> Result<Vec<Vec<HeaderEntry>>> {
        if files.len() != self.shards.len() {
            return Err(Error::invalid(format!(
                "{}: names {} files, but {} were given; give each file once, in the order of the index",
                self.name,
                self.shards.len(),
                files.len()
            )));
        }
        let headers = read_headers(files)?;
        check_index(&self.name, &self.weight_map, &self.shards, &headers)?;
        Ok(headers)
    }
}

impl Checkpoint {
    /// Opens a checkpoint from parts with sharded weights: `files` are in the order of [`Index::shards`].
    ///
    /// `origin` names the checkpoint in messages.
    pub fn from_shards(
        origin: &str,
        config: &[u8],
        index: &Index,
        files: Vec<Box<dyn CheckpointFile>>,
    ) -> Result<Checkpoint> {
        let headers = index.headers(&files)?;
        Self::from_headers(origin, config, files, headers)
    }
}

/// Reads the file name of each tensor and checks that it has no path.
fn parse_index(text: &[u8], name: &str) -> Result<BTreeMap<String, String>> {
    let bad = |what: String| Error::bad_checkpoint(format!("{name}: {what}"));
    let value: Value =
        serde_json::from_slice(text).map_err(|e| bad(format!("is not a JSON document: {e}; fetch the file again")))?;
    let map = match value.get("weight_map") {
        Some(Value::Object(map)) => map,
        Some(found) => {
            return Err(bad(format!("`weight_map` must be an object, found {}; fetch the file again", shown(found))));
        }
        None => return Err(bad("`weight_map` is missing; fetch the file again".to_owned())),
    };
    if map.is_empty() {
        return Err(bad("its `weight_map` is empty; fetch the file again".to_owned()));
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

/// Whether `name` is a file in the folder itself on every system: no separator, drive, stream or parent folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && !name.starts_with('.')
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control())
}

/// Compares the index with the headers of the shards.
fn check_index(
    index: &str,
    weight_map: &BTreeMap<String, String>,
    shards: &[String],
    headers: &[Vec<HeaderEntry>],
) -> Result<()> {
    let bad =
        |what: String| Err(Error::bad_checkpoint(format!("{index}: {what}; fetch the shards and the index again")));
    let mut actual: BTreeMap<&str, &str> = BTreeMap::new();
    for (shard, entries) in shards.iter().zip(headers) {
        for entry in entries {
            if let Some(other) = actual.insert(&entry.name, shard) {
                return bad(format!("tensor `{}` is in both {other} and {shard}", shortened(&entry.name)));
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
