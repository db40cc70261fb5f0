//! Regular expressions as deterministic automata over bytes.

use std::collections::HashMap;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA as LazyDfa};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::ast::{self, Ast, Visitor};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Dot, Hir, Repetition};

use crate::constraint::machine::{Builder, Edge, MAX_STATES, StateId};
use crate::error::{Error, Result};

mod ecma;

/// Maximum length of a pattern in bytes.
pub(super) const MAX_PATTERN_BYTES: usize = 64 << 10;
/// Maximum number of character classes in a pattern; each may hold hundreds of ranges.
const MAX_CLASSES: usize = 1000;
/// Maximum depth of nested groups.
const MAX_NESTING: u32 = 100;
/// Maximum size of the NFA in bytes.
const MAX_NFA_BYTES: usize = 2 << 20;
/// Maximum size of the DFA in bytes.
const MAX_DFA_BYTES: usize = 8 << 20;
/// Maximum cost of the determinization: the sum over DFA states of the state's size times the number of byte classes.
const MAX_WORK: usize = 60_000_000;

/// The syntax and meaning of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Rust's `regex` crate, over bytes.
    Rust,
    /// ECMA-262, as in JSON schemas, over characters, as far as Rust's syntax can express it.
    Ecma,
}

/// Parses a pattern.
///
/// # Errors
/// `InvalidArgument` for a malformed pattern, `Unsupported` for one that is too large.
pub(super) fn parse(pattern: &str, dialect: Dialect) -> Result<Hir> {
    if pattern.len() > MAX_PATTERN_BYTES {
        let found = pattern.len();
        return Err(Error::unsupported(format!(
            "the pattern is too long: expected at most {MAX_PATTERN_BYTES} bytes, found {found}"
        )));
    }
    let invalid = |why: &dyn std::fmt::Display, span: &ast::Span| {
        let at = span.start.offset;
        Error::invalid(format!("the pattern is not a regular expression: at byte {at}: {why}"))
    };
    let mut tree =
        ast::parse::ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(pattern).map_err(|e| {
            match e.kind() {
                ast::ErrorKind::NestLimitExceeded(_) => Error::unsupported(format!(
                    "the pattern is nested too deeply: expected at most {MAX_NESTING} levels; remove groups"
                )),
                kind => invalid(kind, e.span()),
            }
        })?;
    ast::visit(&tree, CountClasses(0))?;
    if dialect == Dialect::Ecma {
        ecma::convert(&mut tree)?;
    }
    let mut translator = TranslatorBuilder::new().utf8(dialect == Dialect::Ecma).build();
    translator.translate(pattern, &tree).map_err(|e| invalid(e.kind(), e.span()))
}

/// Counts character classes and fails beyond the maximum.
struct CountClasses(usize);

impl CountClasses {
    fn count(&mut self) -> Result<()> {
        self.0 += 1;
        if self.0 > MAX_CLASSES {
            return Err(Error::unsupported(format!(
                "the pattern is too large: expected at most {MAX_CLASSES} character classes; repeat them with {{n}}"
            )));
        }
        Ok(())
    }
}

impl Visitor for CountClasses {
    type Output = ();
    type Err = Error;

    fn finish(self) -> Result<()> {
        Ok(())
    }

