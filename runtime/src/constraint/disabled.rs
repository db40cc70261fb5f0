//! What stands for constraints in builds without the feature `constraints`: types that nobody can have an instance of.

use std::convert::Infallible;

use crate::error::{Error, Result};
use crate::sampling::host::CANDIDATES;

/// A constraint on texts, which this build cannot make.
#[derive(Debug, Clone)]
pub struct Constraint(Infallible);

/// Follows a text through a constraint.
#[derive(Debug, Clone)]
pub struct Matcher(Infallible);

fn missing<T>() -> Result<T> {
    Err(Error::unsupported("this build has no constraints: it was made without the feature `constraints`"))
}

impl Constraint {
    /// `Unsupported`.
    pub fn regex(_: &str) -> Result<Self> {
        missing()
    }

    /// `Unsupported`.
    pub fn json_schema(_: &[u8]) -> Result<Self> {
        missing()
    }

    /// Whether a text as a whole matches.
    pub fn matches(&self, _: &[u8]) -> bool {
        match self.0 {}
    }

    /// Bytes of the shortest text that matches.
    pub fn shortest(&self) -> usize {
        match self.0 {}
    }

    /// A matcher at the beginning of a text.
    pub fn matcher(&self) -> Matcher {
        match self.0 {}
    }
}

impl Matcher {
    /// What may come next.
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

    /// Whether any byte may follow.
    pub fn can_continue(&self) -> bool {
        match self.0 {}
    }

    /// The only byte that may follow, if there is just one.
    pub fn forced(&self) -> Option<u8> {
        match self.0 {}
    }
}
