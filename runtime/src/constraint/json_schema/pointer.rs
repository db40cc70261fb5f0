//! JSON pointers into a schema, and the targets of references.

use std::fmt;
use std::rc::Rc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::input::shorten::shortened;

/// Maximum number of characters of a pointer in a message.
const SHOWN: usize = 200;

/// The location of a subschema, displayed as a JSON pointer.
#[derive(Debug, Clone)]
pub(super) struct Pointer<'a>(Option<Rc<Step<'a>>>);

#[derive(Debug)]
struct Step<'a> {
    parent: Pointer<'a>,
    key: Key<'a>,
}

#[derive(Debug)]
enum Key<'a> {
    Keyword(String),
    Property(&'a str),
    Index(usize),
}

impl<'a> Pointer<'a> {
    /// The whole schema.
    pub(super) fn root() -> Self {
        Self(None)
    }

    /// The value of the keyword `name`.
    pub(super) fn keyword(&self, name: &str) -> Self {
        self.step(Key::Keyword(name.to_owned()))
    }

    /// The value of the property `name`. The name may be long and is not copied.
    pub(super) fn property(&self, name: &'a str) -> Self {
        self.step(Key::Property(name))
    }

    /// An entry of an array.
    pub(super) fn index(&self, index: usize) -> Self {
        self.step(Key::Index(index))
    }

    fn step(&self, key: Key<'a>) -> Self {
        Self(Some(Rc::new(Step { parent: self.clone(), key })))
    }
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut keys = Vec::new();
        let mut pointer = self;
        while let Pointer(Some(step)) = pointer {
            keys.push(match &step.key {
                Key::Property(name) => escape(name),
                Key::Keyword(word) => escape(word),
                Key::Index(index) => index.to_string(),
            });
            pointer = &step.parent;
        }
        let mut text = "#".to_owned();
        for key in keys.iter().rev() {
            text.push('/');
            text.push_str(key);
        }
        f.write_str(&shortened(&text, SHOWN))
    }
}

fn escape(key: &str) -> String {
    shown(key, SHOWN).replace('~', "~0").replace('/', "~1")
}

/// The beginning of a text, with control characters escaped, for a message on one line.
pub(super) fn shown(text: &str, characters: usize) -> String {
    let mut shown = String::new();
    for c in shortened(text, characters).chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// The target of a `$ref`.
///
/// # Errors
/// `InvalidArgument` if the target is outside the document or does not exist.
pub(super) fn resolve<'a>(root: &'a Value, reference: Option<&Value>) -> Result<(&'a Value, Pointer<'a>)> {
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
    let mut found = (root, Pointer::root());
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let next = match found.0 {
            Value::Object(map) => map.get_key_value(&token).map(|(name, value)| (value, found.1.property(name))),
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
