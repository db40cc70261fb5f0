//! Curves of a run over its steps.

use std::collections::BTreeMap;

use super::axis::{Axis, Scale};
use super::canvas::{color, part};
use super::page::{MARGIN, page, page_width};
use super::panel::{Panel, Series, axis_length};
use super::series::{Point, segments, smoothed, thinned};
use super::text::{PLAIN, write};
use crate::error::Result;
use crate::record::{Record, TRAIN};

/// Options of [`curves`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurveOptions {
    /// Title above all panels; may be empty.
    pub title: String,
    /// Width of the chart in pixels, 360 to 4000. The height follows from the panels.
    pub width: u32,
    /// Number of panels side by side, if they fit.
    pub columns: usize,
    /// Window of the running mean in training records. 1 disables smoothing; `None` uses a fortieth of a curve.
    pub smoothing: Option<usize>,
    /// Maximum number of points of a curve, 2 to 5000. A longer curve is drawn with the means of neighboring values.
    pub max_points: usize,
}

impl Default for CurveOptions {
    fn default() -> Self {
        Self { title: String::new(), width: 1100, columns: 2, smoothing: None, max_points: 1000 }
    }
}

/// Values that a panel shows.
enum Names {
    /// These, in this order.
    Are(&'static [&'static str]),
    /// All names with this ending, in alphabetical order.
    EndIn(&'static str),
}

const PANELS: [(&str, Names, Scale); 6] = [
    ("Losses", Names::Are(&["total", "loss", "cross_entropy", "boundary", "encoder", "distill"]), Scale::Auto),
    ("Bits per byte", Names::EndIn("bits_per_byte"), Scale::Linear),
    ("Boundaries", Names::Are(&["boundary_accuracy", "boundary_precision", "boundary_recall"]), Scale::Linear),
    ("Bytes per patch", Names::EndIn("bytes_per_patch"), Scale::Linear),
    ("Learning rate", Names::Are(&["learning_rate", "lr"]), Scale::Auto),
    ("Gradient norm", Names::Are(&["gradient_norm", "grad_norm"]), Scale::Auto),
];

/// Height of a panel's axes with their ticks.
const AXES: f64 = 220.0;
const BETWEEN: f64 = 24.0;
/// Minimum width of a panel.
const NARROWEST: f64 = 260.0;
/// Width of training curves.
const THIN: f64 = 1.4;
const THICK: f64 = 2.6;
/// Minimum number of values of a curve that is smoothed by default.
const SMOOTHED_FROM: usize = 80;

/// Values by name and kind, in the order of their steps.
type Values<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Vec<(f64, f64)>>>;

/// Draws the losses, the bits per byte, the boundaries, the bytes per patch, the learning rate and the gradient norm in
/// panels over a common axis of steps.
///
/// Records of [`TRAIN`] are thin smoothed lines with the pale raw values behind them; those of other kinds are thick
/// and not smoothed. Values that are not finite are gaps.
///
/// # Errors
/// `Drawing` if the drawing library fails.
pub fn curves(records: &[Record], options: &CurveOptions) -> Result<String> {
    let values = gathered(records);
    let chosen: Vec<_> = PANELS
        .iter()
        .map(|(title, names, scale)| (*title, chosen(&values, names), *scale))
        .filter(|(_, curves, _)| !curves.is_empty())
        .collect();
    let width = page_width(options.width);
    if chosen.is_empty() {
        return page(&options.title, width, 40.0, |area| {
            write(area, "The run has recorded nothing that could be drawn.", (0.0, 20.0), PLAIN)
        });
    }
    let inner = width - 2.0 * MARGIN;
    let room = ((inner + BETWEEN) / (NARROWEST + BETWEEN)) as usize;
    let columns = options.columns.min(room).min(chosen.len()).max(1);
    let panel_width = (inner - BETWEEN * (columns - 1) as f64) / columns as f64;
    let steps = Axis::whole(records.iter().map(|record| record.step as f64), axis_length(panel_width));
    let panels: Vec<Panel> =
        chosen.iter().map(|(title, curves, scale)| panel(title, curves, *scale, &steps, options)).collect();
    // Axes of panels in a row are at the same height.
    let rows: Vec<(&[Panel], f64)> = panels
        .chunks(columns)
        .map(|row| (row, row.iter().map(|panel| panel.head(panel_width)).fold(0.0, f64::max)))
        .collect();
    let height = rows.iter().map(|(_, head)| head + AXES + BETWEEN).sum::<f64>() - BETWEEN;
    page(&options.title, width, height, |area| {
        let mut top = 0.0;
        for (row, head) in &rows {
            let size = (panel_width, head + AXES);
            for (column, panel) in row.iter().enumerate() {
                let left = column as f64 * (panel_width + BETWEEN);
                panel.draw(&part(area, left, top, size.0, size.1), size, *head)?;
            }
            top += size.1 + BETWEEN;
        }
        Ok(())
    })
}

