//! Options of `bench`.

use std::path::PathBuf;

use clap::Args;

use crate::numbers;

/// Examples of `bench`.
pub const BENCH_EXAMPLES: &str = "\
Examples:
  bolmo bench                                             the built-in demo model
  bolmo init --preset mid --out mid-random
  bolmo bench --model mid-random --quantize q8 --bytes-per-patch 5 --save mid-q8.json
  bolmo bench --table runs/*.json

Patches end by a fixed schedule instead of the predictor's decisions, so random weights measure as
well as trained ones.
Times are wall times: don't run anything else on the machine.";

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Bytes of the prompt
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        allow_negative_numbers = true,
        value_parser = numbers::measured_bytes
    )]
    pub prompt_bytes: usize,
    /// Bytes that each session decodes
    #[arg(
        long,
        value_name = "N",
        default_value_t = 128,
        allow_negative_numbers = true,
        value_parser = numbers::measured_bytes
    )]
    pub decode_bytes: usize,
    /// Average bytes per patch
    #[arg(
        long,
        value_name = "R",
        default_value_t = 4.4,
        allow_negative_numbers = true,
        value_parser = numbers::bytes_per_patch
    )]
    pub bytes_per_patch: f64,
    /// Number of sessions that are decoded together
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true,
        value_parser = numbers::parallel
    )]
    pub parallel: usize,
    /// Number of repetitions
    #[arg(
        long,
        value_name = "N",
        default_value_t = 3,
        allow_negative_numbers = true,
        value_parser = numbers::at_least_one
    )]
    pub runs: usize,
    /// Measure training steps instead, over batches of --parallel examples of --prompt-bytes bytes
    #[arg(long, conflicts_with_all = ["decode_bytes"])]
    pub train: bool,
    /// Also write the JSON object to this file
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Measure nothing; print saved runs as the tables of BENCHMARKS.md
    #[arg(
        long,
        value_name = "FILES",
        num_args = 1..,
        conflicts_with_all = ["prompt_bytes", "decode_bytes", "bytes_per_patch", "parallel", "runs", "train", "save"]
    )]
    pub table: Vec<PathBuf>,
}
