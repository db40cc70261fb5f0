//! Typed access to JSON keys. Errors name the file, the key, what was expected and what was found.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The end of messages about values that no published file has.
const ADVICE: &str = "use the config.json of this checkpoint";

/// A JSON object of a configuration. A key with the value `null` counts as absent, as its writers intend.
pub(crate) struct Keys<'a> {
    map: &'a Map<String, Value>,
    origin: &'a str,
    /// Path of this object in the document, with a trailing dot; empty for the document itself.
    path: String,
}

impl<'a> Keys<'a> {
    /// Returns the keys of the document `value`, which messages call `origin`.
    pub fn new(value: &'a Value, origin: &'a str) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Keys { map, origin, path: String::new() }),
            _ => Err(Error::bad_checkpoint(format!("{origin}: must be a JSON object, found {}", shown(value)))),
        }
    }

    /// Name of the document.
    pub fn origin(&self) -> &'a str {
        self.origin
    }

    /// The value of `key`, if it exists and is not `null`.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The object under `key`, which is required.
    pub fn object(&self, key: &str) -> Result<Keys<'a>> {
        self.optional_object(key)?.ok_or_else(|| self.missing(key))
    }

    /// The object under `key`, if any.
    pub fn optional_object(&self, key: &str) -> Result<Option<Keys<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Keys { map, origin: self.origin, path: format!("{}{key}.", self.path) }))
            }
            Some(found) => Err(self.expected(key, "an object", found)),
        }
    }

    /// The list under `key`, if any.
    pub fn list(&self, key: &str) -> Result<Option<&'a [Value]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(found) => Err(self.expected(key, "a list", found)),
        }
    }

    /// The string under `key`, if any.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(found) => Err(self.expected(key, "a string", found)),
        }
    }

    /// The Boolean under `key`, or `absent`.
    pub fn flag(&self, key: &str, absent: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(absent),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(found) => Err(self.expected(key, "true or false", found)),
        }
    }

    /// The integer under `key`, which is required and must be in `least..=most`.
    pub fn integer(&self, key: &str, least: usize, most: usize) -> Result<usize> {
        self.optional_integer(key, least, most)?.ok_or_else(|| self.missing(key))
    }

    /// The integer under `key`, if any, which must be in `least..=most`.
    pub fn optional_integer(&self, key: &str, least: usize, most: usize) -> Result<Option<usize>> {
        let Some(found) = self.get(key) else { return Ok(None) };
        match found.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (least..=most).contains(&n) => Ok(Some(n)),
            _ => Err(self.expected(key, format_args!("an integer from {least} to {most}"), found)),
        }
    }

    /// The finite number under `key`, if any.
    pub fn real(&self, key: &str) -> Result<Option<f64>> {
        let Some(found) = self.get(key) else { return Ok(None) };
        match found.as_f64() {
            Some(x) if x.is_finite() => Ok(Some(x)),
            _ => Err(self.expected(key, "a number", found)),
        }
    }

    /// The finite number above 0 under `key`, if any.
    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.real(key)? {
            Some(x) if x <= 0.0 => Err(self.bad(key, format_args!("must be above 0, found {x:?}; {ADVICE}"))),
            found => Ok(found),
        }
    }

    /// The epsilon of a norm under `key`, which is required: at most 1, and not subnormal, since a shader may flush
    /// that to 0.
    pub fn epsilon(&self, key: &str) -> Result<f32> {
        let wide = self.real(key)?.ok_or_else(|| self.missing(key))?;
        let eps = wide as f32;
        if (f32::MIN_POSITIVE..=1.0).contains(&eps) {
            Ok(eps)
        } else {
            let least = f32::MIN_POSITIVE;
            Err(self.bad(key, format_args!("must be above {least:.2e} and at most 1, found {wide:?}; {ADVICE}")))
        }
    }

    /// Rejects every string under `key` except `only`.
    pub fn must_be(&self, key: &str, only: &str, required: bool) -> Result<()> {
        match self.text(key)? {
            Some(found) if found == only => Ok(()),
            Some(_) => Err(self.unsupported_value(key, format_args!("\"{only}\""))),
            None if required => Err(self.missing(key)),
            None => Ok(()),
        }
    }

    /// The error that `key` is missing.
    pub fn missing(&self, key: &str) -> Error {
        Error::bad_checkpoint(format!("{}: `{}{key}` is missing; {ADVICE}", self.origin, self.path))
    }

    /// The error that the value of `key` is impossible or contradicts the file.
    pub fn bad(&self, key: &str, what: impl Display) -> Error {
        Error::bad_checkpoint(format!("{}: `{}{key}` {what}", self.origin, self.path))
    }

    /// The error that the value of `key` asks for something that is not supported.
    pub fn unsupported(&self, key: &str, what: impl Display) -> Error {
        Error::unsupported(format!("{}: `{}{key}` {what}", self.origin, self.path))
    }

    /// The error that the value of `key` is well formed but none of the `known` ones.
    pub fn unsupported_value(&self, key: &str, known: impl Display) -> Error {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), shown);
        self.unsupported(key, format_args!("is {found}, which is not supported; known: {known}"))
    }

    fn expected(&self, key: &str, what: impl Display, found: &Value) -> Error {
        self.bad(key, format_args!("must be {what}, found {}; {ADVICE}", shown(found)))
    }
}

/// A JSON value for a message, shortened to a readable length.
pub(crate) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    match value {
        Value::Array(list) if list.is_empty() => "an empty list".to_owned(),
        Value::Object(map) if map.is_empty() => "an empty object".to_owned(),
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(map) => format!("an object of {} keys", map.len()),
        Value::String(text) if text.chars().nth(LONGEST).is_some() => {
            format!("{:?}...", text.chars().take(LONGEST).collect::<String>())
        }
        other => other.to_string(),
    }
}
