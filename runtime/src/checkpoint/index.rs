//! The index of a checkpoint in several files: which tensor is in which, and whether it tells the truth.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checkpoint::header::HeaderEntry;
use crate::checkpoint::{Checkpoint, CheckpointFile, IGNORED_SUFFIX, read_headers, shortened};
use crate::error::{Error, Result};

/// Shards above this are refused, before each costs a file handle.
const MAX_SHARDS: usize = 1000;

/// A parsed `model.safetensors.index.json`.
pub struct Index {
    name: String,
    /// Tensor name to file name.
    weight_map: BTreeMap<String, String>,
    shards: Vec<String>,
}

impl Index {
    /// The index's own name, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the files, which lie in the index's own folder.
    pub fn shards(&self) -> &[String] {
        &self.shards
    }

    /// Reads the text of an index; `name` is for messages.
    ///
    /// # Errors
    /// `BadCheckpoint` if it is not one, or names files elsewhere than in its own folder; `Unsupported` for more than 1000 files.
    pub fn parse(text: &[u8], name: &str) -> Result<Self> {
        let weight_map = parse_index(text, name)?;
        let shards: Vec<String> = weight_map.values().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        if shards.len() > MAX_SHARDS {
            return Err(Error::unsupported(format!("{name}: names {} shards, more than {MAX_SHARDS}", shards.len())));
        }
        Ok(Self { name: name.to_owned(), weight_map, shards })
    }

    /// The headers of `files`, which are those of [`Self::shards`] in that order, after a look at whether the index tells the truth.
    pub(super) fn headers(&self, files: &[Box<dyn CheckpointFile>]) -> Result<Vec<Vec<HeaderEntry>>> {
        if files.len() != self.shards.len() {
            return Err(Error::invalid(format!(
                "{}: names {} files, {} were given",
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
    /// As [`Checkpoint::from_parts`], with the files that an index names, in the order of [`Index::shards`].
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

/// Tensor name to file name, from an index whose file names are plain.
fn parse_index(text: &[u8], name: &str) -> Result<BTreeMap<String, String>> {
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