fn gathered(records: &[Record]) -> Values<'_> {
    let mut values = Values::new();
    for record in records {
        for (name, &value) in &record.values {
            values.entry(name).or_default().entry(&record.kind).or_default().push((record.step as f64, value));
        }
    }
    for points in values.values_mut().flat_map(BTreeMap::values_mut) {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    values
}

/// A curve: its name, its kind and its values.
type Curve<'a> = (&'a str, &'a str, &'a [(f64, f64)]);

fn chosen<'a>(values: &'a Values, names: &Names) -> Vec<Curve<'a>> {
    let names: Vec<&str> = match names {
        Names::Are(names) => names.to_vec(),
        Names::EndIn(end) => values.keys().copied().filter(|name| name.ends_with(end)).collect(),
    };
    let mut chosen = Vec::new();
    for name in names {
        if let Some((&name, kinds)) = values.get_key_value(name) {
            let mut kinds: Vec<_> = kinds.iter().collect();
            kinds.sort_by_key(|(kind, _)| (**kind != TRAIN, **kind));
            chosen.extend(kinds.into_iter().map(|(&kind, points)| (name, kind, points.as_slice())));
        }
    }
    chosen
}

fn panel(title: &str, curves: &[Curve], scale: Scale, steps: &Axis, options: &CurveOptions) -> Panel {
    let thin: Vec<(Vec<Point>, Option<Vec<Point>>)> =
        curves.iter().map(|(_, kind, values)| points(values, *kind == TRAIN, options)).collect();
    let y = Axis::beside(thin.iter().flat_map(|(points, _)| points.iter().map(|point| point.y)), scale);
    let mut names: Vec<&str> = curves.iter().map(|(name, ..)| *name).collect();
    names.dedup();
    let one_name = names.len() == 1;
    let series = curves.iter().zip(&thin).enumerate().map(|(index, (&(name, kind, _), (points, smooth)))| {
        let words = name.replace('_', " ");
        // Curves of one name share a color. With a single name, colors distinguish kinds.
        let position = names.iter().position(|other| *other == name).unwrap_or(index);
        Series {
            label: match kind {
                // The title already contains the name.
                _ if one_name && words.eq_ignore_ascii_case(title) => kind.into(),
                TRAIN => words,
                _ => format!("{words} ({kind})"),
            },
            color: color(if one_name { index } else { position }),
            width: if kind == TRAIN { THIN } else { THICK },
            marked: kind != TRAIN,
            segments: segments(smooth.as_ref().unwrap_or(points), steps, &y),
            raw: if smooth.is_some() { segments(points, steps, &y) } else { Vec::new() },
        }
    });
    let series: Vec<Series> = series.collect();
    let plain = series.len() == 1 && series[0].label == TRAIN;
    Panel { title: title.into(), x: steps.clone(), y, x_name: "step".into(), series, plain }
}

/// The points of a curve, and their running mean if the curve is smoothed.
fn points(values: &[(f64, f64)], noisy: bool, options: &CurveOptions) -> (Vec<Point>, Option<Vec<Point>>) {
    let points = thinned(values, options.max_points.clamp(2, 5000));
    let window = match options.smoothing {
        Some(window) => window,
        None if values.len() >= SMOOTHED_FROM => values.len() / 40,
        None => 1,
    };
    let smooth = (noisy && window > 1).then(|| smoothed(&points, window));
    (points, smooth)
}
