//! The compiled form of a constraint: a recursive transition network over bytes.
//!
//! A rule is an automaton, given by its start state. A state may call a rule; matching continues at the call's return
//! state once the rule has ended. The machine thus recognizes a context-free language.
//!
//! [`Builder`] collects states. [`Builder::finish`] computes the distance from each state to the end of its rule and
//! removes whatever cannot reach the end, so that a [`Machine`] has no dead ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::{Error, Result};

/// Maximum number of states of a machine.
pub(super) const MAX_STATES: usize = 200_000;
/// Maximum number of transitions of a machine: edges, epsilon transitions and calls.
pub(super) const MAX_TRANSITIONS: usize = 1_000_000;
/// Distance of a state from which the end cannot be reached.
const UNREACHABLE: u64 = u64::MAX;

/// The index of a state.
pub(super) type StateId = u32;
/// The index of a rule.
pub(super) type RuleId = u32;

/// A transition to `to` on any byte from `lo` to `hi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) lo: u8,
    pub(super) hi: u8,
    pub(super) to: StateId,
}

/// A transition to `return_to` on any text that `rule` matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) rule: RuleId,
    pub(super) return_to: StateId,
}

/// A state of a rule.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) edges: Vec<Edge>,
    /// Epsilon transitions: states reached without a byte.
    pub(super) epsilon: Vec<StateId>,
    pub(super) calls: Vec<Call>,
    /// Whether the rule may end here.
    pub(super) is_final: bool,
    /// Minimum number of bytes from here to the end of the rule.
    pub(super) to_end: u64,
}

/// A compiled machine. Rule 0 matches the whole text.
#[derive(Debug)]
pub(super) struct Machine {
    states: Vec<State>,
    /// The start state of each rule.
    rules: Vec<StateId>,
}

impl Machine {
    pub(super) fn state(&self, id: StateId) -> &State {
        &self.states[id as usize]
    }

    /// The start state of a rule.
    pub(super) fn start(&self, rule: RuleId) -> StateId {
        self.rules[rule as usize]
    }

    /// Length in bytes of the shortest text that matches.
    pub(super) fn shortest(&self) -> u64 {
        self.state(self.start(0)).to_end
    }
}

/// A builder of machines. Beyond the limits it adds nothing more, and [`Self::finish`] fails.
#[derive(Debug, Default)]
pub(super) struct Builder {
    states: Vec<State>,
    rules: Vec<StateId>,
    transitions: usize,
    full: bool,
}

impl Builder {
    /// Adds a state without transitions.
    pub(super) fn state(&mut self) -> StateId {
        if self.states.len() >= MAX_STATES {
            self.full = true;
            return 0;
        }
        self.states.push(State::default());
        (self.states.len() - 1) as StateId
    }

    /// Adds a final state: the rule may end there.
    pub(super) fn final_state(&mut self) -> StateId {
        let state = self.state();
        self.set_final(state);
        state
    }

    /// Adds a rule and its start state. The first rule matches the whole text.
    pub(super) fn rule(&mut self) -> (RuleId, StateId) {
        let start = self.state();
        self.rules.push(start);
        ((self.rules.len() - 1) as RuleId, start)
    }

    /// The start state of a rule.
    pub(super) fn start(&self, rule: RuleId) -> StateId {
        self.rules[rule as usize]
    }

    /// Makes a state final.
    fn set_final(&mut self, state: StateId) {
        self.states[state as usize].is_final = true;
    }

    /// Adds a transition on the bytes from `lo` to `hi`.
    pub(super) fn edge(&mut self, from: StateId, lo: u8, hi: u8, to: StateId) {
        if self.count_transition() {
            self.states[from as usize].edges.push(Edge { lo, hi, to });
        }
    }

    /// Adds an epsilon transition.
    pub(super) fn epsilon(&mut self, from: StateId, to: StateId) {
        if self.count_transition() {
            self.states[from as usize].epsilon.push(to);
        }
    }

    /// Adds a call of `rule`. A rule that is called must not match the empty text.
    pub(super) fn call(&mut self, from: StateId, rule: RuleId, return_to: StateId) {
        if self.count_transition() {
            self.states[from as usize].calls.push(Call { rule, return_to });
        }
    }

    /// Adds states for the bytes of `text` and returns the last one.
    pub(super) fn text(&mut self, from: StateId, text: &[u8]) -> StateId {
        text.iter().fold(from, |from, &byte| {
            let to = self.state();
            self.edge(from, byte, byte, to);
            to
        })
    }

