//! The sheet that charts are drawn on: its size, its colours and its title.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::text::{Text, clean, write};
use crate::error::{Error, Result};

/// A part of the sheet.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing on it gives.
pub(super) type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<io::Error>>;

/// Steps of the drawing's grid in one unit of the sheet: the drawing library knows whole steps only, and curves need finer
/// ones than the units that sizes are given in.
pub(super) const GRID: f64 = 4.0;
/// How wide sheets may be, in units, so that everything on them has room and an area that can be counted.
const WIDTHS: std::ops::RangeInclusive<u32> = 360..=4000;
/// Space between the edges of the sheet and what is on it.
pub(super) const MARGIN: f64 = 18.0;
/// The title, the height of its lines, and the space below them.
const TITLE: Text = Text { size: 18.0, colour: INK, bold: true, side: HPos::Left };
const TITLE_LINE: f64 = 22.0;
const BELOW_TITLE: f64 = 12.0;

const GROUND: RGBColor = RGBColor(255, 255, 255);
/// Titles, and numbers to be read.
pub(super) const INK: RGBColor = RGBColor(34, 34, 34);
/// Ticks and remarks.
pub(super) const MUTED: RGBColor = RGBColor(90, 90, 90);
pub(super) const GRID_LINE: RGBColor = RGBColor(228, 228, 228);
pub(super) const AXIS_LINE: RGBColor = RGBColor(140, 140, 140);

/// The colour of the series with this index: those of Okabe and Ito that can be seen on white.
pub(super) fn colour(index: usize) -> RGBColor {
    const COLOURS: [RGBColor; 7] = [
        RGBColor(0, 114, 178),
        RGBColor(213, 94, 0),
        RGBColor(0, 158, 115),
        RGBColor(204, 121, 167),
        RGBColor(86, 180, 233),
        RGBColor(230, 159, 0),
        RGBColor(60, 60, 60),
    ];
    COLOURS[index % COLOURS.len()]
}

/// Units of the sheet on the drawing's grid.
pub(super) fn grid(units: f64) -> i32 {
    (units * GRID).round() as i32
}

/// A width of the sheet that everything fits on.
pub(super) fn sheet_width(wanted: u32) -> f64 {
    f64::from(wanted.clamp(*WIDTHS.start(), *WIDTHS.end()))
}

/// Draws a sheet: its title, and below that, `height` high, whatever `draw` puts on the area it is given.
pub(super) fn sheet(title: &str, width: f64, height: f64, draw: impl FnOnce(&Area) -> Drawn) -> Result<String> {
    let lines = TITLE.wrapped(title, width - 2.0 * MARGIN, 3);
    let top = MARGIN + if lines.is_empty() { 0.0 } else { TITLE_LINE * lines.len() as f64 + BELOW_TITLE };
    let height = top + height + MARGIN;
    let mut svg = String::new();
    let drawn = {
        let size = (grid(width) as u32, grid(height) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let draw = || {
            root.fill(&GROUND)?;
            for (index, line) in lines.iter().enumerate() {
                write(&root, line, (MARGIN, MARGIN + TITLE_LINE * (index as f64 + 0.5)), TITLE)?;
            }
            draw(&part(&root, MARGIN, top, width - 2.0 * MARGIN, height - top - MARGIN))?;
            root.present()
        };
        draw()
    };
    drawn.map_err(|e| Error::Drawing { reason: e.to_string() })?;
    // The library's own first tag shows each step of the grid as large as a unit.
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let name = clean(title).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let name = if name.is_empty() { String::new() } else { format!("\n<title>{name}</title>") };
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\" \
         role=\"img\" stroke-linejoin=\"round\" stroke-linecap=\"round\">{name}{body}",
        grid(width),
        grid(height),
    ))
}

/// The part of an area that begins at (`x`, `y`).
pub(super) fn part<'a>(area: &Area<'a>, x: f64, y: f64, width: f64, height: f64) -> Area<'a> {
    area.clone().shrink((grid(x), grid(y)), (grid(width), grid(height)))
}
