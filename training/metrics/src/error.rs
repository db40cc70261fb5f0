//! Errors of metrics files and charts.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// An error of this crate. Its message names the file and says what to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What failed, as in "cannot be read".
        failed: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A new metrics file would overwrite an older one.
    Exists {
        /// The older file.
        path: PathBuf,
    },
    /// A line is not a record. An incomplete last line is allowed.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A value to append is not a record.
    NotARecord {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A row of a table has more or fewer values than the table has names.
    Row {
        /// The row, from 1.
        row: usize,
        /// Number of its values.
        found: usize,
        /// Number of the table's names.
        expected: usize,
    },
    /// The drawing library failed.
    Drawing {
        /// Error of the drawing library.
        reason: String,
    },
}

/// Result of this crate.
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
                write!(f, "{} already exists; resume its run, or move the file away for a new one", path.display())
            }
            Error::Damaged { path, line, reason } => {
                write!(f, "{} is damaged in line {line}: {reason}; correct or remove that line", path.display())
            }
            Error::NotARecord { path, reason } => write!(
                f,
                "a value to append to {} is not a record: {reason}; pass an object with a whole number \"step\", a \
                 string \
                 \"kind\" and otherwise numbers",
                path.display()
            ),
            Error::Row { row, found, expected } => write!(
                f,
                "row {row} of the table must have {expected} values, one for each name, found {found}; use NaN for a \
                 missing value"
            ),
            Error::Drawing { reason } => {
                write!(f, "the chart cannot be drawn: {reason}; please report this together with the metrics")
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
