//! Special tokens of tokenizers that are trained here.

/// The end of text, which separates documents.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// Padding at the end of a row.
pub(super) const PAD: &str = "<|pad|>";
