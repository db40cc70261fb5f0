//! The drawing area of charts: its units and its colors.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;

/// A part of the page.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Result of drawing on an area.
pub(super) type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<io::Error>>;

/// Steps of the drawing grid per unit of the page. The drawing library has integer coordinates, and curves need finer
/// ones than the units that sizes are given in.
pub(super) const GRID: f64 = 4.0;

/// Background of the page.
pub(super) const BACKGROUND: RGBColor = RGBColor(255, 255, 255);
/// Titles and numbers.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Ticks and remarks.
pub(super) const MUTED: RGBColor = RGBColor(90, 90, 90);
pub(super) const GRID_LINE: RGBColor = RGBColor(228, 228, 228);
pub(super) const AXIS_LINE: RGBColor = RGBColor(140, 140, 140);

/// Color of the series with this index: the palette of Okabe and Ito, without the colors that are hard to see on white.
pub(super) fn color(index: usize) -> RGBColor {
    const COLORS: [RGBColor; 7] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(86, 180, 233),
        RGBColor(230, 159, 0),
        RGBColor(60, 60, 60),
    ];
    COLORS[index % COLORS.len()]
}

/// Converts units of the page to steps of the drawing grid.
pub(super) fn grid(units: f64) -> i32 {
    (units * GRID).round() as i32
}

/// The part of an area at (`x`, `y`).
pub(super) fn part<'a>(area: &Area<'a>, x: f64, y: f64, width: f64, height: f64) -> Area<'a> {
    area.clone().shrink((grid(x), grid(y)), (grid(width), grid(height)))
}
