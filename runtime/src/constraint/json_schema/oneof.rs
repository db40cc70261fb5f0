//! A proof that the alternatives of `oneOf` exclude each other, so that it allows the same values as `anyOf`.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::constraint::json_schema::types::Types;
use crate::constraint::json_schema::{keywords, pointer};
use crate::error::{Error, Result};

/// Maximum number of comparisons; without a proof by then, alternatives count as overlapping.
const MAX_STEPS: usize = 200_000;
/// Maximum depth to which references and properties are followed.
const MAX_DEPTH: usize = 24;

/// Checks that no value can match two of the alternatives.
///
/// # Errors
/// `Unsupported` if that cannot be proved.
pub(super) fn check(root: &Value, alternatives: &[Value]) -> Result<()> {
    let mut prover = Prover { root, steps: 0 };
    for (second, b) in alternatives.iter().enumerate() {
        for (first, a) in alternatives[..second].iter().enumerate() {
            if !prover.disjoint(a, b, 0) {
                return Err(Error::unsupported(format!(
                    "alternatives {first} and {second} of oneOf may both match; use anyOf if that is meant"
                )));
            }
        }
    }
    Ok(())
}

/// A bounded search for values that two schemas share.
struct Prover<'a> {
    root: &'a Value,
    steps: usize,
}

impl<'a> Prover<'a> {
    /// Whether it is certain that no value matches both schemas.
    fn disjoint(&mut self, a: &'a Value, b: &'a Value, depth: usize) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS || depth > MAX_DEPTH {
            return false;
        }
        let both = self.types(a, 0) & self.types(b, 0);
        if both == Types::NONE {
            return true;
        }
        for (one, other) in [(a, b), (b, a)] {
            if let Some(parts) = self.parts(one) {
                return parts.iter().all(|part| self.disjoint(part, other, depth + 1));
            }
        }
        let (Value::Object(a), Value::Object(b)) = (a, b) else { return false };
        if let (Some(a), Some(b)) = (fixed(a), fixed(b)) {
            return a.iter().all(|a| b.iter().all(|b| self.differ(a, b)));
        }
        both == Types::OBJECT && self.differ_in_a_property(a, b, depth)
    }

    /// Whether both schemas require a property for which no value matches both.
    fn differ_in_a_property(&mut self, a: &'a Map<String, Value>, b: &'a Map<String, Value>, depth: usize) -> bool {
        let required = |map: &'a Map<String, Value>| {
            map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
        };
        let schema = |map: &'a Map<String, Value>, name: &str| map.get("properties")?.get(name);
        let in_b: HashSet<&str> = required(b).collect();
        required(a).filter(|name| in_b.contains(name)).any(|name| match (schema(a, name), schema(b, name)) {
            (Some(a), Some(b)) => self.disjoint(a, b, depth + 1),
            _ => false,
        })
    }

    /// A superset of the types that a schema allows.
    fn types(&mut self, schema: &'a Value, depth: usize) -> Types {
        self.steps += 1;
        let map = match schema {
            Value::Bool(false) => return Types::NONE,
            Value::Object(map) => map,
            _ => return Types::ALL,
        };
        let own = keywords::types(map).unwrap_or(Types::ALL);
        if self.steps > MAX_STEPS || depth > MAX_DEPTH {
            return own;
        }
        if let Some(values) = fixed(map) {
            return own & Types::of_all(values);
        }
        match self.parts(schema) {
            Some(parts) => own & parts.iter().fold(Types::NONE, |types, part| types | self.types(part, depth + 1)),
            None => own,
        }
    }

    /// The subschemas of which every value of `schema` matches at least one, if it has such a list.
    fn parts(&self, schema: &'a Value) -> Option<&'a [Value]> {
        let map = schema.as_object()?;
        if let Some(reference) = map.get("$ref") {
            return pointer::resolve(self.root, Some(reference)).ok().map(|(target, _)| std::slice::from_ref(target));
        }
        let list = |name: &str| map.get(name).and_then(Value::as_array).map(Vec::as_slice);
        list("anyOf").or_else(|| list("oneOf")).or_else(|| list("allOf").filter(|list| list.len() == 1))
    }

    /// Whether two values certainly differ; `1` and `1.0` are equal.
    fn differ(&mut self, a: &Value, b: &Value) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return false;
        }
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() != b.as_f64(),
            (Value::Array(a), Value::Array(b)) => a.len() != b.len() || a.iter().zip(b).any(|(a, b)| self.differ(a, b)),
            (Value::Object(a), Value::Object(b)) => {
                a.len() != b.len() || a.iter().any(|(name, a)| b.get(name).is_none_or(|b| self.differ(a, b)))
            }
            _ => a != b,
        }
    }
}

/// The values that a schema lists.
fn fixed(map: &Map<String, Value>) -> Option<&[Value]> {
    match map.get("const") {
        Some(value) => Some(std::slice::from_ref(value)),
        None => map.get("enum").and_then(Value::as_array).map(Vec::as_slice),
    }
}
