//! Axes: linear or logarithmic ranges, and readable ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// Scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Linear.
    Linear,
    /// Logarithmic if the values span more than two decades, otherwise linear.
    Auto,
}

/// An axis of a panel.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    /// Positions and labels of the ticks.
    pub ticks: Vec<(f64, String)>,
    pub logarithmic: bool,
}

/// Largest absolute value that is drawn. Sums and ranges of smaller values stay finite.
const BEYOND: f64 = 1e100;
/// Approximate number of ticks of a vertical axis.
const TICKS: f64 = 5.0;

/// The value to draw: `None` for a gap, and zero for a value too small to draw.
pub(super) fn drawable(value: f64) -> Option<f64> {
    match value.abs() {
        size if size < 1.0 / BEYOND => Some(0.0),
        size if size <= BEYOND => Some(value),
        _ => None,
    }
}

/// Approximate number of ticks that fit below a horizontal axis of this length.
fn ticks_below(length: f64) -> f64 {
    // With fewer than three, there may be no tick within the range.
    (length / 70.0).clamp(3.0, 6.0)
}

impl Axis {
    /// A horizontal axis of this length for whole numbers from edge to edge.
    pub fn whole(values: impl Iterator<Item = f64>, length: f64) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        let (low, high) = widened(low, high);
        // The first step of a run is at the edge of the axis, whatever its number is.
        let low = if (0.0..0.05 * high).contains(&low) { 0.0 } else { low.floor() };
        let high = high.ceil();
        Self::linear(low, high, step((high - low) / ticks_below(length)).max(1.0))
    }

    /// A horizontal axis of this length, with a margin around the values.
    pub fn below(values: impl Iterator<Item = f64>, length: f64) -> Self {
        let (low, high) = roomy(values);
        Self::linear(low, high, step((high - low) / ticks_below(length)))
    }

    /// A vertical axis, with a margin around the values.
    pub fn beside(values: impl Iterator<Item = f64> + Clone, scale: Scale) -> Self {
        if scale == Scale::Auto
            && range(values.clone()).is_some_and(|(low, _)| low >= 0.0)
            && let Some((least, most)) = range(values.clone().filter(|value| *value > 0.0))
            && least > 0.0
            && most > 100.0 * least
        {
            return Self::decades(least, most);
        }
        let (low, high) = roomy(values);
        Self::linear(low, high, step((high - low) / TICKS))
    }

    /// A horizontal axis of this length for bars. It begins at zero, and leaves `label` of the length for the numbers
    /// at their ends.
    pub fn bars(values: impl Iterator<Item = f64>, length: f64, label: f64) -> Self {
        let (low, high) = range(values.chain([0.0])).unwrap_or((0.0, 0.0));
        let (low, high) = if low == high { (0.0, 1.0) } else { (low, high) };
        let room = (high - low) * label / (length - 2.0 * label).max(0.1 * length);
        let below = if low < 0.0 { room } else { 0.0 };
        let above = if high > 0.0 { room } else { 0.0 };
        let (low, high) = (low - below, high + above);
        Self::linear(low, high, step((high - low) / ticks_below(length)))
    }

    fn linear(low: f64, high: f64, step: f64) -> Self {
        let first = (low / step - 1e-6).ceil();
        let count = ((high / step + 1e-6).floor() - first).max(0.0) as usize;
        let ticks: Vec<f64> = (0..=count).map(|index| (first + index as f64) * step).collect();
        let labels = labels(&ticks, step);
        Self { low, high, ticks: ticks.into_iter().zip(labels).collect(), logarithmic: false }
    }

    /// A logarithmic axis, whose positions are decades.
    fn decades(least: f64, most: f64) -> Self {
        let (low, high) = (least.log10(), most.log10());
        let room = 0.05 * (high - low);
        let every = ((high - low) / TICKS).ceil().max(1.0);
        let first = (low / every - 1e-6).ceil();
        let count = ((high / every + 1e-6).floor() - first).max(0.0) as usize;
        let ticks = (0..=count).map(|index| {
            let decade = ((first + index as f64) * every) as i32;
            let label =
                if (-2..=3).contains(&decade) { format!("{}", 10f64.powi(decade)) } else { format!("1e{decade}") };
            (f64::from(decade), label)
        });
        Self { low: low - room, high: high + room, ticks: ticks.collect(), logarithmic: true }
    }

    /// Position of a value on the axis; `None` for a gap.
    pub fn place(&self, value: f64) -> Option<f64> {
        let value = drawable(value)?;
        if self.logarithmic { (value > 0.0).then(|| value.log10()) } else { Some(value) }
    }
}

/// The drawing library uses the axis as its coordinate, with the axis' own ticks and labels.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (first, last) = (f64::from(limit.0), f64::from(limit.1));
        (first + (last - first) * (value - self.low) / (self.high - self.low)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The library asks for ticks and for minor lines between them, of which there are none.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.iter().map(|(at, _)| *at).collect() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        self.ticks.iter().find(|(tick, _)| tick == value).map_or_else(String::new, |(_, label)| label.clone())
    }
}

/// Minimum and maximum of the values that can be drawn.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter_map(drawable).fold(None, |range, value| {
        let (low, high) = range.unwrap_or((value, value));
        Some((value.min(low), value.max(high)))
    })
}

/// Range of the values, with a margin.
fn roomy(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = range(values).unwrap_or((0.0, 1.0));
    let (wide_low, wide_high) = widened(low, high);
    let room = 0.05 * (wide_high - wide_low);
    // Values that are never negative, such as losses, need no margin below zero.
    let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    ((wide_low - room).max(floor), wide_high + room)
}

