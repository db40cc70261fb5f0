//! The one error type of the runtime: a stable kind and a sentence.

use std::fmt;

/// What went wrong, in the coarse classes that callers can act on.
///
/// The kinds map one to one to the status codes of the C ABI; new ones may be added, none changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of its range or contradicts another one.
    InvalidArgument,
    /// A file, an adapter or a named thing does not exist.
    NotFound,
    /// A checkpoint, a vocabulary or a snapshot is damaged or contradicts itself.
    BadCheckpoint,
    /// The input is well formed but this build, model or adapter cannot do it.
    Unsupported,
    /// The device or the host has not enough memory.
    OutOfMemory,
    /// The device was lost; the engine must be made again and the model loaded again.
    DeviceLost,
    /// The caller asked for it, from this thread or another one.
    Cancelled,
    /// The object is in use elsewhere.
    Busy,
    /// Reading or writing failed.
    Io,
    /// A defect in this library; please report it.
    Internal,
}

impl ErrorKind {
    /// All kinds, in the order of the C ABI's codes.
    pub const ALL: [ErrorKind; 10] = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::BadCheckpoint,
        ErrorKind::Unsupported,
        ErrorKind::OutOfMemory,
        ErrorKind::DeviceLost,
        ErrorKind::Cancelled,
        ErrorKind::Busy,
        ErrorKind::Io,
        ErrorKind::Internal,
    ];
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::InvalidArgument => "invalid argument",
            ErrorKind::NotFound => "not found",
            ErrorKind::BadCheckpoint => "bad checkpoint",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::OutOfMemory => "out of memory",
            ErrorKind::DeviceLost => "device lost",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Busy => "busy",
            ErrorKind::Io => "io",
            ErrorKind::Internal => "internal",
        })
    }
}

/// An error with a stable [`ErrorKind`] and one sentence that names the thing, what was expected and what was found.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence, without the kind.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with `what: ` in front of its sentence, to name the file or part it came from.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }

    /// An argument that cannot be meant.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Something that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A file of a checkpoint that is not what it should be.
    pub fn bad_checkpoint(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadCheckpoint, message)
    }

    /// Something that cannot be done here.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// What the operating system says about a file.
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Io, message)
    }

    /// A fault of our own.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}
