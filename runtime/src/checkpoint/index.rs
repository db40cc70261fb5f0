//! The index of sharded weights: which tensor is in which file, compared with the files themselves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::header::{HeaderEntry, MAX_NAME_BYTES, MAX_TENSORS};
use crate::checkpoint::{Checkpoint, CheckpointFile, IGNORED_SUFFIX, read_headers, shown_name};
use crate::error::{Error, Result};
use crate::input::json::{Limits, Refusal, Stopped, bad_file, each_member, lenient, members, refused, shown, small};

/// Maximum length of an index. Real ones have kilobytes, or a few MB for models of many experts.
pub(super) const MAX_INDEX_BYTES: usize = 16 << 20;
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
    let refuse = |refusal: Refusal| bad_file(&refusal, name);
    let limits = Limits { bytes: MAX_INDEX_BYTES, values: usize::MAX };
    let text = lenient(text, &limits).map_err(refuse)?;
    let syntax = |e| refuse(refused(&text, e));
    let whole: &RawValue = serde_json::from_slice(&text).map_err(syntax)?;
    let Some([Some(map)]) = members(whole, ["weight_map"]).map_err(syntax)? else {
        return Err(bad("`weight_map` is missing; fetch the file again".to_owned()));
    };
    let mut weight_map = BTreeMap::new();
    let is_object = each_member(map, |tensor, file| {
        if weight_map.len() == MAX_TENSORS {
            return Err(bad(format!("names more than {MAX_TENSORS} tensors, which is not supported")));
        }
        if tensor.len() > MAX_NAME_BYTES {
            let (name, found) = (shown_name(&tensor), tensor.len());
            return Err(bad(format!(
                "tensor `{name}`: its name has {found} bytes, at most {MAX_NAME_BYTES} are supported"
            )));
        }
        match small(file) {
            Some(Value::String(file)) if is_plain(&file) => {
                weight_map.insert(tensor.into_owned(), file);
                Ok(())
            }
            Some(Value::String(file)) => Err(bad(format!(
                "tensor `{}` is said to be in {:?}; only names of files in the same folder are allowed",
                shown_name(&tensor),
                shown_name(&file)
            ))),
            _ => Err(bad(format!("the file of tensor `{}` is not a string", shown_name(&tensor)))),
        }
    });
    match is_object {
        Ok(true) if weight_map.is_empty() => Err(bad("its `weight_map` is empty; fetch the file again".to_owned())),
        Ok(true) => Ok(weight_map),
        Ok(false) => {
            let found = shown(Some(map));
            Err(bad(format!("`weight_map` must be an object, found {found}; fetch the file again")))
        }
        Err(Stopped::Syntax(e)) => Err(syntax(e)),
        Err(Stopped::Visit(error)) => Err(error),
    }
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
                return bad(format!("tensor `{}` is in both {other} and {shard}", shown_name(&entry.name)));
            }
        }
    }
    for (tensor, shard) in weight_map {
        match actual.get(tensor.as_str()) {
            Some(found) if *found == shard.as_str() => {}
            Some(found) => {
                return bad(format!("tensor `{}` is said to be in {shard}, but is in {found}", shown_name(tensor)));
            }
            None => {
                return bad(format!("tensor `{}` is said to be in {shard}, but is in no shard", shown_name(tensor)));
            }
        }
    }
    for (tensor, shard) in actual {
        if !weight_map.contains_key(tensor) && !tensor.ends_with(IGNORED_SUFFIX) {
            return bad(format!("does not list tensor `{}`, which is in {shard}", shown_name(tensor)));
        }
    }
    Ok(())
}
