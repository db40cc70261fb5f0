//! Strings of a schema and their characters.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::constraint::json_schema::compiler::Compiler;
use crate::constraint::json_schema::keywords;
use crate::constraint::json_schema::pointer::shown;
use crate::constraint::machine::{Builder, RuleId, StateId};
use crate::constraint::regex;
use crate::constraint::regex::{Dfa, Dialect};
use crate::error::{Error, Result};

/// Number of states of the UTF-8 automaton: 0 between characters, 1 to 3 with that many bytes of a character to come,
/// and 4 to 7 after first bytes that restrict the second byte.
pub(super) const UTF8_STATES: usize = 8;
/// Transitions of the UTF-8 automaton without characters that JSON must escape: (state, lowest byte, highest byte, next
/// state).
pub(super) const UTF8: [(usize, u8, u8, usize); 18] = [
    (0, 0x20, 0x21, 0),
    (0, 0x23, 0x5b, 0),
    (0, 0x5d, 0x7f, 0),
    (0, 0xc2, 0xdf, 1),
    (0, 0xe0, 0xe0, 4),
    (0, 0xe1, 0xec, 2),
    (0, 0xed, 0xed, 5),
    (0, 0xee, 0xef, 2),
    (0, 0xf0, 0xf0, 6),
    (0, 0xf1, 0xf3, 3),
    (0, 0xf4, 0xf4, 7),
    (1, 0x80, 0xbf, 0),
    (2, 0x80, 0xbf, 1),
    (3, 0x80, 0xbf, 2),
    (4, 0xa0, 0xbf, 1),
    (5, 0x80, 0x9f, 1),
    (6, 0x90, 0xbf, 2),
    (7, 0x80, 0x8f, 2),
];

/// Supported formats and their patterns, other than dates.
const FORMATS: [(&str, &str); 2] =
    [("time", TIME), ("uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$")];
const TIME: &str =
    r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])$";
/// Valid dates, leap years included.
const DATE: &str = concat!(
    r"(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|",
    r"02-(?:0[1-9]|1[0-9]|2[0-8]))|",
    r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)",
);

/// Adds one character of a string between two states; with `escapes` also in escaped form, except surrogates.
fn characters(builder: &mut Builder, from: StateId, to: StateId, escapes: bool) {
    let inner: Vec<StateId> = (1..UTF8_STATES).map(|_| builder.state()).collect();
    for (state, low, high, next) in UTF8 {
        let state = state.checked_sub(1).map_or(from, |inside| inner[inside]);
        let next = next.checked_sub(1).map_or(to, |inside| inner[inside]);
        builder.edge(state, low, high, next);
    }
    if !escapes {
        return;
    }
    let escape = builder.text(from, b"\\");
    for byte in *b"\"\\/bfnrt" {
        builder.edge(escape, byte, byte, to);
    }
    let first = builder.text(escape, b"u");
    let [second, below_eight, third, fourth] = std::array::from_fn(|_| builder.state());
    for (low, high) in [(b'0', b'9'), (b'a', b'c'), (b'e', b'f'), (b'A', b'C'), (b'E', b'F')] {
        builder.edge(first, low, high, second);
    }
    // \ud800 to \udfff are surrogates.
    for byte in *b"dD" {
        builder.edge(first, byte, byte, below_eight);
    }
    builder.edge(below_eight, b'0', b'7', third);
    for (from, to) in [(second, third), (third, fourth), (fourth, to)] {
        for (low, high) in [(b'0', b'9'), (b'a', b'f'), (b'A', b'F')] {
            builder.edge(from, low, high, to);
        }
    }
}

