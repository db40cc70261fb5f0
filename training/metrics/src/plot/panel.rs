//! A panel of lines: title, legend, axes and series.

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::axis::Axis;
use super::canvas::{AXIS_LINE, Area, Drawn, GRID_LINE, MUTED, grid, part};
use super::text::{AXIS_NAME, PLAIN, TICK, Text, write};

/// Space for the ticks of a vertical axis.
const LEFT: f64 = 58.0;
pub(super) const BELOW: f64 = 22.0;
/// Space for the name of the horizontal axis.
pub(super) const NAME: f64 = 16.0;
/// Space for half of the label at the right end of an axis.
pub(super) const RIGHT: f64 = 20.0;
const TITLE: f64 = 22.0;
const TITLE_TEXT: Text = Text { size: 13.0, bold: true, ..PLAIN };
const LEGEND_ROW: f64 = 17.0;
const SWATCH: f64 = 18.0;
/// Maximum number of points of a line with markers.
const MARKED: usize = 60;

/// A series of a panel.
pub(super) struct Series {
    pub label: String,
    pub color: RGBColor,
    pub width: f64,
    /// Whether each point is an observation of its own and gets a marker.
    pub marked: bool,
    /// The line, in segments without gaps.
    pub segments: Vec<Vec<(f64, f64)>>,
    /// The raw line of a smoothed one; otherwise empty.
    pub raw: Vec<Vec<(f64, f64)>>,
}

/// A panel of lines.
pub(super) struct Panel {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    /// Name of the horizontal axis.
    pub x_name: String,
    pub series: Vec<Series>,
    /// Whether the only series needs no legend.
    pub plain: bool,
}

/// Length of the horizontal axis of a panel.
pub(super) fn axis_length(width: f64) -> f64 {
    width - LEFT - RIGHT
}

/// An entry of a legend: a color, the width of a line or `None` for a bar, and a text.
pub(super) type LegendEntry<'a> = (RGBColor, Option<f64>, &'a str);

impl Panel {
    fn legend(&self) -> Vec<LegendEntry<'_>> {
        let entries = self.series.iter().map(|series| (series.color, Some(series.width), series.label.as_str()));
        entries.filter(|_| !self.plain).collect()
    }

    /// Height of the part above the axes.
    pub fn head(&self, width: f64) -> f64 {
        TITLE + legend_height(&self.legend(), width)
    }

    /// Draws the panel, with its axes below a head of this height.
    pub fn draw(&self, area: &Area, (width, height): (f64, f64), head: f64) -> Drawn {
        let logarithmic = if self.y.logarithmic { " (logarithmic)" } else { "" };
        let title = format!("{}{logarithmic}", self.title);
        for line in TITLE_TEXT.wrapped(&title, width, 1) {
            write(area, &line, (0.0, 9.0), TITLE_TEXT)?;
        }
        draw_legend(area, &self.legend(), width, TITLE)?;
        let bottom = if self.x_name.is_empty() { BELOW } else { BELOW + NAME };
        let mut chart = ChartBuilder::on(&part(area, 0.0, head, width, height - head))
            .margin_top(grid(6.0))
            .margin_right(grid(RIGHT))
            .margin_bottom(grid(bottom - BELOW))
            .x_label_area_size(grid(BELOW))
            .y_label_area_size(grid(LEFT))
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        chart
            .configure_mesh()
            .bold_line_style(GRID_LINE.stroke_width(grid(1.0) as u32))
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS_LINE.stroke_width(grid(1.0) as u32))
            .set_all_tick_mark_size(grid(3.0))
            .label_style(TICK.style())
            .draw()?;
        // Raw curves come first, so that none covers the mean of another.
        for series in &self.series {
            let style = series.color.mix(0.22).stroke_width(grid(1.0) as u32);
            for segment in &series.raw {
                chart.draw_series(LineSeries::new(segment.iter().copied(), style))?;
            }
        }
        for series in &self.series {
            let points: usize = series.segments.iter().map(Vec::len).sum();
            let style = series.color.stroke_width(grid(series.width) as u32);
            for segment in &series.segments {
                chart.draw_series(LineSeries::new(segment.iter().copied(), style))?;
                // A point without neighbors is not visible as a line.
                if segment.len() == 1 || (series.marked && points <= MARKED) {
                    let radius = grid(series.width + 1.0);
                    chart.draw_series(segment.iter().map(|&at| Circle::new(at, radius, series.color.filled())))?;
                }
            }
        }
        let middle = LEFT + axis_length(width) / 2.0;
        if self.series.iter().all(|series| series.segments.is_empty()) {
            let remark = Text { color: MUTED, side: HPos::Center, ..PLAIN };
            write(area, "no values to draw", (middle, (head + height - bottom) / 2.0), remark)?;
        }
        for name in AXIS_NAME.wrapped(&self.x_name, width - LEFT, 1) {
            write(area, &name, (middle, height - NAME / 2.0), AXIS_NAME)?;
        }
        Ok(())
    }
}

/// Positions of the entries of a legend on an area of this width, row by row.
fn legend_places(entries: &[LegendEntry], width: f64) -> Vec<(f64, usize, String)> {
    let (mut x, mut row) = (0.0, 0);
    let place = |&(_, _, label): &LegendEntry| {
        let label = PLAIN.wrapped(label, width - SWATCH - 6.0, 1).join("");
        let needed = SWATCH + 6.0 + PLAIN.width(&label);
        if x > 0.0 && x + needed > width {
            (x, row) = (0.0, row + 1);
        }
        let place = (x, row, label);
        x += needed + 16.0;
        place
    };
    entries.iter().map(place).collect()
}

/// Height of a legend on an area of this width.
pub(super) fn legend_height(entries: &[LegendEntry], width: f64) -> f64 {
    legend_places(entries, width).last().map_or(0.0, |(_, row, _)| LEGEND_ROW * (row + 1) as f64)
}

/// Draws a legend whose first row begins at `top`.
pub(super) fn draw_legend(area: &Area, entries: &[LegendEntry], width: f64, top: f64) -> Drawn {
    for (&(color, line, _), (x, row, label)) in entries.iter().zip(legend_places(entries, width)) {
        let y = top + LEGEND_ROW * row as f64 + 7.0;
        if let Some(thickness) = line {
            let ends = [(grid(x), grid(y)), (grid(x + SWATCH), grid(y))];
            area.draw(&PathElement::new(ends, color.stroke_width(grid(thickness) as u32)))?;
        } else {
            let corners = [(grid(x + 3.0), grid(y - 5.5)), (grid(x + SWATCH - 3.0), grid(y + 5.5))];
            area.draw(&Rectangle::new(corners, color.filled()))?;
        }
        write(area, &label, (x + SWATCH + 6.0, y), PLAIN)?;
    }
    Ok(())
}
