//! Charts as SVG text, on a light background and in colors that color-blind readers can tell apart.

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

use crate::error::Result;

/// Writes a chart to a file atomically: readers see either the old or the new chart. Symbolic links are followed, and
/// devices and pipes are written into.
///
/// # Errors
/// `Io` for a file that cannot be written.
pub fn write_svg(path: impl AsRef<Path>, svg: &str) -> Result<()> {
    crate::file::replace(path.as_ref(), svg.as_bytes())
}
