//! Options of `train`.

use std::path::PathBuf;

use bolmo_training::run::Kind;
use clap::{Args, Subcommand, ValueEnum};

use crate::numbers;

/// Examples of `train`.
pub const TRAIN_EXAMPLES: &str = "\
Examples:
  bolmo train corpus --out texts --bytes 4000000
  bolmo train tokenizer texts/train.txt --vocabulary 1024 --out tokenizer
  bolmo train init subword --out subword.toml
  bolmo train subword --config subword.toml
  bolmo train stage1 --config stage1.toml --set optimiser.steps=2000
  bolmo train stage2 --config stage2.toml --resume

A run's folder gets metrics.jsonl, curves.svg, snapshots to resume from, and the final model.
Ctrl-C writes a snapshot and ends the run. A run that was killed resumes from its last snapshot
and gives the same model. A finished run continues with --resume and more `optimiser.steps`.";

/// The commands of training, in the order of work.
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Generate training texts: small stories, and puzzles about characters. Needs no GPU
    Corpus(CorpusArgs),
    /// Train a subword tokenizer on text files. Needs no GPU
    Tokenizer(TokenizerArgs),
    /// Write a commented configuration with every key and its default. Needs no GPU
    Init(TrainInitArgs),
    /// Train a subword model, from scratch or from a folder
    Subword(TrainArgs),
    /// First stage of byteifying: the blocks are frozen, the subword model is the teacher
    Stage1(TrainArgs),
    /// Second stage of byteifying: train the whole model, end to end
    Stage2(TrainArgs),
    /// Draw the curves of a run again
    Plot(PlotArgs),
}

/// Options of `train init`.
#[derive(Debug, Args)]
pub struct TrainInitArgs {
    /// Kind of training that the configuration is for
    #[arg(value_name = "STAGE", value_enum)]
    pub stage: Stage,
    /// File to write, a new one; default: standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Kind of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// A subword model
    Subword,
    /// First stage of byteifying
    Stage1,
    /// Second stage of byteifying
    Stage2,
}

impl From<Stage> for Kind {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Subword => Kind::Subword,
            Stage::Stage1 => Kind::Stage1,
            Stage::Stage2 => Kind::Stage2,
        }
    }
}

/// Options of a training run.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// TOML file that describes the run
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Override a key of the file, as in optimiser.steps=100; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Stage 2: bytes per patch to aim for, the same as --set compression.target=R
    #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = numbers::target_compression)]
    pub target_compression: Option<f64>,
    /// Continue from the run's last snapshot
    #[arg(long)]
    pub resume: bool,
}

/// Options of `train plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Folder of the run
    pub run: PathBuf,
}

/// Options of `train tokenizer`.
#[derive(Debug, Args)]
pub struct TokenizerArgs {
    /// Text files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Number of subwords, including all bytes and two special tokens
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1024,
        allow_negative_numbers = true,
        value_parser = numbers::at_least_one
    )]
    pub vocabulary: usize,
    /// Use prefixes of words as subwords instead of byte-pair encoding. A byte-level model can then predict exactly
    /// where the tokenizer cuts
    #[arg(long, visible_alias = "beginnings")]
    pub prefixes: bool,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Options of `train corpus`.
#[derive(Debug, Args)]
pub struct CorpusArgs {
    /// Folder to write, new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Bytes of training text
    #[arg(
        long,
        value_name = "N",
        default_value_t = 4_000_000,
        allow_negative_numbers = true,
        value_parser = numbers::at_least_one
    )]
    pub bytes: usize,
    /// Bytes of evaluation text, from other documents
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100_000,
        allow_negative_numbers = true,
        value_parser = numbers::at_least_one
    )]
    pub held_out_bytes: usize,
    /// Share of the text that is puzzles
    #[arg(long, value_name = "P", default_value_t = 0.3, allow_negative_numbers = true, value_parser = numbers::share)]
    pub puzzle_share: f32,
    /// Seed of the texts
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = numbers::seed)]
    pub seed: u64,
}
