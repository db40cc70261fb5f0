//! Tasks of the suite and their levels.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Task of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Spell a word: its letters, separated by spaces.
    Spell,
    /// Join letters to a word.
    SpellInverse,
    /// Tell whether a unit occurs: yes or no.
    Contains,
    /// Insert a unit after every occurrence of another.
    Insert,
    /// Delete all occurrences of a unit.
    Delete,
    /// Replace all occurrences of a unit.
    Substitute,
    /// Swap two units.
    Swap,
}

/// Units of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The letters of a word.
    Characters,
    /// The words of a phrase.
    Words,
}

impl Task {
    /// All tasks, in the order of reports.
    pub const ALL: [Task; 7] =
        [Task::Spell, Task::SpellInverse, Task::Contains, Task::Insert, Task::Delete, Task::Substitute, Task::Swap];

    /// Name in reports and files.
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

    /// Task of this name, if there is one.
    pub fn of_name(name: &str) -> Option<Task> {
        Task::ALL.into_iter().find(|task| task.name() == name)
    }

    /// Levels of the task: a phrase is not spelled.
    pub fn levels(self) -> &'static [Level] {
        match self {
            Task::Spell | Task::SpellInverse => &[Level::Characters],
            _ => &[Level::Characters, Level::Words],
        }
    }
}

impl Level {
    /// Name in reports and files.
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
