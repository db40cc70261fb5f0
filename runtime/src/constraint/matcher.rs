//! The state of a text under a constraint: an Earley recognizer over the machine, with a graph-structured stack.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::constraint::machine::{Machine, RuleId, StateId};
use crate::error::{Error, Result};
use crate::sampling::host::{CANDIDATES, END};

/// Number of nodes below which garbage is not collected.
const MIN_NODES: usize = 64;
/// Number of items up to which a linear search replaces the hash set.
const MAX_LINEAR_ITEMS: usize = 24;

type NodeId = u32;

/// The state of a text under a constraint, made by [`Constraint::matcher`](crate::constraint::Constraint::matcher).
#[derive(Debug, Clone)]
pub struct Matcher {
    machine: Arc<Machine>,
    /// The state set of the current position, without items that neither have edges nor can end the text.
    items: Vec<Item>,
    /// Node 0 is the rule of the whole text.
    nodes: Vec<Node>,
    /// Number of nodes beyond which unreachable ones are removed.
    collect_at: usize,
}

/// An Earley item: a state, and the call of the rule that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Item {
    state: StateId,
    node: NodeId,
}

/// A call of a rule at one position. The inside of a rule does not depend on its caller, so all callers share the node.
#[derive(Debug, Clone)]
struct Node {
    /// The items that continue after the rule has ended.
    callers: Vec<Item>,
    /// Minimum number of bytes from the end of the rule to the end of the text.
    rest: u64,
}

