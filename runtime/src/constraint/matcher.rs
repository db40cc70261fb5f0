//! Where in a match a text is: all places of the machine at once, in the manner of Earley's recogniser.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::constraint::machine::{Machine, RuleId, StateId};
use crate::error::{Error, Result};
use crate::sampling::host::{CANDIDATES, END};

/// Nodes below this number are not worth collecting.
const FEW_NODES: usize = 64;
/// Up to this many items are looked through; more are found by hash.
const FEW_ITEMS: usize = 24;

type NodeId = u32;

/// Where in a match a text is. Made by [`Constraint::matcher`](crate::constraint::Constraint::matcher).
#[derive(Debug, Clone)]
pub struct Matcher {
    machine: Arc<Machine>,
    /// The places at which a byte or the end of a rule may come.
    items: Vec<Item>,
    /// Node 0 is the whole text.
    nodes: Vec<Node>,
    /// How many nodes there may be before those that nothing refers to are dropped.
    collect_at: usize,
}

/// A state of the rule that `node` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Item {
    state: StateId,
    node: NodeId,
}

/// A rule that was called at some position: by whom does not matter to what happens inside it, so that all callers share it.
#[derive(Debug, Clone)]
struct Node {
    /// What goes on when the rule has ended.
    callers: Vec<Item>,
    /// The fewest bytes from the end of the rule to the end of the text.
    rest: u64,
}

impl Matcher {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        let start = Item { state: machine.start(0), node: 0 };
        let nodes = vec![Node { callers: Vec::new(), rest: 0 }];
        let mut matcher = Self { machine, items: Vec::new(), nodes, collect_at: FEW_NODES };
        matcher.close(vec![start]);
        matcher
    }

    /// What may come next: bytes 0 to 255, then (index 256) whether the text may end here.
    ///
    /// With `remaining`, only bytes after which a match still fits into so many bytes in all, this byte included. If no match
    /// fits, everything that may come without `remaining`.
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
    /// `InvalidArgument` if the byte may not come here; the matcher is then as before.
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
                "byte 0x{byte:02x} may not come here: expected one that the constraint allows"
            )));
        }
        self.close(next);
        if self.nodes.len() > self.collect_at {
            self.collect();
        }
        Ok(())
    }

    /// Whether what was taken so far is a whole match.
    pub fn is_match(&self) -> bool {
        self.items.iter().any(|item| item.node == 0 && self.machine.state(item.state).end)
    }

    /// Whether some byte may follow.
    pub fn can_continue(&self) -> bool {
        self.items.iter().any(|item| !self.machine.state(item.state).edges.is_empty())
    }

    /// The one byte that must follow: the text may not end here, and only this byte may come.
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

    /// The fewest bytes that complete the match; 0 if it is whole.
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

    /// Replaces the items by `items` and everything that follows from them without a byte.
    ///
    /// A rule never matches the empty text, so a node that ends here was made at an earlier position: its callers are all known.
    fn close(&mut self, mut items: Vec<Item>) {
        let machine = self.machine.clone();
        let first_new = self.nodes.len();
        let mut called: HashMap<RuleId, NodeId> = HashMap::new();
        let mut seen = Seen::default();
        items = seen.only_new(items);
        let mut done = 0;
        while let Some(&item) = items.get(done) {
            done += 1;
            let state = machine.state(item.state);
            for &to in &state.empty {
                seen.push(&mut items, Item { state: to, node: item.node });
            }
            for call in &state.calls {
                let node = match called.entry(call.rule) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        let node = *new.insert(self.nodes.len() as NodeId);
                        self.nodes.push(Node { callers: Vec::new(), rest: u64::MAX });
                        seen.push(&mut items, Item { state: machine.start(call.rule), node });
                        node
                    }
                };
                self.nodes[node as usize].callers.push(Item { state: call.back, node: item.node });
            }
            if state.end {
                for &caller in &self.nodes[item.node as usize].callers {
                    seen.push(&mut items, caller);
                }
            }
        }
        self.settle(first_new);
        items.retain(|item| {
            let state = machine.state(item.state);
            !state.edges.is_empty() || (state.end && item.node == 0)
        });
        self.items = items;
    }

    /// Finds how far it is from the ends of the nodes from `first` on to the end of the text: they may call one another.
    fn settle(&mut self, first: usize) {
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

    /// Drops the nodes that no item refers to.
    fn collect(&mut self) {
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
        self.collect_at = FEW_NODES.max(2 * self.nodes.len());
    }
}

/// Keeps items apart from those that were there before; a few without a table.
#[derive(Default)]
struct Seen(HashSet<Item>);

impl Seen {
    fn push(&mut self, items: &mut Vec<Item>, item: Item) {
        if items.len() < FEW_ITEMS {
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

    fn only_new(&mut self, items: Vec<Item>) -> Vec<Item> {
        let mut kept = Vec::with_capacity(items.len());
        for item in items {
            self.push(&mut kept, item);
        }
        kept
    }
}
