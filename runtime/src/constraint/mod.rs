//! Constraints: what a generated text may be, byte by byte.
//!
//! A [`Constraint`] is compiled once, from a regular expression or a JSON schema, to a machine ([`machine`]). A [`Matcher`] follows
//! one text through it and says which bytes may come next.

mod json_schema;
mod machine;
mod matcher;
mod regex;

use std::sync::Arc;

use crate::error::Result;
use machine::{Builder, Machine};

pub use matcher::Matcher;

/// What a text may be. Compiled once; clones share it.
///
/// ```
/// use bolmo_runtime::Constraint;
///
/// let date = Constraint::regex("[0-9]{4}-[0-9]{2}")?;
/// assert!(date.matches(b"2024-05") && !date.matches(b"2024-05-01"));
///
/// let mut matcher = date.matcher();
/// for byte in b"2024" {
///     matcher.advance(*byte)?;
/// }
/// assert_eq!(matcher.forced(), Some(b'-'));
/// assert_eq!(matcher.shortest_rest(), 3);
/// # Ok::<(), bolmo_runtime::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Constraint {
    machine: Arc<Machine>,
}

impl Constraint {
    /// The whole text matches `pattern`, in the syntax of Rust's `regex` crate: no look-around, no back-references. `.`, `\d` and
    /// classes are Unicode's, and match whole characters in UTF-8; `(?-u)` turns to bytes.
    ///
    /// # Errors
    /// `InvalidArgument` if it is no regular expression or matches no text, `Unsupported` if it is too large or has Unicode word
    /// boundaries.
    pub fn regex(pattern: &str) -> Result<Self> {
        let parsed = regex::parse(pattern, regex::Dialect::Rust)?;
        let mut builder = Builder::default();
        let (_, start) = builder.rule();
        let end = builder.end_state();
        regex::add(&mut builder, &regex::determinise(&parsed)?, start, end)?;
        Self::new(builder)
    }

    /// The text is one JSON document that is valid against a JSON schema (draft 2020-12), given as JSON.
    ///
    /// Documents are compact: no white space but one optional blank behind each `:` and `,`, properties in the schema's order,
    /// those that only `required` names behind them, then additional ones. An additional property never has a listed name, but two
    /// of them may have the same. Whole numbers and bounded numbers have at most 15 digits (bounds themselves may be ±10¹⁵).
    ///
    /// Supported are booleans as schemas; `type`, `enum`, `const`; `minLength`, `maxLength`, `pattern`, `format` (date, time,
    /// date-time, uuid); `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` with whole numbers; `properties`, `required`,
    /// `additionalProperties`; `items`, `prefixItems`, `minItems`, `maxItems`; `anyOf`, `oneOf` whose alternatives provably exclude
    /// one another, `allOf` with one entry; `$ref` within the document, `$defs`, `definitions`. Annotations and keys that begin with
    /// `x-` are ignored. Where `additionalProperties` is absent beside `properties`, no further ones are generated. As the standard
    /// says, a schema without `type` allows every type, and keywords bear on their own type only.
    ///
    /// # Errors
    /// With the place in the schema: `InvalidArgument` if it is no schema or allows nothing, `Unsupported` for other keywords and
    /// for what is too large.
    pub fn json_schema(schema: &[u8]) -> Result<Self> {
        Self::new(json_schema::build(schema)?)
    }

    fn new(builder: Builder) -> Result<Self> {
        Ok(Self { machine: Arc::new(builder.finish()?) })
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut matcher = self.matcher();
        text.iter().all(|&byte| matcher.advance(byte).is_ok()) && matcher.is_match()
    }

    /// Bytes of the shortest text that matches.
    pub fn shortest(&self) -> usize {
        usize::try_from(self.machine.shortest()).unwrap_or(usize::MAX)
    }

    /// A matcher at the beginning of a text.
    pub fn matcher(&self) -> Matcher {
        Matcher::new(self.machine.clone())
    }
}

#[cfg(test)]
mod tests;
