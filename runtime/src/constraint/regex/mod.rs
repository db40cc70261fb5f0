//! Regular expressions as automata over bytes.

use std::collections::HashMap;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::ast::{self, Ast, Visitor};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Dot, Hir, Repetition};

use crate::constraint::machine::{Builder, Edge, MAX_STATES, StateId};
use crate::error::{Error, Result};

mod ecma;

/// Bytes of the longest pattern.
pub(super) const MAX_PATTERN_BYTES: usize = 64 << 10;
/// The most character classes of a pattern: each may hold hundreds of ranges.
const MAX_CLASSES: usize = 1000;
/// How deep groups may be nested.
const MAX_NESTING: u32 = 100;
/// Bytes of the automaton with alternatives.
const MAX_NFA_BYTES: usize = 2 << 20;
/// Bytes of the automaton without.
const MAX_DFA_BYTES: usize = 8 << 20;
/// What making it may cost: for each of its states and each class of bytes, as much as the state is long.
const MAX_WORK: usize = 60_000_000;

/// Whose regular expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Those of Rust's `regex` crate, over bytes.
    Rust,
    /// Those of ECMA-262 as far as they can be told in Rust's, over characters; JSON schemas have them.
    Ecma,
}

/// Reads a pattern.
///
/// # Errors
/// `InvalidArgument` for what is no regular expression, `Unsupported` for one that is too large.
pub(super) fn parse(pattern: &str, dialect: Dialect) -> Result<Hir> {
    if pattern.len() > MAX_PATTERN_BYTES {
        let found = pattern.len();
        return Err(Error::unsupported(format!(
            "the pattern is too long: expected at most {MAX_PATTERN_BYTES} bytes, found {found}"
        )));
    }
    let invalid = |why: &dyn std::fmt::Display, span: &ast::Span| {
        let at = span.start.offset;
        Error::invalid(format!("the pattern is no regular expression: at byte {at}: {why}"))
    };
    let mut tree =
        ast::parse::ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(pattern).map_err(|e| {
            match e.kind() {
                ast::ErrorKind::NestLimitExceeded(_) => Error::unsupported(format!(
                    "the pattern is nested too deeply: expected at most {MAX_NESTING} levels; leave out groups"
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

/// An automaton: one state at a time, and each byte leads to at most one. State 0 is the first.
#[derive(Debug, Default)]
pub(super) struct Automat {
    pub(super) states: Vec<AutomatState>,
}

/// A state of an [`Automat`].
#[derive(Debug, Default)]
pub(super) struct AutomatState {
    pub(super) edges: Vec<Edge>,
    /// Whether the text may end here.
    pub(super) accepts: bool,
}

/// The automaton of all texts that match `parsed` as a whole.
///
/// It is made state by state, so that its cost can be bounded: a state stands for a set of places in the pattern, and sets may be
/// both many and large.
///
/// # Errors
/// `Unsupported` if it is too large, or has Unicode word boundaries, which no such automaton can find.
pub(super) fn determinise(parsed: &Hir) -> Result<Automat> {
    let nfa_config = thompson::Config::new()
        .utf8(false)
        .nfa_size_limit(Some(MAX_NFA_BYTES))
        .which_captures(thompson::WhichCaptures::None);
    let nfa =
        thompson::Compiler::new().configure(nfa_config).build_from_hir(parsed).map_err(|e| match e.size_limit() {
            Some(limit) => too_large(&format!("its automaton needs more than {limit} bytes")),
            None => Error::unsupported(format!("the pattern cannot be compiled: {e}")),
        })?;
    if nfa.look_set_any().contains_word_unicode() {
        return Err(Error::unsupported(
            "the pattern has a Unicode word boundary, which is not supported: write (?-u:\\b) for that of ASCII",
        ));
    }
    // A full cache ends the work instead of being cleared.
    let config =
        DFA::config().match_kind(MatchKind::All).cache_capacity(MAX_DFA_BYTES).minimum_cache_clear_count(Some(0));
    let full = || too_large(&format!("its automaton without alternatives needs more than {MAX_DFA_BYTES} bytes"));
    let dfa = DFA::builder().configure(config).build_from_nfa(nfa).map_err(|_| full())?;
    let mut cache = dfa.create_cache();
    let first = dfa.start_state(&mut cache, &start::Config::new().anchored(Anchored::Yes)).map_err(|_| full())?;
    let mut numbers: HashMap<LazyStateID, StateId> = HashMap::from([(first, 0)]);
    // Each state with how long it is.
    let mut open = vec![(first, 0)];
    let mut work = 0usize;
    let mut automat = Automat::default();
    while let Some(&(state, length)) = open.get(automat.states.len()) {
        work = work.saturating_add(length * dfa.byte_classes().alphabet_len());
        if work > MAX_WORK {
            return Err(too_large("its automaton without alternatives has too many long states"));
        }
        let end = dfa.next_eoi_state(&mut cache, state).map_err(|_| full())?;
        let mut made = AutomatState { edges: Vec::new(), accepts: end.is_match() };
        for byte in 0..=255u8 {
            let before = cache.memory_usage();
            let next = dfa.next_state(&mut cache, state, byte).map_err(|_| full())?;
            if next.is_dead() || next.is_quit() {
                continue;
            }
            let to = *numbers.entry(next).or_insert_with(|| {
                open.push((next, state_length(&dfa, &cache, before)));
                (open.len() - 1) as StateId
            });
            push_byte(&mut made.edges, byte, to);
        }
        automat.states.push(made);
        if open.len() > MAX_STATES {
            return Err(too_large(&format!("its automaton has more than {MAX_STATES} states")));
        }
    }
    Ok(automat)
}

/// How long the state is with which the cache grew from `before` bytes, its row of the table apart.
fn state_length(dfa: &DFA, cache: &Cache, before: usize) -> usize {
    let row = size_of::<LazyStateID>() << dfa.byte_classes().stride2();
    cache.memory_usage().saturating_sub(before).saturating_sub(row)
}

fn too_large(what: &str) -> Error {
    Error::unsupported(format!(
        "the pattern is too large: {what}; use smaller repetitions, fewer alternatives, or ASCII classes such as [a-z] for \
         Unicode's"
    ))
}

/// Adds an edge of one byte, above all before it, to edges that are as few as possible.
fn push_byte(edges: &mut Vec<Edge>, byte: u8, to: StateId) {
    match edges.last_mut() {
        Some(last) if last.to == to && u16::from(last.hi) + 1 == u16::from(byte) => last.hi = byte,
        _ => edges.push(Edge { lo: byte, hi: byte, to }),
    }
}

/// Adds an automaton to a machine, between two states.
///
/// # Errors
/// `Unsupported` if it doesn't fit.
pub(super) fn add(builder: &mut Builder, automat: &Automat, from: StateId, to: StateId) -> Result<()> {
    builder.check_room(automat.states.len() as u64)?;
    let states: Vec<StateId> = automat.states.iter().map(|_| builder.state()).collect();
    for (state, &id) in automat.states.iter().zip(&states) {
        for edge in &state.edges {
            if let Some(&target) = states.get(edge.to as usize) {
                builder.edge(id, edge.lo, edge.hi, target);
            }
        }
        if state.accepts {
            builder.empty(id, to);
        }
    }
    if let Some(&first) = states.first() {
        builder.empty(from, first);
    }
    Ok(())
}

/// What matches texts that have a match of `pattern` somewhere inside.
pub(super) fn search(pattern: &Hir) -> Hir {
    let anything =
        || Hir::repetition(Repetition { min: 0, max: None, greedy: true, sub: Box::new(Hir::dot(Dot::AnyChar)) });
    Hir::concat(vec![anything(), pattern.clone(), anything()])
}
