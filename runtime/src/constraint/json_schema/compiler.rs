//! The compiler's state: which schema has which rule, and rules that many schemas share.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use crate::constraint::json_schema::bounds::Bounds;
use crate::constraint::json_schema::pointer::Pointer;
use crate::constraint::json_schema::types::Types;
use crate::constraint::machine::{Builder, RuleId, StateId};
use crate::error::Result;

/// The schema that allows any value.
static ANY: Value = Value::Bool(true);

/// A schema restricted to some types of values.
#[derive(Debug, Clone)]
pub(super) struct Subschema<'a> {
    pub(super) schema: &'a Value,
    pub(super) types: Types,
    pub(super) pointer: Pointer<'a>,
}

/// Compiles schemas to rules. Subschemas wait in a queue, so that deep schemas cannot overflow the stack.
pub(super) struct Compiler<'a> {
    pub(super) root: &'a Value,
    pub(super) builder: Builder,
    /// The rules of schemas, by the schema's address.
    rules: HashMap<(*const Value, Types), RuleId>,
    /// Rules that have no states yet.
    queue: VecDeque<(RuleId, Subschema<'a>)>,
    /// The rules of numbers.
    pub(super) numbers: HashMap<(Types, Option<Bounds>), RuleId>,
    /// The rule of any string.
    pub(super) any_string: Option<RuleId>,
    /// The rule of any character of a string.
    pub(super) any_character: Option<RuleId>,
}

impl<'a> Compiler<'a> {
    /// A compiler of the schema `root`, without rules.
    pub(super) fn new(root: &'a Value) -> Self {
        Self {
            root,
            builder: Builder::default(),
            rules: HashMap::new(),
            queue: VecDeque::new(),
            numbers: HashMap::new(),
            any_string: None,
            any_character: None,
        }
    }

    /// Removes the next rule from the queue.
    pub(super) fn next(&mut self) -> Option<(RuleId, Subschema<'a>)> {
        self.queue.pop_front()
    }

    /// The rule of a schema. A new rule goes to the queue.
    pub(super) fn rule(&mut self, subschema: Subschema<'a>) -> RuleId {
        let key = (std::ptr::from_ref(subschema.schema), subschema.types);
        if let Some(&rule) = self.rules.get(&key) {
            return rule;
        }
        let (rule, _) = self.builder.rule();
        self.rules.insert(key, rule);
        self.queue.push_back((rule, subschema));
        rule
    }

    /// The rule of a schema with all its types.
    pub(super) fn rule_of_all_types(&mut self, schema: &'a Value, pointer: Pointer<'a>) -> RuleId {
        self.rule(Subschema { schema, types: Types::ALL, pointer })
    }

    /// The rule of any value.
    pub(super) fn any_value(&mut self) -> RuleId {
        self.rule_of_all_types(&ANY, Pointer::root())
    }

    /// Adds a trie of `texts` between two states.
    pub(super) fn texts(&mut self, start: StateId, end: StateId, texts: &[Vec<u8>]) -> Result<()> {
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
            self.builder.epsilon(last, end);
        }
        Ok(())
    }

    /// Adds a comma or colon and the optional space after it between two states.
    pub(super) fn separator(&mut self, from: StateId, separator: u8, to: StateId) {
        let after = self.builder.text(from, &[separator]);
        self.builder.edge(after, b' ', b' ', to);
        self.builder.epsilon(after, to);
    }
}
