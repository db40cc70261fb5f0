//! Random checkpoints: folders with random weights and a synthetic vocabulary, for tests and benchmarks of any size.
//!
//! The distribution of the weights keeps activations of order one through any number of blocks, so that they are finite
//! in f16, too, and nothing saturates.

pub(crate) mod rng;
pub(crate) mod vocabulary;
mod weights;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::json;

use crate::checkpoint::DType;
use crate::checkpoint::layout::{TensorSpec, expected_tensors};
use crate::checkpoint::output::{Replaces, Target, write_json};
use crate::config::Config;
use crate::config::preset::Preset;
use crate::error::{Error, Result};

/// Options of [`write_checkpoint`].
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Seed of the weights. Equal seeds give equal weights, rounded to `dtype`, independent of the other options.
    pub seed: u64,
    /// Type of the stored weights.
    pub dtype: DType,
    /// Maximum size of the weights in one file in bytes; a single tensor may be larger.
    pub max_shard_bytes: u64,
}

impl Default for InitOptions {
    /// Seed 0, f32, shards of 2 GiB.
    fn default() -> Self {
        InitOptions { seed: 0, dtype: DType::F32, max_shard_bytes: 2 << 30 }
    }
}

impl InitOptions {
    /// Sets the seed of the weights.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Sets the type of the stored weights.
    pub fn dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Sets the maximum size of the weights in one file.
    pub fn max_shard_bytes(self, max_shard_bytes: u64) -> Self {
        Self { max_shard_bytes, ..self }
    }
}

/// The result of [`write_checkpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Number of parameters of the model.
    pub parameters: u64,
    /// Size of the weights in bytes, without headers.
    pub bytes: u64,
    /// Number of weight files.
    pub shards: usize,
}

/// Writes the checkpoint folder `dir` of a preset: configuration, a synthetic subword tokenizer and random weights.
///
/// `dir` must not exist or be empty. The files are written to a hidden folder beside it, which is renamed at the end,
/// so that an interrupted run leaves nothing that looks like a checkpoint. `progress` receives the number of bytes of
/// weights that are written and their total, every few MiB; returning `false` cancels.
///
/// # Errors
/// `InvalidArgument` for a folder with files in it and for options out of range; `Io`, also if there is too little free
/// space; `Busy` while another run writes into the folder; `Cancelled`.
pub fn write_checkpoint(
    dir: impl AsRef<Path>,
    preset: Preset,
    options: &InitOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<InitReport> {
    write_config(dir.as_ref(), &preset.config(), options, progress)
}

/// Writes a random checkpoint of any shape, as [`write_checkpoint`] does for a preset.
pub(crate) fn write_config(
    dir: &Path,
    config: &Config,
    options: &InitOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<InitReport> {
    if options.max_shard_bytes == 0 {
        return Err(Error::invalid("`max_shard_bytes` must be above 0"));
    }
    let target = Target::new(dir, Replaces::Nothing)?;
    let parameters = expected_tensors(config).iter().map(TensorSpec::element_count).sum();
    let partial = target.begin(options.dtype.bytes(parameters))?;

    let mut config_json = config.to_json();
    config_json["dtype"] = json!(match options.dtype {
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::Q8 | DType::Q4 =>
            return Err(Error::invalid(format!(
                "random weights cannot be stored as {}; use F32, F16 or BF16",
                options.dtype
            ))),
    });
    write_json(&partial.path.join("config.json"), &config_json)?;
    let generation = json!({
        "_from_model_config": true,
        "bos_token_id": config.special.bos,
        "eos_token_id": config.special.eos,
        "pad_token_id": config.special.pad,
        "transformers_version": "4.57.3",
    });
    write_json(&partial.path.join("generation_config.json"), &generation)?;
    if config.subword_vocab_size > 0 {
        let (tokenizer, tokenizer_config) = vocabulary::tokenizer(config.subword_vocab_size)?;
        write_json(&partial.path.join("tokenizer.json"), &tokenizer)?;
        write_json(&partial.path.join("tokenizer_config.json"), &tokenizer_config)?;
    }
    let report = weights::write(&partial.path, config, options, progress)?;

    target.finish(partial)?;
    Ok(report)
}
