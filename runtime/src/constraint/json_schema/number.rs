//! Numbers, digit by digit.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::constraint::json_schema::Compiler;
use crate::constraint::json_schema::types::Types;
use crate::constraint::machine::{Builder, StateId};
use crate::error::{Error, Result};

/// Digits that a double keeps.
const DIGITS: usize = 15;
/// The largest bound, either way.
const MAX_BOUND: i64 = 1_000_000_000_000_000;

/// From where to where numbers go; open ends are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    low: i64,
    low_open: bool,
    high: i64,
    high_open: bool,
}

impl Bounds {
    /// The bounds that the keywords say, if there are any.
    fn read(map: &Map<String, Value>) -> Result<Option<Self>> {
        let bound = |name: &str| map.get(name).map(|value| whole(name, value)).transpose();
        // Of two equal bounds the open one is narrower.
        let low = [(bound("minimum")?, false), (bound("exclusiveMinimum")?, true)];
        let low = low.into_iter().filter_map(|(at, open)| Some((at?, open))).max();
        let high = [(bound("maximum")?, false), (bound("exclusiveMaximum")?, true)];
        let high = high.into_iter().filter_map(|(at, open)| Some((at?, open))).min_by_key(|&(at, open)| (at, !open));
        if low.is_none() && high.is_none() {
            return Ok(None);
        }
        let (low, low_open) = low.unwrap_or(((1 - MAX_BOUND).min(high.map_or(0, |(at, _)| at)), false));
        let (high, high_open) = high.unwrap_or(((MAX_BOUND - 1).max(low), false));
        Ok(Some(Self { low, low_open, high, high_open }))
    }

    /// What every whole number is within.
    const WHOLE: Self = Self { low: 1 - MAX_BOUND, low_open: false, high: MAX_BOUND - 1, high_open: false };
}

fn whole(name: &str, value: &Value) -> Result<i64> {
    let float = value.as_f64().unwrap_or(f64::NAN);
    if float.fract() != 0.0 || float.abs() > MAX_BOUND as f64 {
        return Err(Error::unsupported(format!(
            "`{name}` is supported with whole numbers from -{MAX_BOUND} to {MAX_BOUND}, found {value}"
        )));
    }
    Ok(float as i64)
}

impl Compiler<'_> {
    /// Numbers, or whole numbers if only they are wanted, within the bounds that `map` says.
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
                let to = self.builder.end_state();
                let mut writer = Writer { builder: &mut self.builder, to, tails: HashMap::new() };
                match key {
                    (Types::INTEGER, bounds) => writer.integers(from, bounds.unwrap_or(Bounds::WHOLE)),
                    (_, Some(bounds)) => writer.numbers(from, bounds),
                    (_, None) => writer.free_numbers(from),
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
struct Writer<'b> {
    builder: &'b mut Builder,
    to: StateId,
    /// The beginnings of tails, by kind and the most digits of the fraction; and places inside fractions, by kind and how
    /// many digits may still come.
    tails: HashMap<(Tail, bool, usize), StateId>,
}

