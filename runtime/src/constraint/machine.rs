//! The machine that a constraint is compiled to: states with edges over bytes, and rules that states call.
//!
//! A rule is a start state. A state may call a rule and goes on at the state behind the call once the rule has ended, so that the
//! machine recognises what a context-free grammar describes. [`Builder`] collects states; [`Builder::finish`] finds out how far it is
//! from each state to the end of its rule and drops whatever leads nowhere, so that a [`Machine`] has no dead ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::{Error, Result};

/// The most states that a machine may have.
pub(super) const MAX_STATES: usize = 200_000;
/// The most edges and calls that a machine may have.
pub(super) const MAX_EDGES: usize = 1_000_000;
/// What stands for a state from which the end cannot be reached.
const NEVER: u64 = u64::MAX;

/// A number of a state.
pub(super) type StateId = u32;
/// A number of a rule.
pub(super) type RuleId = u32;

/// Bytes from `lo` to `hi` lead to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) lo: u8,
    pub(super) hi: u8,
    pub(super) to: StateId,
}

/// A text of `rule` leads to `back`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) rule: RuleId,
    pub(super) back: StateId,
}

/// What may come at one place of a rule.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) edges: Vec<Edge>,
    /// States that may stand for this one without a byte.
    pub(super) empty: Vec<StateId>,
    pub(super) calls: Vec<Call>,
    /// Whether the rule may end here.
    pub(super) end: bool,
    /// The fewest bytes from here to the end of the rule.
    pub(super) to_end: u64,
}

/// A finished machine. Rule 0 is the whole text.
#[derive(Debug)]
pub(super) struct Machine {
    states: Vec<State>,
    /// Where each rule begins.
    rules: Vec<StateId>,
}

impl Machine {
    pub(super) fn state(&self, id: StateId) -> &State {
        &self.states[id as usize]
    }

    /// Where a rule begins.
    pub(super) fn start(&self, rule: RuleId) -> StateId {
        self.rules[rule as usize]
    }

    /// Bytes of the shortest text.
    pub(super) fn shortest(&self) -> u64 {
        self.state(self.start(0)).to_end
    }
}

/// A machine in the making. Past its limits it takes nothing more, and [`Self::finish`] says so.
#[derive(Debug, Default)]
pub(super) struct Builder {
    states: Vec<State>,
    rules: Vec<StateId>,
    edges: usize,
    full: bool,
}

impl Builder {
    /// Adds a state that leads nowhere yet.
    pub(super) fn state(&mut self) -> StateId {
        if self.states.len() >= MAX_STATES {
            self.full = true;
            return 0;
        }
        self.states.push(State::default());
        (self.states.len() - 1) as StateId
    }

    /// Adds a state at which the rule may end.
    pub(super) fn end_state(&mut self) -> StateId {
        let state = self.state();
        self.set_end(state);
        state
    }

    /// Adds a rule, the first of which is the whole text, and its first state.
    pub(super) fn rule(&mut self) -> (RuleId, StateId) {
        let start = self.state();
        self.rules.push(start);
        ((self.rules.len() - 1) as RuleId, start)
    }

    /// Where a rule begins.
    pub(super) fn start(&self, rule: RuleId) -> StateId {
        self.rules[rule as usize]
    }

    /// Lets the rule end at `state`.
    pub(super) fn set_end(&mut self, state: StateId) {
        self.states[state as usize].end = true;
    }

    /// Lets the bytes from `lo` to `hi` lead from `from` to `to`.
    pub(super) fn edge(&mut self, from: StateId, lo: u8, hi: u8, to: StateId) {
        if self.count_edge() {
            self.states[from as usize].edges.push(Edge { lo, hi, to });
        }
    }

    /// Lets `to` stand for `from` without a byte.
    pub(super) fn empty(&mut self, from: StateId, to: StateId) {
        if self.count_edge() {
            self.states[from as usize].empty.push(to);
        }
    }

    /// Lets a text of `rule` lead from `from` to `back`. No rule that is called may match the empty text.
    pub(super) fn call(&mut self, from: StateId, rule: RuleId, back: StateId) {
        if self.count_edge() {
            self.states[from as usize].calls.push(Call { rule, back });
        }
    }