/// Widens a range whose ends ticks could not tell apart.
fn widened(low: f64, high: f64) -> (f64, f64) {
    let size = low.abs().max(high.abs());
    if size == 0.0 {
        (0.0, 1.0)
    } else if high - low < 1e-4 * size {
        (low - 0.1 * size, high + 0.1 * size)
    } else {
        (low, high)
    }
}

/// The smallest step of at least `rough` that is 1, 2 or 5 times a power of ten.
fn step(rough: f64) -> f64 {
    let decade = 10f64.powf(rough.log10().floor());
    let factor = rough / decade;
    decade * [1.0, 2.0, 5.0].into_iter().find(|&nice| factor <= nice * (1.0 + 1e-9)).unwrap_or(10.0)
}

/// Labels of ticks at intervals of `step`, all with the same unit and number of decimals.
fn labels(ticks: &[f64], step: f64) -> Vec<String> {
    let largest = ticks.iter().fold(0f64, |largest, tick| largest.max(tick.abs()));
    // A tick within half a step of zero differs from zero only by rounding.
    let is_zero = |tick: f64| tick.abs() < step / 2.0;
    if !(1e-2..1e15).contains(&largest) {
        let scientific = |&tick: &f64| {
            let decimals = (tick.abs().log10() + 1e-9).floor() - (step.log10() + 1e-9).floor();
            format!("{:.*e}", decimals.clamp(0.0, 6.0) as usize, tick)
        };
        return ticks.iter().map(|tick| if is_zero(*tick) { "0".into() } else { scientific(tick) }).collect();
    }
    let decimals = |unit: f64| (-((step / unit).log10() + 1e-9).floor()).max(0.0) as usize;
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // A unit that needs many decimals does not help.
    let (unit, suffix) = units
        .into_iter()
        .find(|&(unit, _)| largest >= 1e4 && largest >= unit && decimals(unit) <= 2)
        .unwrap_or((1.0, ""));
    let label = |&tick: &f64| format!("{:.*}{suffix}", decimals(unit), tick / unit);
    ticks.iter().map(|tick| if is_zero(*tick) { "0".into() } else { label(tick) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_are_readable() {
        assert_eq!(texts(&Axis::whole([0.0, 100_000.0].into_iter(), 440.0)), ["0", "20k", "40k", "60k", "80k", "100k"]);
        assert_eq!(texts(&Axis::whole([1.0, 60.0].into_iter(), 440.0)), ["0", "10", "20", "30", "40", "50", "60"]);
        assert_eq!(texts(&Axis::whole([1.0, 3.0].into_iter(), 440.0)), ["1", "2", "3"]);
        assert_eq!(texts(&Axis::beside([0.9, 1.0].into_iter(), Scale::Linear)), ["0.90", "0.95", "1.00"]);
        assert_eq!(texts(&Axis::beside([0.0, 3e-4].into_iter(), Scale::Linear)), ["0", "1e-4", "2e-4", "3e-4"]);
        assert_eq!(texts(&Axis::beside([0.05, 200.0].into_iter(), Scale::Auto)), ["0.1", "1", "10", "100"]);
    }

    /// For any values there are a few ticks, in order, within the axis and with distinct labels.
    #[test]
    fn ticks_of_any_range_are_few_and_distinct() {
        let sizes =
            [0.0, 1e-320, 1e-99, 1e-9, 0.037, 1.0, 2.5, 999.0, 12_345.6, 1e7, 1e16, 1e99, f64::MAX, f64::INFINITY];
        let offsets = [0.0, 1e-15, 1e-7, 0.003, 0.4, 1.0, 7.0];
        for (size, offset, sign) in
            sizes.iter().flat_map(|s| offsets.iter().flat_map(|o| [(*s, *o, 1.0), (*s, *o, -1.0)]))
        {
            let values = [size * sign, size * sign * (1.0 + offset), f64::NAN];
            for axis in [
                Axis::whole(values.into_iter(), 440.0),
                Axis::beside(values.into_iter(), Scale::Linear),
                Axis::beside(values.into_iter(), Scale::Auto),
                Axis::below(values.into_iter(), 180.0),
                Axis::bars(values.into_iter(), 180.0, 60.0),
                Axis::bars(values.into_iter(), 900.0, 60.0),
            ] {
                let positions: Vec<f64> = axis.ticks.iter().map(|(position, _)| *position).collect();
                assert!(axis.low < axis.high && axis.high.is_finite(), "{values:?} {axis:?}");
                assert!((1..=12).contains(&positions.len()), "{values:?} {axis:?}");
                assert!(positions.is_sorted_by(|a, b| a < b), "{values:?} {axis:?}");
                let room = (axis.high - axis.low) * 1e-3;
                assert!(
                    positions.iter().all(|p| *p >= axis.low - room && *p <= axis.high + room),
                    "{values:?} {axis:?}"
                );
                let mut labels = texts(&axis);
                labels.sort_unstable();
                labels.dedup();
                assert_eq!(labels.len(), positions.len(), "{values:?} {axis:?}");
                assert!(labels.iter().all(|label| label.len() <= 10), "{values:?} {axis:?}");
            }
        }
    }

    #[test]
    fn only_wide_ranges_are_logarithmic() {
        assert!(!Axis::beside([0.0, 1.0, 99.0].into_iter(), Scale::Auto).logarithmic);
        assert!(!Axis::beside([-1.0, 0.001, 1.0].into_iter(), Scale::Auto).logarithmic);
        assert!(!Axis::beside([0.001, 1.0].into_iter(), Scale::Linear).logarithmic);
        let axis = Axis::beside([0.0, 0.001, 1.0].into_iter(), Scale::Auto);
        assert!(axis.logarithmic);
        assert_eq!((axis.place(0.0), axis.place(f64::NAN)), (None, None));
        assert!((axis.place(0.1).unwrap() + 1.0).abs() < 1e-12);
    }
}
