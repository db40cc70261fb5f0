//! The list of the files that a run wrote into a folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::regular::open_regular;

/// Name of the file in a folder that lists what a run wrote, so that a later run replaces nothing else.
pub const MANIFEST: &str = "bolmo-files.json";
/// Name of the file that a folder has while a run writes into it. A folder with this file is incomplete.
pub const MARKER: &str = "bolmo-incomplete.json";
/// Maximum length of both files. Real ones have kilobytes.
const MAX_BYTES: u64 = 4 << 20;

/// Contents of [`MANIFEST`] and [`MARKER`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Kind of run.
    pub written_by: String,
    /// Names and sizes of the files.
    pub files: BTreeMap<String, u64>,
}

impl Manifest {
    /// Lists the files of a folder.
    pub fn of(folder: &Path, written_by: &str) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            files.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
        }
        Ok(Self { written_by: written_by.to_owned(), files })
    }

    /// Reads `folder/name`; `None` if there is no such file. Another file of this name is an error.
    pub fn read(folder: &Path, name: &str) -> io::Result<Option<Self>> {
        let path = folder.join(name);
        if path.is_symlink() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "it is a symbolic link"));
        }
        let file = match open_regular(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Writes the list to `folder/name`.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        crate::file::write(&folder.join(name), 0, |file| {
            serde_json::to_writer_pretty(&mut *file, self)?;
            writeln!(file)
        })
    }

    /// Whether the folder still has the file as it was written; a file that is gone counts.
    pub fn unchanged(&self, folder: &Path, name: &str) -> bool {
        match fs::symlink_metadata(folder.join(name)) {
            Ok(metadata) => metadata.is_file() && self.files.get(name) == Some(&metadata.len()),
            Err(e) => e.kind() == ErrorKind::NotFound,
        }
    }
}
