//! Constraints in builds without the feature `constraints`: types that have no values.

use std::convert::Infallible;

use crate::error::{Error, Result};
use crate::sampling::host::CANDIDATES;

/// A compiled constraint on a text. This build cannot make one.
#[derive(Debug, Clone)]
pub struct Constraint(Infallible);

/// The state of a text under a constraint. This build cannot make one.
#[derive(Debug, Clone)]
pub struct Matcher(Infallible);

fn missing<T>() -> Result<T> {
    Err(Error::unsupported("this build has no constraints; build it with the feature `constraints`"))
}

impl Constraint {
    /// Always fails with `Unsupported`.
    pub fn regex(_: &str) -> Result<Self> {
        missing()
    }

    /// Always fails with `Unsupported`.
    pub fn json_schema(_: &[u8]) -> Result<Self> {
        missing()
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, _: &[u8]) -> bool {
        match self.0 {}
    }

    /// Length in bytes of the shortest text that matches.
    pub fn shortest(&self) -> usize {
        match self.0 {}
    }

    /// A matcher at the start of a text.
    pub fn matcher(&self) -> Matcher {
        match self.0 {}
    }
}

impl Matcher {
    /// The bytes that may come next, and whether the text may end.
    pub fn allowed(&self, _: Option<usize>) -> [bool; CANDIDATES] {
        match self.0 {}
    }

    /// Takes the next byte.
    pub fn advance(&mut self, _: u8) -> Result<()> {
        match self.0 {}
    }

    /// Whether the text so far matches.
    pub fn is_match(&self) -> bool {
        match self.0 {}
    }

    /// Whether some byte may follow.
    pub fn can_continue(&self) -> bool {
        match self.0 {}
    }

    /// The byte that must follow, if there is only one.
    pub fn forced(&self) -> Option<u8> {
        match self.0 {}
    }
}
