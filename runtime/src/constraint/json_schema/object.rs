//! Objects and their keys.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::constraint::json_schema::string::{UTF8, UTF8_STATES};
use crate::constraint::json_schema::{Compiler, Use};
use crate::constraint::machine::{RuleId, StateId};
use crate::error::Result;

/// A property that an object may or must have.
struct Property<'a> {
    name: &'a str,
    rule: RuleId,
    required: bool,
}

/// Where an object may go on: before its first property, and behind one. At least one of them is there.
#[derive(Clone, Copy)]
struct Front {
    fresh: Option<StateId>,
    going: Option<StateId>,
}

impl<'a> Compiler<'a> {
    /// Objects as the keywords of `map` say.
    pub(super) fn object(
        &mut self,
        start: StateId,
        end: StateId,
        map: &'a Map<String, Value>,
        used: &Use<'a>,
    ) -> Result<()> {
        let properties = map.get("properties").and_then(Value::as_object);
        let required: Vec<&'a str> =
            map.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        // What further properties may be, and what those are that are required without being listed.
        let (further, unlisted) = match map.get("additionalProperties") {
            None if properties.is_some() => (None, self.any_rule()),
            None => (Some(self.any_rule()), self.any_rule()),
            Some(schema) => {
                let rule = self.inner_rule(schema, used.place.key("additionalProperties"));
                (Some(rule).filter(|_| *schema != Value::Bool(false)), rule)
            }
        };
        let mut all = Vec::new();
        let mut names: HashSet<&'a str> = HashSet::new();
        let must: HashSet<&'a str> = required.iter().copied().collect();
        for (name, schema) in properties.into_iter().flatten() {
            let rule = self.inner_rule(schema, used.place.key("properties").name(name));
            names.insert(name);
            all.push(Property { name, rule, required: must.contains(name.as_str()) });
        }
        for name in required {
            if names.insert(name) {
                all.push(Property { name, rule: unlisted, required: true });
            }
        }

        let mut front = Front { fresh: Some(self.builder.text(start, b"{")), going: None };
        for property in &all {
            self.builder.check_room(property.name.len() as u64)?;
            front = self.property(front, property);
        }
        if let Some(rule) = further {
            front = self.further(front, &names, rule)?;
        }
        for state in [front.fresh, front.going].into_iter().flatten() {
            self.builder.edge(state, b'}', b'}', end);
        }
        Ok(())
    }

    fn property(&mut self, front: Front, property: &Property<'_>) -> Front {
        let key = self.key(front);
        let named = self.builder.text(key, Value::from(property.name).to_string().as_bytes());
        let value = self.builder.state();
        self.mark(named, b':', value);
        let behind = self.builder.state();
        self.builder.call(value, property.rule, behind);
        if property.required {
            return Front { fresh: None, going: Some(behind) };
        }
        if let Some(going) = front.going {
            self.builder.empty(going, behind);
        }
        Front { fresh: front.fresh, going: Some(behind) }
    }

    /// Any number of properties whose names are none of `names`.
    fn further(&mut self, front: Front, names: &HashSet<&str>, rule: RuleId) -> Result<Front> {
        let behind = self.builder.state();
        if let Some(going) = front.going {
            self.builder.empty(going, behind);
        }
        let key = self.key(Front { fresh: front.fresh, going: Some(behind) });
        let named = self.builder.state();
        self.other_names(key, named, names)?;
        let value = self.builder.state();
        self.mark(named, b':', value);
        self.builder.call(value, rule, behind);
        Ok(Front { fresh: front.fresh, going: Some(behind) })
    }

    /// The place where a key begins.
    fn key(&mut self, front: Front) -> StateId {
        let key = self.builder.state();
        if let Some(fresh) = front.fresh {
            self.builder.empty(fresh, key);
        }
        if let Some(going) = front.going {
            self.mark(going, b',', key);
        }
        key
    }

    /// Strings other than `names`; none of their characters is escaped if there are names, so that each is written in one way.
    fn other_names(&mut self, from: StateId, to: StateId, names: &HashSet<&str>) -> Result<()> {
        if names.is_empty() {
            let rule = self.any_string();
            self.builder.call(from, rule, to);
            return Ok(());
        }
        let inside = self.builder.text(from, b"\"");
        // Where no name goes on with what came, only the characters matter.
        let other: [StateId; UTF8_STATES] = std::array::from_fn(|_| self.builder.state());
        for (state, low, high, next) in UTF8 {
            self.builder.edge(other[state], low, high, other[next]);
        }
        self.builder.edge(other[0], b'"', b'"', to);
        // A name that is written with escapes is written otherwise than any of these strings.
        let mut plain: Vec<&str> =
            names.iter().copied().filter(|name| Value::from(*name).to_string().len() == name.len() + 2).collect();
        // The order of a hash set is another one in each run, and states are numbered in order.
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
                // Bytes between those that go on with a name lead away from all of them.
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

/// The beginnings of names.
struct Trie {
    nodes: Vec<TrieNode>,
}

#[derive(Default)]
struct TrieNode {
    children: HashMap<u8, usize>,
    /// The state of the UTF-8 automaton.
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
