//! From text to batches: the host's part of training.
//!
//! Text becomes subword ids by the source model's [`SubwordTokenizer`], or ids lie ready in a [`TokenFile`]. A [`Corpus`] collects both
//! and hands them out as shuffled [`Rows`] of equal length. A [`Batcher`] spells rows out as bytes, with the tokenizer's patches as
//! targets, and [`Compression`] widens those step by step.

mod batch;
mod bpe;
mod compression;
mod foresight;
mod merges;
mod npy;
mod prefixes;
mod random;
mod rows;
mod space;
mod tokenizer;
mod tokens;

pub use batch::{Batch, Batcher, ByteLength, IGNORED};
pub use bpe::{END_OF_TEXT, Subwords, train_tokenizer};
pub use compression::{Compression, CompressionKind};
pub use foresight::{FORESIGHT_BYTES, Foresight, foresight};
pub use merges::{bpe_merges, entropy_merges, merge_patches, space_patches};
pub use npy::{IdType, TokenFile};
pub use rows::{Cursor, Rows};
pub use tokenizer::SubwordTokenizer;
pub use tokens::{Corpus, Documents, RowOptions, Split};

use bolmo_runtime::{Error, ErrorKind};

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}
