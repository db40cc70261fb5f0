//! The header of a safetensors file: parsed and checked before anything is read by it.
//!
//! A file is 8 bytes of length, a JSON header of that length, and the data. The header is outside input, so this
//! checks sizes before it allocates, and demands what the format demands: every tensor's bytes follow the last one's,
//! without overlap, gap or rest. Offsets are 64 bits wide on every platform, so that a browser can read long shards.

use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::checkpoint::file::{CheckpointFile, slice_at};
use crate::error::{Error, Result};

/// Headers above this are refused; a real one has about 100 bytes per tensor.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes of the length in front of the header.
const LENGTH_BYTES: u64 = 8;
/// The entry of a header that is not a tensor.
const METADATA: &str = "__metadata__";

/// One tensor as a header describes it.
pub(super) struct HeaderEntry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// First byte within the file, not within the data.
    pub start: u64,
    /// Bytes of the data.
    pub length: u64,
}

/// Reads and checks the header of `file`; the entries come in the order of their data.
pub(super) fn read_header(file: &dyn CheckpointFile) -> Result<Vec<HeaderEntry>> {
    let name = file.name();
    let bad = |what: String| Error::bad_checkpoint(format!("{name}: {what}"));
    if file.is_empty() {
        return Err(bad("is empty; expected a safetensors file".to_owned()));
    }
    if file.len() < LENGTH_BYTES {
        return Err(bad(format!("has {} bytes, too few for a safetensors file", file.len())));
    }
    let mut length = [0; LENGTH_BYTES as usize];
    file.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES {
        return Err(bad(format!(
            "announces a header of {length} bytes, more than {MAX_HEADER_BYTES}; it is not a safetensors file"
        )));
    }
    // Both are far below the top of a u64 now.
    let data_start = LENGTH_BYTES + length;
    if data_start > file.len() {
        return Err(bad(format!(
            "announces a header of {length} bytes, but has {} in all; it is cut short, so fetch it again",
            file.len()
        )));
    }
    let length = usize::try_from(length).map_err(|_| bad(format!("has a header of {length} bytes, too many here")))?;
    let header = match file.bytes() {
        Some(bytes) => parse(slice_at(name, bytes, LENGTH_BYTES, length)?),
        None => {
            let mut text = Vec::new();
            text.try_reserve_exact(length).map_err(|_| {
                Error::new(crate::error::ErrorKind::OutOfMemory, format!("{name}: no memory for its header"))
            })?;
            text.resize(length, 0);
            file.read_at(LENGTH_BYTES, &mut text)?;
            parse(&text)
        }
    };
    let header = header.map_err(|e| bad(format!("its header is not a JSON object: {e}")))?;

    let mut entries = Vec::with_capacity(header.len());
    for (tensor, value) in header {
        if tensor != METADATA {
            let entry =
                read_entry(&tensor, &value, data_start).map_err(|what| bad(format!("tensor `{tensor}`: {what}")))?;
            entries.push(entry);
        }
    }
    // Of tensors at one place the empty one comes first.
    entries.sort_by_key(|entry| (entry.start, entry.length));
    check_coverage(&entries, data_start, file.len()).map_err(bad)?;
    Ok(entries)
}

fn parse(text: &[u8]) -> serde_json::Result<Map<String, Value>> {
    serde_json::from_slice(text)
}

/// One entry, whose extent agrees with its shape and type.
fn read_entry(name: &str, value: &Value, data_start: u64) -> Result<HeaderEntry, String> {
    let field = |key: &str| value.get(key).ok_or_else(|| format!("its `{key}` is missing"));
    let integers = |key: &str| -> Result<Vec<u64>, String> {
        let list = field(key)?.as_array().ok_or_else(|| format!("its `{key}` is not a list"))?;
        let list: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
        list.ok_or_else(|| format!("its `{key}` has an entry that is not a whole number"))
    };

    let dtype = field("dtype")?;
    let dtype: Dtype =
        serde_json::from_value(dtype.clone()).map_err(|_| format!("its `dtype` {} is unknown", brief(dtype)))?;
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

/// Demands that sorted entries cover the file from `data_start` to `file_length` without overlap, gap or rest.
fn check_coverage(entries: &[HeaderEntry], data_start: u64, file_length: u64) -> Result<(), String> {
    let mut reached = data_start;
    for entry in entries {
        let HeaderEntry { name, start, length, .. } = entry;
        if *start < reached {
            return Err(format!("tensor `{name}` overlaps the one before it"));
        }
        if *start > reached {
            return Err(format!("{} unclaimed bytes lie before tensor `{name}`", start - reached));
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
        rest => Err(format!("has {rest} bytes after its last tensor")),
    }
}

/// A shape for a message; a damaged one may have millions of entries.
fn brief_shape(shape: &[u64]) -> String {
    match shape.len() {
        0..=8 => format!("{shape:?}"),
        n => format!("of {n} dimensions"),
    }
}

/// A JSON value for a message.
fn brief(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.chars().take(30).collect::<String>()),
        Value::Array(_) | Value::Object(_) => "(not a string)".to_owned(),
        other => other.to_string(),
    }
}
