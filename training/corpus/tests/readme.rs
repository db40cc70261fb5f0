//! The samples in the README match the library's output.

use bolmo_corpus::suite::{Task, examples};
use bolmo_corpus::{Split, story};

const README: &str = include_str!("../README.md");

/// The block of text after the comment `name`.
fn block(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("<!-- {name} -->\n```text\n")).expect("the README has the sample");
    rest.split_once("```\n").expect("the sample ends").0
}

#[test]
fn the_story_matches() {
    assert_eq!(block("story"), story(1, 10).to_string());
}

#[test]
fn the_puzzle_matches() {
    let example = examples(Task::Substitute, Split::Test, 1, 2, 1).remove(0);
    assert_eq!(block("puzzle"), example.prompt + &example.answer);
}
