//! Checkpoint folders with random weights and a vocabulary of the right size, for tests and for benches at true size.
//!
//! The weights are drawn so that a random model behaves: activations stay of order one through any number of blocks,
//! so they are finite in f16 as well, and nothing saturates.

mod preset;
mod random;
mod vocabulary;
mod weights;

#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use preset::Preset;

use crate::checkpoint::DType;
use crate::config::Config;
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
    let target = resolve(dir)?;
    let exists = check_target(&target)?;
    let partial = PartialFolder::beside(&target)?;

    let mut config_json = config.to_json();
    config_json["dtype"] = json!(match options.dtype {
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
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

    if exists {
        // Some systems don't rename onto a folder, even an empty one.
        fs::remove_dir(&target).map_err(|e| io_error(&target, "cannot be replaced", &e))?;
    }
    partial.rename_to(&target)?;
    Ok(report)
}

/// `dir` with a last component that is a name, which `.` and `..` have not.
fn resolve(dir: &Path) -> Result<PathBuf> {
    if dir.file_name().is_some() {
        return Ok(dir.to_owned());
    }
    let full = fs::canonicalize(dir).map_err(|e| io_error(dir, "cannot be resolved", &e))?;
    match full.file_name() {
        Some(_) => Ok(full),
        None => Err(Error::invalid(format!("{}: is not a name for a new folder", dir.display()))),
    }
}

/// Whether the target is there, which is only allowed for an empty folder.
fn check_target(target: &Path) -> Result<bool> {
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(true),
            Some(_) => Err(Error::invalid(format!(
                "{}: is a folder with files in it; name a new folder or an empty one",
                target.display()
            ))),
        },
        Err(e) if e.kind() == IoKind::NotFound => Ok(false),
        Err(e) if e.kind() == IoKind::NotADirectory => {
            Err(Error::invalid(format!("{}: is a file; name a new folder or an empty one", target.display())))
        }
        Err(e) => Err(io_error(target, "cannot be examined", &e)),
    }
}

/// The folder under construction; removed with its contents unless it was renamed.
struct PartialFolder {
    path: PathBuf,
    armed: bool,
}

impl PartialFolder {
    fn beside(target: &Path) -> Result<Self> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let parent = target.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty() {
            fs::create_dir_all(parent).map_err(|e| io_error(parent, "cannot be made", &e))?;
        }
        // Making a folder fails if it exists, so two runs never share one.
        let mut attempt = 0;
        loop {
            let path = parent.join(format!(".{name}.partial-{attempt}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(PartialFolder { path, armed: true }),
                Err(e) if e.kind() == IoKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(e) => return Err(io_error(&path, "cannot be made", &e)),
            }
        }
    }

    fn rename_to(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).map_err(|e| io_error(target, "cannot be given to the finished folder", &e))?;
        self.armed = false;
        Ok(())
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if self.armed {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal(format!("{}: cannot be encoded: {e}", path.display())))?;
    text.push('\n');
    fs::write(path, text).map_err(|e| io_error(path, "cannot be written", &e))
}

fn io_error(path: &Path, what: &str, error: &std::io::Error) -> Error {
    Error::io(format!("{}: {what}: {error}", path.display()))
}
