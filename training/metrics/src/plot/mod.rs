//! Charts as SVG texts, on a light ground and in colors that stay apart for color-blind eyes.

mod axis;
mod canvas;
mod curves;
mod page;
mod panel;
mod series;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

pub use curves::{CurveOptions, curves};
pub use table::{Table, TableOptions, TableRows, bars_or_lines};

pub use TableRows as Rows; // TEMPORARY: old path

use crate::error::Result;

/// Writes a chart to a file in one go: whoever opens it sees the chart before or the whole new one.
pub fn write_svg(path: impl AsRef<Path>, svg: &str) -> Result<()> {
    crate::file::replace(path.as_ref(), svg.as_bytes())
}
