use std::collections::{HashMap, HashSet};

use super::*;
use crate::stories::PUZZLE_WORDS;

/// Pairs of questions and answers of a text, without newlines.
pub(crate) fn pairs(text: &str) -> Vec<(&str, &str)> {
    let text = text.strip_suffix('\n').expect("texts end with a newline");
    text.split("\n\n").map(|pair| pair.split_once('\n').expect("a question has an answer")).collect()
}

/// Quoted texts of a question.
fn quoted(question: &str) -> Vec<&str> {
    question.split('"').skip(1).step_by(2).collect()
}

/// Whether a question is about words.
fn about_phrase(question: &str) -> bool {
    question.contains(" phrase ")
}

/// Words of a question and its answer, without single letters.
pub(crate) fn subjects<'a>(question: &'a str, answer: &'a str) -> Vec<&'a str> {
    let answered = Some(answer).filter(|answer| !["yes", "no"].contains(answer) || !question.starts_with("Is "));
    quoted(question)
        .into_iter()
        .chain(answered)
        .flat_map(|text| text.split(' '))
        .filter(|text| text.len() > 1)
        .collect()
}

/// Checks an answer by undoing the edit instead of repeating it.
pub(crate) fn right(question: &str, answer: &str) -> bool {
    let quoted = quoted(question);
    let units = |text: &str| -> Vec<String> {
        let phrase = about_phrase(question);
        if phrase { text.split(' ').map(str::to_owned).collect() } else { text.chars().map(String::from).collect() }
    };
    let text = *quoted.last().expect("a question quotes something");
    let (before, after) = (units(text), units(answer));
    let count = |units: &[String], asked: &str| units.iter().filter(|unit| *unit == asked).count();
    let changed = |from: &str, to: &str| -> Vec<String> {
        after.iter().map(|unit| if unit == from { to.to_owned() } else { unit.clone() }).collect()
    };
    match question.split(' ').next().expect("a question has words") {
        "Spell" => {
            let spaces = answer.bytes().skip(1).step_by(2).all(|byte| byte == b' ');
            answer.replace(' ', "") == text && answer.len() == 2 * text.len() - 1 && spaces
        }
        "Join" => after.join(" ") == text,
        "Is" => {
            let found = if about_phrase(question) {
                format!(" {text} ").contains(&format!(" {} ", quoted[0]))
            } else {
                text.contains(quoted[0])
            };
            answer == if found { "yes" } else { "no" }
        }
        "Put" => {
            let (new, old) = (quoted[0], quoted[1]);
            let mut undone = after.clone();
            undone.retain(|unit| unit != new);
            let follows = after.windows(2).all(|pair| (pair[0] == old) == (pair[1] == new));
            let ends = after[0] != new && after.last().is_some_and(|unit| unit != old);
            undone == before && count(&after, new) == count(&before, old) && follows && ends
        }
        "Remove" => {
            // Restores the removed units at the positions in the original text.
            let mut rest = after.iter();
            let restored = before.iter().map_while(|unit| if unit == quoted[0] { Some(unit) } else { rest.next() });
            let restored: Vec<String> = restored.cloned().collect();
            restored == before
                && rest.next().is_none()
                && count(&before, quoted[0]) > 0
                && count(&after, quoted[0]) == 0
        }
        "Replace" => {
            let (old, new) = (quoted[0], quoted[1]);
            changed(new, old) == before && count(&after, old) == 0 && count(&before, old) > 0
        }
        "Swap" => {
            let places =
                |asked: &str| -> Vec<usize> { (0..after.len()).filter(|&place| after[place] == asked).collect() };
            match (&places(quoted[0])[..], &places(quoted[1])[..]) {
                (&[one], &[other]) if one != other => {
                    let mut undone = after.clone();
                    undone.swap(one, other);
                    undone == before
                }
                _ => false,
            }
        }
        _ => false,
    }
}

/// Wrong answers: there is exactly one right answer.
fn wrong_ones(answer: &str) -> Vec<String> {
    let middle = answer.len() / 2;
    let letter = if answer[middle..].starts_with('q') { "z" } else { "q" };
    vec![
        format!("{answer}{answer}"),
        format!("{}{letter}{}", &answer[..middle], &answer[middle + 1..]),
        answer[1..].to_owned(),
        if answer == "yes" { "no" } else { "yes" }.to_owned(),
    ]
}

