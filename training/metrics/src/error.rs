//! What can go wrong with a file of metrics or a chart.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// A failure of this crate; its text is a sentence that names the file and says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted, as in "cannot be read".
        failed: &'static str,
        /// The system's own word on it.
        source: io::Error,
    },
    /// A new file of metrics would overwrite an older one.
    Exists {
        /// The older file.
        path: PathBuf,
    },
    /// A line that is not the torn last one holds no record.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that was to be appended is not a record.
    NotARecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A row of a table has more or fewer values than the table has names.
    Row {
        /// The row, counted from 1.
        row: usize,
        /// Its values.
        found: usize,
        /// The table's names.
        expected: usize,
    },
    /// The drawing library refused.
    Drawing {
        /// Its own word on it.
        reason: String,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path, failed: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), failed, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, failed, source } => write!(f, "{} {failed}: {source}", path.display()),
            Error::Exists { path } => {
                write!(f, "{} exists already; resume its run, or move the file away for a new one", path.display())
            }
            Error::Damaged { path, line, reason } => {
                write!(f, "{} is damaged in line {line}: {reason}; correct that line or remove it", path.display())
            }
            Error::NotARecord { path, reason } => write!(
                f,
                "what was to be appended to {} is not a record: {reason}; give an object with a whole number \"step\", \
                 a text \"kind\" and otherwise numbers",
                path.display()
            ),
            Error::Row { row, found, expected } => write!(
                f,
                "row {row} of the table has {found} values where {expected} are named; give one value for each name, and \
                 NaN for a missing one"
            ),
            Error::Drawing { reason } => {
                write!(f, "the chart could not be drawn: {reason}; please report this with the metrics it was for")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
