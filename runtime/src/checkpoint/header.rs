//! The header of a safetensors file, parsed and validated before any data is read.
//!
//! A file consists of a length of 8 bytes, a JSON header of that length, and the data. The header is untrusted input:
//! sizes are checked before memory is allocated, and the tensors must cover the data without overlaps or gaps, as the
//! format requires. Offsets have 64 bits on every platform, so that a browser can read long shards.

use std::collections::HashSet;

use safetensors::Dtype;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::file::{CheckpointFile, slice_at};
use crate::error::{Error, Result};
use crate::input::foreign::{START_BYTES, foreign, words};
use crate::input::json::{Stopped, each_member, shown, small};
use crate::input::shorten::quoted;

/// Maximum length of a header. Real headers have about 100 bytes per tensor.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Maximum number of tensors in a checkpoint. The largest published ones have about 100,000.
pub(super) const MAX_TENSORS: usize = 1 << 18;
/// Maximum length of a tensor's name.
pub(super) const MAX_NAME_BYTES: usize = 1024;
/// Size of the length field before the header.
const LENGTH_BYTES: u64 = 8;
/// Key of the header entry that is not a tensor.
const METADATA: &str = "__metadata__";

/// A tensor as the header describes it.
pub(super) struct HeaderEntry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// First byte, counted from the beginning of the file.
    pub start: u64,
    /// Length of the data in bytes.
    pub length: u64,
}

/// Reads and validates the header of `file`. The entries are in the order of their data.
pub(super) fn read_header(file: &dyn CheckpointFile) -> Result<Vec<HeaderEntry>> {
    let name = file.name();
    let bad = |what: String| Error::bad_checkpoint(format!("{name}: {what}"));
    // What the file is instead says more than what is wrong with its header.
    let recognized = |what: String| bad(other_kind(file).unwrap_or(what));
    if file.is_empty() {
        return Err(bad("is empty; fetch the safetensors file again".to_owned()));
    }
    if file.len() < LENGTH_BYTES {
        return Err(bad(format!("has only {} bytes and is not a safetensors file; fetch it again", file.len())));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(recognized(format!(
            "is not a safetensors file: it would have a header of {length} bytes, at most {MAX_HEADER_BYTES} are \
             allowed; name a safetensors file"
        )));
    }
    // The sum cannot overflow: both are far below the maximum of a u64.
    let data_start = LENGTH_BYTES + length;
    if data_start > file.len() {
        return Err(recognized(format!(
            "is cut short: it has {} bytes, but its header alone has {length}; fetch it again",
            file.len()
        )));
    }
    let length = usize::try_from(length)
        .map_err(|_| bad(format!("has a header of {length} bytes, too many for this platform")))?;
    let mut entries = match file.bytes() {
        Some(bytes) => parse(slice_at(name, bytes, LENGTH_BYTES, length)?, data_start),
        None => {
            let mut text = Vec::new();
            text.try_reserve_exact(length).map_err(|_| {
                Error::new(crate::error::ErrorKind::OutOfMemory, format!("{name}: not enough memory for its header"))
            })?;
            text.resize(length, 0);
            file.read_at(LENGTH_BYTES, &mut text)?;
            parse(&text, data_start)
        }
    }
    .map_err(recognized)?;
    // Of several tensors at one place, the empty ones come first.
    entries.sort_by_key(|entry| (entry.start, entry.length));
    check_coverage(&entries, data_start, file.len()).map_err(bad)?;
    Ok(entries)
}

/// What a file is that has no header, if it is recognized.
fn other_kind(file: &dyn CheckpointFile) -> Option<String> {
    let mut start = vec![0; file.len().min(START_BYTES as u64) as usize];
    file.read_at(0, &mut start).ok()?;
    // A header begins here, or may have begun. The length before it can look like the mark of another format.
    if matches!(start.get(LENGTH_BYTES as usize), None | Some(b'{')) {
        return None;
    }
    let text = || Some(format!("is a text that begins {}, not a safetensors file; fetch it again", words(&start)?));
    foreign(&start).or_else(text)
}

