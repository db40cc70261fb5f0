//! A stream of stories and puzzles as documents, in two disjoint parts.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::hash::class;
use crate::random::Random;
use crate::stories::Story;
use crate::suite::{Level, Task, example};
use crate::words::Split;

/// The line that follows each document in a file.
pub const SEPARATOR: &str = "<|endoftext|>\n";

/// Maximum number of answered questions before the last one of a puzzle.
const MOST_SHOTS: usize = 7;

/// Which documents to generate, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Corpus {
    /// Seed of all choices.
    pub seed: u64,
    /// Bytes to generate, including separators. The last document may exceed them.
    pub bytes: u64,
    /// Share of the bytes that are puzzles, from 0 to 1.
    pub puzzle_share: f64,
}

/// Part that a document belongs to.
///
/// It depends on the text alone: whatever the seed and the size, no document is in both parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Documents to train on.
    Training,
    /// Documents to evaluate on.
    HeldOut,
}

impl Part {
    /// The part of a document with this text: one of sixteen is held out.
    pub fn of(text: &str) -> Part {
        if class("document", text, 16) == 0 { Part::HeldOut } else { Part::Training }
    }

    fn stream(self, kind: &str) -> String {
        match self {
            Part::Training => format!("training {kind}"),
            Part::HeldOut => format!("held out {kind}"),
        }
    }
}

/// Kind of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A story.
    Story,
    /// Questions of one task and level, with their answers.
    Puzzle(Task, Level),
}

/// A document: text that ends with a newline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its kind.
    pub kind: Kind,
    /// Its text.
    pub text: String,
}

impl Deref for Document {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl Corpus {
    /// Documents of `part`, up to the bytes of the corpus.
    ///
    /// # Errors
    ///
    /// `Share` if the share of puzzles is not between 0 and 1.
    ///
    /// ```
    /// use bolmo_corpus::{Corpus, Part};
    ///
    /// let corpus = Corpus { seed: 1, bytes: 2_000, puzzle_share: 0.25 };
    /// let texts: Vec<String> = corpus.documents(Part::Training)?.map(|document| document.text).collect();
    /// assert!(texts.concat().is_ascii());
    /// # Ok::<(), bolmo_corpus::Error>(())
    /// ```
    pub fn documents(&self, part: Part) -> Result<Documents> {
        if !(0.0..=1.0).contains(&self.puzzle_share) {
            return Err(Error::Share(self.puzzle_share));
        }
        Ok(Documents { corpus: *self, part, made: 0, bytes: 0, puzzle_bytes: 0 })
    }
}

/// Documents of one part of a corpus.
#[derive(Debug, Clone)]
pub struct Documents {
    corpus: Corpus,
    part: Part,
    made: u64,
    bytes: u64,
    puzzle_bytes: u64,
}

impl Iterator for Documents {
    type Item = Document;

