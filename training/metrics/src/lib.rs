//! The metrics of a training run: the file that holds them, and the charts drawn from it.
//!
//! A run appends one record per line to a [`MetricsFile`]; [`read`] gives the records back, [`plot::curves`] draws them over
//! the steps, and [`plot::bars_or_lines`] draws the tables of a report. Charts are SVG texts: the same input gives the same
//! bytes, so a chart that is committed changes only when its numbers do.

mod error;
mod file;
#[cfg(test)]
mod file_tests;
pub mod plot;
mod record;

pub use error::{Error, Result};
pub use file::{MetricsFile, read};
pub use record::{EVAL, Record, TRAIN};