impl Compiler<'_> {
    /// The rule of any string, including the quotes.
    pub(super) fn any_string(&mut self) -> RuleId {
        if let Some(rule) = self.any_string {
            return rule;
        }
        let (rule, start) = self.builder.rule();
        let inside = self.builder.text(start, b"\"");
        characters(&mut self.builder, inside, inside, true);
        let end = self.builder.final_state();
        self.builder.edge(inside, b'"', b'"', end);
        self.any_string = Some(rule);
        rule
    }

    /// The rule of one character of a string.
    fn any_character(&mut self) -> RuleId {
        if let Some(rule) = self.any_character {
            return rule;
        }
        let (rule, start) = self.builder.rule();
        let end = self.builder.final_state();
        characters(&mut self.builder, start, end, true);
        self.any_character = Some(rule);
        rule
    }

    /// Adds the strings that the keywords of `map` allow.
    pub(super) fn string(&mut self, start: StateId, end: StateId, map: &Map<String, Value>) -> Result<()> {
        let min = keywords::count(map, "minLength").unwrap_or(0);
        let max = keywords::count(map, "maxLength");
        let pattern = pattern(map)?;
        if pattern.is_none() && min == 0 && max.is_none() {
            let rule = self.any_string();
            self.builder.call(start, rule, end);
            return Ok(());
        }
        let inside = self.builder.text(start, b"\"");
        let close = self.builder.state();
        self.builder.edge(close, b'"', b'"', end);
        match pattern {
            Some((keyword, pattern)) => {
                self.pattern(inside, close, &pattern, (min, max)).map_err(|e| e.context(format_args!("`{keyword}`")))?
            }
            None => self.any_text(inside, close, min, max)?,
        }
        Ok(())
    }

    /// Adds from `min` to `max` characters.
    fn any_text(&mut self, from: StateId, to: StateId, min: u64, max: Option<u64>) -> Result<()> {
        let unrolled = max.unwrap_or(min);
        self.builder.check_room(unrolled)?;
        let character = self.any_character();
        let mut last = from;
        for done in 0..=unrolled {
            if done >= min {
                self.builder.epsilon(last, to);
            }
            if done < unrolled {
                let next = self.builder.state();
                self.builder.call(last, character, next);
                last = next;
            }
        }
        if max.is_none() {
            self.builder.call(last, character, last);
        }
        Ok(())
    }

    /// Adds from `min` to `max` unescaped characters that match a pattern: the product of the pattern's automaton and a
    /// counter of characters.
    fn pattern(&mut self, from: StateId, to: StateId, pattern: &str, (min, max): (u64, Option<u64>)) -> Result<()> {
        let dfa = regex::determinize(&regex::search(&regex::parse(pattern, Dialect::Ecma)?))?;
        // The counter saturates where larger counts make no difference.
        let highest = max.unwrap_or(min);
        let mut states: HashMap<(StateId, u64), StateId> = HashMap::from([((0, 0), from)]);
        let mut pending = vec![(0, 0)];
        while let Some(key @ (inner, count)) = pending.pop() {
            self.builder.check_room(0)?;
            let (Some(&state), Some(found)) = (states.get(&key), dfa.states.get(inner as usize)) else { continue };
            if found.accepts && count >= min {
                self.builder.epsilon(state, to);
            }
            for (low, high, next, more) in steps(&dfa, inner) {
                let count = if max.is_none() { highest.min(count + more) } else { count + more };
                if count > highest {
                    continue;
                }
                let target = *states.entry((next, count)).or_insert_with(|| {
                    pending.push((next, count));
                    self.builder.state()
                });
                self.builder.edge(state, low, high, target);
            }
        }
        Ok(())
    }
}

/// The edges of a state without bytes that JSON must escape: (lowest byte, highest byte, next state, number of
/// characters that the byte begins).
fn steps(dfa: &Dfa, state: StateId) -> Vec<(u8, u8, StateId, u64)> {
    const RANGES: [(u8, u8, u64); 5] =
        [(0x20, 0x21, 1), (0x23, 0x5b, 1), (0x5d, 0x7f, 1), (0x80, 0xbf, 0), (0xc0, 0xff, 1)];
    let edges = dfa.states.get(state as usize).map_or(&[][..], |state| &state.edges);
    edges
        .iter()
        .flat_map(|edge| RANGES.map(|(low, high, more)| (low.max(edge.lo), high.min(edge.hi), edge.to, more)))
        .filter(|(low, high, ..)| low <= high)
        .collect()
}

/// The pattern that strings must match, and the keyword that sets it.
fn pattern(map: &Map<String, Value>) -> Result<Option<(&'static str, String)>> {
    let text = |name: &str| map.get(name).and_then(Value::as_str);
    match (text("pattern"), text("format")) {
        (Some(_), Some(_)) => Err(Error::unsupported("`format` beside `pattern` is not supported; keep one of them")),
        (Some(pattern), None) => Ok(Some(("pattern", pattern.to_owned()))),
        (None, Some("date")) => Ok(Some(("format", format!("^{DATE}$")))),
        (None, Some("date-time")) => Ok(Some(("format", format!("^{DATE}T{}", TIME.trim_start_matches('^'))))),
        (None, Some(name)) => match FORMATS.iter().find(|(known, _)| *known == name) {
            Some((_, pattern)) => Ok(Some(("format", (*pattern).to_owned()))),
            None => {
                let shown = shown(name, 60);
                Err(Error::unsupported(format!(
                    "`format`: expected date, time, date-time or uuid, found `{shown}`; use `pattern` for others"
                )))
            }
        },
        (None, None) => Ok(None),
    }
}