#[test]
fn answers_are_right_and_wrong_ones_are_noticed() {
    for task in Task::ALL {
        for split in Split::ALL {
            for example in examples(task, split, 400, 2, 1) {
                let text = format!("{}{}", example.prompt, example.answer);
                let pairs = pairs(&text);
                assert_eq!(pairs.len(), 3, "{text}");
                for (question, answer) in pairs {
                    assert!(right(question, answer), "{question} {answer}");
                    assert_eq!(about_phrase(question), example.level == Level::Words, "{question}");
                    for wrong in wrong_ones(answer) {
                        assert!(!right(question, &wrong), "{question} {wrong}");
                    }
                }
            }
        }
    }
}

#[test]
fn words_of_the_two_splits_never_meet() {
    let mut words: HashMap<Split, HashSet<String>> = HashMap::new();
    for task in Task::ALL {
        for split in Split::ALL {
            for example in examples(task, split, 500, 3, 7) {
                let text = format!("{}{}", example.prompt, example.answer);
                for (question, answer) in pairs(&text) {
                    for word in subjects(question, answer) {
                        assert_eq!(Split::of(word), split, "{word} in {question} {answer}");
                        words.entry(split).or_default().insert(word.to_owned());
                    }
                }
            }
        }
    }
    assert!(words[&Split::Train].is_disjoint(&words[&Split::Test]));
    assert!(
        words.values().all(|words| words.len() > 2000),
        "{:?}",
        words.values().map(HashSet::len).collect::<Vec<_>>()
    );
    // Made and known words occur in both splits.
    for words in words.values() {
        let known = PUZZLE_WORDS.iter().filter(|word| words.contains(*word)).count();
        assert!(known > 60, "{known}");
    }
}

#[test]
fn one_known_word_of_five_is_for_tests() {
    let tests = PUZZLE_WORDS.iter().filter(|word| Split::of(word) == Split::Test).count();
    let share = tests as f64 / PUZZLE_WORDS.len() as f64;
    assert!((0.14..0.26).contains(&share), "{share} of {}", PUZZLE_WORDS.len());
}

#[test]
fn examples_repeat_by_seed_and_grow_by_count() {
    for task in Task::ALL {
        let few = examples(task, Split::Test, 20, 4, 3);
        let many = examples(task, Split::Test, 50, 4, 3);
        assert_eq!(few[..], many[..20]);
        assert_ne!(few, examples(task, Split::Test, 20, 4, 4));
        assert!(few.iter().all(|example| example.task == task));
        for level in [Level::Characters, Level::Words] {
            let count = few.iter().filter(|example| example.level == level).count();
            assert_eq!(count, if task.levels().contains(&level) { 20 / task.levels().len() } else { 0 });
        }
    }
}

#[test]
fn questions_are_asked_once_and_end_lines() {
    for task in Task::ALL {
        let examples = examples(task, Split::Test, 300, 0, 9);
        let prompts: HashSet<&str> = examples.iter().map(|example| example.prompt.as_str()).collect();
        assert_eq!(prompts.len(), 300);
        for example in &examples {
            assert!(example.prompt.ends_with('\n') && example.prompt.matches('\n').count() == 1, "{example:?}");
            assert!(example.answer.ends_with('\n') && example.answer.matches('\n').count() == 1, "{example:?}");
            assert!(example.prompt.is_ascii() && example.answer.is_ascii());
            assert!(!example.answer.contains("  ") && !example.answer.starts_with(' '), "{example:?}");
        }
    }
}

#[test]
fn yes_and_no_are_equally_likely() {
    let examples = examples(Task::Contains, Split::Test, 1000, 0, 2);
    let yes = examples.iter().filter(|example| example.answer == "yes\n").count();
    // Five standard deviations of a thousand fair draws are 79.
    assert!(yes.abs_diff(500) < 79, "{yes}");
}

#[test]
fn tasks_are_found_by_name() {
    for task in Task::ALL {
        assert_eq!(Task::of_name(task.name()), Some(task));
        assert_eq!(serde_json::to_string(&task).expect("a name"), format!("\"{task}\""));
    }
    assert_eq!(Task::of_name("rhyme"), None);
}
