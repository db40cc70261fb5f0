//! Errors of a corpus.

use std::path::PathBuf;
use std::{fmt, io};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of making, writing or reading a corpus.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The share of puzzles is not between 0 and 1.
    Share(f64),
    /// A file or folder could not be written or read.
    File {
        /// What failed, as in "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The manifest is not one of [`write_files`](crate::write_files).
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The folder has files in it that are not a corpus.
    Occupied(PathBuf),
    /// A file does not match its manifest.
    Changed {
        /// The file.
        path: PathBuf,
        /// Hash in the manifest.
        expected: String,
        /// Hash of the file.
        found: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Share(share) => {
                write!(f, "the share of puzzles must be from 0 (stories only) to 1 (puzzles only), found {share}")
            }
            Error::File { action, path, source } => write!(
                f,
                "cannot {action} {}: {source}; check that the folder exists, is writable and has space left",
                path.display()
            ),
            Error::Manifest { path, source } => {
                write!(f, "{} is not the manifest of a corpus: {source}; write the corpus again", path.display())
            }
            Error::Occupied(folder) => {
                write!(f, "{}: the folder has files in it; name a new or empty folder", folder.display())
            }
            Error::Changed { path, expected, found } => write!(
                f,
                "{} has the hash {found}, but its manifest expects {expected}; write the corpus again",
                path.display()
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::File { source, .. } => Some(source),
            Error::Manifest { source, .. } => Some(source),
            Error::Share(_) | Error::Occupied(_) | Error::Changed { .. } => None,
        }
    }
}
