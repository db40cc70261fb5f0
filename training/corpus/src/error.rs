//! What can go wrong: a share that is none, files that cannot be written or read, files that are not what was written.

use std::path::PathBuf;
use std::{fmt, io};

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a corpus could not be made, written or read.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The share of the puzzles is no number from zero to one.
    Share(f64),
    /// A file or folder could not be written or read.
    File {
        /// What was tried, as in "write".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The manifest is not one that [`write_files`](crate::write_files) makes.
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file is not the one that the manifest describes.
    Changed {
        /// The file.
        path: PathBuf,
        /// Its hash according to the manifest.
        expected: String,
        /// Its hash now.
        found: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Share(share) => {
                write!(f, "the share of puzzles is {share}; give a number from 0 (stories only) to 1 (puzzles only)")
            }
            Error::File { action, path, source } => write!(
                f,
                "cannot {action} {}: {source}; check that the folder exists, is yours and has space left",
                path.display()
            ),
            Error::Manifest { path, source } => {
                write!(f, "{} is no manifest of a corpus: {source}; write the corpus again", path.display())
            }
            Error::Changed { path, expected, found } => write!(
                f,
                "{} has the hash {found}, its manifest says {expected}; write the corpus again",
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
            Error::Share(_) | Error::Changed { .. } => None,
        }
    }
}
