//! Where in a schema something is, and what references point to.

use std::fmt;
use std::rc::Rc;

use serde_json::Value;

use crate::error::{Error, Result};

/// Characters of a pointer in a message.
const SHOWN: usize = 200;

/// A place in a schema; shows itself as a JSON pointer.
#[derive(Debug, Clone)]
pub(super) struct Place<'a>(Option<Rc<Step<'a>>>);

#[derive(Debug)]
struct Step<'a> {
    before: Place<'a>,
    key: Key<'a>,
}

#[derive(Debug)]
enum Key<'a> {
    Name(&'a str),
    /// A keyword.
    Word(String),
    Index(usize),
}

impl<'a> Place<'a> {
    /// The whole schema.
    pub(super) fn root() -> Self {
        Self(None)
    }

    /// What the keyword `word` holds.
    pub(super) fn key(&self, word: &str) -> Self {
        self.step(Key::Word(word.to_owned()))
    }

    /// What an object holds under `name`, which may be long and is not copied.
    pub(super) fn name(&self, name: &'a str) -> Self {
        self.step(Key::Name(name))
    }

    /// An entry of a list.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Key::Index(index))
    }

    fn step(&self, key: Key<'a>) -> Self {
        Self(Some(Rc::new(Step { before: self.clone(), key })))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = Vec::new();
        let mut place = self;
        while let Place(Some(step)) = place {
            keys.push(match &step.key {
                Key::Name(name) => escape(name),
                Key::Word(word) => escape(word),
                Key::Index(index) => index.to_string(),
            });
            place = &step.before;
        }
        let mut pointer = "#".to_owned();
        for key in keys.iter().rev() {
            pointer.push('/');
            pointer.push_str(key);
        }
        let end = pointer.char_indices().nth(SHOWN).map_or(pointer.len(), |(end, _)| end);
        let (shown, rest) = pointer.split_at(end);
        write!(f, "{shown}{}", if rest.is_empty() { "" } else { "…" })
    }
}

fn escape(key: &str) -> String {
    shown(key, SHOWN).replace('~', "~0").replace('/', "~1")
}

/// The first characters of a text, fit for a message on one line.
pub(super) fn shown(text: &str, characters: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().take(characters) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The schema that a `$ref` points to.
///
/// # Errors
/// `InvalidArgument` if it points out of the document or to nothing.
pub(super) fn resolve<'a>(root: &'a Value, reference: Option<&Value>) -> Result<(&'a Value, Place<'a>)> {
    let Some(Value::String(reference)) = reference else {
        return Err(Error::invalid("`$ref`: expected a string"));
    };
    let shown = shown(reference, SHOWN);
    let pointer = match reference.strip_prefix('#') {
        Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => decode_percent(pointer),
        _ => None,
    };
    let Some(pointer) = pointer else {
        return Err(Error::invalid(format!(
            "`$ref`: expected `#` or a JSON pointer that begins with `#/`, found `{shown}`"
        )));
    };
    let mut found = (root, Place::root());
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let next = match found.0 {
            Value::Object(map) => map.get_key_value(&token).map(|(name, value)| (value, found.1.name(name))),
            Value::Array(list) => {
                let index = token.parse::<usize>().ok().filter(|index| index.to_string() == token);
                index.and_then(|index| Some((list.get(index)?, found.1.index(index))))
            }
            _ => None,
        };
        found =
            next.ok_or_else(|| Error::invalid(format!("`$ref` points to `{shown}`, which is not in the schema")))?;
    }
    Ok(found)
}

fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(16 * high + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}
