//! JSON texts of unknown origin: bounded before they are parsed, and read without building what is not needed.
//!
//! A parsed value takes up to 100 bytes of memory per byte of its text. Small documents are therefore bounded in their
//! number of values and then parsed whole. Large ones are read member by member: what is not needed is skipped.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::{Error, Result};
use crate::input::foreign::{foreign, words};
use crate::input::shorten::shortened;

/// Maximum length of a value that is parsed whole although it is part of a large document.
const MAX_SMALL_BYTES: usize = 1 << 14;

/// Bounds of a JSON text, which are checked before it is parsed.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Length of the text.
    pub bytes: usize,
    /// Number of values, at any depth. A value takes up to 400 bytes of memory if the whole text is parsed.
    pub values: usize,
}

impl Limits {
    /// Limits of a `config.json` and of other small documents; published ones have some kilobytes.
    pub const CONFIG: Self = Self { bytes: 4 << 20, values: 1 << 16 };
}

/// The reason why a text is not parsed: a phrase that continues the name of the text.
#[derive(Debug)]
pub enum Refusal {
    /// It is of another kind; says what to do.
    Foreign(String),
    /// It is longer than this.
    TooLong(usize),
    /// It has more values than this.
    TooManyValues(usize),
    /// It has a number that JSON lacks.
    NotJsonNumber {
        /// `NaN`, `Infinity` or `-Infinity`.
        found: String,
        /// Line, counted from 1.
        line: usize,
        /// Column in bytes, counted from 1.
        column: usize,
    },
    /// It is not JSON.
    Syntax(serde_json::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign(what) => f.write_str(what),
            Self::TooLong(bytes) => {
                write!(f, "is longer than {bytes} bytes, the maximum of such a file; check the path")
            }
            Self::TooManyValues(values) => {
                write!(f, "has more than {values} JSON values, the maximum of such a file; check the path")
            }
            Self::NotJsonNumber { found, line, column } => {
                write!(f, "has {found} at line {line} column {column}, which is not valid JSON; write a number or null")
            }
            Self::Syntax(error) => write!(f, "is not a JSON document: {error}"),
        }
    }
}

/// Parses a configuration and names it `origin` in messages. A byte order mark is skipped. `NaN` and `Infinity`, which
/// Python writes, are read as these strings: they do no harm where nothing reads them, and a message about their key
/// shows them.
///
/// # Errors
/// `BadCheckpoint`.
pub fn config(text: &[u8], origin: &str) -> Result<Value> {
    parse_config(lenient(text, &Limits::CONFIG), origin)
}

/// Parses a configuration that will be written again. In place of `NaN` and `Infinity` it has `null`.
///
/// # Errors
/// `BadCheckpoint`.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn config_with_nulls(text: &[u8], origin: &str) -> Result<Value> {
    parse_config(replaced(text, &Limits::CONFIG, |_| b"null".to_vec()), origin)
}

fn parse_config(text: Result<Cow<'_, [u8]>, Refusal>, origin: &str) -> Result<Value> {
    let value = text.and_then(|text| serde_json::from_slice(&text).map_err(|error| refused(&text, error)));
    value.map_err(|refusal| bad_file(&refusal, origin))
}

/// Parses a document in which every value counts. A byte order mark is skipped.
pub fn parse(text: &[u8], limits: &Limits) -> Result<Value, Refusal> {
    let text = strict(text, limits)?;
    serde_json::from_slice(text).map_err(|error| refused(text, error))
}

/// The error that a file of a checkpoint is refused.
pub(crate) fn bad_file(refusal: &Refusal, origin: &str) -> Error {
    let advice = if matches!(refusal, Refusal::Syntax(_)) { "; fetch the file again" } else { "" };
    Error::bad_checkpoint(format!("{origin}: {refusal}{advice}"))
}

/// The reason why `text` could not be parsed.
pub(crate) fn refused(text: &[u8], error: serde_json::Error) -> Refusal {
    let holds_weights = text.get(8) == Some(&b'{') && text.get(4..8) == Some(&[0; 4]);
    match words(text) {
        _ if holds_weights => Refusal::Foreign("is a safetensors file, not a JSON document; check the path".to_owned()),
        Some(words) if error.line() == 1 => {
            Refusal::Foreign(format!("is not a JSON document but a text that begins {words}; fetch the file again"))
        }
        _ => Refusal::Syntax(error),
    }
}

/// Checks a text against `limits` and skips a byte order mark. `NaN` and `Infinity` become strings.
pub(crate) fn lenient<'a>(text: &'a [u8], limits: &Limits) -> Result<Cow<'a, [u8]>, Refusal> {
    replaced(text, limits, |word| [b"\"", word, b"\""].concat())
}

