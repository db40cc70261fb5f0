//! Checkpoints that JavaScript reads: over the network, from a cache, or from files that a user picked.

use std::sync::{Arc, Mutex};

use bolmo_runtime::Checkpoint;
use bolmo_runtime::files::{CheckpointFile, Fetching, Index, START_BYTES};
use bolmo_runtime::{Error, Result, Vocabulary};
use js_sys::Uint8Array;
use send_wrapper::SendWrapper;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

use crate::error::from_js;

/// File name of unsharded weights.
const SINGLE: &str = "model.safetensors";
/// File name of the index, which maps tensors to files.
const INDEX: &str = "model.safetensors.index.json";
/// Larger JSON files are rejected; the largest ones, those of tokenizers, have some 20 MB.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// Larger headers are not read here; the runtime then reports what is wrong with them.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Number of fetched ranges to hold, as [`CheckpointFile::fetch`] requires.
const RANGES: usize = 2;

#[wasm_bindgen]
extern "C" {
    /// A folder in JavaScript, see `../src/folder.ts`.
    pub type Folder;

    /// The file of that name, or `undefined`.
    #[wasm_bindgen(method, catch)]
    async fn open(this: &Folder, name: &str) -> Result<JsValue, JsValue>;

    /// The folder's location, for messages.
    #[wasm_bindgen(method, getter)]
    pub fn origin(this: &Folder) -> String;

    /// A file in JavaScript.
    type Source;

    /// Length in bytes.
    #[wasm_bindgen(method, getter)]
    fn size(this: &Source) -> f64;

    /// Reads exactly `length` bytes at `offset`.
    #[wasm_bindgen(method, catch)]
    async fn read(this: &Source, offset: f64, length: f64) -> Result<JsValue, JsValue>;
}

/// An open checkpoint and its vocabulary.
pub struct Opened {
    pub checkpoint: Checkpoint,
    pub vocabulary: Option<Vocabulary>,
}

/// The text of a folder's `config.json`.
pub async fn config(folder: &Folder) -> Result<Vec<u8>> {
    let origin = folder.origin();
    let missing = || {
        let message = format!("{origin}: not a checkpoint folder, because it has no config.json");
        Error::new(bolmo_runtime::ErrorKind::NotFound, message)
    };
    text(folder, "config.json").await?.ok_or_else(missing)
}

/// Opens the checkpoint in `folder`, and its vocabulary if it has a suffix table.
pub async fn open(folder: &Folder) -> Result<Opened> {
    let origin = folder.origin();
    let config = config(folder).await?;
    let ranges = Arc::default();
    let checkpoint = match file(folder, SINGLE, &ranges).await? {
        Some(single) => Checkpoint::from_parts(&origin, &config, vec![Box::new(single)])?,
        None => {
            let Some(index) = text(folder, INDEX).await? else {
                let message = format!("{origin}: the weights are missing; expected {SINGLE} or {INDEX}");
                return Err(Error::new(bolmo_runtime::ErrorKind::NotFound, message));
            };
            let name = format!("{origin}/{INDEX}");
            let index = Index::parse(&index, &name)?;
            let mut files: Vec<Box<dyn CheckpointFile>> = Vec::new();
            for shard in index.shards() {
                let missing = || {
                    let message = format!("{name}: the index names {shard}, which does not exist");
                    Error::new(bolmo_runtime::ErrorKind::NotFound, message)
                };
                files.push(Box::new(file(folder, shard, &ranges).await?.ok_or_else(missing)?));
            }
            Checkpoint::from_shards(&origin, &config, &index, files)?
        }
    };
    let vocabulary = match checkpoint.config().add_expanded_embeddings {
        true => Some(vocabulary(folder, &checkpoint).await?),
        false => None,
    };
    Ok(Opened { checkpoint, vocabulary })
}

async fn vocabulary(folder: &Folder, checkpoint: &Checkpoint) -> Result<Vocabulary> {
    let origin = folder.origin();
    let Some(tokenizer) = text(folder, "tokenizer.json").await? else {
        let source = checkpoint.config().original_identifier.as_deref().unwrap_or("the source model");
        let message =
            format!("{origin}: the suffix table needs a tokenizer.json; copy that of {source} into the folder");
        return Err(Error::new(bolmo_runtime::ErrorKind::NotFound, message));
    };
    let config = text(folder, "tokenizer_config.json").await?;
    Vocabulary::from_json(&tokenizer, config.as_deref(), &format!("{origin}/tokenizer.json"))
}

