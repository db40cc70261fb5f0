use std::collections::{BTreeSet, HashMap, HashSet};

use super::*;

fn some(count: u64) -> impl Iterator<Item = Story> {
    (0..count).map(|index| story(11, index))
}

#[test]
fn a_seed_and_a_number_give_one_story() {
    for index in 0..50 {
        assert_eq!(story(1, index), story(1, index));
    }
    assert_ne!(story(1, 0), story(2, 0));
    assert_ne!(story(1, 0), story(1, 1));
}

#[test]
fn stories_have_five_to_twelve_sentences() {
    for plot in plots() {
        let needed = plot.steps.iter().filter(|step| !matches!(step, Step::Maybe(_))).count();
        assert!((5..=LONGEST_STORY).contains(&needed), "{}", plot.titles[0]);
    }
    let mut counts = BTreeSet::new();
    for story in some(20_000) {
        assert!((5..=LONGEST_STORY).contains(&story.sentences()), "{story}");
        counts.insert(story.sentences());
    }
    assert!(counts.len() >= 4, "{counts:?}");
}

#[test]
fn sentences_are_well_formed() {
    for story in some(5_000) {
        let text = story.to_string();
        assert!(text.is_ascii() && text.ends_with('\n') && !text.contains("  "), "{text}");
        assert!(!text.contains(['{', '}', '<', '>', '|', '/']), "{text}");
        for sentence in story.paragraphs.iter().flatten() {
            assert!(sentence.trim_end_matches('"').ends_with(['.', '!', '?']), "{sentence}");
            let letter = sentence.chars().find(char::is_ascii_alphanumeric).expect("a letter");
            assert!(!letter.is_ascii_lowercase(), "{sentence}");
            assert_quotes(sentence);
            for pair in [" ,", " .", ",,", "..", ",.", "?.", "!.", "\"\""] {
                assert!(!sentence.contains(pair), "{pair:?} in {sentence}");
            }
        }
        assert!(story.paragraphs.iter().all(|sentences| !sentences.is_empty()), "{text}");
        assert!(story.title.iter().all(|title| !title.ends_with('.') && !title.contains('"')), "{text}");
    }
}

/// Quotation marks come in pairs, with spaces and line ends outside of them.
fn assert_quotes(sentence: &str) {
    let parts: Vec<&str> = sentence.split('"').collect();
    assert_eq!(parts.len() % 2, 1, "{sentence}");
    for said in parts.iter().skip(1).step_by(2) {
        assert!(!said.is_empty() && said.trim() == *said, "{sentence}");
        assert!(said.ends_with(['.', ',', '!', '?']), "{sentence}");
    }
    for (at, told) in parts.iter().enumerate().step_by(2) {
        assert!(at == 0 || told.is_empty() || told.starts_with(' '), "{sentence}");
        assert!(at + 1 == parts.len() || told.is_empty() || told.ends_with(' '), "{sentence}");
    }
}

#[test]
fn quotation_marks_of_templates_are_balanced() {
    for template in plots().flat_map(|plot| plot.steps).flat_map(|step| step.templates()) {
        for sentence in template.split('|') {
            let mut open = false;
            for mark in sentence.chars().filter(|mark| "<>".contains(*mark)) {
                assert_ne!(mark == '<', open, "{sentence}");
                open = mark == '<';
            }
            assert!(!open, "{sentence}");
        }
    }
}

#[test]
fn the_vocabulary_is_small_and_complete() {
    let known = vocabulary();
    assert!((500..=900).contains(&known.len()), "{}", known.len());
    let mut told = BTreeSet::new();
    for story in some(10_000) {
        told.extend(words_of(&story.to_string()));
    }
    let unknown: Vec<_> = told.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // Nearly all words occur early, so that none waits for a case that never comes.
    assert!(told.len() * 100 >= known.len() * 99, "{:?}", known.difference(&told).collect::<Vec<_>>());
}

#[test]
fn stories_do_not_repeat() {
    let count = 200_000;
    let mut seen = HashSet::new();
    for story in some(count) {
        assert!(seen.insert(story.to_string()), "{story}");
    }
    assert_eq!(seen.len() as u64, count);
}

#[test]
fn no_sentence_is_common() {
    let count = 20_000;
    let mut sentences: HashMap<String, usize> = HashMap::new();
    for story in some(count) {
        for sentence in story.paragraphs.into_iter().flatten() {
            *sentences.entry(sentence).or_default() += 1;
        }
    }
    assert!(sentences.len() > 50_000, "{}", sentences.len());
    let (sentence, most) = sentences.iter().max_by_key(|(_, count)| **count).expect("there are sentences");
    assert!((*most as u64) < count / 10, "{most} stories have: {sentence}");
}

#[test]
fn people_keep_their_names() {
    let people: HashSet<&str> = scene::people().collect();
    for story in some(5_000) {
        let text = story.to_string();
        let named: HashSet<&str> =
            text.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| people.contains(word)).collect();
        assert!((1..=2).contains(&named.len()), "{named:?} in {text}");
    }
}
