//! The page of a chart: its size and its title.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::canvas::{Area, BACKGROUND, Drawn, INK, grid, part};
use super::text::{Text, clean, write};
use crate::error::{Error, Result};

/// Allowed widths of a page in units: wide enough for the contents, and small enough for the area not to overflow.
const WIDTHS: std::ops::RangeInclusive<u32> = 360..=4000;
/// Space between the edges of the page and its contents.
pub(super) const MARGIN: f64 = 18.0;
const TITLE: Text = Text { size: 18.0, color: INK, bold: true, side: HPos::Left };
/// Height of a line of the title.
const TITLE_LINE: f64 = 22.0;
/// Space below the title.
const BELOW_TITLE: f64 = 12.0;

/// Clamps the width of a page to the allowed widths.
pub(super) fn page_width(wanted: u32) -> f64 {
    f64::from(wanted.clamp(*WIDTHS.start(), *WIDTHS.end()))
}

/// Draws a page with a title, and below it the contents that `draw` puts on an area of the given height.
pub(super) fn page(title: &str, width: f64, height: f64, draw: impl FnOnce(&Area) -> Drawn) -> Result<String> {
    let lines = TITLE.wrapped(title, width - 2.0 * MARGIN, 3);
    let top = MARGIN + if lines.is_empty() { 0.0 } else { TITLE_LINE * lines.len() as f64 + BELOW_TITLE };
    let height = top + height + MARGIN;
    let mut svg = String::new();
    let drawn = {
        let size = (grid(width) as u32, grid(height) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let draw = || {
            root.fill(&BACKGROUND)?;
            for (index, line) in lines.iter().enumerate() {
                write(&root, line, (MARGIN, MARGIN + TITLE_LINE * (index as f64 + 0.5)), TITLE)?;
            }
            draw(&part(&root, MARGIN, top, width - 2.0 * MARGIN, height - top - MARGIN))?;
            root.present()
        };
        draw()
    };
    drawn.map_err(|e| Error::Drawing { reason: e.to_string() })?;
    // The library's own root tag would show each step of the grid as large as a unit, so it is replaced.
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
