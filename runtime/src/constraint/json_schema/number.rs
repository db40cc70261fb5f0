//! Numbers of a schema, digit by digit.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::constraint::json_schema::bounds::{Bounds, MAX_BOUND};
use crate::constraint::json_schema::compiler::Compiler;
use crate::constraint::json_schema::types::Types;
use crate::constraint::machine::{Builder, StateId};
use crate::error::Result;

/// Number of significant digits that a double keeps.
const DIGITS: usize = 15;

impl Compiler<'_> {
    /// Adds the numbers that the keywords of `map` allow; only whole ones if `types` has no others.
    pub(super) fn number(
        &mut self,
        start: StateId,
        end: StateId,
        map: &Map<String, Value>,
        types: Types,
    ) -> Result<()> {
        let key = (types & Types::NUMBER, Bounds::read(map)?);
        let rule = match self.numbers.get(&key) {
            Some(&rule) => rule,
            None => {
                let (rule, from) = self.builder.rule();
                let to = self.builder.final_state();
                let mut writer = NumberWriter { builder: &mut self.builder, to, tails: HashMap::new() };
                match key {
                    (Types::INTEGER, bounds) => writer.integers(from, bounds.unwrap_or(Bounds::WHOLE)),
                    (_, Some(bounds)) => writer.numbers(from, bounds),
                    (_, None) => writer.unbounded_numbers(from),
                }
                self.numbers.insert(key, rule);
                rule
            }
        };
        self.builder.call(start, rule, end);
        Ok(())
    }
}

/// What may follow the whole part of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Tail {
    /// Nothing.
    None,
    /// A fraction or none.
    Any,
    /// A fraction above 0.
    AboveZero,
    /// A fraction of zeros or none.
    Zeros,
}

/// Adds numbers to a machine.
struct NumberWriter<'b> {
    builder: &'b mut Builder,
    to: StateId,
    /// Known states, by the kind of tail, whether the state is inside the fraction, and how many digits may still
    /// come.
    tails: HashMap<(Tail, bool, usize), StateId>,
}

