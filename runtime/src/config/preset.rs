//! Named shapes of models, for random checkpoints.

use std::fmt;
use std::str::FromStr;

use crate::config::{BYTE_VOCABULARY, BlockType, Config, LayerType, QkNorm, RopeScaling, SpecialIds};
use crate::error::{Error, Result};

/// A named shape of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 0.3 M parameters, for tests that run on anything.
    Nano,
    /// 1.8 M parameters: the size of a demo that trains in minutes.
    Demo,
    /// 199 M parameters, 182 M of them outside the suffix table: large enough to time, small enough for software
    /// adapters.
    Mid,
    /// Bolmo-1B: 1.47 G parameters.
    Bolmo1b,
    /// Bolmo-7B: 7.63 G parameters, sliding windows and YaRN.
    Bolmo7b,
    /// Bwen-8B: the global blocks of Qwen3-8B, pre-norm with a norm per head.
    Bwen8b,
}

impl Preset {
    /// All presets, from small to large.
    pub const ALL: [Preset; 6] =
        [Preset::Nano, Preset::Demo, Preset::Mid, Preset::Bolmo1b, Preset::Bolmo7b, Preset::Bwen8b];

    /// Returns the configuration of the preset.
    pub fn config(self) -> Config {
        match self {
            Preset::Nano => Config {
                subword_vocab_size: 811,
                max_position_embeddings: 65_536,
                sliding_window: 4096,
                ..sized(Sizes {
                    hidden: 64,
                    layers: 2,
                    heads: 4,
                    inner: 128,
                    local: (1, 2),
                    local_heads: 2,
                    local_inner: 96,
                })
            },
            Preset::Demo => Config {
                subword_vocab_size: 2048,
                ..sized(Sizes {
                    hidden: 128,
                    layers: 4,
                    heads: 4,
                    inner: 384,
                    local: (1, 2),
                    local_heads: 4,
                    local_inner: 256,
                })
            },
            Preset::Mid => Config {
                subword_vocab_size: 16_384,
                ..sized(Sizes {
                    hidden: 1024,
                    layers: 8,
                    heads: 16,
                    inner: 4096,
                    local: (1, 4),
                    local_heads: 16,
                    local_inner: 1408,
                })
            },
            Preset::Bolmo1b => Config {
                subword_vocab_size: 100_278,
                ..sized(Sizes {
                    hidden: 2048,
                    layers: 16,
                    heads: 16,
                    inner: 8192,
                    local: (1, 4),
                    local_heads: 16,
                    local_inner: 2816,
                })
            },
            Preset::Bolmo7b => Config {
                subword_vocab_size: 100_278,
                max_position_embeddings: 65_536,
                sliding_window: 4096,
                // Every fourth layer has full attention.
                layer_types: (1..=32).map(|i| if i % 4 == 0 { LayerType::Full } else { LayerType::Sliding }).collect(),
                rope_scaling: RopeScaling::Yarn {
                    factor: 8.0,
                    beta_fast: 32.0,
                    beta_slow: 1.0,
                    original_max_position_embeddings: 8192,
                    attention_factor: 1.2079441541679836,
                    truncate: true,
                },
                ..sized(Sizes { inner: 11_008, ..LOCAL_OF_7B })
            },
            Preset::Bwen8b => Config {
                subword_vocab_size: 151_669,
                num_key_value_heads: 8,
                rope_theta: 1e6,
                max_position_embeddings: 40_960,
                block_type: BlockType::PreNorm,
                qk_norm: QkNorm::PerHead,
                ..sized(Sizes { layers: 36, inner: 12_288, ..LOCAL_OF_7B })
            },
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Preset::Nano => "nano",
            Preset::Demo => "demo",
            Preset::Mid => "mid",
            Preset::Bolmo1b => "bolmo-1b",
            Preset::Bolmo7b => "bolmo-7b",
            Preset::Bwen8b => "bwen-8b",
        })
    }
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Preset> {
        Preset::ALL.into_iter().find(|preset| preset.to_string() == text).ok_or_else(|| {
            let known = Preset::ALL.map(|preset| preset.to_string()).join(", ");
            Error::invalid(format!("unknown preset {text:?}; use one of {known}"))
        })
    }
}

/// The sizes that differ most between presets.
struct Sizes {
    hidden: usize,
    layers: usize,
    heads: usize,
    /// Inner width of a global feed-forward.
    inner: usize,
    /// Number of local layers of encoder and decoder.
    local: (usize, usize),
    local_heads: usize,
    local_inner: usize,
}

/// The sizes of Bolmo-7B, whose local parts other presets share.
const LOCAL_OF_7B: Sizes =
    Sizes { hidden: 4096, layers: 32, heads: 32, inner: 11_008, local: (1, 4), local_heads: 16, local_inner: 5504 };

/// Returns a model of these sizes with OLMo 2 blocks, full attention and unscaled rotary frequencies. The caller sets
/// the rows of the suffix table.
fn sized(sizes: Sizes) -> Config {
    Config {
        hidden_size: sizes.hidden,
        vocab_size: BYTE_VOCABULARY,
        num_hidden_layers: sizes.layers,
        num_attention_heads: sizes.heads,
        num_key_value_heads: sizes.heads,
        head_dim: sizes.hidden / sizes.heads,
        intermediate_size: sizes.inner,
        local_intermediate_size: sizes.local_inner,
        num_local_heads: sizes.local_heads,
        num_local_encoder_layers: sizes.local.0,
        num_local_decoder_layers: sizes.local.1,
        subword_vocab_size: 0,
        rms_norm_eps: 1e-6,
        local_rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: RopeScaling::None,
        sliding_rope_theta: None,
        sliding_rope_scaling: RopeScaling::None,
        layer_types: vec![LayerType::Full; sizes.layers],
        sliding_window: 0,
        max_position_embeddings: 4096,
        add_expanded_embeddings: true,
        block_type: BlockType::ReorderedNorm,
        qk_norm: QkNorm::Whole,
        special: SpecialIds { pad: 0, bos: 1, eos: 1, bpe_token_end: 3 },
        special_tokens: ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"].map(str::to_owned).to_vec(),
        byte_offset: 4,
        original_identifier: None,
    }
}
