//! Generation under constraints: the text matches, whatever the model would write.

use std::ops::ControlFlow;

use bolmo_runtime::{
    Constraint, ErrorKind, GenerateOptions, Generation, Model, SamplingOptions, Session, StopReason, block_on,
};
use bolmo_tests::{load, session_with};
use serde_json::{Value, json};

const PERSON: &str = r#"{"type":"object","properties":{
    "name":{"type":"string","maxLength":12},"kind":{"enum":["student","teacher"]},
    "age":{"type":"integer","minimum":0,"maximum":130},"tags":{"type":"array","items":{"type":"boolean"},"maxItems":3}},
    "required":["name","kind","age"]}"#;
const TREE: &str = r##"{"type":"object","properties":{
    "v":{"type":"number"},"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},
    "required":["v","next"]}"##;

fn options(constraint: &Constraint, max_bytes: usize, temperature: f32, seed: u64) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.constraint = Some(constraint.clone());
    options.max_bytes = max_bytes;
    options.sampling = SamplingOptions { temperature, seed, ..SamplingOptions::default() };
    options
}

fn prompt(model: &Model) -> Session {
    session_with(model, &[1, 104, 105, 106, 36])
}

fn generate(session: &mut Session, options: &GenerateOptions) -> Generation {
    let mut pieces = (Vec::new(), Vec::new());
    let made = block_on(session.generate(options, &mut |piece| {
        assert_eq!(piece.bytes.len(), piece.ids.len());
        pieces.0.extend_from_slice(piece.bytes);
        pieces.1.extend_from_slice(piece.ids);
        ControlFlow::Continue(())
    }))
    .expect("a generation");
    assert_eq!(pieces.0, made.bytes);
    assert_eq!(pieces.1, made.ids[..made.bytes.len()]);
    made
}

/// An independent check of `PERSON`.
fn is_person(text: &[u8]) -> bool {
    let Ok(Value::Object(person)) = serde_json::from_slice(text) else { return false };
    let known = person.keys().all(|key| ["name", "kind", "age", "tags"].contains(&key.as_str()));
    let tags = person
        .get("tags")
        .is_none_or(|tags| tags.as_array().is_some_and(|tags| tags.len() <= 3 && tags.iter().all(Value::is_boolean)));
    known
        && tags
        && person.get("name").and_then(Value::as_str).is_some_and(|name| name.chars().count() <= 12)
        && person.get("kind").is_some_and(|kind| *kind == json!("student") || *kind == json!("teacher"))
        && person.get("age").and_then(Value::as_u64).is_some_and(|age| age <= 130)
}

/// An independent check of `TREE`.
fn is_tree(text: &[u8]) -> bool {
    let Ok(mut value) = serde_json::from_slice::<Value>(text) else { return false };
    loop {
        let Some(node) = value.as_object() else { return false };
        if node.len() != 2 || !node.get("v").is_some_and(Value::is_number) {
            return false;
        }
        match node.get("next") {
            Some(Value::Null) => return true,
            Some(next) => value = next.clone(),
            None => return false,
        }
    }
}

fn is_date(text: &[u8]) -> bool {
    let shape = |i: usize, byte: &u8| if i == 4 || i == 7 { *byte == b'-' } else { byte.is_ascii_digit() };
    text.len() == 10 && text.iter().enumerate().all(|(i, byte)| shape(i, byte))
}

#[test]
fn generated_text_matches_its_constraint() {
    type Judge = fn(&[u8]) -> bool;
    let kinds: [(Constraint, Judge); 3] = [
        (Constraint::json_schema(PERSON.as_bytes()).expect("a schema"), is_person),
        (Constraint::json_schema(TREE.as_bytes()).expect("a schema"), is_tree),
        (Constraint::regex("[0-9]{4}-[0-9]{2}-[0-9]{2}").expect("a pattern"), is_date),
    ];
    for (family, name) in [("infer", "nano_trained"), ("infer", "swa"), ("infer", "noexp"), ("prenorm", "bwen")] {
        let model = load(family, name);
        let mut session = prompt(&model);
        let before = block_on(session.checkpoint()).expect("a checkpoint");
        for (constraint, judge) in &kinds {
            let shortest = constraint.shortest();
            let mut draws = vec![(0.0, 0), (5.0, 2)];
            if name == "nano_trained" {
                draws.extend((3..10).map(|seed| (if seed % 2 == 0 { 1.0 } else { 5.0 }, seed)));
            }
            for (temperature, seed) in draws {
                for max_bytes in [shortest, shortest + 1 + seed as usize, 70] {
                    block_on(session.rewind(&before)).expect("a rewind");
                    let options = options(constraint, max_bytes, temperature, seed);
                    let made = generate(&mut session, &options);
                    let shown = String::from_utf8_lossy(&made.bytes);
                    assert!(judge(&made.bytes), "{name}: {shown}");
                    assert_eq!(made.matched, Some(true), "{name}: {shown}");
                    assert!(made.bytes.len() <= max_bytes);
                    assert_eq!(made.stop, StopReason::Complete, "{name}: {shown}");
                    assert_eq!(made.ids.len(), made.bytes.len(), "no id for the end");
                    assert_eq!(session.ids()[5..], made.ids);
                }
            }
        }
    }
}

