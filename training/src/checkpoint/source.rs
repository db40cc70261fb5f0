//! Source models: Hugging Face folders of OLMo 2, Olmo 3, Qwen 3 and Llama 3, whose blocks a byte-level model takes
//! over (docs/model.md, "Checkpoints and formats").

use std::path::Path;

use bolmo_runtime::files::TensorFolder;
use bolmo_runtime::unstable::{LocalParts, SourceConfig};
use bolmo_runtime::{Config, Error, Result};
use serde_json::Value;

use crate::parameters::TensorSource;

/// Sizes of a byte-level model's local parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalSizes {
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Number of mLSTM heads; 0 for the smallest number that fits.
    pub heads: usize,
    /// Inner width of the feed-forwards.
    pub intermediate_size: usize,
}

impl LocalSizes {
    /// Minimal sizes, for a source of which only the blocks are used.
    pub const BLOCKS_ONLY: Self = Self { encoder_layers: 1, decoder_layers: 1, heads: 0, intermediate_size: 32 };

    /// The smallest number of heads that divides half the hidden size into keys of at most 128 floats.
    fn fitting_heads(hidden_size: usize) -> usize {
        let half = hidden_size / 2;
        (2..=half).find(|heads| half.is_multiple_of(*heads) && half / heads <= 128).unwrap_or(2)
    }

    /// The configuration of a byte-level model with the blocks of `source` and local parts of these sizes.
    fn bolmo(self, source: &SourceConfig, subwords: usize, origin: &str) -> Result<Config> {
        let local = LocalParts {
            intermediate_size: self.intermediate_size,
            heads: if self.heads == 0 { Self::fitting_heads(source.hidden_size()) } else { self.heads },
            encoder_layers: self.encoder_layers,
            decoder_layers: self.decoder_layers,
            ..LocalParts::BOLMO
        };
        source.bolmo(local, subwords, origin)
    }

    /// Sizes of the published models for a hidden size: 1 and 4 layers, and feed-forwards of 11/8 of it.
    pub fn for_width(hidden_size: usize) -> Self {
        let intermediate_size = (hidden_size * 11 / 8).next_multiple_of(32);
        let LocalParts { encoder_layers, decoder_layers, heads, .. } = LocalParts::BOLMO;
        Self { encoder_layers, decoder_layers, heads, intermediate_size }
    }
}

/// A source model: its tensors, and the configuration of a byte-level model with its blocks.
#[derive(Debug)]
pub struct SourceModel {
    folder: TensorFolder,
    config: Config,
    vocabulary: usize,
    tied: bool,
    warnings: Vec<String>,
}

impl SourceModel {
    /// Opens the folder `dir` and reads headers, but no weights. `local` holds the sizes of the byte-level model's
    /// local parts, and `subwords` the number of rows in its suffix table.
    ///
    /// # Errors
    /// Those of [`TensorFolder::open`]; `Unsupported` for another kind of model, and `BadCheckpoint` for tensors that
    /// are missing or have another shape.
    pub fn open(dir: &Path, local: LocalSizes, subwords: Option<usize>) -> Result<Self> {
        Self::from_folder(TensorFolder::open(dir)?, local, subwords)
    }

    /// The same of an open folder.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_folder(folder: TensorFolder, local: LocalSizes, subwords: Option<usize>) -> Result<Self> {
        let origin = format!("{}/config.json", folder.origin());
        let source = SourceConfig::read(folder.config(), &origin)?;
        let config = local.bolmo(&source, subwords.unwrap_or(source.vocab_size), &origin)?;
        let SourceConfig { vocab_size, tied, warnings, .. } = source;
        let this = Self { folder, config, vocabulary: vocab_size, tied, warnings };
        this.check_tensors()?;
        Ok(this)
    }

    /// The configuration of a byte-level model with the blocks of a source's `config.json`.
    pub(crate) fn config_of(source: &Value, origin: &str, local: LocalSizes, subwords: usize) -> Result<Config> {
        local.bolmo(&SourceConfig::read(source, origin)?, subwords, origin)
    }

    /// Checks that all required tensors exist with the right shape.
    fn check_tensors(&self) -> Result<()> {
        let d = self.config.hidden_size;
        let mut wanted = vec![
            ("model.embed_tokens.weight".to_owned(), vec![self.vocabulary, d]),
            ("model.norm.weight".to_owned(), vec![d]),
        ];
        if !self.tied {
            wanted.push(("lm_head.weight".to_owned(), vec![self.vocabulary, d]));
        }
        let blocks = bolmo_runtime::layout::expected_tensors(&self.config).into_iter();
        wanted.extend(blocks.filter(|spec| spec.name.starts_with("model.layers.")).map(|spec| (spec.name, spec.shape)));
        for (name, shape) in wanted {
            match self.folder.shape(&name) {
                Some(found) if found == shape => {}
                Some(found) => {
                    return Err(Error::bad_checkpoint(format!(
                        "{}: tensor {name} must have the shape {shape:?} according to config.json, found {found:?}",
                        self.folder.origin()
                    )));
                }
                None => {
                    let reason = match name.as_str() {
                        "lm_head.weight" => "`tie_word_embeddings` of config.json is not true",
                        _ => "config.json requires it",
                    };
                    return Err(Error::bad_checkpoint(format!(
                        "{}: tensor {name} is missing, but {reason}",
                        self.folder.origin()
                    )));
                }
            }
        }
        Ok(())
    }

    /// Configuration of a byte-level model with these blocks.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of vocabulary rows.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Whether the head is the embedding.
    pub fn tied(&self) -> bool {
        self.tied
    }

    /// Non-fatal warnings about `config.json`.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Name of the folder.
    pub fn origin(&self) -> &str {
        self.folder.origin()
    }
}

impl TensorSource for SourceModel {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.folder.tensor(name)?;
        let mut values = vec![0.0; tensor.element_count() as usize];
        tensor.read_f32(0, &mut values)?;
        bolmo_runtime::files::check_finite(name, 0, &values, tensor.shape.last().copied().unwrap_or(1))?;
        Ok(values)
    }
}

impl TensorSource for bolmo_runtime::Checkpoint {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        let mut values = vec![0.0; tensor.element_count() as usize];
        tensor.read_f32(0, &mut values)?;
        bolmo_runtime::files::check_finite(name, 0, &values, tensor.shape.last().copied().unwrap_or(1))?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_fit_every_width() {
        for width in [8, 48, 64, 512, 1024, 2048, 4096, 5120] {
            let heads = LocalSizes::fitting_heads(width);
            assert!((width / 2).is_multiple_of(heads) && width / 2 / heads <= 128, "{width}: {heads}");
        }
    }
}