    /// Lets `text` lead from `from` to a new state, which is returned.
    pub(super) fn text(&mut self, from: StateId, text: &[u8]) -> StateId {
        text.iter().fold(from, |from, &byte| {
            let to = self.state();
            self.edge(from, byte, byte, to);
            to
        })
    }

    fn count_edge(&mut self) -> bool {
        self.edges += 1;
        self.full |= self.edges > MAX_EDGES;
        !self.full
    }

    /// Checks that `more` states still fit, before work is done for them.
    ///
    /// # Errors
    /// `Unsupported` if they don't.
    pub(super) fn check_room(&self, more: u64) -> Result<()> {
        if self.full || (self.states.len() as u64).saturating_add(more) > MAX_STATES as u64 {
            return Err(Error::unsupported(format!(
                "the constraint is too large: it needs more than {MAX_STATES} states or {MAX_EDGES} edges; use smaller \
                 bounds on lengths and repetitions, or fewer alternatives"
            )));
        }
        Ok(())
    }

    /// Ends the building.
    ///
    /// # Errors
    /// `Unsupported` if the limits were passed, `InvalidArgument` if no text matches.
    pub(super) fn finish(mut self) -> Result<Machine> {
        self.check_room(0)?;
        let to_end = self.distances();
        for (state, &distance) in self.states.iter_mut().zip(&to_end) {
            let lives = |id: StateId| to_end[id as usize] != NEVER;
            state.to_end = distance;
            state.edges.retain(|edge| lives(edge.to));
            state.empty.retain(|&to| lives(to));
            state.calls.retain(|call| lives(call.back) && lives(self.rules[call.rule as usize]));
            if state.calls.iter().any(|call| to_end[self.rules[call.rule as usize] as usize] == 0) {
                return Err(Error::internal("a rule that is called matches the empty text"));
            }
        }
        match self.rules.first() {
            Some(&start) if to_end[start as usize] != NEVER => Ok(Machine { states: self.states, rules: self.rules }),
            _ => Err(Error::invalid("the constraint matches no text: expected one that some text can meet")),
        }
    }

    /// The fewest bytes from each state to the end of its rule, after Knuth's generalisation of Dijkstra's algorithm: states are
    /// settled by ascending distance, and a call has its own once the rule and the state behind it are settled.
    fn distances(&self) -> Vec<u64> {
        enum From {
            Bytes(StateId, u64),
            /// By a call whose state behind it is this one.
            Call(StateId, RuleId),
        }
        let mut into: Vec<Vec<From>> = Vec::new();
        into.resize_with(self.states.len(), Vec::new);
        // For each rule, the states that call it, with the states behind the calls.
        let mut callers: Vec<Vec<(StateId, StateId)>> = vec![Vec::new(); self.rules.len()];
        let mut begun_by: Vec<Vec<RuleId>> = vec![Vec::new(); self.states.len()];
        for (rule, &start) in self.rules.iter().enumerate() {
            begun_by[start as usize].push(rule as RuleId);
        }
        let mut distances = vec![NEVER; self.states.len()];
        let mut queue = BinaryHeap::new();
        for (id, state) in self.states.iter().enumerate() {
            let id = id as StateId;
            for edge in &state.edges {
                into[edge.to as usize].push(From::Bytes(id, 1));
            }
            for &to in &state.empty {
                into[to as usize].push(From::Bytes(id, 0));
            }
            for call in &state.calls {
                into[call.back as usize].push(From::Call(id, call.rule));
                callers[call.rule as usize].push((id, call.back));
            }
            if state.end {
                queue.push(Reverse((0, id)));
            }
        }
        while let Some(Reverse((distance, id))) = queue.pop() {
            if distances[id as usize] != NEVER || distance == NEVER {
                continue;
            }
            distances[id as usize] = distance;
            for from in &into[id as usize] {
                let (from, cost) = match *from {
                    From::Bytes(from, cost) => (from, cost),
                    From::Call(from, rule) => (from, distances[self.rules[rule as usize] as usize]),
                };
                queue.push(Reverse((distance.saturating_add(cost), from)));
            }
            for &rule in &begun_by[id as usize] {
                for &(from, back) in &callers[rule as usize] {
                    queue.push(Reverse((distance.saturating_add(distances[back as usize]), from)));
                }
            }
        }
        distances
    }
}
