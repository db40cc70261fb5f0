//! Writing files: shards, headers and the index of a checkpoint folder, and any other file.

use std::io::Write;
use std::path::Path;

pub use bolmo_files::{MANIFEST, PartialFolder, Replaces, with_free_bytes};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::checkpoint::DType;
use crate::error::{Error, ErrorKind, Result};

/// A tensor in a header; the data of consecutive items is contiguous.
pub struct HeaderItem<'a> {
    /// Full name.
    pub name: &'a str,
    /// Stored type.
    pub dtype: Dtype,
    /// Rows first.
    pub shape: &'a [usize],
}

impl HeaderItem<'_> {
    /// Size of the data in bytes.
    pub fn byte_count(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// Returns the length field and the JSON header of a file with these tensors in this order.
pub fn header(items: &[HeaderItem<'_>]) -> Vec<u8> {
    let mut map = Map::new();
    map.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut offset = 0u64;
    for item in items {
        let end = offset + item.byte_count();
        let entry = json!({ "dtype": item.dtype.to_string(), "shape": item.shape, "data_offsets": [offset, end] });
        map.insert(item.name.to_owned(), entry);
        offset = end;
    }
    let mut text = Value::Object(map).to_string();
    // Readers that map the file use the data where it is: with padding it begins at a cache line.
    let length = 8 + text.len();
    text.extend(std::iter::repeat_n(' ', length.next_multiple_of(64) - length));
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    header
}

/// Appends `values` to `bytes`, rounded to `dtype`, which must be a type without scales.
pub(crate) fn encode(dtype: DType, values: &[f32], bytes: &mut Vec<u8>) {
    match dtype {
        DType::F32 => bytes.extend(values.iter().flat_map(|x| x.to_le_bytes())),
        DType::BF16 => bytes.extend(values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
        DType::F16 => {
            // Only the conversion of slices uses hardware instructions.
            let mut buffer = [f16::ZERO; 4096];
            for values in values.chunks(buffer.len()) {
                let halves = &mut buffer[..values.len()];
                halves.convert_from_f32_slice(values);
                bytes.extend(halves.iter().flat_map(|x| x.to_le_bytes()));
            }
        }
        // Never reached: callers reject these types, whose writer packs rows together with scales.
        DType::Q8 | DType::Q4 => {}
    }
}

/// Divides a list into consecutive parts of at most `most` bytes; a larger item is a part of its own.
pub fn divide<T>(items: &[T], most: u64, bytes_of: impl Fn(&T) -> u64) -> Vec<&[T]> {
    let (mut shards, mut first, mut filled) = (Vec::new(), 0, 0u64);
    for (i, item) in items.iter().enumerate() {
        let bytes = bytes_of(item);
        if i > first && filled.saturating_add(bytes) > most {
            shards.push(&items[first..i]);
            (first, filled) = (i, 0);
        }
        filled = filled.saturating_add(bytes);
    }
    shards.push(&items[first..]);
    shards
}

/// Returns the file name of shard `i` of `count`.
pub fn shard_name(i: usize, count: usize) -> String {
    match count {
        1 => "model.safetensors".to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
    }
}

/// Writes the index of sharded weights; a single file needs none.
pub fn write_index(
    dir: &Path,
    shards: usize,
    parameters: u64,
    bytes: u64,
    weight_map: Map<String, Value>,
) -> Result<()> {
    if shards == 1 {
        return Ok(());
    }
    let metadata = json!({ "total_parameters": parameters, "total_size": bytes });
    let index = json!({ "metadata": metadata, "weight_map": weight_map });
    write_json(&dir.join("model.safetensors.index.json"), &index)
}

/// Writes an indented JSON document.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal(format!("{}: cannot be encoded: {e}", path.display())))?;
    text.push('\n');
    write_file(path, text.len() as u64, |file| file.write_all(text.as_bytes()))
}

/// An `Io` error: the path, what failed, and why.
pub fn io_error(path: &Path, what: &str, error: &std::io::Error) -> Error {
    Error::io(format!("{}: {what}: {error}", path.display()))
}

/// The path of a folder to write: [`bolmo_files::Target`] with the errors of this crate.
pub struct Target(bolmo_files::Target);

impl Target {
    /// Accepts a folder that does not exist, is empty, or has only files that may be replaced.
    ///
    /// # Errors
    /// `InvalidArgument` for other folders and files, `Busy` while another run writes into the folder, `Io`.
    pub fn new(folder: &Path, replaces: Replaces) -> Result<Self> {
        bolmo_files::Target::new(folder, replaces).map(Self).map_err(files_error)
    }

    /// Creates a hidden folder to write to until it is complete. `needed` is the number of bytes that will be written.
    ///
    /// # Errors
    /// `Io`, also if the file system has less than `needed` bytes free.
    pub fn begin(&self, needed: u64) -> Result<PartialFolder> {
        self.0.begin(needed).map_err(files_error)
    }

    /// Gives the complete folder its name.
    ///
    /// # Errors
    /// `Io`. The message names the complete folder, which stays.
    pub fn finish(self, partial: PartialFolder) -> Result<()> {
        self.0.finish(partial).map_err(files_error)
    }
}

fn files_error(error: bolmo_files::Error) -> Error {
    use bolmo_files::Error as Files;

    let kind = match error {
        Files::IsFolder(_) | Files::IsFile(_) | Files::NoName(_) | Files::Occupied { .. } => ErrorKind::InvalidArgument,
        Files::NoFolder(_) => ErrorKind::NotFound,
        Files::Busy { .. } => ErrorKind::Busy,
        _ => ErrorKind::Io,
    };
    Error::new(kind, error.to_string())
}

/// Checks that [`write_file`] can write about `bytes` bytes to `path`, before the work whose result they will be.
///
/// # Errors
/// `InvalidArgument` for a folder, `NotFound` for a file in a folder that does not exist, `Io` for a file that must not
/// be written, and for a file system that has less than `bytes` bytes free.
pub fn check_file(path: &Path, bytes: u64) -> Result<()> {
    bolmo_files::check(path, bytes).map_err(files_error)
}

/// Writes the file `path` with `fill`, which writes about `bytes` bytes.
///
/// A new or a regular file is written under a temporary name and then renamed, so that an interrupted run leaves the
/// old one; the next run removes the temporary file. A file that exists keeps its mode. Symbolic links are followed.
/// Devices and pipes are written into.
///
/// # Errors
/// `Io`, also if the file system has less than `bytes` bytes free.
pub fn write_file(path: &Path, bytes: u64, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    bolmo_files::write(path, bytes, fill).map_err(|e| io_error(path, "cannot be written", &e))
}
