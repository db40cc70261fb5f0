//! Checkpoint folders with random weights and a vocabulary of the right size, for tests and for benches at true size.
//!
//! The weights are drawn so that a random model behaves: activations stay of order one through any number of blocks,
//! so they are finite in f16 as well, and nothing saturates.

pub(crate) mod rng;
pub(crate) mod vocabulary;
mod weights;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::json;

use crate::checkpoint::DType;
use crate::checkpoint::output::{Target, write_json};
use crate::config::Config;
use crate::config::preset::Preset;
use crate::error::{Error, Result};

/// Choices of [`write_checkpoint`].
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Chooses the weights. The same seed gives the same weights, rounded to `dtype`, whatever the other options.
    pub seed: u64,
    /// Type of the stored weights.
    pub dtype: DType,
    /// Bytes of weights that one file holds at most, unless a single tensor is larger.
    pub max_shard_bytes: u64,
}

impl Default for InitOptions {
    /// Seed 0, f32, shards of 2 GiB.
    fn default() -> Self {
        InitOptions { seed: 0, dtype: DType::F32, max_shard_bytes: 2 << 30 }
    }
}

/// What [`write_checkpoint`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of the weights, headers not counted.
    pub bytes: u64,
    /// Weight files.
    pub shards: usize,
}

/// Writes a checkpoint folder `dir` of the preset's shape: configuration, a synthetic subword tokenizer and random
/// weights.
///
/// `dir` must not exist or be empty. The files are written to a hidden folder beside it, which takes its name at the
/// end, so that an interrupted run leaves nothing that looks like a checkpoint. `progress` gets the bytes of weights
/// written and their total, every few MiB; `false` cancels.
pub fn write_checkpoint(
    dir: &Path,
    preset: Preset,
    options: &InitOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<InitReport> {
    write_config(dir, &preset.config(), options, progress)
}

/// As [`write_checkpoint`], for any shape.
pub(crate) fn write_config(
    dir: &Path,
    config: &Config,
    options: &InitOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<InitReport> {
    if options.max_shard_bytes == 0 {
        return Err(Error::invalid("`max_shard_bytes` must be above 0"));
    }
    let target = Target::new(dir)?;
    let partial = target.begin()?;

    let mut config_json = config.to_json();
    config_json["dtype"] = json!(match options.dtype {
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::Q8 | DType::Q4 =>
            return Err(Error::invalid(format!("random weights can't be made in {}", options.dtype))),
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
