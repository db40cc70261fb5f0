//! Where the bytes of a checkpoint come from: a mapped file, memory, or a caller's own reader.

use std::borrow::Cow;
use std::pin::Pin;

use crate::error::{Error, Result};

/// What [`CheckpointFile::fetch`] returns.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One file of a checkpoint, read at any offset from any thread.
///
/// Implement it to read from an archive, a network or a browser's storage. A file that cannot be read without waiting implements
/// [`Self::fetch`] too: loaders await it before they read.
pub trait CheckpointFile: Send + Sync {
    /// The file's name, for messages.
    fn name(&self) -> &str;

    /// Length in bytes. It must not change.
    fn len(&self) -> u64;

    /// Fills `out` with the bytes from `offset` on; an error if the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;

    /// Gets the `length` bytes from `offset` on, for reads that follow at once; `None` if all bytes are at hand. Two ranges of a file may be
    /// fetched before they are read, weights and their scales; nothing but headers is read that was not fetched.
    fn fetch(&self, offset: u64, length: usize) -> Option<Fetching<'_>> {
        let _ = (offset, length);
        None
    }

    /// The whole contents, where they are addressable: readers then copy nothing twice.
    fn bytes(&self) -> Option<&[u8]> {
        None
    }

    /// Whether the file has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file that lies in memory.
pub struct MemoryFile {
    name: String,
    bytes: Cow<'static, [u8]>,
}

impl MemoryFile {
    /// A file called `name` with these contents: a `Vec<u8>`, or bytes that the program was linked with.
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

/// A file that the operating system maps into memory, so that only what is read is loaded.
#[cfg(not(target_family = "wasm"))]
pub struct MappedFile {
    name: String,
    /// `None` for an empty file, which some systems refuse to map.
    map: Option<memmap2::Mmap>,
}

#[cfg(not(target_family = "wasm"))]
impl MappedFile {
    /// Maps the file at `path`. The file must not be cut or rewritten while the checkpoint is open.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let name = path.display().to_string();
        let failed = |what: &str, error: std::io::Error| {
            let message = format!("{name}: {what}: {error}");
            match error.kind() {
                std::io::ErrorKind::NotFound => Error::not_found(message),
                _ => Error::io(message),
            }
        };
        let file = std::fs::File::open(path).map_err(|e| failed("cannot be opened", e))?;
        let metadata = file.metadata().map_err(|e| failed("cannot be examined", e))?;
        if !metadata.is_file() {
            return Err(Error::io(format!("{name}: must be a file, found a folder or a device")));
        }
        if metadata.len() == 0 {
            return Ok(MappedFile { name, map: None });
        }
        // SAFETY: the map is private to this object and only ever read. Nothing here writes the file, and every value
        // read from it is checked as outside data; that no other program cuts it meanwhile is asked of the caller.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| failed("cannot be mapped", e))?;
        Ok(MappedFile { name, map: Some(map) })
    }

    fn contents(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(not(target_family = "wasm"))]
impl CheckpointFile for MappedFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.contents().len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        copy_at(&self.name, self.contents(), offset, out)
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self.contents())
    }
}

/// The `length` bytes of `bytes` from `offset` on, or an error that says where the file `name` ends.
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
    Error::bad_checkpoint(format!("{name}: {length} bytes at {offset} were asked for, but the file ends at {end}"))
}
