//! Charts as SVG texts, on a light ground and in colours that stay apart for colour-blind eyes.

mod axis;
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
pub use table::{Rows, Table, TableOptions, bars_or_lines};

use crate::error::Result;

/// Writes a chart to a file in one go: whoever opens it sees the chart before or the whole new one.
pub fn write_svg(path: impl AsRef<Path>, svg: &str) -> Result<()> {
    crate::file::replace(path.as_ref(), svg.as_bytes())
}