    fn next(&mut self) -> Option<Document> {
        if self.bytes >= self.corpus.bytes {
            return None;
        }
        // The kind that is below its share comes next, so that the share holds for every prefix of the stream.
        let share = self.corpus.puzzle_share;
        let behind = (self.puzzle_bytes as f64) < share * self.bytes as f64;
        let puzzle = if self.bytes == 0 { share >= 0.5 } else { behind || share == 1.0 };
        let document = self.make(puzzle);
        let length = (document.len() + SEPARATOR.len()) as u64;
        self.made += 1;
        self.bytes += length;
        self.puzzle_bytes += if puzzle { length } else { 0 };
        Some(document)
    }
}

impl Documents {
    fn make(&self, puzzle: bool) -> Document {
        let name = self.part.stream(if puzzle { "puzzle" } else { "story" });
        let mut random = Random::stream(self.corpus.seed, &name, self.made);
        loop {
            let document = if puzzle { puzzle_document(&mut random) } else { story_document(&mut random) };
            if Part::of(&document) == self.part {
                return document;
            }
        }
    }
}

fn story_document(random: &mut Random) -> Document {
    Document { kind: Kind::Story, text: Story::tell(random).to_string() }
}

/// Both parts ask about training words: the held-out part holds out documents, and the suite holds out words.
fn puzzle_document(random: &mut Random) -> Document {
    let task = random.pick(&Task::ALL);
    let level = random.pick(task.levels());
    let (example, _) = example(task, level, Split::Train, random.between(0, MOST_SHOTS), random);
    Document { kind: Kind::Puzzle(task, level), text: example.prompt + &example.answer }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::suite::tests::{pairs, right, subjects};

    fn corpus(bytes: u64, puzzle_share: f64) -> Corpus {
        Corpus { seed: 21, bytes, puzzle_share }
    }

    fn made(corpus: Corpus, part: Part) -> Vec<Document> {
        corpus.documents(part).expect("a share").collect()
    }

    #[test]
    fn the_same_corpus_gives_the_same_documents() {
        let first = made(corpus(50_000, 0.3), Part::Training);
        assert_eq!(first, made(corpus(50_000, 0.3), Part::Training));
        assert_eq!(first[..], made(corpus(90_000, 0.3), Part::Training)[..first.len()]);
        assert_ne!(first, made(Corpus { seed: 22, ..corpus(50_000, 0.3) }, Part::Training));
    }

    #[test]
    fn no_document_is_in_both_parts() {
        // Not under other seeds either.
        let training: HashSet<String> = (0..4)
            .flat_map(|seed| made(Corpus { seed, ..corpus(500_000, 0.5) }, Part::Training))
            .map(|document| document.text)
            .collect();
        let held_out = made(corpus(300_000, 0.5), Part::HeldOut);
        assert!(training.len() > 2000 && held_out.len() > 300);
        for document in &held_out {
            assert!(!training.contains(&document.text), "{}", document.text);
        }
    }

    #[test]
    fn sizes_and_shares_are_as_asked_for() {
        for share in [0.0, 0.1, 0.25, 0.5, 0.9, 1.0] {
            for part in [Part::Training, Part::HeldOut] {
                let documents = made(corpus(200_000, share), part);
                let size = |document: &Document| document.len() + SEPARATOR.len();
                let all: usize = documents.iter().map(size).sum();
                let last = size(documents.last().expect("some"));
                assert!(all >= 200_000 && all - last < 200_000, "{all}");
                let puzzles: usize = documents.iter().filter(|document| document.kind != Kind::Story).map(size).sum();
                let found = puzzles as f64 / all as f64;
                // The share may be off by one document of about 1500 bytes.
                assert!((found - share).abs() <= 0.01, "{found} for {share}");
            }
        }
        assert_eq!(made(corpus(0, 0.5), Part::Training), []);
    }

    #[test]
    fn invalid_shares_are_refused() {
        for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            let error = corpus(10, share).documents(Part::Training).expect_err("no share");
            assert!(error.to_string().contains("from 0"), "{error}");
        }
    }

    #[test]
    fn puzzles_have_right_answers_and_words_for_training_only() {
        for part in [Part::Training, Part::HeldOut] {
            let mut kinds: HashMap<Kind, usize> = HashMap::new();
            for document in made(corpus(400_000, 1.0), part) {
                assert_eq!(Part::of(&document), part);
                *kinds.entry(document.kind).or_default() += 1;
                for (question, answer) in pairs(&document) {
                    assert!(right(question, answer), "{question} {answer}");
                    for word in subjects(question, answer) {
                        assert_eq!(Split::of(word), Split::Train, "{word} in {question} {answer}");
                    }
                }
            }
            let all = Task::ALL.into_iter().flat_map(|task| task.levels().iter().map(move |&level| (task, level)));
            for (task, level) in all {
                assert!(kinds.get(&Kind::Puzzle(task, level)).is_some_and(|&count| count > 20), "{kinds:?}");
            }
        }
    }

    #[test]
    fn documents_are_plain_text_that_ends_lines() {
        for document in made(corpus(300_000, 0.3), Part::Training) {
            assert!(
                document.is_ascii() && document.ends_with('\n') && !document.ends_with("\n\n"),
                "{}",
                document.text
            );
            assert!(!document.contains("  ") && !document.contains(SEPARATOR.trim_end()), "{}", document.text);
            assert_eq!(document.matches('"').count() % 2, 0, "{}", document.text);
        }
    }
}
