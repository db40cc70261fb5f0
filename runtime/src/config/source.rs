//! The `config.json` of a source model: a subword model whose blocks a Bolmo model takes over.

use serde_json::Value;

use crate::config::Config;
use crate::config::blocks::Blocks;
use crate::config::classes::{Class, LocalParts};
use crate::config::keys::{Absent, Keys};
use crate::config::overrides::Warnings;
use crate::config::special::{published_vocabulary, read_special_tokens};
use crate::error::Result;

/// The `config.json` of an OLMo 2, Olmo 3, Qwen 3 or Llama 3 model.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceConfig {
    pub(crate) blocks: Blocks,
    /// Number of subwords.
    pub vocab_size: usize,
    /// Whether the head is the token embedding.
    pub tied: bool,
    /// Values that are accepted but are likely mistakes.
    pub warnings: Vec<String>,
}

impl SourceConfig {
    /// Reads a `config.json`, which messages call `origin`.
    ///
    /// # Errors
    /// `BadCheckpoint` for impossible values, `Unsupported` for another kind of model or computation. The message names
    /// the key.
    pub fn read(config: &Value, origin: &str) -> Result<Self> {
        let keys = Keys::new(config, origin)?;
        let kind = keys.text("model_type")?.ok_or_else(|| keys.missing("model_type"))?;
        let class = Class::of_source(kind)
            .ok_or_else(|| keys.unsupported_value("model_type", "\"olmo2\", \"olmo3\", \"qwen3\" and \"llama\""))?;
        let mut absent = Absent::default();
        let mut warnings = Warnings::default();
        let blocks = Blocks::read(&keys, class, &mut absent, &mut warnings)?;
        let vocab_size = absent.integer(&keys, "vocab_size", class.vocab_size, (1, (1 << 24) - 1))?;
        let tied = keys.flag("tie_word_embeddings", false)?;
        Config::of_blocks(blocks.clone(), LocalParts::default()).warn_of_lost_scaling(&keys, &mut warnings);
        warnings.extend(absent.warning(&keys, class.name), None);
        Ok(Self { blocks, vocab_size, tied, warnings: warnings.into_texts() })
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        self.blocks.hidden_size
    }

    /// The configuration of a Bolmo model with these blocks and a suffix table of `subwords` rows.
    ///
    /// # Errors
    /// `Unsupported` if the kernels cannot compute it. `origin` names the source in the message.
    pub fn bolmo(&self, local: LocalParts, subwords: usize, origin: &str) -> Result<Config> {
        let tokenizer = published_vocabulary();
        let (special, special_tokens, byte_offset) = read_special_tokens(&Keys::new(&tokenizer, origin)?)?;
        let config = Config {
            subword_vocab_size: subwords,
            special,
            special_tokens,
            byte_offset,
            ..Config::of_blocks(self.blocks.clone(), local)
        };
        config.check_kernel_limits(origin)?;
        Ok(config)
    }
}
