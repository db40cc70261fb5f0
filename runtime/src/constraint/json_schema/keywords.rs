//! The supported keywords of a schema, the values that they take, and the types that they restrict.

use serde_json::{Map, Value};

use crate::constraint::json_schema::pointer::shown;
use crate::constraint::json_schema::types::Types;
use crate::error::{Error, Result};

/// The value that a keyword takes.
#[derive(Debug, Clone, Copy)]
enum Holds {
    Anything,
    /// A whole number, at least 0.
    Count,
    Number,
    String,
    Strings,
    Object,
    Schema,
    /// A list with at least one schema.
    Schemas,
    List,
    /// A type or a list of types, checked by [`types`].
    Type,
}

/// Keywords that restrict values of some types.
const RESTRICTIONS: [(&str, Types, Holds); 17] = [
    ("minLength", Types::STRING, Holds::Count),
    ("maxLength", Types::STRING, Holds::Count),
    ("pattern", Types::STRING, Holds::String),
    ("format", Types::STRING, Holds::String),
    ("minimum", Types::NUMBER, Holds::Number),
    ("maximum", Types::NUMBER, Holds::Number),
    ("exclusiveMinimum", Types::NUMBER, Holds::Number),
    ("exclusiveMaximum", Types::NUMBER, Holds::Number),
    ("properties", Types::OBJECT, Holds::Object),
    ("required", Types::OBJECT, Holds::Strings),
    ("additionalProperties", Types::OBJECT, Holds::Schema),
    ("items", Types::ARRAY, Holds::Schema),
    ("prefixItems", Types::ARRAY, Holds::Schemas),
    ("minItems", Types::ARRAY, Holds::Count),
    ("maxItems", Types::ARRAY, Holds::Count),
    // These hold schemas for references and restrict nothing.
    ("$defs", Types::NONE, Holds::Object),
    ("definitions", Types::NONE, Holds::Object),
];

/// Keywords that list alternatives; a schema may have one of them.
const ALTERNATIVES: [(&str, Holds); 6] = [
    ("enum", Holds::List),
    ("const", Holds::Anything),
    ("$ref", Holds::String),
    ("anyOf", Holds::Schemas),
    ("oneOf", Holds::Schemas),
    ("allOf", Holds::Schemas),
];

/// Keywords that restrict nothing.
const ANNOTATIONS: [&str; 10] = [
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
];

/// Checks that every keyword is supported and has a value of the right kind.
pub(super) fn check(map: &Map<String, Value>) -> Result<()> {
    for (name, value) in map {
        if ANNOTATIONS.contains(&name.as_str()) || name == "$anchor" || name.starts_with("x-") {
            continue;
        }
        let restriction = RESTRICTIONS.iter().find(|(known, ..)| known == name).map(|&(.., holds)| holds);
        let alternative = ALTERNATIVES.iter().find(|(known, _)| known == name).map(|&(_, holds)| holds);
        let holds = match (restriction.or(alternative), name.as_str()) {
            (Some(holds), _) => holds,
            (None, "type") => Holds::Type,
            (None, _) => {
                let shown = shown(name, 100);
                return Err(Error::unsupported(format!(
                    "`{shown}` is not supported; remove it, or prefix its name with x- if it is an annotation"
                )));
            }
        };
        check_value(name, value, holds)?;
    }
    Ok(())
}

fn check_value(name: &str, value: &Value, holds: Holds) -> Result<()> {
    let (right, expected) = match holds {
        Holds::Anything | Holds::Type => (true, ""),
        Holds::Count => (as_count(value).is_some(), "a whole number, at least 0"),
        Holds::Number => (value.is_number(), "a number"),
        Holds::String => (value.is_string(), "a string"),
        Holds::Strings => (value.as_array().is_some_and(|list| list.iter().all(Value::is_string)), "a list of strings"),
        Holds::Object => (value.is_object(), "an object"),
        Holds::Schema => (value.is_object() || value.is_boolean(), "a schema (an object or a boolean)"),
        Holds::Schemas => (value.as_array().is_some_and(|list| !list.is_empty()), "a list of schemas, at least one"),
        Holds::List => (value.is_array(), "a list"),
    };
    if right {
        return Ok(());
    }
    let found = match value {
        Value::Number(number) => number.to_string(),
        Value::Array(list) if list.is_empty() => "an empty list".to_owned(),
        other => kind(other).to_owned(),
    };
    Err(Error::invalid(format!("`{name}`: expected {expected}, found {found}")))
}

/// The kind of a value, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The types that `type` lists; all types without it.
pub(super) fn types(map: &Map<String, Value>) -> Result<Types> {
    let named = |value: &Value| {
        value.as_str().and_then(Types::named).ok_or_else(|| {
            let found: String = value.to_string().chars().take(60).collect();
            Error::invalid(format!(
                "`type`: expected null, boolean, integer, number, string, array, object or a list of them, \
                 found {found}"
            ))
        })
    };
    match map.get("type") {
        None => Ok(Types::ALL),
        Some(Value::Array(names)) => names.iter().try_fold(Types::NONE, |types, name| Ok(types | named(name)?)),
        Some(name) => named(name),
    }
}

/// The keyword that lists alternatives, if there is one.
pub(super) fn alternatives(map: &Map<String, Value>) -> Result<Option<&'static str>> {
    let mut found = ALTERNATIVES.iter().map(|(name, _)| *name).filter(|name| map.contains_key(*name));
    match (found.next(), found.next()) {
        (Some(one), Some(other)) => {
            Err(Error::unsupported(format!("`{other}` beside `{one}` is not supported; keep one of them")))
        }
        (found, _) => Ok(found),
    }
}

/// Checks that no keyword beside `name` restricts values of `types`.
pub(super) fn check_siblings(name: &str, map: &Map<String, Value>, types: Types) -> Result<()> {
    let found =
        RESTRICTIONS.iter().find(|(sibling, restricted, _)| types.has(*restricted) && map.contains_key(*sibling));
    match found {
        Some((sibling, ..)) => Err(Error::unsupported(format!(
            "`{sibling}` beside `{name}` is not supported; only `type` may stand there"
        ))),
        None => Ok(()),
    }
}

/// The whole number that a keyword sets.
pub(super) fn count(map: &Map<String, Value>, name: &str) -> Option<u64> {
    map.get(name).and_then(as_count)
}

fn as_count(value: &Value) -> Option<u64> {
    let whole = |number: f64| (number.fract() == 0.0 && (0.0..=1e15).contains(&number)).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(whole))
}