async fn source(folder: &Folder, name: &str) -> Result<Option<Source>> {
    let found = folder.open(name).await.map_err(|thrown| from_js(&thrown))?;
    Ok((!found.is_undefined() && !found.is_null()).then(|| found.unchecked_into()))
}

/// The contents of a small file.
async fn text(folder: &Folder, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(source) = source(folder, name).await? else { return Ok(None) };
    let name = format!("{}/{name}", folder.origin());
    let size = source.size() as u64;
    if size > MAX_JSON_BYTES {
        let message = format!("{name}: the file is longer than {MAX_JSON_BYTES} bytes, the maximum");
        return Err(Error::new(bolmo_runtime::ErrorKind::BadCheckpoint, message));
    }
    read(&source, &name, 0, size as usize).await.map(Some)
}

async fn read(source: &Source, name: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
    let read = source.read(offset as f64, length as f64).await.map_err(|thrown| from_js(&thrown))?;
    let bytes: Uint8Array = read.dyn_into().map_err(|_| {
        Error::new(bolmo_runtime::ErrorKind::Io, format!("{name}: expected a Uint8Array from the reader"))
    })?;
    if bytes.length() as usize != length {
        let found = bytes.length();
        let message = format!("{name}: expected {length} bytes at {offset}, the reader returned {found}");
        return Err(Error::new(bolmo_runtime::ErrorKind::Io, message));
    }
    Ok(bytes.to_vec())
}

/// Opens a weight file and reads its header.
async fn file(folder: &Folder, name: &str, ranges: &Arc<Mutex<Ranges>>) -> Result<Option<WebFile>> {
    let Some(source) = source(folder, name).await? else { return Ok(None) };
    let name = format!("{}/{name}", folder.origin());
    let size = source.size() as u64;
    let mut head = read(&source, &name, 0, size.min(8) as usize).await?;
    if let Ok(length) = head.as_slice().try_into().map(u64::from_le_bytes)
        && length <= MAX_HEADER_BYTES.min(size - 8)
    {
        head.extend(read(&source, &name, 8, length as usize).await?);
    } else if size > 8 {
        // The beginning tells what the file is instead.
        head = read(&source, &name, 0, size.min(START_BYTES as u64) as usize).await?;
    }
    Ok(Some(WebFile { name, size, head, source: SendWrapper::new(source), ranges: ranges.clone() }))
}

/// Ranges of all files of a checkpoint that were fetched and are about to be read.
#[derive(Default)]
struct Ranges {
    /// File name, first byte, contents.
    held: Vec<(String, u64, Vec<u8>)>,
}

struct WebFile {
    name: String,
    size: u64,
    /// The length of the header, and the header, which are always held.
    head: Vec<u8>,
    /// There is only one thread.
    source: SendWrapper<Source>,
    ranges: Arc<Mutex<Ranges>>,
}

impl CheckpointFile for WebFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let copy = |bytes: &[u8], first: u64, out: &mut [u8]| {
            let start = usize::try_from(offset.checked_sub(first)?).ok()?;
            out.copy_from_slice(bytes.get(start..start.checked_add(out.len())?)?);
            Some(())
        };
        let ranges = self.ranges.lock().unwrap_or_else(|e| e.into_inner());
        let mut held = ranges.held.iter().rev().filter(|(name, ..)| *name == self.name);
        copy(&self.head, 0, out).or_else(|| held.find_map(|(_, first, bytes)| copy(bytes, *first, out))).ok_or_else(
            || {
                let length = out.len();
                let message = format!("{}: {length} bytes at {offset} were read before they were fetched", self.name);
                Error::new(bolmo_runtime::ErrorKind::Internal, message)
            },
        )
    }

    fn fetch(&self, offset: u64, length: usize) -> Option<Fetching<'_>> {
        Some(Box::pin(SendWrapper::new(async move {
            let bytes = read(&self.source, &self.name, offset, length).await?;
            let mut ranges = self.ranges.lock().unwrap_or_else(|e| e.into_inner());
            if ranges.held.len() >= RANGES {
                ranges.held.remove(0);
            }
            ranges.held.push((self.name.clone(), offset, bytes));
            Ok(())
        })))
    }
}