/// Reads the entries of a header one by one. Nothing else of it is kept, whatever it holds.
fn parse(text: &[u8], data_start: u64) -> Result<Vec<HeaderEntry>, String> {
    let no_object = |what: String| format!("its header is not a JSON object: {what}; fetch it again");
    let whole: &RawValue = serde_json::from_slice(text).map_err(|e| no_object(e.to_string()))?;
    let mut entries = Vec::new();
    let is_object = each_member(whole, |tensor, value| {
        if tensor == METADATA {
            return Ok(());
        }
        if entries.len() == MAX_TENSORS {
            return Err(format!("has more than {MAX_TENSORS} tensors, which is not supported"));
        }
        if tensor.len() > MAX_NAME_BYTES {
            let found = tensor.len();
            return Err(format!("has a tensor with a name of {found} bytes, at most {MAX_NAME_BYTES} are supported"));
        }
        let entry = match small(value) {
            Some(value) => read_entry(&tensor, &value, data_start),
            None => Err(format!("its description has {} bytes, expected about 100", value.get().len())),
        };
        entries.push(entry.map_err(|what| format!("tensor `{tensor}`: {what}; fetch the file again"))?);
        Ok(())
    });
    match is_object {
        Ok(true) => {}
        Ok(false) => return Err(no_object(format!("found {}", shown(Some(whole))))),
        Err(Stopped::Syntax(e)) => return Err(no_object(e.to_string())),
        Err(Stopped::Visit(what)) => return Err(what),
    }
    let mut names = HashSet::with_capacity(entries.len());
    match entries.iter().find(|entry| !names.insert(entry.name.as_str())) {
        Some(HeaderEntry { name, .. }) => Err(format!("its header has tensor `{name}` twice; fetch the file again")),
        None => Ok(entries),
    }
}

/// Reads an entry and checks that its extent matches its shape and type.
fn read_entry(name: &str, value: &Value, data_start: u64) -> Result<HeaderEntry, String> {
    let field = |key: &str| value.get(key).ok_or_else(|| format!("its `{key}` is missing"));
    let integers = |key: &str| -> Result<Vec<u64>, String> {
        let list = field(key)?.as_array().ok_or_else(|| format!("its `{key}` is not a list"))?;
        let list: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
        list.ok_or_else(|| format!("its `{key}` has an entry that is not a whole number"))
    };

    let dtype = field("dtype")?;
    let dtype: Dtype = serde_json::from_value(dtype.clone())
        .map_err(|_| format!("its `dtype` {} is unknown, expected one such as F32, BF16 or F16", brief(dtype)))?;
    let shape = integers("shape")?;
    let [begin, end] = integers("data_offsets")?[..] else {
        return Err("its `data_offsets` must be a begin and an end".to_owned());
    };

    let length =
        end.checked_sub(begin).ok_or_else(|| format!("its data ends at {end}, before it begins at {begin}"))?;
    let needed = shape
        .iter()
        .try_fold(dtype.bitsize() as u64, |bits, &size| bits.checked_mul(size))
        .filter(|bits| bits.is_multiple_of(8))
        .map(|bits| bits / 8);
    if needed != Some(length) {
        let needed = needed.map_or_else(|| "an impossible number of".to_owned(), |bytes| bytes.to_string());
        return Err(format!("{dtype} of shape {} takes {needed} bytes, but it has {length}", brief_shape(&shape)));
    }
    let shape: Result<Vec<usize>, _> = shape.iter().map(|&size| usize::try_from(size)).collect();
    Ok(HeaderEntry {
        name: name.to_owned(),
        dtype,
        shape: shape.map_err(|_| "its shape is too large for this platform".to_owned())?,
        start: data_start.checked_add(begin).ok_or_else(|| format!("its data begins at {begin}, past any file"))?,
        length,
    })
}

/// Checks that sorted entries cover the file from `data_start` to `file_length` without overlaps or gaps.
fn check_coverage(entries: &[HeaderEntry], data_start: u64, file_length: u64) -> Result<(), String> {
    let mut reached = data_start;
    for entry in entries {
        let HeaderEntry { name, start, length, .. } = entry;
        if *start < reached {
            return Err(format!("tensor `{name}` overlaps the one before it; fetch the file again"));
        }
        if *start > reached {
            let unclaimed = start - reached;
            return Err(format!("{unclaimed} unclaimed bytes lie before tensor `{name}`; fetch the file again"));
        }
        reached = start.checked_add(*length).ok_or_else(|| format!("tensor `{name}` ends past any file"))?;
        if reached > file_length {
            return Err(format!(
                "is cut short: tensor `{name}` ends at byte {reached}, the file at {file_length}; fetch it again"
            ));
        }
    }
    match file_length - reached {
        0 => Ok(()),
        rest => Err(format!("has {rest} bytes after its last tensor; fetch it again")),
    }
}

/// A shape for a message, shortened: a damaged file may have millions of dimensions.
fn brief_shape(shape: &[u64]) -> String {
    match shape.len() {
        0..=8 => format!("{shape:?}"),
        n => format!("of {n} dimensions"),
    }
}

/// A JSON value for a message, shortened.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text, 30),
        Value::Array(_) | Value::Object(_) => "(not a string)".to_owned(),
        other => other.to_string(),
    }
}