#[test]
fn budget_too_small_for_a_match_is_reported() {
    let model = load("infer", "nano_trained");
    let constraint = Constraint::json_schema(PERSON.as_bytes()).expect("a schema");
    for max_bytes in [1, 5, constraint.shortest() - 1] {
        let made = generate(&mut prompt(&model), &options(&constraint, max_bytes, 0.0, 0));
        assert_eq!((made.stop, made.matched), (StopReason::Budget, Some(false)));
        assert_eq!(made.bytes.len(), max_bytes);
        assert!(made.bytes.starts_with(&b"{\"name\":"[..max_bytes.min(8)]));
    }
    // A match that could be longer stops at the budget; at full length it is complete.
    let constraint = Constraint::regex("[ab]{2,3}").expect("a pattern");
    let mut bounded = options(&constraint, 2, 0.0, 0);
    bounded.sampling.end_bias = -1000.0;
    let made = generate(&mut prompt(&model), &bounded);
    assert_eq!((made.stop, made.matched, made.bytes.len()), (StopReason::Budget, Some(true), 2));
    bounded.max_bytes = 3;
    assert_eq!(generate(&mut prompt(&model), &bounded).stop, StopReason::Complete);
    bounded.sampling.end_bias = 1000.0;
    let made = generate(&mut prompt(&model), &bounded);
    assert_eq!((made.stop, made.matched, made.bytes.len(), made.ids.len()), (StopReason::End, Some(true), 2, 3));
    // Only the empty text matches.
    let made = generate(&mut prompt(&model), &options(&Constraint::regex("").expect("a pattern"), 5, 0.0, 0));
    assert_eq!((made.stop, made.matched, made.ids.len()), (StopReason::Complete, Some(true), 0));
}

#[test]
fn same_seed_repeats_a_text_and_another_seed_changes_it() {
    let model = load("infer", "nano_trained");
    let constraint = Constraint::json_schema(PERSON.as_bytes()).expect("a schema");
    // Hot enough that no model is sure of every byte; one seed may still give another's text.
    let draw = |seed| generate(&mut prompt(&model), &options(&constraint, 200, 5.0, seed));
    assert_eq!(draw(1), draw(1));
    let first = draw(1).bytes;
    assert!((2..10).any(|seed| draw(seed).bytes != first));
}

/// Forced bytes leave the same flags, state and logits as bytes that the caller appends.
#[test]
fn forced_bytes_equal_appended_text() {
    for (family, name) in [("infer", "nano_trained"), ("infer", "swa")] {
        let model = load(family, name);
        let constraint = Constraint::regex("class Reader:\n    def (read|write)\\(self\\):").expect("a pattern");
        let mut session = prompt(&model);
        let made = generate(&mut session, &options(&constraint, 100, 0.0, 0));
        assert_eq!(made.matched, Some(true));
        let choice = 22;
        assert!(made.bytes.starts_with(b"class Reader:\n    def "));

        let mut by_hand = prompt(&model);
        block_on(by_hand.append(&made.bytes[..choice])).expect("text");
        block_on(by_hand.logits(0.0)).expect("logits");
        assert_eq!(by_hand.ids()[5..], made.ids[..choice]);
        block_on(by_hand.push(made.ids[choice])).expect("a byte");
        block_on(by_hand.append(&made.bytes[choice + 1..])).expect("text");
        let expected = block_on(by_hand.logits(0.0)).expect("logits");
        assert_eq!(block_on(session.logits(0.0)).expect("logits"), expected, "{name}");
        assert_eq!(by_hand.ids(), session.ids());
        // Appended text reopens the decision on the last byte.
        let [a, b] = [&mut session, &mut by_hand].map(|session| {
            block_on(session.append(b" pass")).expect("text");
            block_on(session.snapshot()).expect("a snapshot")
        });
        assert!(a == b, "{name}: other states");
    }
}

#[test]
fn forced_bytes_consume_no_random_numbers() {
    let model = load("infer", "nano_trained");
    // Only the first choice sees the same text with and without the forced bytes.
    let one = Constraint::regex("[a-z]{1}").expect("a pattern");
    let forced = Constraint::regex("[a-z]{1}forced").expect("a pattern");
    for seed in 0..5 {
        let short = generate(&mut prompt(&model), &options(&one, 50, 1.0, seed));
        let long = generate(&mut prompt(&model), &options(&forced, 50, 1.0, seed));
        assert_eq!(short.ids[0], long.ids[0]);
        assert!(long.bytes.ends_with(b"forced"));
    }
}

