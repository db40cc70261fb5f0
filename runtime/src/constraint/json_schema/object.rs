//! Objects of a schema and their property names.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::constraint::json_schema::compiler::{Compiler, Subschema};
use crate::constraint::json_schema::string::{UTF8, UTF8_STATES};
use crate::constraint::machine::{RuleId, StateId};
use crate::error::Result;

/// A named property, optional or required.
struct Property<'a> {
    name: &'a str,
    rule: RuleId,
    required: bool,
}

/// The states at which the next property may begin; at least one is set.
#[derive(Clone, Copy)]
struct Front {
    /// No property yet: the next one needs no comma.
    empty: Option<StateId>,
    /// After at least one property.
    nonempty: Option<StateId>,
}

impl<'a> Compiler<'a> {
    /// Adds the objects that the keywords of `map` allow.
    pub(super) fn object(
        &mut self,
        start: StateId,
        end: StateId,
        map: &'a Map<String, Value>,
        subschema: &Subschema<'a>,
    ) -> Result<()> {
        let properties = map.get("properties").and_then(Value::as_object);
        let required: Vec<&'a str> =
            map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        // The rules of additional properties and of those that only `required` names.
        let (additional, unlisted) = match map.get("additionalProperties") {
            None if properties.is_some() => (None, self.any_value()),
            None => (Some(self.any_value()), self.any_value()),
            Some(schema) => {
                let rule = self.rule_of_all_types(schema, subschema.pointer.keyword("additionalProperties"));
                (Some(rule).filter(|_| *schema != Value::Bool(false)), rule)
            }
        };
        let mut all = Vec::new();
        let mut names: HashSet<&'a str> = HashSet::new();
        let must: HashSet<&'a str> = required.iter().copied().collect();
        for (name, schema) in properties.into_iter().flatten() {
            let rule = self.rule_of_all_types(schema, subschema.pointer.keyword("properties").property(name));
            names.insert(name);
            all.push(Property { name, rule, required: must.contains(name.as_str()) });
        }
        for name in required {
            if names.insert(name) {
                all.push(Property { name, rule: unlisted, required: true });
            }
        }

        let mut front = Front { empty: Some(self.builder.text(start, b"{")), nonempty: None };
        for property in &all {
            self.builder.check_room(property.name.len() as u64)?;
            front = self.property(front, property);
        }
        if let Some(rule) = additional {
            front = self.additional(front, &names, rule)?;
        }
        for state in [front.empty, front.nonempty].into_iter().flatten() {
            self.builder.edge(state, b'}', b'}', end);
        }
        Ok(())
    }

    /// Adds a property.
    fn property(&mut self, front: Front, property: &Property<'_>) -> Front {
        let key = self.key(front);
        let named = self.builder.text(key, Value::from(property.name).to_string().as_bytes());
        let value = self.builder.state();
        self.separator(named, b':', value);
        let after = self.builder.state();
        self.builder.call(value, property.rule, after);
        if property.required {
            return Front { empty: None, nonempty: Some(after) };
        }
        if let Some(nonempty) = front.nonempty {
            self.builder.epsilon(nonempty, after);
        }
        Front { empty: front.empty, nonempty: Some(after) }
    }

    /// Adds any number of properties whose names are not in `names`.
    fn additional(&mut self, front: Front, names: &HashSet<&str>, rule: RuleId) -> Result<Front> {
        let after = self.builder.state();
        if let Some(nonempty) = front.nonempty {
            self.builder.epsilon(nonempty, after);
        }
        let key = self.key(Front { empty: front.empty, nonempty: Some(after) });
        let named = self.builder.state();
        self.other_names(key, named, names)?;
        let value = self.builder.state();
        self.separator(named, b':', value);
        self.builder.call(value, rule, after);
        Ok(Front { empty: front.empty, nonempty: Some(after) })
    }

    /// The state at which a name begins.
    fn key(&mut self, front: Front) -> StateId {
        let key = self.builder.state();
        if let Some(empty) = front.empty {
            self.builder.epsilon(empty, key);
        }
        if let Some(nonempty) = front.nonempty {
            self.separator(nonempty, b',', key);
        }
        key
    }

    /// Adds strings other than `names`. If there are names, no character may be escaped, so that every string has only
    /// one form to compare.
    fn other_names(&mut self, from: StateId, to: StateId, names: &HashSet<&str>) -> Result<()> {
        if names.is_empty() {
            let rule = self.any_string();
            self.builder.call(from, rule, to);
            return Ok(());
        }
        let inside = self.builder.text(from, b"\"");
        // States after a prefix of no name: only UTF-8 matters.
        let other: [StateId; UTF8_STATES] = std::array::from_fn(|_| self.builder.state());
        for (state, low, high, next) in UTF8 {
            self.builder.edge(other[state], low, high, other[next]);
        }
        self.builder.edge(other[0], b'"', b'"', to);
        // A name that needs escapes cannot equal an unescaped string.
        let mut plain: Vec<&str> =
            names.iter().copied().filter(|name| Value::from(*name).to_string().len() == name.len() + 2).collect();
        // A hash set's order changes from run to run; sorted names keep the numbering of states deterministic.
        plain.sort_unstable();
        let mut trie = Trie { nodes: vec![TrieNode::default()] };
        for name in plain {
            self.builder.check_room(trie.nodes.len() as u64)?;
            trie.insert(name.as_bytes());
        }
        self.builder.check_room(trie.nodes.len() as u64)?;
        let states: Vec<StateId> =
            (0..trie.nodes.len()).map(|node| if node == 0 { inside } else { self.builder.state() }).collect();
        for (node, &state) in trie.nodes.iter().zip(&states) {
            for (_, low, high, next) in UTF8.iter().filter(|row| row.0 == node.utf8) {
                // Bytes between those that continue a name leave all names.
                let mut first = u16::from(*low);
                for byte in *low..=*high {
                    let Some(&child) = node.children.get(&byte) else { continue };
                    if let Some(last) = byte.checked_sub(1).filter(|&last| u16::from(last) >= first) {
                        self.builder.edge(state, first as u8, last, other[*next]);
                    }
                    self.builder.edge(state, byte, byte, states[child]);
                    first = u16::from(byte) + 1;
                }
                if first <= u16::from(*high) {
                    self.builder.edge(state, first as u8, *high, other[*next]);
                }
            }
            if node.utf8 == 0 && !node.is_name {
                self.builder.edge(state, b'"', b'"', to);
            }
        }
        Ok(())
    }
}

/// A trie of names.
struct Trie {
    nodes: Vec<TrieNode>,
}

#[derive(Default)]
struct TrieNode {
    children: HashMap<u8, usize>,
    /// The state of the UTF-8 automaton at this node.
    utf8: usize,
    is_name: bool,
}

impl Trie {
    fn insert(&mut self, name: &[u8]) {
        let mut at = 0;
        for &byte in name {
            let known = self.nodes[at].children.get(&byte).copied();
            at = known.unwrap_or_else(|| {
                let from = self.nodes[at].utf8;
                let row = UTF8.iter().find(|(state, low, high, _)| *state == from && (*low..=*high).contains(&byte));
                let node = TrieNode { utf8: row.map_or(0, |row| row.3), ..TrieNode::default() };
                self.nodes.push(node);
                let new = self.nodes.len() - 1;
                self.nodes[at].children.insert(byte, new);
                new
            });
        }
        self.nodes[at].is_name = true;
    }
}
