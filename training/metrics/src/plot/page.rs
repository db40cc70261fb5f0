//! The sheet that charts are drawn on: its size, colours and writing.

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};

/// A part of the sheet.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing on it gives.
pub(super) type Drawn<T = ()> = std::result::Result<T, DrawingAreaErrorKind<io::Error>>;

/// Steps of the drawing's grid in one unit of the sheet: the drawing library knows whole steps only, and curves need finer
/// ones than the units that sizes are given in.
const GRID: f64 = 4.0;
/// How wide sheets may be, in units, so that everything on them has room and an area that can be counted.
const WIDTHS: std::ops::RangeInclusive<u32> = 360..=4000;
/// Space between the edges of the sheet and what is on it.
pub(super) const MARGIN: f64 = 18.0;
/// Space for the title.
const TITLE: f64 = 34.0;

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
    let top = if title.is_empty() { MARGIN } else { MARGIN + TITLE };
    let height = top + height + MARGIN;
    let mut svg = String::new();
    let drawn = {
        let size = (grid(width) as u32, grid(height) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let draw = || {
            root.fill(&GROUND)?;
            let lines = wrapped(title, width - 2.0 * MARGIN, 18.0, 1);
            if let Some(line) = lines.first() {
                write(&root, line, (MARGIN, MARGIN + 9.0), Text { size: 18.0, bold: true, ..Text::default() })?;
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

/// How something is written.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub size: f64,
    pub colour: RGBColor,
    pub bold: bool,
    /// Which side of the text the position is on.
    pub side: HPos,
}

impl Default for Text {
    fn default() -> Self {
        Self { size: 12.0, colour: INK, bold: false, side: HPos::Left }
    }
}

impl Text {
    /// The same for the drawing library.
    pub fn style(self) -> TextStyle<'static> {
        let weight = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        // The library takes the height of a line for the size of a font.
        let font = FontDesc::new(FontFamily::SansSerif, self.size * GRID * 1.24, weight);
        TextStyle { color: self.colour.to_backend_color(), ..TextStyle::from(font) }
            .pos(Pos::new(self.side, VPos::Center))
    }
}

/// Writes one line whose middle is as high as `y`.
pub(super) fn write(area: &Area, text: &str, (x, y): (f64, f64), style: Text) -> Drawn {
    area.draw_text(&clean(text), &style.style(), (grid(x), grid(y)))
}

/// The text without the characters that XML cannot hold.
fn clean(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}

/// About how wide a text is: whoever looks at the chart has a font of their own.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let width = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '(' | ')' | ' ' => 0.34,
        'f' | 'r' | 't' | '-' => 0.4,
        'm' | 'w' | 'M' | 'W' => 0.88,
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => 0.59,
        c if c.is_ascii() => 0.7,
        c if c < '\u{2e80}' => 0.65,
        // Beyond these come the scripts whose characters are as wide as they are high.
        _ => 1.0,
    };
    size * text.chars().map(width).sum::<f64>()
}

/// The text in at most `most` lines that are no wider than `width`, with a mark where some of it had to be left out.
pub(super) fn wrapped(text: &str, width: f64, size: f64, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let may_begin = lines.len() < most;
        match lines.last_mut() {
            // What finds no line of its own is cut off below.
            Some(line) if !may_begin || text_width(&format!("{line} {word}"), size) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    for line in &mut lines {
        if text_width(line, size) > width {
            while !line.is_empty() && text_width(line, size) + size > width {
                line.pop();
            }
            line.truncate(line.trim_end().len());
            line.push('…');
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_and_cut() {
        let text = "character suite: the teacher beside the byteified model";
        let lines = wrapped(text, 150.0, 12.0, 9);
        assert!(lines.len() > 1 && lines.iter().all(|line| text_width(line, 12.0) <= 150.0), "{lines:?}");
        assert_eq!(lines.join(" "), text);
        let lines = wrapped(text, 150.0, 12.0, 2);
        assert!(lines.len() == 2 && lines[1].ends_with('…'), "{lines:?}");
        assert!(lines.iter().all(|line| text_width(line, 12.0) <= 150.0), "{lines:?}");
        let lines = wrapped(&"x".repeat(90), 100.0, 12.0, 3);
        assert!(lines.len() == 1 && lines[0].ends_with('…') && text_width(&lines[0], 12.0) <= 100.0, "{lines:?}");
        assert!(wrapped("  ", 100.0, 12.0, 3).is_empty());
    }
}
