//! Text on the page.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::canvas::{Area, Drawn, GRID, INK, MUTED, grid};

/// Style of a text.
#[derive(Clone, Copy)]
pub(super) struct Text {
    pub size: f64,
    pub color: RGBColor,
    pub bold: bool,
    /// Side of the text at its position.
    pub side: HPos,
}

/// Style of most texts.
pub(super) const PLAIN: Text = Text { size: 12.0, color: INK, bold: false, side: HPos::Left };
/// Style of tick labels.
pub(super) const TICK: Text = Text { size: 11.0, color: MUTED, ..PLAIN };
/// Style of an axis name.
pub(super) const AXIS_NAME: Text = Text { size: 11.0, side: HPos::Center, ..PLAIN };

impl Text {
    /// Approximate width of a text. The exact one depends on the reader's fonts.
    pub fn width(self, text: &str) -> f64 {
        let width = |c: char| match c {
            'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '(' | ')' | ' ' => 0.34,
            'f' | 'r' | 't' | '-' => 0.4,
            'm' | 'w' | 'M' | 'W' => 0.88,
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => 0.61,
            c if c.is_ascii() => 0.7,
            c if c < '\u{2e80}' => 0.65,
            // Above this code point are scripts whose characters are as wide as they are high.
            _ => 1.0,
        };
        let stretch = if self.bold { 1.15 } else { 1.0 };
        self.size * stretch * text.chars().map(width).sum::<f64>()
    }

    /// Wraps the text into at most `most` lines of at most `width`, with an ellipsis where text is cut.
    pub fn wrapped(self, text: &str, width: f64, most: usize) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let may_begin = lines.len() < most;
            match lines.last_mut() {
                // A word without a line of its own is cut below.
                Some(line) if !may_begin || self.width(&format!("{line} {word}")) <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.into()),
            }
        }
        for line in &mut lines {
            if self.width(line) > width {
                while !line.is_empty() && self.width(line) + self.width("…") > width {
                    line.pop();
                }
                line.truncate(line.trim_end().len());
                line.push('…');
            }
        }
        lines
    }

    /// The style for the drawing library.
    pub fn style(self) -> TextStyle<'static> {
        let weight = if self.bold { FontStyle::Bold } else { FontStyle::Normal };
        // The library's font size is the height of a line.
        let font = FontDesc::new(FontFamily::SansSerif, self.size * GRID * 1.24, weight);
        let style = TextStyle { color: self.color.to_backend_color(), ..TextStyle::from(font) };
        style.pos(Pos::new(self.side, VPos::Center))
    }
}

/// Writes a line of text that is vertically centered at `y`.
pub(super) fn write(area: &Area, text: &str, (x, y): (f64, f64), style: Text) -> Drawn {
    area.draw_text(&clean(text), &style.style(), (grid(x), grid(y)))
}

/// The text without the characters that XML cannot represent.
pub(super) fn clean(text: &str) -> String {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if allowed(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_wrapped_and_cut() {
        let fits = |lines: &[String]| lines.iter().all(|line| PLAIN.width(line) <= 150.0);
        let text = "character suite: the teacher beside the byteified model";
        let lines = PLAIN.wrapped(text, 150.0, 9);
        assert!(lines.len() > 1 && fits(&lines), "{lines:?}");
        assert_eq!(lines.join(" "), text);
        let lines = PLAIN.wrapped(text, 150.0, 2);
        assert!(lines.len() == 2 && lines[1].ends_with('…') && fits(&lines), "{lines:?}");
        let lines = PLAIN.wrapped(&"x".repeat(90), 150.0, 3);
        assert!(lines.len() == 1 && lines[0].ends_with('…') && fits(&lines), "{lines:?}");
        assert!(PLAIN.wrapped("  ", 150.0, 3).is_empty());
    }
}