/// Checks a text against `limits`, skips a byte order mark, and replaces `NaN` and `Infinity`.
fn replaced<'a>(text: &'a [u8], limits: &Limits, by: fn(&[u8]) -> Vec<u8>) -> Result<Cow<'a, [u8]>, Refusal> {
    let (text, no_numbers) = scan(text, limits)?;
    if no_numbers.is_empty() {
        return Ok(Cow::Borrowed(text));
    }
    let mut new = Vec::with_capacity(text.len() + 2 * no_numbers.len());
    let mut done = 0;
    for Range { start, end } in no_numbers {
        new.extend_from_slice(&text[done..start]);
        new.extend(by(&text[start..end]));
        done = end;
    }
    new.extend_from_slice(&text[done..]);
    Ok(Cow::Owned(new))
}

/// Checks a text against `limits` and skips a byte order mark. `NaN` and `Infinity` are refused.
pub fn strict<'a>(text: &'a [u8], limits: &Limits) -> Result<&'a [u8], Refusal> {
    let (text, no_numbers) = scan(text, limits)?;
    let Some(Range { start, end }) = no_numbers.first().cloned() else { return Ok(text) };
    let before = &text[..start];
    Err(Refusal::NotJsonNumber {
        found: String::from_utf8_lossy(&text[start..end]).into_owned(),
        line: before.iter().filter(|&&byte| byte == b'\n').count() + 1,
        column: before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1,
    })
}

/// Checks a text against `limits`. Returns it without a byte order mark, and the places of `NaN`, `Infinity` and
/// `-Infinity`.
fn scan<'a>(text: &'a [u8], limits: &Limits) -> Result<(&'a [u8], Vec<Range<usize>>), Refusal> {
    if let Some(what) = foreign(text) {
        return Err(Refusal::Foreign(what));
    }
    if text.len() > limits.bytes {
        return Err(Refusal::TooLong(limits.bytes));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut at, mut values, mut no_numbers) = (0, 1, Vec::new());
    while let Some(&byte) = text.get(at) {
        let mut length = 1;
        match byte {
            b'"' => length = string_length(&text[at..]),
            // Each value except the outermost follows one of these bytes.
            b',' | b'[' | b'{' => values += 1,
            b'N' | b'I' => {
                if let Some(word) = [&b"NaN"[..], b"Infinity"].into_iter().find(|word| text[at..].starts_with(word)) {
                    length = word.len();
                    let sign = usize::from(at > 0 && text[at - 1] == b'-');
                    no_numbers.push(at - sign..at + length);
                }
            }
            _ => {}
        }
        if values > limits.values || no_numbers.len() > limits.values {
            return Err(Refusal::TooManyValues(limits.values));
        }
        at += length;
    }
    Ok((text, no_numbers))
}

/// Length of the string that `text` begins with, or of `text` if the string does not end.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    loop {
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// A string, borrowed from the text if it has no escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a>(pub Cow<'a, str>);

impl std::borrow::Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The reason why [`each_member`] stopped.
#[derive(Debug)]
pub(crate) enum Stopped<E> {
    /// The object is not JSON.
    Syntax(serde_json::Error),
    /// The visitor failed.
    Visit(E),
}

impl<E: fmt::Display> fmt::Display for Stopped<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => error.fmt(f),
            Self::Visit(error) => error.fmt(f),
        }
    }
}

/// The members `names` of an object, unparsed; `None` if `value` is not an object. Of a member that occurs twice, the
/// last one counts.
pub(crate) fn members<'a, const N: usize>(
    value: &'a RawValue,
    names: [&str; N],
) -> serde_json::Result<Option<[Option<&'a RawValue>; N]>> {
    let mut found = [None; N];
    let visited = each_member(value, |name, value| {
        if let Some(at) = names.iter().position(|wanted| **wanted == *name) {
            found[at] = Some(value);
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match visited {
        Ok(is_object) => Ok(is_object.then_some(found)),
        Err(Stopped::Syntax(error)) => Err(error),
    }
}

/// Calls `visit` with each member of an object, unparsed, until it fails. Returns whether `value` is an object.
pub(crate) fn each_member<'a, E>(
    value: &'a RawValue,
    visit: impl FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>,
) -> Result<bool, Stopped<E>> {
    each('{', value, visit)
}

/// Calls `visit` with each element of a list, unparsed, until it fails. Returns whether `value` is a list.
pub(crate) fn each_element<'a, E>(
    value: &'a RawValue,
    mut visit: impl FnMut(&'a RawValue) -> Result<(), E>,
) -> Result<bool, Stopped<E>> {
    each('[', value, |_, element| visit(element))
}

/// Visits the parts of a value that begins with `bracket`. Elements of a list have no names.
fn each<'a, E, F: FnMut(Cow<'a, str>, &'a RawValue) -> Result<(), E>>(
    bracket: char,
    value: &'a RawValue,
    visit: F,
) -> Result<bool, Stopped<E>> {
    struct Parts<'e, F, E> {
        visit: F,
        failed: &'e mut Option<E>,
    }
    impl<F, E> Parts<'_, F, E> {
        fn part<'de, S: serde::de::Error>(&mut self, name: Cow<'de, str>, value: &'de RawValue) -> Result<(), S>
        where
            F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), E>,
        {
            (self.visit)(name, value).map_err(|failed| {
                *self.failed = Some(failed);
                S::custom("the visitor failed")
            })
        }
    }
    impl<'de, E, F: FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), E>> Visitor<'de> for Parts<'_, F, E> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object or a list")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some((Text(name), value)) = map.next_entry()? {
                self.part(name, value)?;
            }
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(value) = list.next_element()? {
                self.part(Cow::Borrowed(""), value)?;
            }
            Ok(())
        }
    }
    if !value.get().starts_with(bracket) {
        return Ok(false);
    }
    let mut failed = None;
    let mut parser = serde_json::Deserializer::from_str(value.get());
    match (parser.deserialize_any(Parts { visit, failed: &mut failed }), failed) {
        (Ok(()), _) => Ok(true),
        (Err(_), Some(failed)) => Err(Stopped::Visit(failed)),
        (Err(error), None) => Err(Stopped::Syntax(error)),
    }
}

