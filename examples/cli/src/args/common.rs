//! Options of all commands.

use std::path::PathBuf;

use bolmo_runtime::{Formats, Products, RopeScaling};
use clap::Args;

use crate::numbers;

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
    #[arg(long, visible_alias = "tokenizer", value_name = "FILE", global = true)]
    pub subwords: Option<PathBuf>,
    /// Adapter to run on: a part of its name, its number in `bolmo devices`, `low-power`, `cpu` or `software`.
    ///
    /// By default the best GPU, else the CPU. `low-power` prefers an integrated GPU, then the CPU. `software` is a
    /// driver that emulates a GPU on the CPU: it is much slower than `cpu`, and meant for tests.
    #[arg(
        long,
        value_name = "NAME|INDEX|low-power|cpu|software",
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
    /// Arithmetic of products with matrices in q8 or q4 on the CPU: f32 or int8.
    ///
    /// int8 also rounds what is multiplied with the weights to 8 bits. It is faster, most of all for long prompts, and
    /// less exact; `bolmo score --against` measures what it costs.
    #[arg(long, value_name = "KIND", global = true, default_value = "f32", value_parser = numbers::products)]
    pub products: Products,
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

impl Common {
    /// The options without those that override what the checkpoint says: they are not stored in a new one.
    pub fn without_overrides(&self) -> Self {
        Self { rope_theta: None, rope_scaling: None, ..self.clone() }
    }
}
