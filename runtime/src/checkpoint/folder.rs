//! Opening a checkpoint folder: finding the files that belong to it.

use std::fs;
use std::io::{ErrorKind as IoKind, Read};
use std::path::Path;

use crate::checkpoint::{CheckpointFile, Index, MappedFile};
use crate::error::{Error, ErrorKind, Result};

/// File name of weights in one file.
const SINGLE: &str = "model.safetensors";
/// File name of the index of sharded weights.
const INDEX: &str = "model.safetensors.index.json";
/// Maximum length of a `config.json` or an index. Real ones have kilobytes.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// The files of a folder. The weight files are open but not read.
pub(super) struct Folder {
    /// Path of the folder, for messages.
    pub origin: String,
    /// The text of `config.json`.
    pub config: Vec<u8>,
    /// The index of sharded weights; `None` for weights in one file.
    pub index: Option<Index>,
    /// The weight files, in the order of [`Index::shards`].
    pub files: Vec<Box<dyn CheckpointFile>>,
}

/// Finds and opens the files of the folder `dir`.
pub(super) fn open(dir: &Path) -> Result<Folder> {
    let origin = dir.display().to_string();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(Error::invalid(format!(
                "{origin}: is a file; name the folder that holds config.json and the weights"
            )));
        }
        Err(e) if e.kind() == IoKind::NotFound => {
            return Err(Error::not_found(format!("{origin}: there is no such folder; check the path")));
        }
        Err(e) => return Err(Error::io(format!("{origin}: cannot be read: {e}"))),
    }
    if dir.join(bolmo_files::MARKER).exists() {
        return Err(Error::bad_checkpoint(format!(
            "{origin}: is incomplete: the run that wrote it was interrupted or is not done; run it again, or name \
             another folder"
        )));
    }
    let config = read_json_file(&dir.join("config.json"))?
        .ok_or_else(|| Error::not_found(format!("{origin}: has no config.json; name a checkpoint folder")))?;
    let single = dir.join(SINGLE);
    let has_single =
        single.try_exists().map_err(|e| Error::io(format!("{}: cannot be read: {e}", single.display())))?;

    let Some(index) = read_json_file(&dir.join(INDEX))? else {
        if !has_single {
            return Err(Error::not_found(format!(
                "{origin}: has neither {SINGLE} nor {INDEX}; name a folder with weights in the safetensors format"
            )));
        }
        let files: Vec<Box<dyn CheckpointFile>> = vec![Box::new(MappedFile::open(&single)?)];
        return Ok(Folder { origin, config, index: None, files });
    };
    let index = Index::parse(&index, &dir.join(INDEX).display().to_string())?;
    if has_single && !index.shards().iter().any(|shard| shard == SINGLE) {
        return Err(Error::bad_checkpoint(format!(
            "{origin}: has both {SINGLE} and an {INDEX} that names other files; remove the one that is out of date"
        )));
    }
    let mut files: Vec<Box<dyn CheckpointFile>> = Vec::with_capacity(index.shards().len());
    for shard in index.shards() {
        let path = dir.join(shard);
        let file = MappedFile::open(&path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Error::not_found(format!("{}: named by {INDEX}, but missing; fetch it", path.display()))
            }
            _ => e.context(format_args!("file of {}", index.name())),
        })?;
        files.push(Box::new(file));
    }
    Ok(Folder { origin, config, index: Some(index), files })
}

/// Reads a small file; `None` if it does not exist.
fn read_json_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let name = path.display();
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("{name}: cannot be opened: {e}; check the path and its permissions"))),
    };
    let mut text = Vec::new();
    // The limit applies while reading: the length in the metadata may be wrong, as for a pipe.
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::io(format!("{name}: cannot be read: {e}")))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::bad_checkpoint(format!(
            "{name}: is longer than {MAX_JSON_BYTES} bytes, so it is not a file of a checkpoint; name a \
             checkpoint folder"
        )));
    }
    Ok(Some(text))
}
