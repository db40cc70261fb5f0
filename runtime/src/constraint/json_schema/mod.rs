//! JSON schemas as machines: each schema in use becomes a rule, which calls the rules of its subschemas.

mod array;
mod bounds;
mod compiler;
mod keywords;
mod number;
mod object;
mod oneof;
mod pointer;
mod string;
mod types;

use serde_json::{Map, Value};

use crate::constraint::Constraint;
use crate::constraint::machine::{Builder, RuleId, StateId};
use crate::error::{Error, Result};
use crate::input::json::{Limits, Refusal, parse};
use compiler::{Compiler, Subschema};
use pointer::Pointer;
use types::Types;

/// Maximum size of a schema.
const LIMITS: Limits = Limits { bytes: Constraint::MAX_SCHEMA_BYTES, values: 1 << 17 };

/// A machine that matches the documents of a schema.
///
/// # Errors
/// As [`Constraint::json_schema`](crate::constraint::Constraint::json_schema).
pub(super) fn build(text: &[u8]) -> Result<Builder> {
    let root = parse(text, &LIMITS).map_err(|refusal| match refusal {
        Refusal::TooLong(most) => {
            let found = text.len();
            Error::unsupported(format!("the schema is too long: expected at most {most} bytes, found {found}"))
        }
        Refusal::TooManyValues(most) => {
            Error::unsupported(format!("the schema is too large: expected at most {most} JSON values, found more"))
        }
        Refusal::Syntax(e) => Error::invalid(format!("the schema is not JSON: {e}")),
        other => Error::invalid(format!("the schema {other}")),
    })?;
    let mut compiler = Compiler::new(&root);
    compiler.rule_of_all_types(&root, Pointer::root());
    while let Some((rule, subschema)) = compiler.next() {
        compiler.builder.check_room(0)?;
        let pointer = subschema.pointer.clone();
        compiler.body(rule, subschema).map_err(|e| e.context(format_args!("schema at {pointer}")))?;
    }
    Ok(compiler.builder)
}

impl<'a> Compiler<'a> {
    /// Adds the states of a rule.
    fn body(&mut self, rule: RuleId, subschema: Subschema<'a>) -> Result<()> {
        let start = self.builder.start(rule);
        let end = self.builder.final_state();
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        match subschema.schema {
            Value::Bool(false) => Ok(()),
            Value::Bool(true) => self.values(start, end, &EMPTY, &subschema),
            Value::Object(map) => {
                keywords::check(map)?;
                let own = keywords::types(map)?;
                let subschema = Subschema { types: subschema.types & own, ..subschema };
                match keywords::alternatives(map)? {
                    None => self.values(start, end, map, &subschema),
                    Some(name) => self.alternatives(start, end, name, map, &subschema),
                }
            }
            other => Err(Error::invalid(format!("expected an object or a boolean, found {}", keywords::kind(other)))),
        }
    }

    /// Adds the values of the subschema's types that the keywords of `map` allow.
    fn values(
        &mut self,
        start: StateId,
        end: StateId,
        map: &'a Map<String, Value>,
        subschema: &Subschema<'a>,
    ) -> Result<()> {
        let types = subschema.types;
        let mut word = |word: &[u8]| {
            let last = self.builder.text(start, word);
            self.builder.epsilon(last, end);
        };
        if types.has(Types::NULL) {
            word(b"null");
        }
        if types.has(Types::BOOLEAN) {
            word(b"true");
            word(b"false");
        }
        if types.has(Types::NUMBER) {
            self.number(start, end, map, types)?;
        }
        if types.has(Types::STRING) {
            self.string(start, end, map)?;
        }
        if types.has(Types::ARRAY) {
            self.array(start, end, map, subschema)?;
        }
        if types.has(Types::OBJECT) {
            self.object(start, end, map, subschema)?;
        }
        Ok(())
    }

    /// Adds the values of the subschema's types that keyword `name` allows: `enum`, `const`, `$ref`, `anyOf`, `oneOf`
    /// or
    /// `allOf`.
    fn alternatives(
        &mut self,
        start: StateId,
        end: StateId,
        name: &str,
        map: &'a Map<String, Value>,
        subschema: &Subschema<'a>,
    ) -> Result<()> {
        let types = subschema.types;
        let values: &[Value] = match map.get(name) {
            // A constant may itself be an array.
            Some(Value::Array(values)) if name != "const" => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        if matches!(name, "enum" | "const") {
            keywords::check_siblings(name, map, types & Types::of_all(values))?;
            let texts: Vec<Vec<u8>> = values
                .iter()
                .filter(|value| types.has(Types::of(value)))
                .map(|value| value.to_string().into_bytes())
                .collect();
            return self.texts(start, end, &texts);
        }
        keywords::check_siblings(name, map, types)?;
        if name == "$ref" {
            let (schema, pointer) = pointer::resolve(self.root, map.get(name))?;
            let rule = self.rule(Subschema { schema, types, pointer });
            self.builder.call(start, rule, end);
            return Ok(());
        }
        if name == "allOf" && values.len() != 1 {
            let found = values.len();
            return Err(Error::unsupported(format!("`allOf` is supported with one entry only, found {found}")));
        }
        if name == "oneOf" {
            oneof::check(self.root, values)?;
        }
        for (index, schema) in values.iter().enumerate() {
            let pointer = subschema.pointer.keyword(name).index(index);
            let rule = self.rule(Subschema { schema, types, pointer });
            self.builder.call(start, rule, end);
        }
        Ok(())
    }
}
