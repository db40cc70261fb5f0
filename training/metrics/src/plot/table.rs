//! Charts of tables: bars for named rows, lines for numeric rows.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::axis::{Axis, Scale, drawable};
use super::canvas::{AXIS_LINE, Area, Drawn, GRID_LINE, MUTED, color, grid, part};
use super::page::{MARGIN, page, page_width};
use super::panel::{BELOW, LegendEntry, NAME, Panel, RIGHT, Series, axis_length, draw_legend, legend_height};
use super::series::{Point, segments};
use super::text::{AXIS_NAME, PLAIN, TICK, Text, write};
use crate::error::{Error, Result};

/// Rows of a [`Table`], each with one value per name; NaN for a missing value.
#[derive(Debug, Clone, PartialEq)]
pub enum TableRows {
    /// Named rows, drawn as groups of bars in this order.
    Bars(Vec<(String, Vec<f64>)>),
    /// Numeric rows, drawn as lines over their numbers.
    Lines(Vec<(f64, Vec<f64>)>),
}

/// A small table to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Name of the rows' numbers, as in "bytes per patch"; not used for bars.
    pub row_name: String,
    /// Name of the values, as in "bits per byte"; may be empty.
    pub value_name: String,
    /// Names of the values of each row, as in "teacher" and "byteified".
    pub names: Vec<String>,
    /// The rows.
    pub rows: TableRows,
}

/// Options of [`bars_or_lines`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableOptions {
    /// Title above the chart; may be empty.
    pub title: String,
    /// Width of the chart in pixels, 360 to 4000. The height follows from the contents.
    pub width: u32,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { title: String::new(), width: 760 }
    }
}

/// Height of the axes of a chart of lines.
const AXES: f64 = 300.0;
/// Height of a bar.
const BAR: f64 = 15.0;
const BETWEEN: f64 = 14.0;
/// Names beside the bars.
const NAME_TEXT: Text = Text { side: HPos::Right, ..PLAIN };
const LINE: f64 = 15.0;
/// Numbers at the ends of the bars.
const NUMBER_TEXT: Text = Text { size: 11.0, ..PLAIN };
const NUMBER_FROM: f64 = 4.0;

/// Draws a table: named rows as groups of horizontal bars with their values at the ends, numeric rows as one line for
/// each name.
///
/// # Errors
/// `Row` for a row with the wrong number of values, and `Drawing` if the drawing library fails.
pub fn bars_or_lines(table: &Table, options: &TableOptions) -> Result<String> {
    let expected = table.names.len();
    let lengths: Vec<usize> = match &table.rows {
        TableRows::Bars(rows) => rows.iter().map(|(_, values)| values.len()).collect(),
        TableRows::Lines(rows) => rows.iter().map(|(_, values)| values.len()).collect(),
    };
    if let Some(index) = lengths.iter().position(|length| *length != expected) {
        return Err(Error::Row { row: index + 1, found: lengths[index], expected });
    }
    if expected == 0 || lengths.is_empty() {
        return page(&options.title, page_width(options.width), 40.0, |area| {
            write(area, "The table is empty.", (0.0, 20.0), PLAIN)
        });
    }
    match &table.rows {
        TableRows::Bars(rows) => bars(table, rows, options),
        TableRows::Lines(rows) => lines(table, rows, options),
    }
}

fn lines(table: &Table, rows: &[(f64, Vec<f64>)], options: &TableOptions) -> Result<String> {
    let mut rows: Vec<_> = rows.iter().filter(|(x, _)| drawable(*x).is_some()).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let width = page_width(options.width);
    let x = Axis::below(rows.iter().map(|(x, _)| *x), axis_length(width - 2.0 * MARGIN));
    let y = Axis::beside(rows.iter().flat_map(|(_, values)| values.iter().copied()), Scale::Linear);
    let line = |(index, name): (usize, &String)| {
        let points: Vec<Point> = rows.iter().map(|(x, values)| Point { x: *x, y: values[index], count: 1 }).collect();
        let segments = segments(&points, &x, &y);
        Series { label: name.clone(), color: color(index), width: 2.0, marked: true, segments, raw: Vec::new() }
    };
    let series = table.names.iter().enumerate().map(line).collect();
    let plain = table.names.len() == 1 && table.names[0] == table.value_name;
    let (title, x_name) = (table.value_name.clone(), table.row_name.clone());
    let panel = Panel { title, x_name, series, plain, x: x.clone(), y: y.clone() };
    let head = panel.head(width - 2.0 * MARGIN);
    let size = (width - 2.0 * MARGIN, head + AXES);
    page(&options.title, width, size.1, |area| panel.draw(area, size, head))
}

