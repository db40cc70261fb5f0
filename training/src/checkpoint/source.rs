//! Source models: Hugging Face folders of OLMo 2, Olmo 3, Qwen 3 and Llama 3, whose blocks a byte-level model takes
//! over (docs/model.md, "Checkpoints and formats").

use std::path::Path;

use bolmo_runtime::files::TensorFolder;
use bolmo_runtime::{Config, Error, Result};
use serde_json::{Map, Value, json};

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

    /// Sizes of the published models for a hidden size: 1 and 4 layers, and feed-forwards of 11/8 of it.
    pub fn for_width(hidden_size: usize) -> Self {
        let intermediate_size = (hidden_size * 11 / 8).next_multiple_of(32);
        Self { encoder_layers: 1, decoder_layers: 4, heads: 16, intermediate_size }
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

/// Keys of a source's configuration that a byte-level model shares.
const SHARED: [&str; 16] = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "max_position_embeddings",
    "attention_bias",
    "mlp_bias",
    "hidden_act",
];

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
        let source = folder.config();
        let vocabulary = source["vocab_size"].as_u64().filter(|&n| (1..1 << 24).contains(&n)).ok_or_else(|| {
            Error::bad_checkpoint(format!("{origin}: `vocab_size` must be a whole number between 1 and 16777215"))
        })? as usize;
        let tied = match &source["tie_word_embeddings"] {
            Value::Bool(tied) => *tied,
            _ => folder.shape("lm_head.weight").is_none(),
        };
        let (config, warnings) = Self::config_of(source, &origin, local, subwords.unwrap_or(vocabulary))?;
        let this = Self { folder, config, vocabulary, tied, warnings };
        this.check_tensors()?;
        Ok(this)
    }

    /// The configuration of a byte-level model with the blocks of a source's `config.json`, and warnings.
    pub(crate) fn config_of(
        source: &Value,
        origin: &str,
        local: LocalSizes,
        subwords: usize,
    ) -> Result<(Config, Vec<String>)> {
        let kind = source["model_type"].as_str().unwrap_or_default();
        let (block_type, qk_norm, head_qk_norm) = match kind {
            "olmo2" | "olmo3" => ("reordered_norm", true, false),
            "qwen3" => ("default", true, true),
            "llama" => ("default", false, false),
            other => {
                return Err(Error::unsupported(format!(
                    "{origin}: `model_type` is {other:?}, which is not supported; use an olmo2, olmo3, qwen3 or \
                     llama model"
                )));
            }
        };
        if source["use_sliding_window"] == json!(true) && !source["layer_types"].is_array() {
            return Err(Error::unsupported(format!(
                "{origin}: `use_sliding_window` is set, but `layer_types` is missing; add it to say which layers slide"
            )));
        }
        let heads = match local.heads {
            0 => LocalSizes::fitting_heads(source["hidden_size"].as_u64().unwrap_or(0).min(1 << 20) as usize),
            heads => heads,
        };
        let mut json = Map::new();
        for key in SHARED {
            if let Some(value) = source.get(key) {
                json.insert(key.to_owned(), value.clone());
            }
        }
        // Newer converters store the base of the frequencies with their scaling.
        if json.get("rope_theta").is_none() {
            let nested = ["rope_parameters", "rope_scaling"].iter().find_map(|key| source[*key].get("rope_theta"));
            if let Some(theta) = nested {
                json.insert("rope_theta".to_owned(), theta.clone());
            }
        }
        let Value::Object(ours) = json!({
            "model_type": "bolmo",
            "vocab_size": 520,
            "local_rms_norm_eps": 1e-5,
            "num_local_encoder_layers": local.encoder_layers,
            "num_local_decoder_layers": local.decoder_layers,
            "num_local_heads": heads,
            "local_intermediate_size": local.intermediate_size,
            "subword_vocab_size": subwords,
            "add_expanded_embeddings": true,
            "boundary_predictor_lookahead": 1,
            "boundary_threshold": "sample:0",
            "block_type": block_type,
            "use_qk_norm": qk_norm,
            "use_head_qk_norm": head_qk_norm,
            "tie_word_embeddings": false,
            "tokenizer_config": {
                "bos_token_id": 1,
                "bpe_token_end_id": 3,
                "eos_token_id": 1,
                "pad_token_id": 0,
                "special_tokens": ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"],
                "special_tokens_first": true,
                "vocab_size": 520,
            },
        }) else {
            return Err(Error::internal("a configuration is not a JSON object"));
        };
        json.extend(ours);
        let text = Value::Object(json).to_string();
        Config::from_json(text.as_bytes(), origin)
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
                    return Err(Error::bad_checkpoint(format!(
                        "{}: tensor {name} is missing, but config.json requires it",
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
