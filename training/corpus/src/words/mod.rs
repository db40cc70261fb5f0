//! Words: lists for the stories, words made of syllables, and the split between training and tests.

pub(crate) mod made;
pub(crate) mod people;
pub(crate) mod places;
pub(crate) mod things;

use serde::{Deserialize, Serialize};

use crate::hash::class;

/// Split of words between training and tests.
///
/// It depends on the word alone and not on a seed, so that every corpus and every suite agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// For training: four words of five.
    Train,
    /// For tests: one word of five.
    Test,
}

impl Split {
    /// Both splits.
    pub const ALL: [Split; 2] = [Split::Train, Split::Test];

    /// Split of `word`, which is in lowercase.
    pub fn of(word: &str) -> Split {
        if class("word", word, 5) == 0 { Split::Test } else { Split::Train }
    }

    /// Name in files and messages.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Test => "test",
        }
    }
}