/// Parses a value that is expected to be small; `None` for a long one.
pub(crate) fn small(value: &RawValue) -> Option<Value> {
    let text = value.get();
    if text.len() > MAX_SMALL_BYTES { None } else { serde_json::from_str(text).ok() }
}

/// What a value is, for a message: the value if it is short, else its type.
pub(crate) fn shown(value: Option<&RawValue>) -> String {
    const LONGEST: usize = 60;
    let text = value.map_or("nothing", RawValue::get);
    match text.as_bytes().first() {
        Some(b'[') => "a list".to_owned(),
        Some(b'{') => "an object".to_owned(),
        Some(b'n') => "nothing".to_owned(),
        _ => shortened(text, LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WIDE: Limits = Limits { bytes: 1000, values: 100 };

    fn refusal(text: &str, limits: &Limits) -> String {
        parse(text.as_bytes(), limits).unwrap_err().to_string()
    }

    #[test]
    fn numbers_that_json_lacks_are_found_outside_of_strings() {
        let text = br#"{"a": "NaN, \"Infinity", "b": [NaN, -Infinity,Infinity], "Infinity": 1}"#;
        let value: Value = serde_json::from_slice(&lenient(text, &WIDE).unwrap()).unwrap();
        let expected = json!({"a": "NaN, \"Infinity", "b": ["NaN", "-Infinity", "Infinity"], "Infinity": 1});
        assert_eq!(value, expected);
        assert!(refusal("{\"a\": 1,\n \"b\": -Infinity}", &WIDE).contains("-Infinity at line 2 column 7"));
        assert!(matches!(lenient(b"[1]", &WIDE).unwrap(), Cow::Borrowed(b"[1]")));
        // Other letters are mistakes as before.
        assert!(refusal("[Nan]", &WIDE).contains("is not a JSON document"));
        assert!(config(b"[1, NaN2]", "config.json").is_err());
    }

    #[cfg(not(target_family = "wasm"))]
    #[test]
    fn a_configuration_is_written_again_with_nulls() {
        let text = br#"{"a": "NaN", "b": [NaN, -Infinity, 1]}"#;
        assert_eq!(config_with_nulls(text, "config.json").unwrap(), json!({"a": "NaN", "b": [null, null, 1]}));
        assert_eq!(config(text, "config.json").unwrap()["b"], json!(["NaN", "-Infinity", 1]));
    }

    #[test]
    fn texts_are_bounded_before_they_are_parsed() {
        assert_eq!(
            parse(b"\xef\xbb\xbf[1, \",,,[[[\\\"\"]", &Limits { bytes: 30, values: 3 }).unwrap(),
            json!([1, ",,,[[[\""])
        );
        assert!(refusal("[1, 2]", &Limits { bytes: 30, values: 2 }).contains("more than 2 JSON values"));
        assert!(refusal("[[{}", &Limits { bytes: 30, values: 3 }).contains("more than 3 JSON values"));
        assert!(refusal("[1, 2]", &Limits { bytes: 5, values: 9 }).contains("longer than 5 bytes"));
        assert!(refusal("\"unfinished", &WIDE).contains("is not a JSON document: EOF"));
        assert!(refusal("\"\\", &WIDE).contains("EOF"));
        assert!(refusal("", &WIDE).contains("EOF"));
        assert!(refusal(&"[".repeat(90), &WIDE).contains("EOF"));
        assert!(refusal(&"[".repeat(200), &Limits { bytes: 1000, values: 1000 }).contains("recursion limit"));
    }

    #[test]
    fn members_are_read_one_by_one() {
        let text = br#"{"a": [1], "b": {"c": 2}, "a": 3, "x\ty": null}"#;
        let whole: &RawValue = serde_json::from_slice(text).unwrap();
        let [a, b, c, xy] = members(whole, ["a", "b", "c", "x\ty"]).unwrap().unwrap();
        assert_eq!([a, b, c, xy].map(|value| shown(value)), ["3", "an object", "nothing", "nothing"]);
        assert!(members(a.unwrap(), ["a"]).unwrap().is_none());
        let mut names = Vec::new();
        let stopped = each_member(whole, |name, _| {
            if name == "b" {
                return Err("b");
            }
            names.push(name.into_owned());
            Ok(())
        });
        assert!(matches!(stopped, Err(Stopped::Visit("b"))));
        assert_eq!(names, ["a"]);
    }
}
