//! Files of subword ids: one-dimensional `.npy` files of NumPy, and raw ids without a header.

use std::ops::Range;
use std::path::Path;

use bolmo_runtime::files::{CheckpointFile, MappedFile};
use bolmo_runtime::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Maximum length of a header. That of a one-dimensional array has 128 bytes.
const MAX_HEADER: u32 = 1 << 16;

/// Storage type of ids, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdType {
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Signed, 64 bits.
    I64,
}

impl IdType {
    /// The type with NumPy's name `descr`.
    fn from_descr(descr: &str) -> Option<Self> {
        Some(match descr {
            "<u2" => Self::U16,
            "<u4" => Self::U32,
            "<i4" => Self::I32,
            "<i8" => Self::I64,
            _ => return None,
        })
    }

    /// Bytes of an id.
    fn size(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// Decodes an id from as many bytes as [`Self::size`] says.
    fn decode(self, bytes: &[u8]) -> i64 {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        match self {
            Self::U16 | Self::U32 | Self::I64 => i64::from_le_bytes(wide),
            // The sign is that of the lower half.
            Self::I32 => i64::from(i64::from_le_bytes(wide) as i32),
        }
    }
}

/// A file of subword ids, which is read on demand.
pub struct TokenFile {
    file: Box<dyn CheckpointFile>,
    ids: IdType,
    /// Offset of the first id in bytes.
    start: u64,
    len: u64,
}

impl TokenFile {
    /// Maps the `.npy` file at `path`, which must not be modified while it is open.
    ///
    /// # Errors
    /// Those of [`TokenFile::from_npy`], and a file that cannot be mapped.
    pub fn open(path: &Path) -> Result<Self> {
        Self::from_npy(Box::new(MappedFile::open(path)?))
    }

    /// Maps a file of raw ids at `path`. OLMo's data files are raw although their names end in `.npy`.
    ///
    /// # Errors
    /// Those of [`TokenFile::from_raw`], and a file that cannot be mapped.
    pub fn open_raw(path: &Path, ids: IdType) -> Result<Self> {
        Self::from_raw(Box::new(MappedFile::open(path)?), ids)
    }

    /// Reads the header of a `.npy` file.
    ///
    /// # Errors
    /// A file that is damaged or truncated, or is not a one-dimensional array of an [`IdType`].
    pub fn from_npy(file: Box<dyn CheckpointFile>) -> Result<Self> {
        let (ids, start, len) = read_header(&*file).map_err(|error| error.context(file.name()))?;
        Ok(Self { file, ids, start, len })
    }

    /// Takes a file of raw ids.
    ///
    /// # Errors
    /// A length that is not a multiple of the id size, and a file with a NumPy header.
    pub fn from_raw(file: Box<dyn CheckpointFile>, ids: IdType) -> Result<Self> {
        let (name, size, bytes) = (file.name(), ids.size(), file.len());
        if !bytes.is_multiple_of(size as u64) {
            return Err(damaged(format!("{name}: expected ids of {size} bytes each, found {bytes} bytes in all")));
        }
        let mut head = [0; MAGIC.len()];
        if bytes >= head.len() as u64 && file.read_at(0, &mut head).is_ok() && head == MAGIC {
            return Err(Error::invalid(format!(
                "{name}: expected bare ids, found NumPy's header; read it as a .npy file"
            )));
        }
        Ok(Self { len: bytes / size as u64, file, ids, start: 0 })
    }

    /// Name of the file.
    pub fn name(&self) -> &str {
        self.file.name()
    }

