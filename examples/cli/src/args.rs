//! The command line: every option of every command, with its range.

use std::ffi::OsString;
use std::path::PathBuf;

use bolmo_runtime::Formats;
use bolmo_runtime::Preset;
use bolmo_runtime::RopeScaling;
use bolmo_runtime::files::DType;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::numbers;

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
  bolmo generate \"import os\"                              the built-in demo model continues a text
  bolmo generate --model bolmo-1b --temperature 0.8 \"Once upon a time\"
  bolmo score --model bolmo-1b --file book.txt            bits per byte
  bolmo info --model bolmo-1b                             sizes and memory
  bolmo devices                                           the device that would be used

Exit status: 0 success, 1 the command failed, 2 wrong usage.";

/// Options of all commands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// Checkpoint folder; the built-in demo model if not given
    #[arg(long, value_name = "DIR", global = true)]
    pub model: Option<PathBuf>,
    /// The source model's tokenizer.json, or its folder, if the checkpoint folder has none.
    ///
    /// A tokenizer_config.json beside it names its eos, bos and pad tokens.
    #[arg(long, value_name = "FILE", global = true)]
    pub subwords: Option<PathBuf>,
    /// Adapter to run on: a part of its name, its number in `bolmo devices`, `cpu` or `software`.
    ///
    /// By default the best GPU, else the CPU. `software` is a driver that plays a GPU on the CPU: it is much slower
    /// than `cpu`, and meant for tests.
    #[arg(
        long,
        value_name = "NAME|INDEX|cpu|software",
        global = true,
        default_value = "auto",
        hide_default_value = true,
        value_parser = numbers::adapter
    )]
    pub adapter: String,
    /// Threads to compute with on the CPU; by default one for each physical core, or BOLMO_THREADS
    #[arg(long, value_name = "N", global = true, allow_negative_numbers = true, value_parser = numbers::threads)]
    pub threads: Option<usize>,
    /// Format of matrices on the adapter: f32, f16, q8 or q4; parts may differ, as in q4,local=q8.
    ///
    /// Default: the format of a folder that `bolmo quantize` wrote, else f32. f32 is exact, f16 takes half the memory,
    /// q8 a little more than a quarter, q4 about a seventh. The parts are `local` (runs once per byte), `global` (runs
    /// once per patch) and `embeddings`.
    #[arg(long, value_name = "FORMAT", global = true, value_parser = numbers::formats)]
    pub quantize: Option<Formats>,
    /// Base of the rotary frequencies, instead of the checkpoint's
    #[arg(long, value_name = "X", global = true, allow_negative_numbers = true, value_parser = numbers::rope_theta)]
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies, instead of the checkpoint's: none, or yarn:factor=8,original=8192
    ///
    /// A kind (linear, llama3 or yarn) and its values, with the keys of `rope_scaling` in config.json; `original` is
    /// short for `original_max_position_embeddings`. Or the JSON object itself.
    #[arg(long, value_name = "SCALING", global = true, value_parser = numbers::rope_scaling)]
    pub rope_scaling: Option<RopeScaling>,
    /// Print one JSON object and nothing else on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no progress, statistics or warnings on standard error
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Continue a text: bytes go to standard output as they are generated
    #[command(after_help = GENERATE_EXAMPLES)]
    Generate(GenerateArgs),
    /// Score a text: bits per byte, patches
    #[command(after_help = SCORE_EXAMPLES)]
    Score(ScoreArgs),
    /// Describe a checkpoint: sizes, parameters, memory. Needs no GPU
    Info,
    /// List the adapters, and the one that would be used
    Devices,
    /// Write a checkpoint folder with random weights, for tests and benchmarks at full size
    #[command(after_help = INIT_EXAMPLES)]
    Init(InitArgs),
    /// Write a checkpoint folder with quantized weights, which loads without conversion. Needs no GPU
    #[command(after_help = QUANTIZE_EXAMPLES)]
    Quantize(QuantizeArgs),
    /// Add a subword model's post-training to the Bolmo model that was made from it. Needs no GPU
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Measure a model on a text and on questions about characters, optionally beside its source model
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(EvalArgs),
    /// Train a subword model, or make a byte-level model from one in two stages
    #[command(subcommand, after_help = TRAIN_EXAMPLES)]
    Train(TrainCommand),
    /// Measure prefill and decoding speed beside the limits of the adapter
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(BenchArgs),
}

const GENERATE_EXAMPLES: &str = "\
Examples:
  bolmo generate \"def main(\" --max-bytes 100 --show-patches
  bolmo generate --prompt-file notes.txt --temperature 0.7 --top-p 0.9 --seed 1
  git diff | bolmo generate --prompt-file - --stop \"diff --git\"
  bolmo generate \"yes or no? \" --max-bytes 1 --logit-bias y=5 --logit-bias 0x0a=-100

With --regex or --json-schema the output matches as a whole, if --max-bytes leaves room for a match.
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
    /// Above 0 makes patches shorter, below 0 longer; counts as -1000 at least and 1000 at most
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true, value_parser = numbers::finite)]
    pub boundary_bias: f32,
    /// Make a byte more (above 0, at most 1000) or less probable; BYTE is a character or 0xNN; may be repeated
    #[arg(long, value_name = "BYTE=X", allow_hyphen_values = true, value_parser = numbers::byte_bias)]
    pub logit_bias: Vec<(u8, f32)>,
    /// Show where patches end. With --json the ids show it already
    #[arg(long)]
    pub show_patches: bool,
    /// Colors of --show-patches; auto colors terminals and respects NO_COLOR and CLICOLOR_FORCE
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Color::Auto)]
    pub color: Color,
    /// Don't put the begin-of-text id before the prompt
    #[arg(long)]
    pub no_bos: bool,
}

