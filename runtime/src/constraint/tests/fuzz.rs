//! Random patterns and damaged schemas: no panic, and an end within seconds.

use std::time::{Duration, Instant};

use crate::constraint::Constraint;
use crate::constraint::tests::random_walk::{Random, schemas, walk};
use crate::error::{ErrorKind, Result};

fn seconds() -> u64 {
    std::env::var("BOLMO_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Checks the outcome, and walks a little if there is a constraint.
fn judge(what: &str, begun: Instant, result: Result<Constraint>, random: &mut Random) {
    assert!(begun.elapsed() < Duration::from_secs(5), "{what}: {:?}", begun.elapsed());
    match result {
        Ok(constraint) if constraint.shortest() < 2000 => {
            let text = walk(&constraint, constraint.shortest() + 20, random);
            assert!(constraint.matches(&text), "{what}: {text:?}");
        }
        Ok(_) => {}
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported), "{what}: {error:?}");
            assert!(!error.message().contains('\n'), "{what}: {error}");
        }
    }
}

/// Replaces, removes and repeats some parts.
fn damage(text: &mut String, pieces: &[&str], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let mut place =
            || (0..=text.len()).cycle().skip(random.below(text.len() + 1)).find(|&i| text.is_char_boundary(i));
        let (Some(a), Some(b)) = (place(), place()) else { return };
        let (a, b) = (a.min(b), a.max(b));
        match random.below(4) {
            0 => text.insert_str(a, pieces[random.below(pieces.len())]),
            1 if b - a < 40 => text.replace_range(a..b, pieces[random.below(pieces.len())]),
            2 if b - a < 40 => text.replace_range(a..b, ""),
            _ if text.len() < 5000 => *text = format!("{}{}", &text[..b], &text[a..]),
            _ => {}
        }
    }
}

#[test]
fn random_patterns() {
    const PIECES: [&str; 40] = [
        "a",
        "b",
        "(",
        ")",
        "(?:",
        "|",
        "*",
        "+",
        "?",
        "{3}",
        "{2,}",
        "{0,30}",
        "{1000}",
        "[",
        "]",
        "[^",
        "-",
        "^",
        "$",
        ".",
        "\\d",
        "\\w",
        "\\s",
        "\\S",
        "\\b",
        "\\B",
        "\\pL",
        "\\x{10ffff}",
        "é",
        "(?i)",
        "(?s)",
        "(?m)",
        "(?-u)",
        "(?x)",
        "\\",
        "\\xff",
        "&&",
        "--",
        "[[:alpha:]]",
        "\n",
    ];
    let deadline = Instant::now() + Duration::from_secs(seconds());
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    while Instant::now() < deadline {
        let pattern: String = (0..1 + random.below(15)).map(|_| PIECES[random.below(PIECES.len())]).collect();
        judge(&pattern, Instant::now(), Constraint::regex(&pattern), &mut random);
        let schema =
            serde_json::json!({"type": "string", "pattern": pattern, "maxLength": random.below(30)}).to_string();
        judge(&schema, Instant::now(), Constraint::json_schema(schema.as_bytes()), &mut random);
    }
}

#[test]
fn damaged_schemas() {
    const PIECES: [&str; 30] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "true",
        "false",
        "null",
        "0",
        "-1",
        "7",
        "1e9",
        "\"type\":",
        "\"string\"",
        "\"minLength\":5,",
        "\"anyOf\":[true],",
        "\"$ref\":\"#\",",
        "\"$ref\":\"#/items\"",
        "\"items\":{\"$ref\":\"#\"},",
        "\"maxItems\":100000,",
        "\"required\":[\"a\"],",
        "\"oneOf\":[",
        "\"not\":{}",
        "\"minimum\":-3,",
        "\"pattern\":\"a+\",",
        "\"additionalProperties\":",
        "\\",
        "é",
    ];
    let deadline = Instant::now() + Duration::from_secs(seconds());
    let mut random = Random(0x1234_5678_9abc_def1);
    let schemas: Vec<String> = schemas().iter().map(|schema| schema.to_string()).collect();
    while Instant::now() < deadline {
        let mut schema = schemas[random.below(schemas.len())].clone();
        damage(&mut schema, &PIECES, &mut random);
        judge(&schema, Instant::now(), Constraint::json_schema(schema.as_bytes()), &mut random);
    }
}
