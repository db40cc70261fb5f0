//! Options of `eval`.

use std::path::PathBuf;

use clap::Args;

use crate::numbers;

/// Examples of `eval`.
pub const EVAL_EXAMPLES: &str = "\
Examples:
  bolmo eval --text-file notes.txt                        bits per byte, document by document
  bolmo eval --suite --examples 50 --teacher olmo-2-1b    questions about characters
  bolmo eval --model runs/stage2/model --suite --plot suite.svg --json
  bolmo eval --text-file notes.txt --boundary-bias -1     what longer patches cost

Lines with <|endoftext|> and nothing else separate the documents of a file. The answers to the
suite's questions are generated greedily, and count if they match exactly.";

/// Options of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Text to measure bits per byte on
    #[arg(long, value_name = "FILE", required_unless_present = "suite")]
    pub text_file: Option<PathBuf>,
    /// Ask questions about characters: spell, contains, insert, delete, substitute, swap
    #[arg(long)]
    pub suite: bool,
    /// Number of questions of each kind
    #[arg(
        long,
        value_name = "N",
        default_value_t = 20,
        allow_negative_numbers = true,
        value_parser = numbers::examples
    )]
    pub examples: usize,
    /// Number of answered questions before each question
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true, value_parser = numbers::shots)]
    pub shots: usize,
    /// Seed of the questions
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = numbers::seed)]
    pub seed: u64,
    /// Decide by the head where patches end, as in generation, with this bias: above 0 makes patches shorter, below 0
    /// longer. By default the boundary predictor decides, which is faster
    #[arg(long, value_name = "X", allow_hyphen_values = true, value_parser = numbers::finite)]
    pub boundary_bias: Option<f32>,
    /// Folder of the subword model to measure too
    #[arg(long, value_name = "DIR")]
    pub teacher: Option<PathBuf>,
    /// Draw the suite's results to this SVG file
    #[arg(long, value_name = "FILE", requires = "suite")]
    pub plot: Option<PathBuf>,
}
