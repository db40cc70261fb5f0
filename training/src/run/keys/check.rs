//! Check of a configuration's values against the table of keys.

use bolmo_runtime::unstable::{quoted, shortened};
use bolmo_runtime::{Error, Result};
use toml::{Table, Value};

use super::key::{Key, Need, lookup};
use super::table::{KEYS, SECTIONS};

/// Longest text that a message quotes.
const QUOTED: usize = 60;

/// Checks names, types and ranges of all keys, and that none is missing which every run needs.
///
/// # Errors
/// `InvalidArgument` that names the key, what was expected and what was found.
pub(in crate::run) fn check_table(table: &Table) -> Result<()> {
    check_names(table, "")?;
    for key in &KEYS {
        let (section, _) = key.split();
        match lookup(table, key.name) {
            Some(value) if key.value.allows(value) => {}
            Some(value) => return Err(wrong_value(key, value)),
            None => {
                let required = match key.need {
                    Need::Always => true,
                    Need::InTable => lookup(table, section).is_some(),
                    Need::Kinds(_) | Need::Optional => false,
                };
                if required {
                    return Err(missing(key));
                }
            }
        }
    }
    Ok(())
}

/// The error of a key that must be given.
fn missing(key: &Key) -> Error {
    Error::invalid(format!(
        "`{}` is missing; set it to {}, for example {}",
        key.name,
        key.value,
        key.example.replace("STAGE", "new")
    ))
}

fn wrong_value(key: &Key, value: &Value) -> Error {
    let unit = if key.unit.is_empty() { String::new() } else { format!(" ({})", key.unit) };
    // Otherwise the expectation says what to do.
    let remedy = match key.need {
        Need::Optional => "; correct it, or remove the key for the default".to_owned(),
        _ => format!("; for example {}", key.example.replace("STAGE", "new")),
    };
    Error::invalid(format!("`{}` must be {}{unit}, found {}{remedy}", key.name, key.value, found(value)))
}

/// Checks that every key and table has a known name, and that tables are tables.
fn check_names(table: &Table, section: &str) -> Result<()> {
    for (part, value) in table {
        let name = if section.is_empty() { part.clone() } else { format!("{section}.{part}") };
        if SECTIONS.iter().any(|section| section.name == name) {
            let inner = value
                .as_table()
                .ok_or_else(|| Error::invalid(format!("`{name}` must be a table, found {}", found(value))))?;
            check_names(inner, &name)?;
        } else if !KEYS.iter().any(|key| key.name == name) {
            return Err(unknown(section, part));
        }
    }
    Ok(())
}

/// The error of a name that is not in the table, with the names that are.
fn unknown(section: &str, part: &str) -> Error {
    let name = if section.is_empty() { part.to_owned() } else { format!("{section}.{part}") };
    let elsewhere: Vec<String> =
        KEYS.iter().filter(|key| key.split().1 == part).map(|key| format!("`{}`", key.name)).collect();
    if !elsewhere.is_empty() {
        return Error::invalid(format!("`{}` is not a key; use {}", shortened(&name, QUOTED), elsewhere.join(" or ")));
    }
    let keys = KEYS.iter().map(Key::split).filter(|(table, _)| *table == section).map(|(_, name)| name);
    let tables = SECTIONS.iter().map(|table| table.name);
    let tables = tables.filter_map(|name| match name.rsplit_once('.') {
        Some((table, name)) => (table == section).then_some(name),
        None => (section.is_empty() && !name.is_empty()).then_some(name),
    });
    let known: Vec<String> = keys.chain(tables).map(|name| format!("`{name}`")).collect();
    let place = if section.is_empty() { "the top level".to_owned() } else { format!("`{section}`") };
    Error::invalid(format!("`{}` is not a key; {place} has {}", shortened(&name, QUOTED), known.join(", ")))
}

