//! Bounds of numbers.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Largest absolute value of a bound.
pub(super) const MAX_BOUND: i64 = 1_000_000_000_000_000;

/// An interval; an open end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bounds {
    pub(super) low: i64,
    pub(super) low_open: bool,
    pub(super) high: i64,
    pub(super) high_open: bool,
}

impl Bounds {
    /// All whole numbers that have at most as many digits as a double keeps.
    pub(super) const WHOLE: Self = Self { low: 1 - MAX_BOUND, low_open: false, high: MAX_BOUND - 1, high_open: false };

    /// The bounds that the keywords of a schema set, if any.
    ///
    /// # Errors
    /// `Unsupported` for a bound that is fractional or too large.
    pub(super) fn read(map: &Map<String, Value>) -> Result<Option<Self>> {
        let bound = |name: &str| map.get(name).map(|value| whole(name, value)).transpose();
        // Of two equal bounds, the open one is narrower.
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
}

fn whole(name: &str, value: &Value) -> Result<i64> {
    let float = value.as_f64().unwrap_or(f64::NAN);
    if float.fract() != 0.0 || float.abs() > MAX_BOUND as f64 {
        return Err(Error::unsupported(format!(
            "`{name}`: only whole numbers from -{MAX_BOUND} to {MAX_BOUND} are supported, found {value}"
        )));
    }
    Ok(float as i64)
}
