//! Options of `generate`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::numbers;

/// Examples of `generate`.
pub const GENERATE_EXAMPLES: &str = "\
Examples:
  bolmo generate \"One day, \" --max-bytes 100 --show-patches
  bolmo generate --prompt-file notes.txt --temperature 0.7 --top-p 0.9 --seed 1
  git diff | bolmo generate --model bolmo-1b --stop \"diff --git\"
  bolmo generate \"yes or no? \" --max-bytes 1 --logit-bias y=5 --logit-bias 0x0a=-100

Without a prompt, standard input is read if it is a pipe or a file.
With --regex or --json-schema the output matches as a whole, if --max-bytes leaves room for a
match. A text that does not match ends with exit status 3.
Ctrl-C ends the generation and keeps the text so far; a second Ctrl-C ends the program.";

/// Options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// The prompt.
    #[command(flatten)]
    pub input: PromptInput,
    /// Maximum number of bytes to generate
    #[arg(
        long,
        value_name = "N",
        default_value_t = 256,
        allow_negative_numbers = true,
        value_parser = numbers::at_least_one
    )]
    pub max_bytes: usize,
    /// 0 chooses the most probable id; higher values sample more freely
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true,
        value_parser = numbers::zero_or_above
    )]
    pub temperature: f32,
    /// Sample from the N most probable bytes; 0 is off
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = numbers::whole)]
    pub top_k: usize,
    /// Sample from the most probable bytes whose probabilities add up to P; 1 is off
    #[arg(
        long,
        value_name = "P",
        default_value_t = 1.0,
        allow_negative_numbers = true,
        value_parser = numbers::share_above_zero
    )]
    pub top_p: f32,
    /// Sample from bytes with at least P times the probability of the most probable one; 0 is off
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true, value_parser = numbers::share)]
    pub min_p: f32,
    /// Above 1 makes recent bytes less probable; 1 is off
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        allow_negative_numbers = true,
        value_parser = numbers::above_zero
    )]
    pub repetition_penalty: f32,
    /// Number of last bytes that count as recent
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true, value_parser = numbers::whole)]
    pub repetition_window: usize,
    /// Seed of the random numbers; the same seed gives the same bytes
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = numbers::seed)]
    pub seed: u64,
    /// End before this string; may be repeated
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    pub stop: Vec<OsString>,
    /// The whole output must match this regular expression, in the syntax of Rust's `regex` crate
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, conflicts_with = "json_schema")]
    pub regex: Option<String>,
    /// The output must be a JSON document that is valid against the JSON schema in this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub json_schema: Option<PathBuf>,
    /// Above 0 makes patches shorter, below 0 longer; clamped to -1000..1000
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_hyphen_values = true, value_parser = numbers::finite)]
    pub boundary_bias: f32,
    /// Make a byte more (above 0, at most 1000) or less probable; BYTE is a character or 0xNN; may be repeated
    #[arg(long, value_name = "BYTE=X", allow_hyphen_values = true, value_parser = numbers::byte_bias)]
    pub logit_bias: Vec<(u8, f32)>,
    /// Print the prompt before the text. With --json the prompt's ids show it already
    #[arg(long)]
    pub echo: bool,
    /// Show where patches end. With --json the ids show it already
    #[arg(long)]
    pub show_patches: bool,
    /// Colors of --show-patches; auto colors terminals and respects NO_COLOR and CLICOLOR_FORCE
    #[arg(long, value_name = "WHEN", value_enum, ignore_case = true, default_value_t = Color::Auto)]
    pub color: Color,
    /// Don't put the begin-of-text id before the prompt
    #[arg(long)]
    pub no_bos: bool,
}

/// The prompt: one of these, or a pipe or a file as standard input.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct PromptInput {
    /// The text to continue; `-` reads standard input, which is also the default if it is a pipe or a file
    #[arg(value_name = "PROMPT")]
    pub prompt: Option<OsString>,
    /// Read the prompt from a file, any bytes; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub prompt_file: Option<PathBuf>,
}

/// When to use colors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}