    fn visit_pre(&mut self, tree: &Ast) -> Result<()> {
        match tree {
            Ast::Dot(_) | Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => self.count(),
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<()> {
        match item {
            ast::ClassSetItem::Perl(_) | ast::ClassSetItem::Unicode(_) | ast::ClassSetItem::Bracketed(_) => {
                self.count()
            }
            _ => Ok(()),
        }
    }
}

/// A deterministic automaton. State 0 is the start state.
#[derive(Debug, Default)]
pub(super) struct Dfa {
    pub(super) states: Vec<DfaState>,
}

/// A state of a [`Dfa`].
#[derive(Debug, Default)]
pub(super) struct DfaState {
    pub(super) edges: Vec<Edge>,
    /// Whether the text may end here.
    pub(super) accepts: bool,
}

/// The automaton of all texts that match `parsed` as a whole.
///
/// A DFA state is a set of NFA states; the sets may be many and large. The DFA is therefore built state by state, with
/// a bound on the cost.
///
/// # Errors
/// `Unsupported` for an automaton that is too large, or for Unicode word boundaries, which a DFA over bytes cannot
/// find.
pub(super) fn determinize(parsed: &Hir) -> Result<Dfa> {
    let nfa_config = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(MAX_NFA_BYTES))
        .which_captures(thompson::WhichCaptures::None);
    let nfa =
        thompson::Compiler::new().configure(nfa_config).build_from_hir(parsed).map_err(|e| match e.size_limit() {
            Some(limit) => too_large(&format!("its NFA needs more than {limit} bytes")),
            None => Error::unsupported(format!("the pattern cannot be compiled: {e}")),
        })?;
    if nfa.look_set_any().contains_word_unicode() {
        return Err(Error::unsupported(
            "the pattern has a Unicode word boundary, which is not supported; write (?-u:\\b) for an ASCII one",
        ));
    }
    // Fail when the cache is full instead of clearing it.
    let config =
        LazyDfa::config().match_kind(MatchKind::All).cache_capacity(MAX_DFA_BYTES).minimum_cache_clear_count(Some(0));
    let full = || too_large(&format!("its DFA needs more than {MAX_DFA_BYTES} bytes"));
    let dfa = LazyDfa::builder().configure(config).build_from_nfa(nfa).map_err(|_| full())?;
    let mut cache = dfa.create_cache();
    let first = dfa.start_state(&mut cache, &start::Config::new().anchored(Anchored::Yes)).map_err(|_| full())?;
    let mut numbers: HashMap<LazyStateID, StateId> = HashMap::from([(first, 0)]);
    // Found states and their sizes.
    let mut found = vec![(first, 0)];
    let mut work = 0usize;
    let mut built = Dfa::default();
    while let Some(&(state, size)) = found.get(built.states.len()) {
        work = work.saturating_add(size * dfa.byte_classes().alphabet_len());
        if work > MAX_WORK {
            return Err(too_large("its DFA has too many large states"));
        }
        let end = dfa.next_eoi_state(&mut cache, state).map_err(|_| full())?;
        let mut built_state = DfaState { edges: Vec::new(), accepts: end.is_match() };
        for byte in 0..=255u8 {
            let before = cache.memory_usage();
            let next = dfa.next_state(&mut cache, state, byte).map_err(|_| full())?;
            if next.is_dead() || next.is_quit() {
                continue;
            }
            let to = *numbers.entry(next).or_insert_with(|| {
                found.push((next, state_size(&dfa, &cache, before)));
                (found.len() - 1) as StateId
            });
            push_byte(&mut built_state.edges, byte, to);
        }
        built.states.push(built_state);
        if found.len() > MAX_STATES {
            return Err(too_large(&format!("its DFA has more than {MAX_STATES} states")));
        }
    }
    Ok(built)
}

/// The size of the state that made the cache grow from `before` bytes, without its row of the transition table.
fn state_size(dfa: &LazyDfa, cache: &Cache, before: usize) -> usize {
    let row = size_of::<LazyStateID>() << dfa.byte_classes().stride2();
    cache.memory_usage().saturating_sub(before).saturating_sub(row)
}

fn too_large(what: &str) -> Error {
    Error::unsupported(format!(
        "the pattern is too large: {what}; use smaller repetitions, fewer alternatives, or ASCII classes such as [a-z] \
         instead of Unicode classes"
    ))
}

/// Adds an edge on one byte, larger than all before it, merging it with the last edge if possible.
fn push_byte(edges: &mut Vec<Edge>, byte: u8, to: StateId) {
    match edges.last_mut() {
        Some(last) if last.to == to && u16::from(last.hi) + 1 == u16::from(byte) => last.hi = byte,
        _ => edges.push(Edge { lo: byte, hi: byte, to }),
    }
}

/// Adds an automaton between two states of a machine.
///
/// # Errors
/// `Unsupported` if the machine would be too large.
pub(super) fn add(builder: &mut Builder, dfa: &Dfa, from: StateId, to: StateId) -> Result<()> {
    builder.check_room(dfa.states.len() as u64)?;
    let states: Vec<StateId> = dfa.states.iter().map(|_| builder.state()).collect();
    for (state, &id) in dfa.states.iter().zip(&states) {
        for edge in &state.edges {
            if let Some(&target) = states.get(edge.to as usize) {
                builder.edge(id, edge.lo, edge.hi, target);
            }
        }
        if state.accepts {
            builder.epsilon(id, to);
        }
    }
    if let Some(&first) = states.first() {
        builder.epsilon(from, first);
    }
    Ok(())
}

/// An expression that matches texts with a match of `pattern` anywhere inside.
pub(super) fn search(pattern: &Hir) -> Hir {
    let anything =
        || Hir::repetition(Repetition { min: 0, max: None, greedy: true, sub: Box::new(Hir::dot(Dot::AnyChar)) });
    Hir::concat(vec![anything(), pattern.clone(), anything()])
}