/// The prompt: exactly one of these.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct PromptInput {
    /// The text to continue
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

const SCORE_EXAMPLES: &str = "\
Examples:
  bolmo score --text \"def main():\"
  bolmo score --file book.txt --json
  bolmo score --ids ids.json --boundaries ends.json --dump tensors.safetensors
  bolmo score --file book.txt --quantize q4 --against f32

A text is scored with <bos> before it and a newline after it as lookahead; neither is counted.
Joint bits per byte include where patches end. Folded bits per byte don't; they see a little of each
next byte, and are not comparable with the bits per byte of a subword model.";

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

const INIT_EXAMPLES: &str = "\
Examples:
  bolmo init --preset mid --out mid-random
  bolmo init --preset bolmo-1b --dtype bf16 --seed 7 --out bolmo-1b-random";

/// Options of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Model size: nano, demo, mid, bolmo-1b, bolmo-7b or bwen-8b
    #[arg(long, value_name = "NAME")]
    pub preset: Preset,
    /// Folder to write, new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the weights
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true, value_parser = numbers::seed)]
    pub seed: u64,
    /// Type of the stored weights: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub dtype: DType,
}

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  bolmo quantize --model bolmo-1b --quantize q8 --out bolmo-1b-q8
  bolmo quantize --model bolmo-1b --quantize q4,local=q8 --out bolmo-1b-q4
  bolmo score --model bolmo-1b-q8 --file book.txt --against bolmo-1b

The last command prints how the quantized model differs. The folder gets the configuration, the weights and, if
--model has one, the tokenizer.json. An earlier output in the same folder is replaced; a folder with other files is
rejected.";

/// Options of `quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// Folder to write: new, empty, or written by this command before
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

const MERGE_EXAMPLES: &str = "\
Examples:
  bolmo merge --bolmo bolmo-7b --base olmo-3-7b --post-trained olmo-3-7b-instruct --out bolmo-7b-instruct
  bolmo merge --bolmo bolmo-7b --base olmo-3-7b --post-trained olmo-3-7b-think --alpha 0.5 --embeddings --out mix

The global blocks and the final norm become bolmo + alpha * (post-trained - base); local layers, byte embedding,
boundary predictor and head stay. Base and post-trained are folders of OLMo 2 or 3, Qwen 3 or Llama models that
differ in their weights only. Standard error gets a line per tensor; with --json the list `tensors` has them.";

/// Options of `merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Folder of the Bolmo model
    #[arg(long, value_name = "DIR")]
    pub bolmo: PathBuf,
    /// Folder of the subword model that it was made from
    #[arg(long, value_name = "DIR")]
    pub base: PathBuf,
    /// Folder of a model that was trained from the base model
    #[arg(long, value_name = "DIR")]
    pub post_trained: PathBuf,
    /// Factor of the difference between the two
    #[arg(long, value_name = "X", default_value_t = 1.0, allow_negative_numbers = true, value_parser = numbers::finite)]
    pub alpha: f32,
    /// Change the suffix table too, by the difference of the token embeddings
    #[arg(long)]
    pub embeddings: bool,
    /// Folder to write, new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

const EVAL_EXAMPLES: &str = "\
Examples:
  bolmo eval --text-file notes.txt                        bits per byte, document by document
  bolmo eval --suite --examples 50 --teacher olmo-2-1b    questions about characters
  bolmo eval --model runs/stage2/model --suite --plot suite.svg --json

Lines that say <|endoftext|> separate the documents of a file. The answers to the suite's questions are generated
greedily, and count if they match exactly.";

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
    /// Folder of the subword model to measure too
    #[arg(long, value_name = "DIR")]
    pub teacher: Option<PathBuf>,
    /// Draw the suite's results to this SVG file
    #[arg(long, value_name = "FILE", requires = "suite")]
    pub plot: Option<PathBuf>,
}

const TRAIN_EXAMPLES: &str = "\
Examples:
  bolmo train corpus --out texts --bytes 4000000
  bolmo train tokenizer texts/train.txt --vocabulary 1024 --out tokenizer
  bolmo train subword --config subword.toml
  bolmo train stage1 --config stage1.toml --set optimiser.steps=2000
  bolmo train stage2 --config stage2.toml --resume

A run's folder gets metrics.jsonl, curves.svg, snapshots to resume from, and the final model. Ctrl-C writes a snapshot
and ends the run. A run that was killed resumes from its last snapshot and gives the same model.";

/// Kinds of training, and the commands that prepare it.
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train a subword model, from scratch or from a folder
    Subword(TrainArgs),
    /// First stage of byteifying: the blocks are frozen, the subword model is the teacher
    Stage1(TrainArgs),
    /// Second stage of byteifying: train the whole model, end to end
    Stage2(TrainArgs),
    /// Draw the curves of a run again
    Plot(PlotArgs),
    /// Train a subword tokenizer on text files. Needs no GPU
    Tokenizer(TokenizerArgs),
    /// Generate training texts: small stories, and puzzles about characters. Needs no GPU
    Corpus(CorpusArgs),
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

const BENCH_EXAMPLES: &str = "\
Examples:
  bolmo bench                                             the built-in demo model
  bolmo init --preset mid --out mid-random
  bolmo bench --model mid-random --quantize q8 --bytes-per-patch 5 --save mid-q8.json
  bolmo bench --table runs/*.json

Patches end by a fixed schedule instead of the predictor's decisions, so random weights measure as well as trained ones.
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

/// A usage error of the command `name`, in clap's format.
pub fn usage_error(name: &str, message: &str) -> clap::Error {
    let mut root = Cli::command();
    root.build();
    let command = match root.find_subcommand(name) {
        Some(found) => found.clone(),
        None => root,
    };
    command.clone().error(clap::error::ErrorKind::ValueValidation, message)
}
