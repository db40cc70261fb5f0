//! Words: the lists that the stories draw from, words that are made from syllables, and which of all are for tests.

pub(crate) mod made;
pub(crate) mod people;
pub(crate) mod places;
pub(crate) mod things;

use serde::{Deserialize, Serialize};

use crate::hash::class;

/// Whether a word may be asked about in training or only in tests.
///
/// It is a matter of the word alone, not of a seed, so that every corpus and every suite agree about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Four words of five.
    Train,
    /// One word of five.
    Test,
}

impl Split {
    /// Both.
    pub const ALL: [Split; 2] = [Split::Train, Split::Test];

    /// The side of `word`, which is written in small letters.
    pub fn of(word: &str) -> Split {
        if class("word", word, 5) == 0 { Split::Test } else { Split::Train }
    }

    /// The name, for files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}