impl Matcher {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        let start = Item { state: machine.start(0), node: 0 };
        let nodes = vec![Node { callers: Vec::new(), rest: 0 }];
        let mut matcher = Self { machine, items: Vec::new(), nodes, collect_at: MIN_NODES };
        matcher.set_closure(vec![start]);
        matcher
    }

    /// Which bytes may come next (0 to 255), and whether the text may end here (256).
    ///
    /// With `remaining`, a byte is allowed only if a match can be completed within that many bytes, this byte included.
    /// If no match fits, the result is the same as without `remaining`.
    pub fn allowed(&self, remaining: Option<usize>) -> [bool; CANDIDATES] {
        let mut allowed = [false; CANDIDATES];
        let remaining = remaining.map_or(u64::MAX, |n| n as u64);
        let limit = if self.rest() <= remaining { remaining } else { u64::MAX };
        for item in &self.items {
            let state = self.machine.state(item.state);
            let rest = self.node(item.node).rest;
            for edge in &state.edges {
                let needed = self.machine.state(edge.to).to_end.saturating_add(rest).saturating_add(1);
                if needed <= limit {
                    allowed[usize::from(edge.lo)..=usize::from(edge.hi)].fill(true);
                }
            }
        }
        allowed[END] = self.is_match();
        allowed
    }

    /// Takes the next byte of the text.
    ///
    /// # Errors
    /// `InvalidArgument` if the byte is not allowed here; the matcher is unchanged then.
    pub fn advance(&mut self, byte: u8) -> Result<()> {
        let mut next = Vec::with_capacity(self.items.len());
        for item in &self.items {
            for edge in &self.machine.state(item.state).edges {
                if (edge.lo..=edge.hi).contains(&byte) {
                    next.push(Item { state: edge.to, node: item.node });
                }
            }
        }
        if next.is_empty() {
            return Err(Error::invalid(format!(
                "byte 0x{byte:02x} is not allowed here; pass a byte that the constraint allows"
            )));
        }
        self.set_closure(next);
        if self.nodes.len() > self.collect_at {
            self.collect_garbage();
        }
        Ok(())
    }

    /// Whether the text so far is a complete match.
    pub fn is_match(&self) -> bool {
        self.items.iter().any(|item| item.node == 0 && self.machine.state(item.state).is_final)
    }

    /// Whether some byte may follow.
    pub fn can_continue(&self) -> bool {
        self.items.iter().any(|item| !self.machine.state(item.state).edges.is_empty())
    }

    /// The byte that must follow: the text may not end here, and no other byte is allowed.
    pub fn forced(&self) -> Option<u8> {
        let mut only = None;
        for item in &self.items {
            for edge in &self.machine.state(item.state).edges {
                if edge.lo != edge.hi || only.is_some_and(|byte| byte != edge.lo) {
                    return None;
                }
                only = Some(edge.lo);
            }
        }
        only.filter(|_| !self.is_match())
    }

    /// Minimum number of bytes that complete the match; 0 if it is complete.
    pub fn shortest_rest(&self) -> usize {
        usize::try_from(self.rest()).unwrap_or(usize::MAX)
    }

    fn rest(&self) -> u64 {
        let rests = self.items.iter().map(|item| {
            let to_end = self.machine.state(item.state).to_end;
            to_end.saturating_add(self.node(item.node).rest)
        });
        rests.min().unwrap_or(0)
    }

    fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id as usize]
    }

    /// Replaces the state set by the closure of `items` under epsilon transitions, prediction and completion.
    ///
    /// A called rule never matches the empty text, so a node that completes here was made at an earlier position and
    /// has all of its callers.
    fn set_closure(&mut self, mut items: Vec<Item>) {
        let machine = self.machine.clone();
        let first_new = self.nodes.len();
        let mut predicted: HashMap<RuleId, NodeId> = HashMap::new();
        let mut seen = Seen::default();
        items = seen.deduplicated(items);
        let mut done = 0;
        while let Some(&item) = items.get(done) {
            done += 1;
            let state = machine.state(item.state);
            for &to in &state.epsilon {
                seen.push(&mut items, Item { state: to, node: item.node });
            }
            for call in &state.calls {
                let node = match predicted.entry(call.rule) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let node = *new.insert(self.nodes.len() as NodeId);
                        self.nodes.push(Node { callers: Vec::new(), rest: u64::MAX });
                        seen.push(&mut items, Item { state: machine.start(call.rule), node });
                        node
                    }
                };
                self.nodes[node as usize].callers.push(Item { state: call.return_to, node: item.node });
            }
            if state.is_final {
                for &caller in &self.nodes[item.node as usize].callers {
                    seen.push(&mut items, caller);
                }
            }
        }
        self.compute_rests(first_new);
        items.retain(|item| {
            let state = machine.state(item.state);
            !state.edges.is_empty() || (state.is_final && item.node == 0)
        });
        self.items = items;
    }

    /// Computes `rest` of the nodes from `first` on. They may call each other, so this iterates to a fixed point.
    fn compute_rests(&mut self, first: usize) {
        loop {
            let mut changed = false;
            for id in first..self.nodes.len() {
                let rest = self.nodes[id]
                    .callers
                    .iter()
                    .map(|caller| self.machine.state(caller.state).to_end.saturating_add(self.node(caller.node).rest));
                let rest = rest.min().unwrap_or(0);
                if rest < self.nodes[id].rest {
                    self.nodes[id].rest = rest;
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// Removes the nodes that no item can reach.
    fn collect_garbage(&mut self) {
        let mut used = vec![false; self.nodes.len()];
        used[0] = true;
        let mut open: Vec<NodeId> = self.items.iter().map(|item| item.node).collect();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut used[id as usize], true) {
                open.extend(self.node(id).callers.iter().map(|caller| caller.node));
            }
        }
        let mut numbers = Vec::with_capacity(used.len());
        let mut next = 0;
        for &used in &used {
            numbers.push(next);
            next += NodeId::from(used);
        }
        let mut used = used.into_iter();
        self.nodes.retain(|_| used.next().unwrap_or(false));
        for node in &mut self.nodes {
            for caller in &mut node.callers {
                caller.node = numbers[caller.node as usize];
            }
        }
        for item in &mut self.items {
            item.node = numbers[item.node as usize];
        }
        self.collect_at = MIN_NODES.max(2 * self.nodes.len());
    }
}

/// The set of items that were pushed already. It stays empty, and the search linear, while there are few items.
#[derive(Default)]
struct Seen(HashSet<Item>);

impl Seen {
    /// Appends an item unless it was appended before.
    fn push(&mut self, items: &mut Vec<Item>, item: Item) {
        if items.len() < MAX_LINEAR_ITEMS {
            if !items.contains(&item) {
                items.push(item);
            }
            return;
        }
        if self.0.is_empty() {
            self.0.extend(items.iter().copied());
        }
        if self.0.insert(item) {
            items.push(item);
        }
    }

    /// Removes duplicates.
    fn deduplicated(&mut self, items: Vec<Item>) -> Vec<Item> {
        let mut kept = Vec::with_capacity(items.len());
        for item in items {
            self.push(&mut kept, item);
        }
        kept
    }
}
