//! The command line: every option of every command, with its range.

mod bench;
mod common;
mod convert;
mod eval;
mod generate;
mod score;
mod setup;
mod train;
mod uses;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

pub use bench::BenchArgs;
pub use common::Common;
pub use convert::{InitArgs, MergeArgs, QuantizeArgs};
pub use eval::EvalArgs;
pub use generate::{Color, GenerateArgs, PromptInput};
pub use score::{ScoreArgs, ScoreInput};
pub use setup::{CompletionsArgs, ManArgs};
pub use train::{CorpusArgs, PlotArgs, TokenizerArgs, TrainArgs, TrainCommand, TrainInitArgs};

/// Byte-level language models on any GPU, and on CPUs.
///
/// Bolmo models read and write bytes. A small part of the model groups the bytes into patches; a large part runs once
/// per patch instead of once per byte.
#[derive(Debug, Parser)]
#[command(name = "bolmo", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bolmo generate \"One day, \"                              the built-in demo model continues a text
  bolmo generate --model bolmo-1b --temperature 0.8 \"Once upon a time\"
  bolmo score --model bolmo-1b --file book.txt            bits per byte
  bolmo info --model bolmo-1b                             sizes and memory
  bolmo devices                                           the device that would be used

Exit status: 0 success, 1 the command failed, 2 wrong usage, 3 a text that does not match its
constraint, 130 interrupted by Ctrl-C (143 by SIGTERM, 129 by SIGHUP); the partial result is
saved.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text: bytes go to standard output as they are generated
    #[command(after_help = generate::GENERATE_EXAMPLES)]
    Generate(GenerateArgs),
    /// Score a text: bits per byte, patches
    #[command(after_help = score::SCORE_EXAMPLES)]
    Score(ScoreArgs),
    /// Describe a checkpoint: sizes, parameters, memory. Needs no GPU
    Info,
    /// List the adapters, and the one that would be used
    Devices,
    /// Write a checkpoint folder with random weights, for tests and benchmarks at full size
    #[command(after_help = convert::INIT_EXAMPLES)]
    Init(InitArgs),
    /// Write a checkpoint folder with quantized weights, which loads without conversion. Needs no GPU
    #[command(after_help = convert::QUANTIZE_EXAMPLES)]
    Quantize(QuantizeArgs),
    /// Add a subword model's post-training to the Bolmo model that was made from it. Needs no GPU
    #[command(after_help = convert::MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Measure a model on a text and on questions about characters, optionally beside its source model
    #[command(after_help = eval::EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Train a subword model, or make a byte-level model from one in two stages
    #[command(subcommand, after_help = train::TRAIN_EXAMPLES)]
    Train(TrainCommand),
    /// Measure prefill and decoding speed beside the limits of the adapter
    #[command(after_help = bench::BENCH_EXAMPLES)]
    Bench(BenchArgs),
    /// Print the completions of a shell
    #[command(after_help = setup::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Write the manual pages to a folder, one for each command
    #[command(hide = true)]
    Man(ManArgs),
}
/// The command line as clap has it.
pub fn command() -> clap::Command {
    uses::hide_unused(Cli::command())
}

/// The command line of this process, and a sentence about each of its options that does nothing. Wrong usage ends the
/// process.
pub fn parse() -> (Cli, Vec<String>) {
    let root = command();
    let matches = root.clone().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command()).exit());
    (cli, uses::ignored(&root, &matches))
}

/// A usage error of the command `name`, in clap's format.
pub fn usage_error(name: &str, message: &str) -> clap::Error {
    let mut root = command();
    root.build();
    let command = match root.find_subcommand(name) {
        Some(found) => found.clone(),
        None => root,
    };
    command.clone().error(clap::error::ErrorKind::ValueValidation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// clap breaks lines at 100 columns.
    #[test]
    fn help_texts_are_not_broken_twice() {
        let check = |command: &clap::Command| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in text.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
        };
        let root = command();
        check(&root);
        root.get_subcommands().for_each(check);
    }
}
