//! One line of a file of metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The kind of a record about a step of training.
pub const TRAIN: &str = "train";
/// The kind of a record about an evaluation.
pub const EVAL: &str = "eval";

/// What was measured at one step.
///
/// JSON has no word for numbers that are not finite: they are written as `null`, and `null` is read as NaN.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// The step of training, counted over the whole run.
    pub step: u64,
    /// What the record is about: [`TRAIN`], [`EVAL`], or a word of the caller's.
    pub kind: String,
    /// Everything that was measured, by name.
    #[serde(flatten)]
    pub values: BTreeMap<String, f64>,
}

/// A record as its line has it, where a value may be `null`.
#[derive(Deserialize)]
struct Line {
    step: u64,
    kind: String,
    #[serde(flatten)]
    values: BTreeMap<String, Option<f64>>,
}

impl Record {
    /// Reads one line.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        let Line { step, kind, values } = serde_json::from_slice(line)?;
        let values = values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect();
        Ok(Self { step, kind, values })
    }
}