impl NumberWriter<'_> {
    /// Adds the whole numbers within bounds.
    fn integers(&mut self, from: StateId, bounds: Bounds) {
        let low = bounds.low + i64::from(bounds.low_open);
        let high = bounds.high - i64::from(bounds.high_open);
        if low <= high && high >= 0 {
            self.naturals(from, low.max(0).unsigned_abs(), high.unsigned_abs(), Tail::None);
        }
        if low <= high && low < 0 {
            let minus = self.builder.text(from, b"-");
            // -0 is not allowed.
            self.naturals(minus, (-high).max(1).unsigned_abs(), low.unsigned_abs(), Tail::None);
        }
    }

    /// Adds the numbers within bounds. They have at most as many digits as a double keeps, so that none is rounded
    /// across a bound.
    fn numbers(&mut self, from: StateId, bounds: Bounds) {
        let Bounds { low, low_open, high, high_open } = bounds;
        if high >= 0 {
            self.magnitudes(from, (low.max(0), low >= 0 && low_open), (high, high_open));
        }
        if low < 0 {
            let minus = self.builder.text(from, b"-");
            // -0 is not allowed.
            let least = if high < 0 { (-high, high_open) } else { (0, true) };
            self.magnitudes(minus, least, (-low, low_open));
        }
    }

    /// Adds unsigned numbers between two bounds, each with whether it is open.
    fn magnitudes(&mut self, from: StateId, (low, low_open): (i64, bool), (high, high_open): (i64, bool)) {
        let (low, high) = (low.unsigned_abs(), high.unsigned_abs());
        if low > high || (low == high && (low_open || high_open)) {
            return;
        }
        if low == high {
            return self.naturals(from, low, low, Tail::Zeros);
        }
        self.naturals(from, low, low, if low_open { Tail::AboveZero } else { Tail::Any });
        if low + 1 < high {
            self.naturals(from, low + 1, high - 1, Tail::Any);
        }
        if !high_open {
            self.naturals(from, high, high, Tail::Zeros);
        }
    }

    /// Adds all JSON numbers up to a number of digits that keeps them finite doubles.
    fn unbounded_numbers(&mut self, from: StateId) {
        let minus = self.builder.text(from, b"-");
        let unsigned = self.builder.state();
        self.builder.epsilon(from, unsigned);
        self.builder.epsilon(minus, unsigned);
        let to = self.to;
        // The state after the whole part and the fraction.
        let exponent = self.builder.state();
        self.to = exponent;
        let whole = self.builder.state();
        self.naturals_to(unsigned, 0, MAX_BOUND.unsigned_abs() - 1, &mut |_, _| whole);
        let tail = self.tail(Tail::Any, DIGITS);
        self.builder.epsilon(whole, tail);
        self.to = to;
        self.builder.epsilon(exponent, to);
        let [sign, digits, last] = [self.builder.state(), self.builder.state(), self.builder.state()];
        for letter in [b'e', b'E'] {
            self.builder.edge(exponent, letter, letter, sign);
        }
        for mark in [b'+', b'-'] {
            self.builder.edge(sign, mark, mark, digits);
        }
        self.builder.epsilon(sign, digits);
        self.builder.edge(digits, b'0', b'9', last);
        self.builder.epsilon(last, to);
        self.builder.edge(last, b'0', b'9', to);
    }

    /// Adds the whole numbers from `low` to `high` without leading zeros, each followed by `tail`.
    fn naturals(&mut self, from: StateId, low: u64, high: u64, tail: Tail) {
        self.naturals_to(from, low, high, &mut |writer, digits| writer.tail(tail, DIGITS.saturating_sub(digits)));
    }

    /// Adds the whole numbers from `low` to `high`; those with `n` digits lead to `target(n)`.
    fn naturals_to(
        &mut self,
        from: StateId,
        mut low: u64,
        high: u64,
        target: &mut dyn FnMut(&mut Self, usize) -> StateId,
    ) {
        if low == 0 {
            let to = target(self, 1);
            self.builder.edge(from, b'0', b'0', to);
            low = 1;
        }
        // Lengths for which every number is allowed share one chain of states.
        let mut chain: Option<(StateId, usize)> = None;
        let mut first = low;
        while first <= high {
            let digits = first.to_string().len();
            let power = 10u64.pow(digits as u32 - 1);
            let last = high.min(10 * power - 1);
            let to = target(self, digits);
            if first == power && last == 10 * power - 1 {
                let (mut state, known) = match chain {
                    Some(chain) => chain,
                    None => {
                        let state = self.builder.state();
                        self.builder.edge(from, b'1', b'9', state);
                        (state, 1)
                    }
                };
                for _ in known..digits {
                    let next = self.builder.state();
                    self.builder.edge(state, b'0', b'9', next);
                    state = next;
                }
                chain = Some((state, digits));
                self.builder.epsilon(state, to);
            } else {
                self.same_length(from, first.to_string().as_bytes(), last.to_string().as_bytes(), to);
            }
            first = last + 1;
        }
    }

    /// Adds the numbers from `low` to `high`, which have equally many digits.
    fn same_length(&mut self, from: StateId, low: &[u8], high: &[u8], to: StateId) {
        // States by whether the digits so far equal those of `low`, and those of `high`.
        let mut states = HashMap::from([((true, true), from)]);
        for (i, (&low_digit, &high_digit)) in low.iter().zip(high).enumerate() {
            let mut next = HashMap::new();
            for (&(at_low, at_high), &state) in &states {
                let least = if at_low { low_digit } else { b'0' };
                let most = if at_high { high_digit } else { b'9' };
                for digit in least..=most {
                    let key = (at_low && digit == low_digit, at_high && digit == high_digit);
                    let target =
                        if i + 1 == low.len() { to } else { *next.entry(key).or_insert_with(|| self.builder.state()) };
                    self.builder.edge(state, digit, digit, target);
                }
            }
            states = next;
        }
    }

    /// The state before a tail whose fraction has at most `digits` digits.
    fn tail(&mut self, tail: Tail, digits: usize) -> StateId {
        if tail == Tail::None || (digits == 0 && tail != Tail::AboveZero) {
            return self.to;
        }
        if let Some(&state) = self.tails.get(&(tail, false, digits)) {
            return state;
        }
        let state = self.builder.state();
        self.tails.insert((tail, false, digits), state);
        if tail != Tail::AboveZero {
            self.builder.epsilon(state, self.to);
        }
        if digits > 0 {
            let point = self.builder.text(state, b".");
            self.digit(point, tail, digits);
        }
        state
    }

    /// Adds the next digit of a fraction. `digits`, at least 1, may still come, this one included.
    fn digit(&mut self, from: StateId, tail: Tail, digits: usize) {
        let next = |writer: &mut Self, tail, low, high| {
            let to = writer.fraction(tail, digits - 1);
            writer.builder.edge(from, low, high, to);
        };
        match tail {
            Tail::None => {}
            Tail::Any => next(self, Tail::Any, b'0', b'9'),
            Tail::Zeros => next(self, Tail::Zeros, b'0', b'0'),
            Tail::AboveZero => {
                next(self, Tail::AboveZero, b'0', b'0');
                next(self, Tail::Any, b'1', b'9');
            }
        }
    }

    /// The state inside a fraction, after at least one digit, with at most `digits` still to come. Recursion is at
    /// most 15 deep.
    fn fraction(&mut self, tail: Tail, digits: usize) -> StateId {
        if let Some(&state) = self.tails.get(&(tail, true, digits)) {
            return state;
        }
        let state = self.builder.state();
        self.tails.insert((tail, true, digits), state);
        if tail != Tail::AboveZero {
            self.builder.epsilon(state, self.to);
        }
        if digits > 0 {
            self.digit(state, tail, digits);
        }
        state
    }
}