fn bars(table: &Table, rows: &[(String, Vec<f64>)], options: &TableOptions) -> Result<String> {
    let width = page_width(options.width);
    let inner = width - 2.0 * MARGIN;
    let widest = rows.iter().map(|(name, _)| NAME_TEXT.width(name)).fold(0.0, f64::max);
    let left = widest.min(0.35 * inner) + 10.0;
    let names: Vec<Vec<String>> = rows.iter().map(|(name, _)| NAME_TEXT.wrapped(name, left - 10.0, 4)).collect();
    let group = |index: usize| (BAR * table.names.len() as f64).max(LINE * names[index].len() as f64);
    let plot = (0..rows.len()).map(|index| group(index) + BETWEEN).sum::<f64>();
    // A single name needs no legend if the axis has it.
    let plain = table.names.len() == 1 && table.names[0] == table.value_name;
    let entries = table.names.iter().enumerate().map(|(index, name)| (color(index), None, name.as_str()));
    let legend: Vec<LegendEntry> = entries.filter(|_| !plain).collect();
    let head = legend_height(&legend, inner) + 4.0;
    let below = if table.value_name.is_empty() { BELOW } else { BELOW + NAME };
    let values = rows.iter().flat_map(|(_, values)| values.iter().copied());
    let longest = values.clone().map(|value| NUMBER_TEXT.width(&number(value))).fold(0.0, f64::max);
    let axis = Axis::bars(values, inner - left - RIGHT, longest + 2.0 * NUMBER_FROM);
    page(&options.title, width, head + plot + below, |area| {
        draw_legend(area, &legend, inner, 0.0)?;
        let scale = Placed { axis: &axis, left, right: inner - RIGHT };
        scale.draw(&part(area, 0.0, head, inner, plot + BELOW), inner)?;
        let mut top = head + BETWEEN / 2.0;
        for (index, (_, values)) in rows.iter().enumerate() {
            let middle = top + group(index) / 2.0;
            let mut y = middle - LINE * (names[index].len() as f64 - 1.0) / 2.0;
            for line in &names[index] {
                write(area, line, (left - 10.0, y), NAME_TEXT)?;
                y += LINE;
            }
            let mut y = middle - BAR * values.len() as f64 / 2.0;
            for (index, &value) in values.iter().enumerate() {
                scale.bar(area, value, y, color(index))?;
                y += BAR;
            }
            top += group(index) + BETWEEN;
        }
        let middle = left + (inner - RIGHT - left) / 2.0;
        for name in AXIS_NAME.wrapped(&table.value_name, inner, 1) {
            write(area, &name, (middle, head + plot + below - NAME / 2.0), AXIS_NAME)?;
        }
        Ok(())
    })
}

/// The axis of the bars' lengths, between two edges of the area.
struct Placed<'a> {
    axis: &'a Axis,
    left: f64,
    right: f64,
}

impl Placed<'_> {
    /// Draws the axis and its grid.
    fn draw(&self, area: &Area, width: f64) -> Drawn {
        let mut chart = ChartBuilder::on(area)
            .margin_left(grid(self.left))
            .margin_right(grid(width - self.right))
            .x_label_area_size(grid(BELOW))
            .build_cartesian_2d(self.axis.clone(), 0.0..1.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .bold_line_style(GRID_LINE.stroke_width(grid(1.0) as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS_LINE.stroke_width(grid(1.0) as u32))
            .set_all_tick_mark_size(grid(3.0))
            .label_style(TICK.style())
            .draw()?;
        Ok(())
    }

    fn place(&self, value: f64) -> f64 {
        self.left + (self.right - self.left) * (value - self.axis.low) / (self.axis.high - self.axis.low)
    }

    /// Draws a bar below `top`, with its value at its end.
    fn bar(&self, area: &Area, value: f64, top: f64, color: RGBColor) -> Drawn {
        let (zero, end) = (self.place(0.0), self.place(drawable(value).unwrap_or(0.0)));
        let corners = [(grid(zero.min(end)), grid(top + 1.0)), (grid(zero.max(end)), grid(top + BAR - 1.0))];
        if corners[0].0 < corners[1].0 {
            area.draw(&Rectangle::new(corners, color.filled()))?;
        }
        let (side, x) = if end < zero { (HPos::Right, end - NUMBER_FROM) } else { (HPos::Left, end + NUMBER_FROM) };
        let color = if drawable(value).is_some() { NUMBER_TEXT.color } else { MUTED };
        write(area, &number(value), (x, top + BAR / 2.0), Text { side, color, ..NUMBER_TEXT })
    }
}

/// The text of a value at the end of its bar: at most four significant digits, or a dash for a missing value.
fn number(value: f64) -> String {
    let Some(value) = drawable(value) else { return "–".into() };
    let size = value.abs();
    if size > 0.0 && !(1e-3..1e7).contains(&size) {
        return format!("{value:.2e}");
    }
    let decimals = if size > 0.0 { (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize } else { 0 };
    let text = format!("{value:.decimals$}");
    if decimals == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let numbers = [0.873_27, 1.2, 12.0, 1234.56, -0.051_239, 123_456.0, 1e-5, 3e9, f64::NAN, 0.0];
        let texts = numbers.map(number);
        let expected = ["0.8733", "1.2", "12", "1235", "-0.05124", "123456", "1.00e-5", "3.00e9", "–", "0"];
        assert_eq!(texts, expected);
    }
}
