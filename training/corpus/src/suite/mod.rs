//! Character suite: questions about the letters of words and the words of phrases, with generated answers.
//!
//! A question is one line, and its answer the next one. An empty line separates them from the next question:
//!
//! ```text
//! Spell the word "cat".
//! c a t
//!
//! Spell the word "lantern".
//! l a n t e r n
//! ```
//!
//! An [`Example`] is a prompt of some answered questions and one more question, with its answer.

mod edits;
mod questions;
mod task;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
pub use task::{Level, Task};

use crate::random::Random;
use crate::words::Split;

/// A prompt with its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Example {
    /// Answered questions, then a question; ends with a newline.
    pub prompt: String,
    /// The answer, which ends with its only newline.
    pub answer: String,
    /// Task of the question.
    pub task: Task,
    /// Level of the question.
    pub level: Level,
}

/// Generates `count` examples of `task`, each with `shots` answered questions before its own.
///
/// All words are of `split`, including those in answers. The levels of the task alternate. No two questions are the
/// same. The same arguments give the same examples, and a larger count appends to them.
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

/// Generates an example, and returns its last question as well.
pub(crate) fn example(task: Task, level: Level, split: Split, shots: usize, random: &mut Random) -> (Example, String) {
    let mut prompt = String::new();
    let mut asked = HashSet::new();
    loop {
        let (question, answer) = questions::ask(task, level, split, random);
        // A prompt that contains its own answer would only test copying.
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
