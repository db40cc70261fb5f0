//! Options of `score`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

/// Examples of `score`.
pub const SCORE_EXAMPLES: &str = "\
Examples:
  bolmo score --text \"One day, Mia was hungry.\"
  bolmo score --file book.txt --json
  bolmo score --ids ids.json --boundaries ends.json --dump tensors.safetensors
  bolmo score --file book.txt --quantize q4 --against f32

A text is scored with <bos> before it and a newline after it as lookahead; neither is counted.
Joint bits per byte include where patches end. Folded bits per byte don't; they see a little of
each next byte, and are not comparable with the bits per byte of a subword model.";

/// Options of `score`.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// What to score.
    #[command(flatten)]
    pub input: ScoreInput,
    /// JSON array of 0 and 1, one per byte or id: where patches end, instead of the predictor's decision
    #[arg(long, value_name = "FILE")]
    pub boundaries: Option<PathBuf>,
    /// Write every tensor of the forward pass to this file
    #[arg(long, value_name = "OUT.safetensors")]
    pub dump: Option<PathBuf>,
    /// Also score with another model and print the differences: the same folder in another format (f32), or another
    /// folder
    #[arg(long, value_name = "FORMAT|DIR", conflicts_with_all = ["boundaries", "dump"])]
    pub against: Option<OsString>,
}

/// What to score: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ScoreInput {
    /// Score this text
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub text: Option<OsString>,
    /// Score the bytes of this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Score the plain ids of this JSON array as they are; nothing is added
    #[arg(long, value_name = "FILE")]
    pub ids: Option<PathBuf>,
}
