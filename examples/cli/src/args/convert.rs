//! Options of the commands that write checkpoint folders: `init`, `quantize` and `merge`.

use std::path::PathBuf;

use bolmo_runtime::Preset;
use bolmo_runtime::files::DType;
use clap::Args;

use crate::numbers;

/// Examples of `init`.
pub const INIT_EXAMPLES: &str = "\
Examples:
  bolmo init --preset mid --out mid-random
  bolmo init --preset bolmo-1b --dtype bf16 --seed 7 --out bolmo-1b-random";

/// Options of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Model size: nano, demo, mid, bolmo-1b, bolmo-7b or bwen-8b
    #[arg(long, value_name = "NAME", value_parser = numbers::preset)]
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

/// Examples of `quantize`.
pub const QUANTIZE_EXAMPLES: &str = "\
Examples:
  bolmo quantize --model bolmo-1b --subwords dolma2 --quantize q8 --out bolmo-1b-q8
  bolmo quantize --model bolmo-1b --subwords dolma2 --quantize q4,local=q8 --out bolmo-1b-q4
  bolmo score --model bolmo-1b-q8 --file book.txt --against bolmo-1b

The last command prints how the quantized model differs. The folder gets the configuration, the
weights and the tokenizer of --subwords or --model. An earlier output in the same folder is
replaced: its bolmo-files.json lists the files. A folder with other files, or with files whose
length has changed, is rejected.";

/// Options of `quantize`.
#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// Folder to write: new, empty, or written by this command before
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Examples of `merge`.
pub const MERGE_EXAMPLES: &str = "\
Examples:
  bolmo merge --bolmo bolmo-7b --base olmo-3 --post-trained olmo-3-instruct --out instruct
  bolmo merge --bolmo bolmo-7b --base olmo-3 --post-trained olmo-3-think --alpha 0.5 --out mix

The global blocks and the final norm become bolmo + alpha * (post-trained - base); local layers,
byte embedding, boundary predictor and head stay. Base and post-trained are folders of OLMo 2 or
3, Qwen 3 or Llama models that differ in their weights only. Standard error gets a line per
tensor; with --json the list `tensors` has them.";

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
