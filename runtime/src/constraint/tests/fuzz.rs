//! Random patterns and damaged schemas: they never panic and end within seconds.

use std::time::{Duration, Instant};

use crate::constraint::Constraint;
use crate::constraint::tests::random_walk::{schemas, walk};
use crate::error::{ErrorKind, Result};
use crate::fuzz::{self, Random};

/// Compiles `source`. The result is an error of an expected kind, or a constraint under which a random walk ends with a
/// match.
fn compiles_or_is_refused(source: &str, compile: impl FnOnce(&str) -> Result<Constraint>, random: &mut Random) {
    let start = Instant::now();
    let result = compile(source);
    assert!(start.elapsed() < Duration::from_secs(5), "{source}: {:?}", start.elapsed());
    match result {
        Ok(constraint) if constraint.shortest() < 2000 => {
            let text = walk(&constraint, constraint.shortest() + 20, random);
            assert!(constraint.matches(&text), "{source}: {text:?}");
        }
        Ok(_) => {}
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Unsupported), "{source}: {error:?}");
            assert!(!error.message().contains('\n'), "{source}: {error}");
        }
    }
}

/// Inserts, replaces, removes and repeats random parts of a text.
fn damage(text: &mut String, fragments: &[&str], random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let mut position =
            || (0..=text.len()).cycle().skip(random.below(text.len() + 1)).find(|&i| text.is_char_boundary(i));
        let (Some(a), Some(b)) = (position(), position()) else { return };
        let (a, b) = (a.min(b), a.max(b));
        match random.below(4) {
            0 => text.insert_str(a, fragments[random.below(fragments.len())]),
            1 if b - a < 40 => text.replace_range(a..b, fragments[random.below(fragments.len())]),
            2 if b - a < 40 => text.replace_range(a..b, ""),
            _ if text.len() < 5000 => *text = format!("{}{}", &text[..b], &text[a..]),
            _ => {}
        }
    }
}

#[test]
fn random_patterns_compile_or_are_refused() {
    const FRAGMENTS: [&str; 40] = [
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
    for mut case in fuzz::cases(0x2545_f491_4f6c_dd1d, 1000) {
        let random = &mut case.random;
        let pattern: String = (0..1 + random.below(15)).map(|_| FRAGMENTS[random.below(FRAGMENTS.len())]).collect();
        compiles_or_is_refused(&pattern, Constraint::regex, random);
        let schema =
            serde_json::json!({"type": "string", "pattern": pattern, "maxLength": random.below(30)}).to_string();
        compiles_or_is_refused(&schema, |schema| Constraint::json_schema(schema.as_bytes()), random);
    }
}

#[test]
fn damaged_schemas_compile_or_are_refused() {
    const FRAGMENTS: [&str; 30] = [
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
    let schemas: Vec<String> = schemas().iter().map(|schema| schema.to_string()).collect();
    for mut case in fuzz::cases(0x1234_5678_9abc_def1, 50_000) {
        let random = &mut case.random;
        let mut schema = schemas[random.below(schemas.len())].clone();
        damage(&mut schema, &FRAGMENTS, random);
        compiles_or_is_refused(&schema, |schema| Constraint::json_schema(schema.as_bytes()), random);
    }
}
