//! Generation of one question and its answer.

use super::edits;
use super::task::{Level, Task};
use crate::random::Random;
use crate::stories::PUZZLE_WORDS;
use crate::words::Split;
use crate::words::made::made_word;

/// Minimum number of letters that an edit leaves of a word.
const LEFT: usize = 2;

/// Generates a question of `task` and `level` and its answer, each without a newline. All words in both are of `split`.
pub(super) fn ask(task: Task, level: Level, split: Split, random: &mut Random) -> (String, String) {
    loop {
        let units = match level {
            Level::Characters => letters(&word(split, random)),
            Level::Words => phrase(split, random),
        };
        // Some words have no two letters to swap, and some edits leave no word of the split.
        if let Some(asked) = ask_about(&units, task, level, split, random) {
            return asked;
        }
    }
}

fn ask_about(
    units: &[String],
    task: Task,
    level: Level,
    split: Split,
    random: &mut Random,
) -> Option<(String, String)> {
    let (unit, whole, between) = match level {
        Level::Characters => ("letter", "word", ""),
        Level::Words => ("word", "phrase", " "),
    };
    let text = units.join(between);
    let old = random.pick(units);
    let new = absent(units, level, split, random);
    let (question, edited) = match task {
        Task::Spell => return Some((format!("Spell the {whole} \"{text}\"."), units.join(" "))),
        Task::SpellInverse => return Some((format!("Join the {unit}s \"{}\".", units.join(" ")), text)),
        Task::Contains => {
            let (unit_asked, answer) = if random.chance(1, 2) { (old, "yes") } else { (new, "no") };
            return Some((format!("Is the {unit} \"{unit_asked}\" in the {whole} \"{text}\"?"), answer.to_owned()));
        }
        Task::Insert => (
            format!("Put the {unit} \"{new}\" after every \"{old}\" in the {whole} \"{text}\"."),
            edits::insert(units, &old, &new),
        ),
        Task::Delete => (format!("Remove every \"{old}\" from the {whole} \"{text}\"."), edits::delete(units, &old)),
        Task::Substitute => (
            format!("Replace every \"{old}\" with \"{new}\" in the {whole} \"{text}\"."),
            edits::substitute(units, &old, &new),
        ),
        Task::Swap => {
            // Only units that occur once can be swapped unambiguously.
            let once: Vec<&String> =
                units.iter().filter(|unit| units.iter().filter(|other| other == unit).count() == 1).collect();
            if once.len() < 2 {
                return None;
            }
            let one = random.below(once.len());
            let other = (one + random.between(1, once.len() - 1)) % once.len();
            let (one, other) = (once[one], once[other]);
            (
                format!("Swap the {unit}s \"{one}\" and \"{other}\" in the {whole} \"{text}\"."),
                edits::swap(units, one, other),
            )
        }
    };
    let answer = edited.join(between);
    let fits = match level {
        Level::Characters => answer.len() >= LEFT && Split::of(&answer) == split,
        Level::Words => !answer.is_empty(),
    };
    fits.then_some((question, answer))
}

fn letters(word: &str) -> Vec<String> {
    word.chars().map(String::from).collect()
}

/// A word of `split`, from the stories or made of syllables.
fn word(split: Split, random: &mut Random) -> String {
    loop {
        let word = if random.chance(1, 2) { random.pick(&PUZZLE_WORDS) } else { made_word(random) };
        if Split::of(&word) == split {
            return word;
        }
    }
}

/// Three to six words, one of which is repeated in a third of the phrases.
fn phrase(split: Split, random: &mut Random) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for _ in 0..random.between(3, 6) {
        let new = absent(&words, Level::Words, split, random);
        words.push(new);
    }
    if random.chance(1, 3) {
        let (from, to) = (random.below(words.len()), random.below(words.len()));
        words[to] = words[from].clone();
    }
    words
}

/// A unit that is not in `units`.
fn absent(units: &[String], level: Level, split: Split, random: &mut Random) -> String {
    loop {
        let new = match level {
            Level::Characters => char::from(b'a' + random.below(26) as u8).to_string(),
            Level::Words => word(split, random),
        };
        if !units.contains(&new) {
            return new;
        }
    }
}
