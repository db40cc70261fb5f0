//! Errors of this crate.

use std::io;
use std::path::{Path, PathBuf};

/// Number of names in a message.
const NAMES_SHOWN: usize = 5;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. Its message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system reported an error.
    #[error("{}: {failed}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What failed, as in "cannot be read".
        failed: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file was expected.
    #[error("{}: is a folder; give the name of a file", .0.display())]
    IsFolder(PathBuf),
    /// The folder of a file does not exist.
    #[error("{}: the folder does not exist; create it first", .0.display())]
    NoFolder(PathBuf),
    /// A folder was expected.
    #[error("{}: is a file; name a new folder or an empty one", .0.display())]
    IsFile(PathBuf),
    /// The path of a new folder has no name, as `/` or `missing/..`.
    #[error("{}: is not a name for a new folder; name another one", .0.display())]
    NoName(PathBuf),
    /// The folder has files that may not be replaced.
    #[error("{}: is a folder with files in it ({}){why}; {remedy}", path.display(), listed(names))]
    Occupied {
        /// The folder.
        path: PathBuf,
        /// Names of the files.
        names: Vec<String>,
        /// Why they may not be replaced: nothing, or a clause that begins with a comma.
        why: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// Another run writes the folder.
    #[error(
        "{}: another run is writing this folder; wait for it, or delete {} if there is none", path.display(),
        temporary.display()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// Temporary folder of the other run.
        temporary: PathBuf,
    },
    /// The file system has too little free space.
    #[error(
        "{}: {needed} bytes are needed, but the file system has {free} bytes free; free some space, or name a place \
         on another disk", path.display()
    )]
    NoSpace {
        /// The file or folder to write.
        path: PathBuf,
        /// Size of what is to be written.
        needed: u64,
        /// Free space of the file system.
        free: u64,
    },
    /// The folder is complete, but could not be moved to its target.
    #[error(
        "{reason}; the finished folder was kept as {}: move it to where you want it, or delete it{}", kept.display(),
        earlier.as_ref().map(|path| format!("; the earlier folder is {}", path.display())).unwrap_or_default()
    )]
    Kept {
        /// Path of the complete folder.
        kept: PathBuf,
        /// Path of the folder that it was to replace, if that has lost its place.
        earlier: Option<PathBuf>,
        /// Why it could not be moved.
        reason: Box<Error>,
    },
}

impl Error {
    /// The same of a path as the user knows it.
    pub(crate) fn of(self, path: &Path) -> Self {
        match self {
            Error::NoSpace { needed, free, .. } => Error::NoSpace { path: path.to_owned(), needed, free },
            other => other,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, failed: &'static str, source: io::Error) -> Self {
        Error::Io { path: path.into(), failed, source }
    }
}

/// Names for a message; a long list is cut.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_SHOWN { format!("{shown} and {} more", names.len() - NAMES_SHOWN) } else { shown }
}