impl Writer<'_> {
    fn integers(&mut self, from: StateId, bounds: Bounds) {
        let low = bounds.low + i64::from(bounds.low_open);
        let high = bounds.high - i64::from(bounds.high_open);
        if low <= high && high >= 0 {
            self.naturals(from, low.max(0).unsigned_abs(), high.unsigned_abs(), Tail::None);
        }
        if low <= high && low < 0 {
            let minus = self.builder.text(from, b"-");
            // Zero has no sign.
            self.naturals(minus, (-high).max(1).unsigned_abs(), low.unsigned_abs(), Tail::None);
        }
    }

    /// Numbers within bounds. They have at most as many digits in all as a double keeps, so that none is rounded across a bound.
    fn numbers(&mut self, from: StateId, bounds: Bounds) {
        let Bounds { low, low_open, high, high_open } = bounds;
        if high >= 0 {
            self.magnitudes(from, (low.max(0), low >= 0 && low_open), (high, high_open));
        }
        if low < 0 {
            let minus = self.builder.text(from, b"-");
            // Zero has no sign.
            let least = if high < 0 { (-high, high_open) } else { (0, true) };
            self.magnitudes(minus, least, (-low, low_open));
        }
    }

    /// Numbers without a sign between two bounds, at least 0, each with whether it is left out.
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

    /// Numbers as JSON writes them, with a bounded number of digits, so that each is a finite double.
    fn free_numbers(&mut self, from: StateId) {
        let minus = self.builder.text(from, b"-");
        let unsigned = self.builder.state();
        self.builder.empty(from, unsigned);
        self.builder.empty(minus, unsigned);
        let to = self.to;
        // What follows the whole part and a fraction.
        let exponent = self.builder.state();
        self.to = exponent;
        let whole = self.builder.state();
        self.naturals_to(unsigned, 0, MAX_BOUND.unsigned_abs() - 1, &mut |_, _| whole);
        let tail = self.tail(Tail::Any, DIGITS);
        self.builder.empty(whole, tail);
        self.to = to;
        self.builder.empty(exponent, to);
        let [sign, digits, last] = [self.builder.state(), self.builder.state(), self.builder.state()];
        for letter in [b'e', b'E'] {
            self.builder.edge(exponent, letter, letter, sign);
        }
        for mark in [b'+', b'-'] {
            self.builder.edge(sign, mark, mark, digits);
        }
        self.builder.empty(sign, digits);
        self.builder.edge(digits, b'0', b'9', last);
        self.builder.empty(last, to);
        self.builder.edge(last, b'0', b'9', to);
    }

    /// Whole numbers from `low` to `high` without leading zeros, each with its tail.
    fn naturals(&mut self, from: StateId, low: u64, high: u64, tail: Tail) {
        self.naturals_to(from, low, high, &mut |writer, digits| writer.tail(tail, DIGITS.saturating_sub(digits)));
    }

    /// Whole numbers from `low` to `high`; those of `n` digits lead to `target(n)`.
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
        // Lengths of which every number is wanted share one chain of states.
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
                self.builder.empty(state, to);
            } else {
                self.same_length(from, first.to_string().as_bytes(), last.to_string().as_bytes(), to);
            }
            first = last + 1;
        }
    }

    /// Numbers from `low` to `high`, which are as long.
    fn same_length(&mut self, from: StateId, low: &[u8], high: &[u8], to: StateId) {
        // States by whether the digits so far are those of `low`, and of `high`.
        let mut places = HashMap::from([((true, true), from)]);
        for (i, (&low_digit, &high_digit)) in low.iter().zip(high).enumerate() {
            let mut next = HashMap::new();
            for (&(at_low, at_high), &state) in &places {
                let least = if at_low { low_digit } else { b'0' };
                let most = if at_high { high_digit } else { b'9' };
                for digit in least..=most {
                    let key = (at_low && digit == low_digit, at_high && digit == high_digit);
                    let target =
                        if i + 1 == low.len() { to } else { *next.entry(key).or_insert_with(|| self.builder.state()) };
                    self.builder.edge(state, digit, digit, target);
                }
            }
            places = next;
        }
    }

    /// The beginning of a tail with a fraction of at most `digits` digits.
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
            self.builder.empty(state, self.to);
        }
        if digits > 0 {
            let point = self.builder.text(state, b".");
            self.digit(point, tail, digits);
        }
        state
    }

    /// Adds the next digit of a fraction of which `digits`, at least 1, may still come.
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

    /// A place inside a fraction, behind at least one digit, with at most `digits` still to come. At most 15 deep.
    fn fraction(&mut self, tail: Tail, digits: usize) -> StateId {
        if let Some(&state) = self.tails.get(&(tail, true, digits)) {
            return state;
        }
        let state = self.builder.state();
        self.tails.insert((tail, true, digits), state);
        if tail != Tail::AboveZero {
            self.builder.empty(state, self.to);
        }
        if digits > 0 {
            self.digit(state, tail, digits);
        }
        state
    }
}
