//! Opening a checkpoint folder: finding the files that belong to it.

use std::path::Path;

use crate::checkpoint::index::MAX_INDEX_BYTES;
use crate::checkpoint::{CheckpointFile, INDEX, Index, MappedFile, SINGLE, advice};
use crate::error::{Error, ErrorKind, Result};
use crate::input::file::read_file;
use crate::input::json::Limits;

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
    advice::check_folder(dir)?;
    let origin = dir.display().to_string();
    if dir.join(bolmo_files::MARKER).exists() {
        return Err(Error::bad_checkpoint(format!(
            "{origin}: is incomplete: the run that wrote it was interrupted or is not done; run it again, or name \
             another folder"
        )));
    }
    let config =
        read_file(dir.join("config.json"), Limits::CONFIG.bytes as u64)?.ok_or_else(|| advice::without_config(dir))?;
    let single = dir.join(SINGLE);
    let has_single =
        single.try_exists().map_err(|e| Error::io(format!("{}: cannot be read: {e}", single.display())))?;

    let Some(index) = read_file(dir.join(INDEX), MAX_INDEX_BYTES as u64)? else {
        if !has_single && single.read_link().is_err() {
            return Err(advice::without_weights(dir));
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
            ErrorKind::NotFound => advice::without_shard(dir, shard),
            _ => e.context(format_args!("file of {}", index.name())),
        })?;
        files.push(Box::new(file));
    }
    Ok(Folder { origin, config, index: Some(index), files })
}
