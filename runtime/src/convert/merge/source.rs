//! The blocks of a model, for comparison with those of another.

use crate::config::source::SourceConfig;
use crate::config::{BlockType, Config, QkNorm};

/// Sizes and kind of a model's blocks, which determine whether the blocks of two models correspond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocks {
    /// Keys of `config.json` with their sizes.
    pub(crate) sizes: [(&'static str, usize); 6],
    /// Position of the norms.
    pub(crate) block_type: BlockType,
    /// Norm on queries and keys.
    pub(crate) qk_norm: QkNorm,
}

impl Blocks {
    /// The blocks of a source model.
    pub(crate) fn of_source(source: &SourceConfig) -> Self {
        let blocks = &source.blocks;
        let sizes = sizes(
            blocks.hidden_size,
            blocks.num_hidden_layers,
            blocks.num_attention_heads,
            blocks.num_key_value_heads,
            blocks.head_dim,
            blocks.intermediate_size,
        );
        Self { sizes, block_type: blocks.block_type, qk_norm: blocks.qk_norm }
    }

    /// Returns the global blocks of a Bolmo model.
    pub(crate) fn of_bolmo(config: &Config) -> Self {
        let sizes = sizes(
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.intermediate_size,
        );
        Self { sizes, block_type: config.block_type, qk_norm: config.qk_norm }
    }

    /// Describes the first difference from other blocks, if any: "`head_dim` is 64, not 128".
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let sizes = self.sizes.iter().zip(&other.sizes).find(|(this, that)| this != that);
        if let Some(((key, this), (_, that))) = sizes {
            return Some(format!("`{key}` is {this}, not {that}"));
        }
        if self.block_type != other.block_type || self.qk_norm != other.qk_norm {
            return Some(format!("its blocks have {}, not {}", self.kind(), other.kind()));
        }
        None
    }

    fn kind(&self) -> String {
        let norms = match self.block_type {
            BlockType::ReorderedNorm => "norms after attention and feed-forward",
            BlockType::PreNorm => "norms before attention and feed-forward",
        };
        let qk_norm = match self.qk_norm {
            QkNorm::None => "no norm",
            QkNorm::Whole => "one norm",
            QkNorm::PerHead => "one norm per head",
        };
        format!("{norms} and {qk_norm} on queries and keys")
    }
}

fn sizes(
    hidden_size: usize,
    layers: usize,
    heads: usize,
    key_value_heads: usize,
    head_dim: usize,
    inner: usize,
) -> [(&'static str, usize); 6] {
    [
        ("hidden_size", hidden_size),
        ("num_hidden_layers", layers),
        ("num_attention_heads", heads),
        ("num_key_value_heads", key_value_heads),
        ("head_dim", head_dim),
        ("intermediate_size", inner),
    ]
}
