//! JSON schemas: each schema that is used becomes a rule, which calls the rules of the schemas inside it.

mod array;
mod keywords;
mod number;
mod object;
mod oneof;
mod pointer;
mod string;
mod types;

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value};

use crate::constraint::machine::{Builder, RuleId, StateId};
use crate::error::{Error, Result};
use number::Bounds;
use pointer::Place;
use types::Types;

/// Bytes of the longest schema.
const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// The schema of any value.
static ANY: Value = Value::Bool(true);

/// A schema as it is used: of what it allows, only some types may be wanted.
#[derive(Debug, Clone)]
struct Use<'a> {
    schema: &'a Value,
    types: Types,
    place: Place<'a>,
}

/// Turns schemas into rules, one after another: no schema is so deep that a stack could overflow.
struct Compiler<'a> {
    root: &'a Value,
    builder: Builder,
    /// The rules of schemas, which are told apart by where they lie in memory.
    rules: HashMap<(*const Value, Types), RuleId>,
    /// Rules whose states are still to be made.
    open: VecDeque<(RuleId, Use<'a>)>,
    /// Rules of numbers, by their bounds.
    numbers: HashMap<(Types, Option<Bounds>), RuleId>,
    any_string: Option<RuleId>,
    any_character: Option<RuleId>,
}

/// A machine that matches the documents of a schema.
///
/// # Errors
/// As [`Constraint::json_schema`](crate::constraint::Constraint::json_schema).
pub(super) fn build(text: &[u8]) -> Result<Builder> {
    if text.len() > MAX_SCHEMA_BYTES {
        let found = text.len();
        return Err(Error::unsupported(format!(
            "the schema is too long: expected at most {MAX_SCHEMA_BYTES} bytes, found {found}"
        )));
    }
    let root: Value =
        serde_json::from_slice(text).map_err(|e| Error::invalid(format!("the schema is not JSON: {e}")))?;
    let mut compiler = Compiler {
        root: &root,
        builder: Builder::default(),
        rules: HashMap::new(),
        open: VecDeque::new(),
        numbers: HashMap::new(),
        any_string: None,
        any_character: None,
    };
    compiler.rule(Use { schema: &root, types: Types::ALL, place: Place::root() });
    while let Some((rule, used)) = compiler.open.pop_front() {
        compiler.builder.check_room(0)?;
        let pointer = used.place.clone();
        compiler.body(rule, used).map_err(|e| e.context(format_args!("schema at {pointer}")))?;
    }
    Ok(compiler.builder)
}

impl<'a> Compiler<'a> {
    /// The rule of a schema; its states are made later.
    fn rule(&mut self, used: Use<'a>) -> RuleId {
        let key = (std::ptr::from_ref(used.schema), used.types);
        if let Some(&rule) = self.rules.get(&key) {
            return rule;
        }
        let (rule, _) = self.builder.rule();
        self.rules.insert(key, rule);
        self.open.push_back((rule, used));
        rule
    }

    /// The rule of a schema inside another one.
    fn inner_rule(&mut self, schema: &'a Value, place: Place<'a>) -> RuleId {
        self.rule(Use { schema, types: Types::ALL, place })
    }

    /// The rule of any value at all.
    fn any_rule(&mut self) -> RuleId {
        self.inner_rule(&ANY, Place::root())
    }

    /// Makes the states of a rule.
    fn body(&mut self, rule: RuleId, used: Use<'a>) -> Result<()> {
        let start = self.builder.start(rule);
        let end = self.builder.end_state();
        static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
        match used.schema {
            Value::Bool(false) => Ok(()),
            Value::Bool(true) => self.values(start, end, &EMPTY, &used),
            Value::Object(map) => {
                keywords::check(map)?;
                let own = keywords::types(map)?;
                let used = Use { types: used.types & own, ..used };
                match keywords::alternatives(map)? {
                    None => self.values(start, end, map, &used),
                    Some(name) => self.alternatives(start, end, name, map, &used),
                }
            }
            other => Err(Error::invalid(format!("expected an object or a boolean, found {}", keywords::kind(other)))),
        }
    }

    /// Values of each type that is wanted, as the keywords of `map` say.
    fn values(&mut self, start: StateId, end: StateId, map: &'a Map<String, Value>, used: &Use<'a>) -> Result<()> {
        let types = used.types;
        let mut word = |word: &[u8]| {
            let last = self.builder.text(start, word);
            self.builder.empty(last, end);
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
            self.array(start, end, map, used)?;
        }
        if types.has(Types::OBJECT) {
            self.object(start, end, map, used)?;
        }
        Ok(())
    }

    /// What `name` (`enum`, `const`, `$ref`, `anyOf`, `oneOf` or `allOf`) allows of the wanted types.
    fn alternatives(
        &mut self,
        start: StateId,
        end: StateId,
        name: &str,
        map: &'a Map<String, Value>,
        used: &Use<'a>,
    ) -> Result<()> {
        let values: &[Value] = match map.get(name) {
            Some(Value::Array(values)) => values,
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        let fixed = matches!(name, "enum" | "const");
        // A constant may itself be a list.
        let values = if name == "const" { map.get(name).map(std::slice::from_ref).unwrap_or_default() } else { values };
        let bears_on = if fixed { used.types & Types::of_all(values) } else { used.types };
        keywords::check_siblings(name, map, bears_on)?;
        if fixed {
            let wanted: Vec<Vec<u8>> = values
                .iter()
                .filter(|value| used.types.has(Types::of(value)))
                .map(|value| value.to_string().into_bytes())
                .collect();
            return self.texts(start, end, &wanted);
        }
        if name == "$ref" {
            let (schema, place) = pointer::resolve(self.root, map.get(name))?;
            let rule = self.rule(Use { schema, types: used.types, place });
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
            let place = used.place.key(name).index(index);
            let rule = self.rule(Use { schema, types: used.types, place });
            self.builder.call(start, rule, end);
        }
        Ok(())
    }

    /// Any of these texts, as a trie.
    fn texts(&mut self, start: StateId, end: StateId, texts: &[Vec<u8>]) -> Result<()> {
        let mut known: HashMap<(StateId, u8), StateId> = HashMap::new();
        for text in texts {
            self.builder.check_room(0)?;
            let last = text.iter().fold(start, |from, &byte| {
                *known.entry((from, byte)).or_insert_with(|| {
                    let to = self.builder.state();
                    self.builder.edge(from, byte, byte, to);
                    to
                })
            });
            self.builder.empty(last, end);
        }
        Ok(())
    }

    /// `mark` and an optional blank behind it.
    fn mark(&mut self, from: StateId, mark: u8, to: StateId) {
        let behind = self.builder.text(from, &[mark]);
        self.builder.edge(behind, b' ', b' ', to);
        self.builder.empty(behind, to);
    }
}
