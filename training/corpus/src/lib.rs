//! Synthetic training text for small byte-level models, generated from a seed.
//!
//! Two sources: [`story`] generates short English stories from a grammar, and [`suite`] asks questions about the
//! characters of words and the words of phrases. [`Corpus`] mixes both into documents, and [`write_files`] writes them
//! to files.
//!
//! Nothing is read from elsewhere: the same seed gives the same bytes on every machine.
//!
//! Two rules keep measurements honest. A hash assigns each word to training or to tests ([`Split`]), so that the suite
//! can ask about words that no puzzle of the training text uses. A hash assigns each document to training or to
//! evaluation ([`Part`]), so that no held-out document is trained on.

mod corpus;
mod error;
mod files;
mod hash;
mod random;
mod stories;
pub mod suite;
mod words;

pub use corpus::{Corpus, Document, Documents, Kind, Part, SEPARATOR};
pub use error::{Error, Result};
pub use files::{HELD_OUT_FILE, MANIFEST_FILE, Manifest, PartOfManifest, TRAINING_FILE, write_files};
pub use stories::{Story, story, vocabulary};
pub use words::Split;