    fn count_transition(&mut self) -> bool {
        self.transitions += 1;
        self.full |= self.transitions > MAX_TRANSITIONS;
        !self.full
    }

    /// Checks that `more` states still fit, before work is spent on them.
    ///
    /// # Errors
    /// `Unsupported` if they don't.
    pub(super) fn check_room(&self, more: u64) -> Result<()> {
        if self.full || (self.states.len() as u64).saturating_add(more) > MAX_STATES as u64 {
            return Err(Error::unsupported(format!(
                "the constraint is too large: it needs more than {MAX_STATES} states or {MAX_TRANSITIONS} \
                 transitions; use \
                 smaller bounds on lengths and repetitions, or fewer alternatives"
            )));
        }
        Ok(())
    }

    /// Builds the machine.
    ///
    /// # Errors
    /// `Unsupported` beyond the limits, `InvalidArgument` if no text matches.
    pub(super) fn finish(mut self) -> Result<Machine> {
        self.check_room(0)?;
        let to_end = self.distances();
        for (state, &distance) in self.states.iter_mut().zip(&to_end) {
            let is_live = |id: StateId| to_end[id as usize] != UNREACHABLE;
            state.to_end = distance;
            state.edges.retain(|edge| is_live(edge.to));
            state.epsilon.retain(|&to| is_live(to));
            state.calls.retain(|call| is_live(call.return_to) && is_live(self.rules[call.rule as usize]));
            if state.calls.iter().any(|call| to_end[self.rules[call.rule as usize] as usize] == 0) {
                return Err(Error::internal("a called rule matches the empty text"));
            }
        }
        match self.rules.first() {
            Some(&start) if to_end[start as usize] != UNREACHABLE => {
                Ok(Machine { states: self.states, rules: self.rules })
            }
            _ => Err(Error::invalid("the constraint matches no text; use one that at least one text can match")),
        }
    }

    /// Minimum number of bytes from each state to the end of its rule.
    ///
    /// This is Knuth's generalization of Dijkstra's algorithm: states are settled in ascending order of distance, and a
    /// call's distance is known once its rule and its return state are settled.
    fn distances(&self) -> Vec<u64> {
        /// A transition, by its source.
        enum Source {
            Bytes(StateId, u64),
            Call(StateId, RuleId),
        }
        // The transitions into each state.
        let mut sources: Vec<Vec<Source>> = Vec::new();
        sources.resize_with(self.states.len(), Vec::new);
        // The calls of each rule: the calling state and the return state.
        let mut callers: Vec<Vec<(StateId, StateId)>> = vec![Vec::new(); self.rules.len()];
        // The rules that start at each state.
        let mut started: Vec<Vec<RuleId>> = vec![Vec::new(); self.states.len()];
        for (rule, &start) in self.rules.iter().enumerate() {
            started[start as usize].push(rule as RuleId);
        }
        let mut distances = vec![UNREACHABLE; self.states.len()];
        let mut queue = BinaryHeap::new();
        for (id, state) in self.states.iter().enumerate() {
            let id = id as StateId;
            for edge in &state.edges {
                sources[edge.to as usize].push(Source::Bytes(id, 1));
            }
            for &to in &state.epsilon {
                sources[to as usize].push(Source::Bytes(id, 0));
            }
            for call in &state.calls {
                sources[call.return_to as usize].push(Source::Call(id, call.rule));
                callers[call.rule as usize].push((id, call.return_to));
            }
            if state.is_final {
                queue.push(Reverse((0, id)));
            }
        }
        while let Some(Reverse((distance, id))) = queue.pop() {
            if distances[id as usize] != UNREACHABLE || distance == UNREACHABLE {
                continue;
            }
            distances[id as usize] = distance;
            for source in &sources[id as usize] {
                let (from, cost) = match *source {
                    Source::Bytes(from, cost) => (from, cost),
                    Source::Call(from, rule) => (from, distances[self.rules[rule as usize] as usize]),
                };
                queue.push(Reverse((distance.saturating_add(cost), from)));
            }
            for &rule in &started[id as usize] {
                for &(from, return_to) in &callers[rule as usize] {
                    queue.push(Reverse((distance.saturating_add(distances[return_to as usize]), from)));
                }
            }
        }
        distances
    }
}