/// A value in words.
fn found(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "an empty string".to_owned(),
        Value::String(text) => format!("the string {}", quoted(text, QUOTED)),
        Value::Integer(value) => value.to_string(),
        // The debug format has exponents in place of hundreds of digits.
        Value::Float(value) => format!("{value:?}"),
        Value::Boolean(value) => value.to_string(),
        Value::Datetime(value) => format!("the date {value}"),
        Value::Array(values) => match values.iter().find(|value| value.as_str().is_none_or(str::is_empty)) {
            Some(value) => format!("a list with {}", found(value)),
            None => "a list".to_owned(),
        },
        Value::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::key::Expected;
    use super::*;

    /// A configuration with every key of a kind that contradicts no other.
    fn whole() -> Table {
        let mut text = String::new();
        for section in &SECTIONS {
            if !section.name.is_empty() {
                text += &format!("[{}]\n", section.name);
            }
            for key in KEYS.iter().filter(|key| key.split().0 == section.name) {
                let value = match key.value {
                    _ if !key.example.is_empty() => key.example.to_owned(),
                    Expected::Whole(min, _) => min.to_string(),
                    Expected::Number(min, _) => format!("{min:?}"),
                    Expected::Flag => "true".to_owned(),
                    Expected::Text => "\"text\"".to_owned(),
                    Expected::Path => "\"path\"".to_owned(),
                    Expected::Paths => "[\"path\"]".to_owned(),
                    Expected::Choice(words) => format!("{:?}", words[0]),
                };
                text += &format!("{} = {value}\n", key.split().1);
            }
        }
        text.parse().expect(&text)
    }

    /// The table that holds a key.
    fn place<'a>(table: &'a mut Table, key: &Key) -> &'a mut Table {
        let sections = key.split().0.split('.').filter(|part| !part.is_empty());
        sections.fold(table, |table, part| table.get_mut(part).and_then(Value::as_table_mut).unwrap())
    }

    #[test]
    fn every_key_refuses_wrong_values_by_name() {
        check_table(&whole()).unwrap();
        let values = [
            "0",
            "-1",
            "-0.5",
            "9223372036854775807",
            "1e300",
            "inf",
            "-inf",
            "nan",
            "1.5",
            "true",
            "\"\"",
            "\"word\"",
            "\"8\"",
            "[]",
            "[1]",
            "[\"\"]",
            "{}",
            "{ a = 1 }",
            "2024-01-01",
        ];
        for key in &KEYS {
            let mut refused = 0;
            for text in values {
                let value = format!("v = {text}").parse::<Table>().unwrap().remove("v").unwrap();
                let mut table = whole();
                place(&mut table, key).insert(key.split().1.to_owned(), value);
                let Err(error) = check_table(&table) else { continue };
                refused += 1;
                let message = error.message();
                // The name, what was expected, what was found, and what to do.
                let start = format!("`{}` must be {}", key.name, key.value);
                assert!(message.starts_with(&start) && message.contains(", found "), "{text}: {message}");
                assert!(message.contains("; correct it, or remove") || message.contains("; for example "), "{message}");
                assert!(message.len() < 400 && !message.contains('\n'), "{message}");
            }
            assert!(refused >= 10, "{}: {refused}", key.name);
        }
    }

    #[test]
    fn values_that_would_overflow_are_refused() {
        for (name, value) in [
            ("batch.rows", "9223372036854775807"),
            ("batch.subwords", "1"),
            ("batch.accumulate", "4000000000"),
            ("batch.bytes_per_subword", "0"),
            ("optimiser.rate", "1e39"),
            ("optimiser.steps", "0"),
            ("optimiser.beta1", "1.0"),
            ("optimiser.warmup", "1.01"),
            ("compression.target", "nan"),
            ("every.keep", "0"),
            ("data.held_out_share", "1.0"),
        ] {
            let key = KEYS.iter().find(|key| key.name == name).unwrap();
            let value = format!("v = {value}").parse::<Table>().unwrap().remove("v").unwrap();
            assert!(!key.value.allows(&value), "{name}");
        }
    }

    #[test]
    fn missing_keys_are_named_with_an_example() {
        for key in KEYS.iter().filter(|key| matches!(key.need, Need::Always | Need::InTable)) {
            let mut table = whole();
            place(&mut table, key).remove(key.split().1);
            let message = check_table(&table).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{}` is missing", key.name)), "{message}");
            assert!(message.contains(", for example ") && !message.contains("STAGE"), "{message}");
        }
        // A table that is not given needs no keys.
        let table = "out = \"o\"\n[optimiser]\nsteps = 1\nrate = 1".parse().unwrap();
        check_table(&table).unwrap();
    }

    #[test]
    fn unknown_names_are_answered_with_the_known_ones() {
        for (text, says) in [
            ("optimizer = {}", "`optimizer` is not a key; the top level has `out`, `seed`, `model`, "),
            ("[optimiser]\nstpes = 1", "`optimiser.stpes` is not a key; `optimiser` has `steps`, "),
            ("[batch]\nsteps = 1", "`batch.steps` is not a key; use `optimiser.steps` or `compression.steps`"),
            ("rows = 1", "`rows` is not a key; use `batch.rows`"),
            ("[model.nwe]\nlayers = 1", "`model.nwe` is not a key; `model` has `source`, "),
            ("model = 1", "`model` must be a table, found 1"),
            ("[[model]]", "`model` must be a table, found a list"),
        ] {
            let message = check_table(&text.parse().unwrap()).unwrap_err().to_string();
            assert!(message.contains(says) && !message.contains('\n'), "{message}");
        }
    }
}
