//! From text to batches: the host's part of training.
//!
//! Text becomes subword ids by the source model's [`SubwordTokenizer`], or ids lie ready in a [`TokenFile`]. A [`Corpus`] collects both
//! and hands them out as shuffled [`Rows`] of equal length. A [`Batcher`] spells rows out as bytes, with the tokenizer's patches as
//! targets, and [`Compression`] widens those step by step.

mod batch;
mod bpe;
mod compression;
mod corpus;
mod dataset;
mod merges;
mod npy;
mod predictability;
mod prefixes;
mod random;
mod space;
mod tokenizer;

pub use batch::{Batch, Batcher, ByteLength, IGNORED};
pub use bpe::{END_OF_TEXT, Subwords, train_tokenizer};
pub use compression::{Compression, CompressionKind};
pub use corpus::{Corpus, Documents, RowOptions, Split};
pub use dataset::{Cursor, Rows};
pub use merges::{bpe_merges, entropy_merges, merge_patches, space_patches};
pub use npy::{IdType, TokenFile};
pub use predictability::{FORESIGHT_BYTES, Foresight, foresight};
pub use tokenizer::SubwordTokenizer;

use bolmo_runtime::{Error, ErrorKind};

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}