    /// Number of ids.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no ids.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the ids of `range` to `out`.
    ///
    /// # Errors
    /// A range past the end of the file, and numbers that cannot be ids.
    pub fn read(&self, range: Range<u64>, out: &mut Vec<u32>) -> Result<()> {
        let name = self.name();
        if range.start > range.end || range.end > self.len {
            let Range { start, end } = range;
            return Err(Error::invalid(format!(
                "{name}: ids {start} to {end} do not exist; the file has {}",
                self.len
            )));
        }
        let size = self.ids.size();
        let count = usize::try_from(range.end - range.start)
            .ok()
            .filter(|count| count.checked_mul(size).is_some())
            .ok_or_else(|| {
                Error::invalid(format!("{name}: a range of ids does not fit into memory; read fewer at a time"))
            })?;
        let mut bytes = vec![0; count * size];
        self.file.read_at(self.start + range.start * size as u64, &mut bytes)?;
        out.reserve(count);
        for (bytes, position) in bytes.chunks_exact(size).zip(range.start..) {
            let id = self.ids.decode(bytes);
            out.push(u32::try_from(id).map_err(|_| {
                Error::invalid(format!("{name}: expected a subword id at position {position}, found {id}"))
            })?);
        }
        Ok(())
    }
}

/// Type, offset and number of the ids of a `.npy` file.
fn read_header(file: &dyn CheckpointFile) -> Result<(IdType, u64, u64)> {
    let read = |offset: u64, length: usize| {
        let mut bytes = vec![0; length];
        if file.len() < offset + length as u64 {
            return Err(damaged(format!(
                "expected NumPy's header, found only {} bytes; save the ids again",
                file.len()
            )));
        }
        file.read_at(offset, &mut bytes).map(|()| bytes)
    };
    let fixed = read(0, 10)?;
    if !fixed.starts_with(MAGIC) {
        return Err(Error::unsupported(
            "expected NumPy's header, found none; for a file of raw ids, say of which type they are",
        ));
    }
    let (length, text_at) = match fixed[6] {
        1 => (u32::from(u16::from_le_bytes([fixed[8], fixed[9]])), 10),
        2 | 3 => {
            let wide = read(8, 4)?;
            (u32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]), 12)
        }
        version => {
            return Err(Error::unsupported(format!("expected version 1, 2 or 3 of NumPy's format, found {version}")));
        }
    };
    if length > MAX_HEADER {
        return Err(damaged(format!("expected a header of at most {MAX_HEADER} bytes, found {length}")));
    }
    let text = read(text_at, length as usize)?;
    let text = std::str::from_utf8(&text).map_err(|_| damaged("NumPy's header is not text"))?;
    let header = Header::parse(text).ok_or_else(|| {
        damaged(format!("expected `descr`, `fortran_order` and `shape` in NumPy's header, found {:?}", text.trim_end()))
    })?;
    let ids = IdType::from_descr(header.descr).ok_or_else(|| {
        Error::unsupported(format!(
            "expected ids of the type <u2, <u4, <i4 or <i8, found {}; convert them with astype and save them again",
            header.descr
        ))
    })?;
    let [len] = header.shape[..] else {
        return Err(Error::unsupported(format!(
            "expected ids in one dimension, found {}; reshape them to (-1) and save them again",
            header.shape.len()
        )));
    };
    let start = text_at + u64::from(length);
    let found = file.len() - start;
    if len.checked_mul(ids.size() as u64) != Some(found) {
        return Err(damaged(format!(
            "expected {len} ids of {} bytes each, found {found} bytes; the file was cut off or damaged",
            ids.size()
        )));
    }
    Ok((ids, start, len))
}

/// Header of a `.npy` file, which is a Python dictionary. The order of dimensions does not matter for one dimension.
struct Header<'a> {
    descr: &'a str,
    shape: Vec<u64>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (mut descr, mut order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let key;
            (key, rest) = quoted(rest)?;
            rest = rest.trim_start().strip_prefix(':')?.trim_start();
            let first = match key {
                "descr" => {
                    let value;
                    (value, rest) = match quoted(rest) {
                        Some(value) => value,
                        // A list describes a structured type, which the caller reports.
                        None => rest.strip_prefix('[')?.split_once(']').map(|(_, after)| ("a structure", after))?,
                    };
                    descr.replace(value).is_none()
                }
                "fortran_order" => {
                    rest = rest.strip_prefix("True").or_else(|| rest.strip_prefix("False"))?;
                    order.replace(()).is_none()
                }
                "shape" => {
                    let (list, after) = rest.strip_prefix('(')?.split_once(')')?;
                    rest = after;
                    let sizes = list.split_terminator(',').map(|size| size.trim().parse().ok());
                    shape.replace(sizes.collect::<Option<Vec<u64>>>()?).is_none()
                }
                _ => false,
            };
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
            if !first {
                return None;
            }
        }
        order?;
        Some(Self { descr: descr?, shape: shape? })
    }
}

/// The text between the quotes at the start of `text`, and the rest.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|&c| c == '\'' || c == '"')?;
    text[1..].split_once(quote)
}

fn damaged(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadCheckpoint, message)
}

#[cfg(test)]
mod tests;
