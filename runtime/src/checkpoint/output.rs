//! Writing checkpoint folders: shards, headers, the index, and a folder that appears only when it is complete.

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use crate::checkpoint::DType;
use crate::error::{Error, Result};

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
    // Padding to a multiple of 8 aligns the data, as in other writers.
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
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
    fs::write(path, text).map_err(|e| io_error(path, "cannot be written", &e))
}

/// An `Io` error: the path, what failed, and why.
pub fn io_error(path: &Path, what: &str, error: &std::io::Error) -> Error {
    Error::io(format!("{}: {what}: {error}", path.display()))
}

/// The path of a folder to write.
pub struct Target {
    path: PathBuf,
    there: There,
}

/// What exists at the path of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    Empty,
    /// A folder with files, which may be replaced.
    Earlier,
}

impl Target {
    /// Accepts a folder that does not exist or is empty.
    ///
    /// # Errors
    /// `InvalidArgument` for other folders and files, `Io`.
    pub fn new(dir: &Path) -> Result<Self> {
        Self::replacing(dir, |_| false)
    }

    /// Accepts a folder that does not exist, is empty, or may be replaced according to `replaceable`.
    ///
    /// # Errors
    /// `InvalidArgument` for other folders and files, `Io`.
    pub fn replacing(dir: &Path, replaceable: impl Fn(&Path) -> bool) -> Result<Self> {
        let path = resolve(dir)?;
        let there = match fs::read_dir(&path) {
            Ok(mut entries) => match entries.next() {
                None => There::Empty,
                Some(_) if replaceable(&path) => There::Earlier,
                Some(_) => {
                    return Err(Error::invalid(format!(
                        "{}: is a folder with files in it; name a new folder or an empty one",
                        path.display()
                    )));
                }
            },
            Err(e) if e.kind() == IoKind::NotFound => There::Nothing,
            Err(e) if e.kind() == IoKind::NotADirectory => {
                return Err(Error::invalid(format!(
                    "{}: is a file; name a new folder or an empty one",
                    path.display()
                )));
            }
            Err(e) => return Err(io_error(&path, "cannot be read", &e)),
        };
        Ok(Self { path, there })
    }

    /// Creates a hidden folder beside the target, to write to until it is complete.
    pub fn begin(&self) -> Result<PartialFolder> {
        PartialFolder::beside(&self.path, "partial")
    }

    /// Renames the complete folder to the target.
    pub fn finish(self, partial: PartialFolder) -> Result<()> {
        match self.there {
            There::Nothing => {}
            // Some systems cannot rename onto a folder, even an empty one.
            There::Empty => fs::remove_dir(&self.path).map_err(|e| io_error(&self.path, "cannot be replaced", &e))?,
            There::Earlier => {
                // The old folder is deleted only after the new one has its name.
                let aside = PartialFolder::beside(&self.path, "replaced")?;
                let old = aside.path.join("old");
                fs::rename(&self.path, &old).map_err(|e| io_error(&self.path, "cannot be replaced", &e))?;
                return partial.rename_to(&self.path).inspect_err(|_| {
                    // The caller reports the first error.
                    let _ = fs::rename(&old, &self.path);
                });
            }
        }
        partial.rename_to(&self.path)
    }
}

/// Returns `dir` with a name as its last component, unlike `.` and `..`.
fn resolve(dir: &Path) -> Result<PathBuf> {
    if dir.file_name().is_some() {
        return Ok(dir.to_owned());
    }
    let full = fs::canonicalize(dir).map_err(|e| io_error(dir, "cannot be resolved", &e))?;
    match full.file_name() {
        Some(_) => Ok(full),
        None => Err(Error::invalid(format!("{}: is not a name for a new folder; name another one", dir.display()))),
    }
}

/// A folder under construction. Dropping it deletes it with its contents, unless it was renamed.
pub struct PartialFolder {
    /// Path of the folder before it is renamed.
    pub path: PathBuf,
    /// Whether dropping deletes the folder.
    armed: bool,
}

impl PartialFolder {
    fn beside(target: &Path, what: &str) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let parent = target.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            fs::create_dir_all(parent).map_err(|e| io_error(parent, "cannot be created", &e))?;
        }
        // Creating a folder fails if it exists, so two runs never share one.
        let mut attempt = 0;
        loop {
            let path = parent.join(format!(".{name}.{what}-{attempt}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(PartialFolder { path, armed: true }),
                Err(e) if e.kind() == IoKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(e) => {
                    // The hidden folder is no name that the caller knows.
                    return Err(Error::io(format!(
                        "{}: cannot be created: {e}; check the permissions of its parent folder and the free space",
                        target.display()
                    )));
                }
            }
        }
    }

    fn rename_to(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target)
            .map_err(|e| io_error(target, "cannot be replaced by the finished folder", &e))?;
        self.armed = false;
        Ok(())
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if self.armed {
            // The caller reports the first error.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
