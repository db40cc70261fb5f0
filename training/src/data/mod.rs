//! The host side of training: from text to batches.
//!
//! The source model's [`SubwordTokenizer`] turns text into subword ids; a [`TokenFile`] holds ids that are ready. A
//! [`Corpus`] collects both and divides them into [`Dataset`]s of shuffled rows. A [`Batcher`] spells rows out as
//! bytes, with the tokenizer's subwords as target patches, and [`Compression`] merges patches step by step.

mod batch;
mod bpe;
mod compression;
mod corpus;
mod dataset;
mod documents;
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
pub use documents::split_documents;
pub use merges::{bpe_merges, entropy_merges, merge_patches, space_patches};
pub use npy::{IdType, TokenFile};
pub use predictability::{BoundaryPredictability, PREDICTABILITY_BYTES, boundary_predictability};
pub use special_tokens::END_OF_TEXT;
pub use tokenizer::SubwordTokenizer;
