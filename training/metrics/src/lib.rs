//! The metrics of a training run: the file that holds them, and the charts drawn from it.
//!
//! A run appends one record per line to a [`MetricsFile`]; [`read`] gives the records back, [`plot::curves`] draws them over
//! the steps, and [`plot::bars_or_lines`] draws the tables of a report. Charts are SVG texts: the same input gives the same
//! bytes, so a chart that is committed changes only when its numbers do.
//!
//! ```
//! use bolmo_metrics::{MetricsFile, TRAIN, plot, read};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let mut metrics = MetricsFile::create(folder.join("metrics.jsonl"))?;
//! for step in 1..=3u64 {
//!     let total = 4.0 / step as f64;
//!     metrics.append(&serde_json::json!({"step": step, "kind": TRAIN, "total": total, "learning_rate": 1e-4}))?;
//! }
//! let records = read(metrics.path())?;
//! let options = plot::CurveOptions { title: "First steps".into(), ..Default::default() };
//! plot::write_svg(folder.join("curves.svg"), &plot::curves(&records, &options)?)?;
//! # Ok(())
//! # }
//! ```

mod error;
mod file;
pub mod plot;
mod record;

pub use error::{Error, Result};
pub use file::{MetricsFile, read};
pub use record::{EVAL, Record, TRAIN};
