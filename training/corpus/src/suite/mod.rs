//! Does a model know which characters its words have? Questions about letters and words, made and answered by rule.
//!
//! A question is one line, its answer the next one, and an empty line parts them from the question that follows:
//!
//! ```text
//! Spell the word "cat".
//! c a t
//!
//! Spell the word "lantern".
//! l a n t e r n
//! ```
//!
//! An [`Example`] is a prompt of some such pairs and one question more, and the answer to that.

mod edits;
mod questions;

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::words::Split;

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The letters of a word, with spaces between them.
    Spell,
    /// The word that has these letters.
    SpellInverse,
    /// Yes or no.
    Contains,
    /// Something new after every one of a kind.
    Insert,
    /// All without those of a kind.
    Delete,
    /// Something new in place of every one of a kind.
    Substitute,
    /// Two change places.
    Swap,
}

/// What the units of a question are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The letters of a word.
    Characters,
    /// The words of a phrase.
    Words,
}

impl Task {
    /// All tasks, in the order in which reports list them.
    pub const ALL: [Task; 7] =
        [Task::Spell, Task::SpellInverse, Task::Contains, Task::Insert, Task::Delete, Task::Substitute, Task::Swap];

    /// The name, for reports and files.
    pub fn name(self) -> &'static str {
        match self {
            Task::Spell => "spell",
            Task::SpellInverse => "spell-inverse",
            Task::Contains => "contains",
            Task::Insert => "insert",
            Task::Delete => "delete",
            Task::Substitute => "substitute",
            Task::Swap => "swap",
        }
    }

    /// The task of this name, if there is one.
    pub fn of_name(name: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| task.name() == name)
    }

    /// The levels on which the task makes sense: a phrase is not spelled.
    pub fn levels(self) -> &'static [Level] {
        match self {
            Task::Spell | Task::SpellInverse => &[Level::Characters],
            _ => &[Level::Characters, Level::Words],
        }
    }
}

impl Level {
    /// The name, for reports and files.
    pub fn name(self) -> &'static str {
        match self {
            Level::Characters => "characters",
            Level::Words => "words",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A prompt, and what has to follow it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Example {
    /// Some questions with their answers, then a question; ends with a newline.
    pub prompt: String,
    /// The answer, with a newline at its end and none before.
    pub answer: String,
    /// What is asked.
    pub task: Task,
    /// About what.
    pub level: Level,
}

/// `count` examples of `task`, each with `shots` answered questions before its own.
///
/// All words in them are of `split`, those that an answer makes among them. The levels of the task take turns. No two
/// of the questions to be answered are the same. The same arguments give the same examples; a larger count appends.
///
/// ```
/// use bolmo_corpus::suite::{Task, examples};
/// use bolmo_corpus::Split;
///
/// for example in examples(Task::Swap, Split::Test, 3, 2, 1) {
///     print!("{}{}", example.prompt, example.answer);
/// }
/// ```
pub fn examples(task: Task, split: Split, count: usize, shots: usize, seed: u64) -> Vec<Example> {
    let mut random = Random::stream(seed, &format!("suite {task} {}", split.name()), shots as u64);
    let mut asked = HashSet::new();
    let mut examples = Vec::with_capacity(count);
    while examples.len() < count {
        let level = task.levels()[examples.len() % task.levels().len()];
        let (example, question) = example(task, level, split, shots, &mut random);
        if asked.insert(question) {
            examples.push(example);
        }
    }
    examples
}

/// One example, and its last question alone.
pub(crate) fn example(task: Task, level: Level, split: Split, shots: usize, random: &mut Random) -> (Example, String) {
    let mut prompt = String::new();
    let mut asked = HashSet::new();
    loop {
        let (question, answer) = questions::ask(task, level, split, random);
        // A prompt that holds its own answer would ask for copying.
        if !asked.insert(question.clone()) {
            continue;
        }
        prompt.push_str(&question);
        prompt.push('\n');
        if asked.len() > shots {
            return (Example { prompt, answer: format!("{answer}\n"), task, level }, question);
        }
        prompt.push_str(&answer);
        prompt.push_str("\n\n");
    }
}

#[cfg(test)]
pub(crate) mod tests;
