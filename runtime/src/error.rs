//! The error type of the runtime: a stable kind, a sentence, and sometimes a hint.

use std::fmt;

use bolmo_shaders::WeightFormat;

/// The class of an error, coarse enough for callers to act on.
///
/// Each kind is one status code of the C ABI. New kinds may be added; an existing one never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument is out of range or contradicts another one.
    InvalidArgument,
    /// A file, an adapter or a named item does not exist.
    NotFound,
    /// A checkpoint, a vocabulary or a snapshot is damaged or contradicts itself.
    BadCheckpoint,
    /// The input is well formed, but this build, model or adapter cannot handle it.
    Unsupported,
    /// The device or the host has too little memory.
    OutOfMemory,
    /// The device was lost; open a new engine and load the model again.
    DeviceLost,
    /// The caller cancelled the operation, from this thread or another one.
    Cancelled,
    /// The object is in use elsewhere.
    Busy,
    /// Reading or writing failed.
    Io,
    /// A defect in this library; please report it.
    Internal,
    /// The engine is suspended; resume it, then repeat the call.
    Suspended,
}

impl ErrorKind {
    /// All kinds, in the order of the C ABI's codes.
    pub const ALL: [ErrorKind; 11] = [
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
        ErrorKind::Suspended,
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
            ErrorKind::Suspended => "suspended",
        })
    }
}

/// A remedy that a front end can put in its own words, such as the name of its option.
///
/// The sentence of an [`Error`] is complete without its hint: it says what to do in neutral words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// Load the weights in a smaller format.
    SmallerFormat {
        /// The largest format that fits, if it is known.
        format: Option<WeightFormat>,
    },
    /// Quantize the checkpoint that this one was made from; the formats of a quantized checkpoint are fixed.
    QuantizeOriginal {
        /// The format to quantize to, if only some would do.
        format: Option<WeightFormat>,
    },
    /// Provide the `tokenizer.json` of the source model.
    VocabularyMissing {
        /// The name under which the source model was published (`tokenizer_config.original_identifier` of the
        /// checkpoint's `config.json`), if the checkpoint tells.
        source: Option<String>,
    },
    /// Open the device again, then load the model again.
    ReopenDevice,
}

/// An error: a stable [`ErrorKind`], one sentence, and possibly a [`Hint`].
///
/// The sentence names the thing, what was expected and what was found, and then says what to do.
#[derive(Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<Hint>,
}

/// The kind and the sentence, so that a `main` which returns this error prints a readable line.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.kind)
    }
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Creates an error without a hint.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence, without the kind and the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The remedy for front ends to put in their own words, if there is one.
    pub fn hint(&self) -> Option<&Hint> {
        self.hint.as_ref()
    }

    /// Adds a hint, in place of an earlier one.
    pub fn with_hint(self, hint: Hint) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// Prefixes the sentence with `what: `, to name the file or part that the error comes from.
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    /// Creates an [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Creates an [`ErrorKind::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Creates an [`ErrorKind::BadCheckpoint`].
    pub fn bad_checkpoint(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadCheckpoint, message)
    }

    /// Creates an [`ErrorKind::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// Creates an [`ErrorKind::Io`].
    pub fn io(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Io, message)
    }

    /// Creates an [`ErrorKind::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_prefixes_the_sentence_and_keeps_kind_and_hint() {
        let hint = Hint::SmallerFormat { format: Some(WeightFormat::Q8) };
        let error = Error::new(ErrorKind::OutOfMemory, "too large").with_hint(hint.clone()).context("model");
        assert_eq!(
            (error.kind(), error.message(), error.hint()),
            (ErrorKind::OutOfMemory, "model: too large", Some(&hint))
        );
        assert_eq!(error.to_string(), "model: too large");
    }
}
