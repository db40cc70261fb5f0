//! Sources of a checkpoint's bytes: a mapped file, memory, or a caller's own reader.

use std::borrow::Cow;
use std::pin::Pin;

use crate::error::{Error, Result};
#[cfg(not(target_family = "wasm"))]
use crate::input::file::open_file;

/// The future that [`CheckpointFile::fetch`] returns.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// A file of a checkpoint, read at any offset from any thread.
///
/// Implement it to read from an archive, a network or a browser's storage. If reading would block, implement
/// [`Self::fetch`] too: loaders await it before they read.
pub trait CheckpointFile: Send + Sync {
    /// Name of the file, for messages.
    fn name(&self) -> &str;

    /// Length of the file in bytes. It must not change.
    fn len(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `BadCheckpoint` if the file ends before the end of `out`; `Io` if reading fails.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    /// Fetches `length` bytes from `offset` on for the reads that follow; `None` if no fetching is necessary.
    ///
    /// Up to two ranges of a file are fetched before they are read: weights and their scales. Apart from headers, only
    /// fetched ranges are read.
    fn fetch(&self, offset: u64, length: usize) -> Option<Fetching<'_>> {
        let _ = (offset, length);
        None
    }

    /// The whole contents if they are in memory, which saves readers a copy.
    fn bytes(&self) -> Option<&[u8]> {
        None
    }

    /// Whether the file still has the contents that it was opened with, as far as that can be told.
    ///
    /// A model whose weights are used where they lie calls this before each piece of work.
    ///
    /// # Errors
    /// `BadCheckpoint` if it was changed.
    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file in memory.
pub struct MemoryFile {
    name: String,
    bytes: Cow<'static, [u8]>,
}

impl MemoryFile {
    /// Creates a file with this name and these contents: a `Vec<u8>`, or static bytes of the program.
    pub fn new(name: impl Into<String>, bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        MemoryFile { name: name.into(), bytes: bytes.into() }
    }
}

impl CheckpointFile for MemoryFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        copy_at(&self.name, &self.bytes, offset, out)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(&self.bytes)
    }
}

/// A memory-mapped file: the operating system loads only the parts that are read, and processes share them. On file
/// systems without memory maps it is read instead.
#[cfg(not(target_family = "wasm"))]
pub struct MappedFile {
    name: String,
    file: std::fs::File,
    len: u64,
    /// When it was last written, on file systems that keep this.
    modified: Option<std::time::SystemTime>,
    /// `None` for an empty file, which some systems cannot map, and where files cannot be mapped.
    map: Option<memmap2::Mmap>,
}

#[cfg(not(target_family = "wasm"))]
impl MappedFile {
    /// Maps the file at `path`. It must not be truncated or rewritten while it is open: on most systems, reading a
    /// part that is gone ends the program. It may be deleted or replaced by another file.
    ///
    /// # Errors
    /// `NotFound` if it does not exist, `Io` if it is not a regular file or cannot be read.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let file = open_file(path)?
            .ok_or_else(|| Error::not_found(format!("{name}: does not exist; check the path and its permissions")))?;
        let metadata = file.metadata().map_err(|e| Error::io(format!("{name}: cannot be read: {e}")))?;
        let (len, modified) = (metadata.len(), metadata.modified().ok());
        let map = match len {
            0 => None,
            // SAFETY: the map is private to this object and only read. This crate never writes the file, and validates
            // every value that it reads. The caller guarantees that no other program truncates the file meanwhile.
            _ => unsafe { memmap2::Mmap::map(&file) }
                .inspect_err(|error| log::info!("{name}: is read without a memory map: {error}"))
                .ok(),
        };
        Ok(MappedFile { name, file, len, modified, map })
    }

    #[cfg(unix)]
    fn read_part(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    #[cfg(windows)]
    fn read_part(&self, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
        while !out.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, out, offset)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => (out, offset) = (&mut out[count..], offset + count as u64),
            }
        }
        Ok(())
    }
}

#[cfg(not(target_family = "wasm"))]
impl CheckpointFile for MappedFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        if let Some(map) = &self.map {
            return copy_at(&self.name, map, offset, out);
        }
        self.read_part(offset, out).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => past_end(&self.name, offset, out.len(), self.len),
            _ => Error::io(format!("{}: cannot be read: {error}", self.name)),
        })
    }

    fn bytes(&self) -> Option<&[u8]> {
        self.map.as_deref()
    }

    fn check_unchanged(&self) -> Result<()> {
        let found = self.file.metadata().map_err(|e| Error::io(format!("{}: cannot be read: {e}", self.name)))?;
        if found.len() == self.len && found.modified().ok() == self.modified {
            return Ok(());
        }
        let what = match found.len() == self.len {
            true => "was written to".to_owned(),
            false => format!("had {} bytes and has {} now", self.len, found.len()),
        };
        Err(Error::bad_checkpoint(format!(
            "{}: was changed after it was opened: it {what}; load the model again, and replace files instead of \
             writing into them",
            self.name
        )))
    }
}

/// Returns `length` bytes of `bytes` from `offset` on, or an error that tells where the file `name` ends.
pub(super) fn slice_at<'a>(name: &str, bytes: &'a [u8], offset: u64, length: usize) -> Result<&'a [u8]> {
    usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(length)?))
        .ok_or_else(|| past_end(name, offset, length, bytes.len() as u64))
}

fn copy_at(name: &str, bytes: &[u8], offset: u64, out: &mut [u8]) -> Result<()> {
    out.copy_from_slice(slice_at(name, bytes, offset, out.len())?);
    Ok(())
}

fn past_end(name: &str, offset: u64, length: usize, end: u64) -> Error {
    Error::bad_checkpoint(format!("{name}: cannot read {length} bytes at {offset}: the file ends at {end}"))
}
