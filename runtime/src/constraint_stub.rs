#![allow(missing_docs)]
use crate::Result;
#[derive(Debug, Clone)]
pub struct Constraint;
#[derive(Debug, Clone)]
pub struct Matcher;
impl Constraint {
    pub fn regex(_: &str) -> Result<Self> {
        Ok(Self)
    }
    pub fn json_schema(_: &[u8]) -> Result<Self> {
        Ok(Self)
    }
    pub fn matches(&self, _: &[u8]) -> bool {
        true
    }
    pub fn shortest(&self) -> usize {
        0
    }
    pub fn matcher(&self) -> Matcher {
        Matcher
    }
}
impl Matcher {
    pub fn allowed(&self, _: Option<usize>) -> [bool; 257] {
        [true; 257]
    }
    pub fn advance(&mut self, _: u8) -> Result<()> {
        Ok(())
    }
    pub fn is_match(&self) -> bool {
        true
    }
}
