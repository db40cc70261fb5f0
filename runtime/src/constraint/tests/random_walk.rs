//! Random walks along the bytes that a matcher allows: an independent validator accepts every text that they end with.

use std::time::Instant;

use serde_json::{Value, json};

use crate::constraint::Constraint;
use crate::fuzz::Random;
use crate::sampling::host::END;

/// Adds random allowed bytes until the text ends, within `budget` bytes.
pub(super) fn walk(constraint: &Constraint, budget: usize, random: &mut Random) -> Vec<u8> {
    let mut matcher = constraint.matcher();
    let mut text = Vec::new();
    loop {
        let remaining = budget - text.len();
        let allowed = matcher.allowed(Some(remaining));
        assert_eq!(allowed[END], matcher.is_match());
        assert!(matcher.shortest_rest() <= remaining);
        let bytes: Vec<u8> = (0..=255u8).filter(|&byte| allowed[usize::from(byte)]).collect();
        if let Some(byte) = matcher.forced() {
            assert_eq!((bytes.as_slice(), allowed[END]), (&[byte][..], false));
        }
        if allowed[END] && (bytes.is_empty() || random.below(4) == 0) {
            return text;
        }
        // A mixture of punctuation, which makes structure, and any bytes.
        let punctuation: Vec<u8> = bytes.iter().copied().filter(|byte| b"\"\\{}[],:0".contains(byte)).collect();
        let from = if !punctuation.is_empty() && random.below(3) == 0 { &punctuation } else { &bytes };
        assert!(!from.is_empty(), "a dead end after {:?}", String::from_utf8_lossy(&text));
        let byte = from[random.below(from.len())];
        matcher.advance(byte).unwrap();
        text.push(byte);
    }
}

pub(super) fn schemas() -> Vec<Value> {
    vec![
        json!(true),
        json!({}),
        json!({"type": "string"}),
        json!({"type": "string", "minLength": 3, "maxLength": 8}),
        json!({"type": "string", "pattern": "^[a-zé]{2,5}(-\\d+)?$"}),
        json!({"type": "string", "pattern": "b\\w+\\s.", "minLength": 6, "maxLength": 12}),
        json!({"type": "string", "pattern": "[^a-z][A-Z]{2}.", "maxLength": 9}),
        json!({"type": "integer"}),
        json!({"type": "integer", "minimum": -37, "maximum": 1204}),
        json!({"type": "integer", "exclusiveMinimum": 99, "exclusiveMaximum": 101}),
        json!({"type": "integer", "maximum": -5}),
        json!({"type": "number"}),
        json!({"type": "number", "minimum": -2, "exclusiveMaximum": 3}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 1000000000000000u64}),
        json!({"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 0}),
        json!({"enum": ["red", "green", 7, 1.5, null, ["a", {"b": false}], "\"\\\n"]}),
        json!({"type": ["string", "null", "integer"], "maxLength": 4, "minimum": 10}),
        json!({"type": "array", "maxItems": 4,
            "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 1}}),
        json!({"type": "array", "minItems": 1,
            "prefixItems": [{"const": "x"}, {"type": "null"}], "items": {"type": "integer"}}),
        json!({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": false}),
        json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}}}, "required": ["name", "tags"]}),
        json!({"type": "object", "properties": {"a": {"type": "null"}, "ab": {"type": "null"}, "é\n": {"type": "null"}},
            "required": ["z", "é"], "additionalProperties": {"type": "boolean"}}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "required": ["k"]}),
        json!({"type": "object", "properties": {"off": false, "on": true}}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"value": {"type": "integer"},
            "left": {"$ref": "#/$defs/tree"}, "right": {"$ref": "#/$defs/tree"}}, "required": ["value"]}}}),
        json!({"oneOf": [
            {"type": "object", "required": ["kind", "r"],
                "properties": {"kind": {"const": "circle"}, "r": {"type": "number", "minimum": 0}}},
            {"type": "object", "required": ["kind"],
                "properties": {"kind": {"enum": ["box", "cube"]}, "w": {"type": "integer"}}},
            {"type": "null"}]}),
        json!({"anyOf": [{"$ref": "#"}, {"type": "null"}, {"type": "array", "items": {"$ref": "#"}}]}),
        json!({"anyOf": [
            {"type": "array", "items": {"type": "integer"}},
            {"type": "array", "items": {"type": "number"}},
            true]}),
        json!({"allOf": [{"$ref": "#/definitions/a~1b%20c"}],
            "definitions": {"a/b c": {"type": "string", "format": "date-time"}}}),
        json!({"type": "object", "required": ["d", "t", "u"], "properties": {
            "d": {"type": "string", "format": "date"},
            "t": {"type": "string", "format": "time"},
            "u": {"type": "string", "format": "uuid"}}}),
        json!({"type": "object", "properties": {"schlüssel": {"type": "string", "enum": ["größe", 3, "日本"]}},
            "required": ["schlüssel"], "additionalProperties": true}),
        json!({"minLength": 2, "maximum": 5, "maxItems": 1, "required": ["a"]}),
    ]
}

