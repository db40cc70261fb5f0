//! A record: one line of a metrics file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Kind of a record of a training step.
pub const TRAIN: &str = "train";
/// Kind of a record of an evaluation.
pub const EVAL: &str = "eval";

/// Measurements at one step.
///
/// JSON cannot represent numbers that are not finite: they are written as `null`, and `null` is read as NaN.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Training step, counted over the whole run.
    pub step: u64,
    /// Kind of the record: [`TRAIN`], [`EVAL`], or any other word.
    pub kind: String,
    /// Measured values by name.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

/// A record as in the file, where a value may be `null`.
#[derive(Deserialize)]
struct Line {
    step: u64,
    kind: String,
    #[serde(flatten)]
    values: BTreeMap<String, Option<f64>>,
}

impl Record {
    /// Parses one line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let Line { step, kind, values } = serde_json::from_slice(line)?;
        let values = values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect();
        Ok(Self { step, kind, values })
    }
}
