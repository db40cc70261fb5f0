//! Description of a key and of a table of keys.

use std::fmt;

use toml::{Table, Value};

use crate::run::kind::Kind;

/// A table of a configuration.
pub(in crate::run) struct Section {
    /// Dotted name; empty for the keys before the first table.
    pub(in crate::run) name: &'static str,
    /// The kinds of training that read it.
    pub(in crate::run) kinds: &'static [Kind],
    /// Meaning of the table.
    pub(in crate::run) text: &'static str,
    /// Whether a template leaves the table out, as a comment.
    pub(in crate::run) commented: bool,
}

/// A key of a configuration.
pub(in crate::run) struct Key {
    /// Dotted name, as in `optimiser.steps`.
    pub(in crate::run) name: &'static str,
    /// The kinds of training that read it.
    pub(in crate::run) kinds: &'static [Kind],
    /// Values that are allowed.
    pub(in crate::run) value: Expected,
    /// Whether the key must be given.
    pub(in crate::run) need: Need,
    /// What holds without the key, unless the default is a value.
    pub(in crate::run) absent: &'static str,
    /// A value in TOML, for a key without a default value. `STAGE` stands for the kind of training.
    pub(in crate::run) example: &'static str,
    /// Unit of the value, or nothing.
    pub(in crate::run) unit: &'static str,
    /// Meaning, in whole sentences.
    pub(in crate::run) text: &'static str,
    /// Whether the value may change when a run resumes.
    pub(in crate::run) may_change: bool,
}

/// Values of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::run) enum Expected {
    /// A whole number in a range.
    Whole(i64, i64),
    /// A finite number in a range.
    Number(f64, f64),
    /// `true` or `false`.
    Flag,
    /// A text.
    Text,
    /// A path.
    Path,
    /// A list of paths.
    Paths,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// When a key must be given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::run) enum Need {
    /// Always.
    Always,
    /// If its table is given.
    InTable,
    /// In these kinds of training.
    Kinds(&'static [Kind]),
    /// Never.
    Optional,
}

/// No upper limit of a whole number.
pub(super) const ANY: i64 = i64::MAX;
/// No upper limit of a number, other than that of an f32.
pub(super) const LARGE: f64 = f32::MAX as f64;

impl Key {
    /// Name of the table, and the name in it.
    pub(in crate::run) fn split(&self) -> (&'static str, &'static str) {
        self.name.rsplit_once('.').unwrap_or(("", self.name))
    }

    /// Whether the key must be given in this kind of training, if its table is given.
    pub(in crate::run) fn required(&self, kind: Kind) -> bool {
        match self.need {
            Need::Always | Need::InTable => true,
            Need::Kinds(kinds) => kinds.contains(&kind),
            Need::Optional => false,
        }
    }
}

impl Expected {
    /// Whether a value is allowed.
    pub(super) fn allows(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Whole(min, max), Value::Integer(value)) => (min..=max).contains(value),
            (Self::Number(min, max), Value::Integer(value)) => (min..=max).contains(&(*value as f64)),
            (Self::Number(min, max), Value::Float(value)) => (min..=max).contains(value),
            (Self::Flag, Value::Boolean(_)) | (Self::Text, Value::String(_)) => true,
            (Self::Path, Value::String(path)) => !path.is_empty(),
            (Self::Paths, Value::Array(paths)) => paths.iter().all(|path| Self::Path.allows(path)),
            (Self::Choice(words), Value::String(word)) => words.contains(&word.as_str()),
            _ => false,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Whole(min, ANY) => write!(f, "a whole number of at least {min}"),
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Number(min, max) if max == LARGE => write!(f, "a finite number of at least {min}"),
            Self::Number(min, max) => write!(f, "a number from {min} to {max}"),
            Self::Flag => f.write_str("`true` or `false`"),
            Self::Text => f.write_str("a string in quotes"),
            Self::Path => f.write_str("a path in quotes"),
            Self::Paths => f.write_str("a list of paths in quotes"),
            Self::Choice(words) => {
                for (i, word) in words.iter().enumerate() {
                    let before = match i {
                        0 => "",
                        _ if i + 1 == words.len() => " or ",
                        _ => ", ",
                    };
                    write!(f, "{before}\"{word}\"")?;
                }
                Ok(())
            }
        }
    }
}

/// The value of a dotted key.
pub(in crate::run) fn lookup<'a>(table: &'a Table, name: &str) -> Option<&'a Value> {
    let mut parts = name.split('.');
    let first = table.get(parts.next()?)?;
    parts.try_fold(first, |value, part| value.get(part))
}
