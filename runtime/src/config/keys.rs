//! Typed access to JSON keys. Errors name the file, the key, what was expected and what was found.

use std::fmt::{Debug, Display};

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::input::shorten::{quoted, shortened};

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

    /// Whether `key` exists, also with the value `null`.
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Whether `key` exists with the value `null`.
    pub fn is_null(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    /// Path of `key` in the document.
    pub fn path_of(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    /// Path of this object in the document.
    pub fn object_path(&self) -> String {
        self.path.trim_end_matches('.').to_owned()
    }

    /// Keys of this object.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
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

    /// The number under `key`, if any, which must be in `least..=most`.
    pub fn number(&self, key: &str, least: f64, most: f64) -> Result<Option<f64>> {
        match self.real(key)? {
            Some(x) if !(least..=most).contains(&x) => {
                Err(self.bad(key, format_args!("must be from {least:?} to {most:?}, found {x:?}; {ADVICE}")))
            }
            found => Ok(found),
        }
    }

    /// The epsilon of a norm under `key`, if any: at most 1, and not subnormal, since a shader may flush that to 0.
    pub fn epsilon(&self, key: &str) -> Result<Option<f32>> {
        let Some(wide) = self.real(key)? else { return Ok(None) };
        let eps = wide as f32;
        if (f32::MIN_POSITIVE..=1.0).contains(&eps) {
            Ok(Some(eps))
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

    /// Rejects two names of the same thing that have different values.
    pub fn same_if_both(&self, key: &str, old: &str) -> Result<()> {
        match (self.get(key), self.get(old)) {
            (Some(this), Some(that)) if this != that => {
                Err(self.bad(key, format_args!("is {}, but `{old}` is {}; keep one of them", shown(this), shown(that))))
            }
            _ => Ok(()),
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

/// Keys of sizes that a file lacks, with the defaults that take their places.
#[derive(Debug, Default)]
pub(crate) struct Absent(Vec<String>);

impl Absent {
    /// The integer under `key`, which must be in the range `least..=most`, or `default`.
    pub fn integer(
        &mut self,
        keys: &Keys<'_>,
        key: &str,
        default: usize,
        (least, most): (usize, usize),
    ) -> Result<usize> {
        let found = keys.optional_integer(key, least, most)?;
        Ok(found.unwrap_or_else(|| self.take(keys, key, default)))
    }

    /// The epsilon under `key`, or `default`.
    pub fn epsilon(&mut self, keys: &Keys<'_>, key: &str, default: f32) -> Result<f32> {
        let found = keys.epsilon(key)?;
        Ok(found.unwrap_or_else(|| self.take(keys, key, default)))
    }

    /// Notes that `key` is absent.
    fn take<T: Debug>(&mut self, keys: &Keys<'_>, key: &str, default: T) -> T {
        self.0.push(format!("`{}` {default:?}", keys.path_of(key)));
        default
    }

    /// The warning that keys are absent, if any is, with the name of the class that has the defaults.
    pub fn warning(&self, keys: &Keys<'_>, class: &str) -> Option<String> {
        let list = self.0.join(", ");
        (!self.0.is_empty()).then(|| {
            format!("{}: sizes are absent, so the defaults of {class} are used: {list}; {ADVICE}", keys.origin())
        })
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
        Value::String(text) => quoted(text, LONGEST),
        // A number has as many digits as its writer liked, if some crate of the program keeps them.
        other => shortened(&other.to_string(), LONGEST),
    }
}
