//! Texts to train small byte models on, made by rule and by seed.
//!
//! Two sources: [`story`] tells short English stories from a grammar, and [`suite`] asks about the characters of words
//! and the words of phrases. [`Corpus`] mixes both into documents, and [`write_files`] puts them into files.
//!
//! Nothing here is read from elsewhere: the same seed gives the same bytes on every machine.
//!
//! Two things keep a measurement honest. Words are either for training or for tests ([`Split`]), by a hash of the word,
//! so that the suite can ask about words that no puzzle of the training text has used. Documents are either for
//! training or held out ([`Part`]), by a hash of the document, so that no held-out document is also trained on.

#![deny(missing_docs)]

mod corpus;
mod error;
mod files;
mod hash;
mod random;
mod stories;
pub mod suite;
mod words;

pub use corpus::{Corpus, Document, Documents, Kind, Part};
pub use error::{Error, Result};
pub use files::{
    HELD_OUT_FILE, MANIFEST_FILE, Manifest, PartOfManifest, SEPARATOR, TRAINING_FILE, split_documents, write_files,
};
pub use stories::{Story, story, vocabulary};
pub use words::Split;
