//! Opening a folder of weights: which files belong to it.

use std::fs;
use std::io::{ErrorKind as IoKind, Read};
use std::path::Path;

use crate::checkpoint::{CheckpointFile, Index, MappedFile};
use crate::error::{Error, Result};

/// The model in one file.
const SINGLE: &str = "model.safetensors";
/// Which shard has which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// A `config.json` or an index above this is refused; real ones have kilobytes.
const MAX_JSON_BYTES: u64 = 16 << 20;

/// A folder's files, each opened and none read.
pub(super) struct Folder {
    /// Its path, for messages.
    pub origin: String,
    /// The text of its `config.json`.
    pub config: Vec<u8>,
    /// Where there is one, else the weights are in one file.
    pub index: Option<Index>,
    /// In the order of [`Index::shards`].
    pub files: Vec<Box<dyn CheckpointFile>>,
}

/// Finds the files of the folder `dir`.
pub(super) fn open(dir: &Path) -> Result<Folder> {
    let origin = dir.display().to_string();
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(Error::invalid(format!(
                "{origin}: is a file; give the checkpoint folder that holds config.json and the weights"
            )));
        }
        Err(e) if e.kind() == IoKind::NotFound => {
            return Err(Error::not_found(format!("{origin}: there is no such folder")));
        }
        Err(e) => return Err(Error::io(format!("{origin}: cannot be examined: {e}"))),
    }
    let config = read_json_file(&dir.join("config.json"))?
        .ok_or_else(|| Error::not_found(format!("{origin}: has no config.json, so it is not a checkpoint folder")))?;
    let single = dir.join(SINGLE);
    let has_single =
        single.try_exists().map_err(|e| Error::io(format!("{}: cannot be examined: {e}", single.display())))?;

    let Some(index) = read_json_file(&dir.join(INDEX))? else {
        if !has_single {
            return Err(Error::not_found(format!("{origin}: has neither {SINGLE} nor {INDEX}")));
        }
        let files: Vec<Box<dyn CheckpointFile>> = vec![Box::new(MappedFile::open(&single)?)];
        return Ok(Folder { origin, config, index: None, files });
    };
    let index = Index::parse(&index, &dir.join(INDEX).display().to_string())?;
    if has_single && !index.shards().iter().any(|shard| shard == SINGLE) {
        return Err(Error::bad_checkpoint(format!(
            "{origin}: holds {SINGLE} and an {INDEX} that names other files; remove the one that is out of date"
        )));
    }
    let mut files: Vec<Box<dyn CheckpointFile>> = Vec::with_capacity(index.shards().len());
    for shard in index.shards() {
        let file = MappedFile::open(&dir.join(shard));
        files.push(Box::new(file.map_err(|e| e.context(format_args!("{} names it", index.name())))?));
    }
    Ok(Folder { origin, config, index: Some(index), files })
}

/// The contents of a small file, or `None` if it does not exist.
fn read_json_file(path: &Path) -> Result<Option<Vec<u8>>> {
    let name = path.display();
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == IoKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(format!("{name}: cannot be opened: {e}"))),
    };
    let mut text = Vec::new();
    // The limit holds while reading too: a length can be a lie, as that of a pipe.
    file.take(MAX_JSON_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::io(format!("{name}: cannot be read: {e}")))?;
    if text.len() as u64 > MAX_JSON_BYTES {
        return Err(Error::bad_checkpoint(format!("{name}: is longer than {MAX_JSON_BYTES} bytes")));
    }
    Ok(Some(text))
}
