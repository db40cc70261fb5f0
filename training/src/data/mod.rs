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
mod sources;
mod space;
mod special_tokens;
mod tokenizer;

pub use batch::{Batch, Batcher, ByteLength, IGNORED};
pub use bpe::{Subwords, train_tokenizer};
pub use compression::{Compression, CompressionKind};
pub use corpus::{Corpus, Documents, RowOptions, Split};
pub use dataset::{Cursor, Dataset};
pub use merges::{bpe_merges, entropy_merges, merge_patches, space_patches};
pub use npy::{IdType, TokenFile};
pub use predictability::{BoundaryPredictability, PREDICTABILITY_BYTES, boundary_predictability};
pub use special_tokens::END_OF_TEXT;
pub use tokenizer::SubwordTokenizer;

pub use BoundaryPredictability as Foresight; // TEMPORARY: old path
pub use Dataset as Rows;
pub use PREDICTABILITY_BYTES as FORESIGHT_BYTES; // TEMPORARY: old path
pub use boundary_predictability as foresight; // TEMPORARY: old path // TEMPORARY: old path
