//! Constraints on generated text, as regular expressions or JSON schemas.
//!
//! A [`Constraint`] is compiled once, to a [`machine`]. A [`Matcher`] runs one text through it byte by byte and says
//! which bytes may come next.

mod json_schema;
mod machine;
mod matcher;
mod regex;

use std::sync::Arc;

use crate::error::Result;
use machine::{Builder, Machine};

pub use matcher::Matcher;

/// A compiled constraint on a text. Clones share the compiled form.
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
    /// Maximum length of a JSON schema in bytes.
    pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

    /// Compiles a regular expression that the whole text must match.
    ///
    /// The syntax is that of Rust's `regex` crate, without look-around and back-references. `.`, `\d` and classes match
    /// whole Unicode characters in UTF-8; `(?-u)` switches to bytes.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed pattern or one that matches no text; `Unsupported` for a pattern that is too
    /// large or has Unicode word boundaries.
    pub fn regex(pattern: &str) -> Result<Self> {
        let parsed = regex::parse(pattern, regex::Dialect::Rust)?;
        let mut builder = Builder::default();
        let (_, start) = builder.rule();
        let end = builder.final_state();
        regex::add(&mut builder, &regex::determinize(&parsed)?, start, end)?;
        Self::new(builder)
    }

    /// Compiles a JSON schema (draft 2020-12): the text must be one JSON document that is valid against it.
    ///
    /// Documents are compact: the only white space is an optional space after each `:` and `,`. Properties come in the
    /// schema's order, then those that only `required` names, then additional ones. An additional property never has a
    /// listed name, but two of them may have the same name. Whole numbers and bounded numbers have at most 15 digits
    /// (bounds themselves may be ±10¹⁵).
    ///
    /// Supported keywords:
    ///
    /// - `type`, `enum`, `const`, and booleans as schemas;
    /// - `minLength`, `maxLength`, `pattern`, and `format` with date, time, date-time or uuid;
    /// - `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum` with whole numbers;
    /// - `properties`, `required`, `additionalProperties`;
    /// - `items`, `prefixItems`, `minItems`, `maxItems`;
    /// - `anyOf`, `oneOf` if its alternatives provably exclude each other, `allOf` with one entry;
    /// - `$ref` within the document, `$defs`, `definitions`.
    ///
    /// Annotations and keywords that begin with `x-` are ignored. If `properties` is present and `additionalProperties`
    /// is not, no additional properties are generated. As in the standard, a schema without `type` allows every type,
    /// and keywords restrict only values of their own type.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed schema or one that allows nothing; `Unsupported` for other keywords and for a
    /// schema that is too large. The message has the location in the schema.
    pub fn json_schema(schema: &[u8]) -> Result<Self> {
        Self::new(json_schema::build(schema)?)
    }

    fn new(builder: Builder) -> Result<Self> {
        Ok(Self { machine: Arc::new(builder.finish()?) })
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let mut matcher = self.matcher();
        text.iter().all(|&byte| matcher.advance(byte).is_ok()) && matcher.is_match()
    }

    /// Length in bytes of the shortest text that matches.
    pub fn shortest(&self) -> usize {
        usize::try_from(self.machine.shortest()).unwrap_or(usize::MAX)
    }

    /// A matcher at the start of a text.
    pub fn matcher(&self) -> Matcher {
        Matcher::new(self.machine.clone())
    }
}

#[cfg(test)]
mod tests;