#[test]
fn every_walked_document_is_valid() {
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    for schema in schemas() {
        let constraint =
            Constraint::json_schema(schema.to_string().as_bytes()).unwrap_or_else(|e| panic!("{schema}: {e}"));
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let shortest = constraint.shortest();
        for round in 0..120 {
            let budget = shortest + [0, 0, 1, 2, 5, 20, 100, 300][round % 8];
            let text = walk(&constraint, budget, &mut random);
            let shown = String::from_utf8_lossy(&text);
            assert!(text.len() <= budget && constraint.matches(&text), "{schema}: {shown}");
            let value: Value = serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{schema}: {shown}: {e}"));
            if let Err(error) = validator.validate(&value) {
                panic!("{schema}: {shown}: {error}");
            }
            if budget == shortest {
                assert_eq!(text.len(), shortest, "{schema}: {shown}");
            }
        }
    }
}

#[test]
fn every_walked_text_matches_its_pattern() {
    let mut random = Random::new(7);
    for pattern in ["[a-c]{3,9}x|y+", "(ab|a|b)*c", r"\d{4}-\d\d", ".{5,10}é", r"(?-u)[\x80-\xff]{2,}a"] {
        let constraint = Constraint::regex(pattern).unwrap();
        for extra in 0..40 {
            let text = walk(&constraint, constraint.shortest() + extra, &mut random);
            assert!(constraint.matches(&text), "{pattern}: {text:?}");
        }
    }
}

/// A value, written as a compact document, is accepted exactly where another validator finds it valid.
#[test]
fn documents_match_where_another_validator_accepts_them() {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-5),
        json!(10),
        json!(1204),
        json!(1205),
        json!(100),
        json!(2.5),
        json!(-1.0e-3),
        json!("red"),
        json!("x"),
        json!("größe"),
        json!("abcdefgh"),
        json!("bonn 7x"),
        json!("ab-12"),
        json!("2024-02-29T23:59:59Z"),
        json!("2023-02-29T23:59:59Z"),
        json!([]),
        json!([[true], [false, true]]),
        json!([[]]),
        json!(["x", null, 5]),
        json!(["x", null, "y"]),
        json!(["x"]),
        json!([1]),
        json!([1, 2]),
        json!([1, 2, 3]),
        json!({}),
        json!({"name": "a", "tags": []}),
        json!({"name": "a", "age": 5, "tags": ["abcde"]}),
        json!({"name": "a", "age": -1, "tags": []}),
        json!({"k": 5}),
        json!({"k": "5"}),
        json!({"kind": "circle", "r": 1.5}),
        json!({"kind": "box", "w": 1}),
        json!({"kind": "circle"}),
        json!({"on": [1, {}]}),
        json!({"off": 1}),
        json!({"value": 1, "left": {"value": 2}}),
        json!({"value": 1, "left": {}}),
        json!({"z": 1, "é": 2}),
        json!({"schlüssel": "日本", "mehr": [1]}),
        json!({"schlüssel": "andere"}),
        json!({"a": 1}),
        json!([[null], null]),
    ];
    for schema in schemas() {
        let constraint = Constraint::json_schema(schema.to_string().as_bytes()).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        for value in &values {
            let listed = schema.get("properties").is_some() && schema.get("additionalProperties").is_none();
            let unknown = |value: &Value| {
                let names = value.as_object().into_iter().flat_map(|map| map.keys());
                names.into_iter().any(|name| schema["properties"].get(name).is_none())
            };
            // A schema that refers only to itself allows everything in the other validator, and nothing here.
            if schema["anyOf"][0]["$ref"] == "#" && !constraint.matches(value.to_string().as_bytes()) {
                continue;
            }
            let expected = validator.is_valid(value) && !(listed && unknown(value));
            assert_eq!(constraint.matches(value.to_string().as_bytes()), expected, "{schema}: {value}");
        }
    }
}

/// Prints the time per byte: `cargo test -p bolmo-runtime --lib cost -- --nocapture`.
#[test]
fn the_cost_of_a_byte_is_small() {
    let mut random = Random::new(3);
    for schema in schemas() {
        let constraint = Constraint::json_schema(schema.to_string().as_bytes()).unwrap();
        let texts: Vec<_> = (0..30).map(|_| walk(&constraint, constraint.shortest() + 400, &mut random)).collect();
        let bytes: usize = texts.iter().map(Vec::len).sum();
        let start = Instant::now();
        for text in &texts {
            let mut matcher = constraint.matcher();
            for &byte in text {
                std::hint::black_box(matcher.allowed(Some(1000)));
                matcher.advance(byte).unwrap();
            }
        }
        let micros = start.elapsed().as_secs_f64() * 1e6 / bytes as f64;
        let shown: String = schema.to_string().chars().take(60).collect();
        eprintln!("{micros:8.2} µs a byte over {bytes:5} bytes: {shown}");
        assert!(micros < 500.0, "{schema}: {micros} µs a byte");
    }
}