#[test]
fn constraint_that_allows_everything_changes_nothing() {
    let model = load("infer", "nano_trained");
    let anything = Constraint::regex("(?s-u).*").expect("a pattern");
    for (temperature, seed) in [(0.0, 0), (1.0, 3)] {
        let with = options(&anything, 40, temperature, seed);
        let mut without = with.clone();
        without.constraint = None;
        let (with, without) = (generate(&mut prompt(&model), &with), generate(&mut prompt(&model), &without));
        assert_eq!((with.bytes, with.ids, with.stop), (without.bytes, without.ids, without.stop));
        assert_eq!((with.matched, without.matched), (Some(true), None));
    }
}

#[test]
fn stop_strings_apply_to_forced_bytes() {
    let model = load("infer", "nano_trained");
    let constraint = Constraint::regex("one two three [ab] four").expect("a pattern");
    let mut stopped = options(&constraint, 50, 0.0, 0);
    stopped.stops = vec![b"never".to_vec(), b"two".to_vec(), b"three".to_vec()];
    let mut session = prompt(&model);
    let made = generate(&mut session, &stopped);
    assert_eq!((made.bytes.as_slice(), made.stop, made.matched), (&b"one "[..], StopReason::StopString, Some(false)));
    // The session holds the stop string and nothing after it.
    assert_eq!((made.ids.len(), session.ids().len()), (7, 5 + 7));
    assert_eq!(session.ids()[5..], made.ids);

    // A stop string that spans forced bytes and a chosen one.
    stopped.stops = vec![b"e a".to_vec(), b"e b".to_vec()];
    let made = generate(&mut prompt(&model), &stopped);
    assert_eq!((made.bytes.as_slice(), made.ids.len()), (&b"one two thre"[..], 15));
    // Bytes that are held back, but no stop string.
    stopped.stops = vec![b"four!".to_vec()];
    let made = generate(&mut prompt(&model), &stopped);
    assert_eq!((made.stop, made.matched), (StopReason::Complete, Some(true)));
    // A stop string at the end of the match is not part of the text.
    stopped.stops = vec![b"r".to_vec()];
    stopped.constraint = Some(Constraint::regex("four").expect("a pattern"));
    let made = generate(&mut prompt(&model), &stopped);
    assert_eq!((made.bytes.as_slice(), made.stop), (&b"fou"[..], StopReason::StopString));
}

#[test]
fn stopped_and_cancelled_generations_leave_a_usable_session() {
    let model = load("infer", "nano_trained");
    let constraint = Constraint::regex("forced [ab] forced").expect("a pattern");
    let mut session = prompt(&model);
    let mut seen = 0;
    let made = block_on(session.generate(&options(&constraint, 50, 0.0, 0), &mut |piece| {
        seen += piece.bytes.len();
        if seen < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }))
    .expect("a generation");
    assert_eq!((made.bytes.as_slice(), made.stop, made.matched), (&b"for"[..], StopReason::Cancelled, Some(false)));
    assert_eq!(session.ids()[5..], made.ids);
    assert_eq!(made.ids.len(), 7, "the session keeps the run");

    let mut session = prompt(&model);
    session.cancel_token().cancel();
    let made = generate(&mut session, &options(&constraint, 50, 0.0, 0));
    assert_eq!((made.stop, made.bytes.len(), made.matched), (StopReason::Cancelled, 0, Some(false)));
    assert_eq!(generate(&mut session, &options(&constraint, 50, 0.0, 0)).matched, Some(true));

    let mut empty = block_on(Session::new(&model)).expect("a session");
    let refused = block_on(empty.generate(&options(&constraint, 50, 0.0, 0), &mut |_| ControlFlow::Continue(())));
    let error = refused.expect_err("no text yet");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("empty"), "{error}");
}

#[test]
fn budget_can_end_within_forced_bytes() {
    let model = load("infer", "nano_trained");
    let constraint = Constraint::regex("[ab]forced").expect("a pattern");
    let mut session = prompt(&model);
    let made = generate(&mut session, &options(&constraint, 4, 0.0, 0));
    assert_eq!((made.stop, made.matched, made.ids.len()), (StopReason::Budget, Some(false), 4));
    assert!(made.bytes.ends_with(b"for"));
    assert_eq!(session.ids()[5..], made.ids);
}

#[test]
fn forced_bytes_count_for_the_repetition_penalty() {
    let model = load("infer", "nano_trained");
    // So strong that no byte is chosen greedily again, however sure the model is of it.
    for (forced, other) in [("a", b'b'), ("b", b'a')] {
        let constraint = Constraint::regex(&format!("{forced}[ab]")).expect("a pattern");
        let mut penal = options(&constraint, 2, 0.0, 0);
        penal.sampling.repetition_penalty = 1e20;
        let made = generate(&mut prompt_without_letters(&model), &penal);
        assert_eq!(made.bytes[1], other, "{}", String::from_utf8_lossy(&made.bytes));
    }
}

fn prompt_without_letters(model: &Model) -> Session {
    session_with(model, &[1, 14, 14, 36])
}
