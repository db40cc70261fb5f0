//! Defaults of the configuration classes that wrote a `config.json`, for keys that the file lacks.
//!
//! The table in `docs/model.md` ("Defaults of the reference classes") says where each value comes from.

use crate::config::{BlockType, QkNorm};

/// Number of patches that a sliding layer attends to if the file doesn't say.
pub(crate) const SLIDING_WINDOW: usize = 4096;
/// First sliding layer of a Qwen 3 model with windows if the file doesn't say.
pub(crate) const MAX_WINDOW_LAYERS: usize = 28;

/// A configuration class of the reference implementation or of transformers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Class {
    /// Name of the class, for messages.
    pub(crate) name: &'static str,
    /// Position of the norms and norm on queries and keys; `None` if keys of the file determine them.
    pub(crate) norms: Option<(BlockType, QkNorm)>,
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    /// `None` for the number of query heads.
    pub(crate) num_key_value_heads: Option<usize>,
    /// `None` for the quotient of the hidden size and the number of query heads.
    pub(crate) head_dim: Option<usize>,
    pub(crate) max_position_embeddings: usize,
    pub(crate) rms_norm_eps: f32,
    pub(crate) rope_theta: f64,
    pub(crate) layers: Layers,
    /// Whether sliding layers scale their rotary frequencies like full ones where the file has one scaling for all.
    pub(crate) scales_sliding_layers: bool,
}

/// Sizes of the local parts of a Bolmo model.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LocalParts {
    /// Inner width of the feed-forwards.
    pub intermediate_size: usize,
    /// Number of mLSTM heads.
    pub heads: usize,
    /// Number of layers of the encoder.
    pub encoder_layers: usize,
    /// Number of layers of the decoder.
    pub decoder_layers: usize,
    /// Epsilon of the norms between encoder, global blocks and decoder.
    pub rms_norm_eps: f32,
}

impl LocalParts {
    /// Those of `BolmoConfig` of the reference implementation.
    pub const BOLMO: Self =
        Self { intermediate_size: 5504, heads: 16, encoder_layers: 1, decoder_layers: 4, rms_norm_eps: 1e-5 };
}

/// How a class determines which layers slide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layers {
    /// `layer_types`, else three sliding layers and then a full one.
    EveryFourthFull,
    /// `layer_types`, else the layers from `max_window_layers` on; none without `use_sliding_window`.
    Windowed,
    /// No layer slides.
    Full,
}

impl Class {
    /// `BolmoConfig` of the reference implementation.
    pub(crate) const BOLMO: Self = Self {
        name: "BolmoConfig",
        norms: None,
        vocab_size: 520,
        hidden_size: 4096,
        intermediate_size: 11_008,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: None,
        head_dim: None,
        max_position_embeddings: 2048,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        layers: Layers::EveryFourthFull,
        scales_sliding_layers: false,
    };
    /// `Olmo2Config` of transformers.
    const OLMO2: Self = Self {
        name: "Olmo2Config",
        norms: Some((BlockType::ReorderedNorm, QkNorm::Whole)),
        vocab_size: 50_304,
        layers: Layers::Full,
        ..Self::BOLMO
    };
    /// `Olmo3Config` of transformers. Its base is that of version 5; in version 4 it was 10000.
    const OLMO3: Self =
        Self { name: "Olmo3Config", layers: Layers::EveryFourthFull, rope_theta: 500_000.0, ..Self::OLMO2 };
    /// `Qwen3Config` of transformers.
    const QWEN3: Self = Self {
        name: "Qwen3Config",
        norms: Some((BlockType::PreNorm, QkNorm::PerHead)),
        vocab_size: 151_936,
        intermediate_size: 22_016,
        num_key_value_heads: Some(32),
        head_dim: Some(128),
        max_position_embeddings: 32_768,
        rms_norm_eps: 1e-6,
        layers: Layers::Windowed,
        scales_sliding_layers: true,
        ..Self::BOLMO
    };
    /// `LlamaConfig` of transformers.
    const LLAMA: Self = Self {
        name: "LlamaConfig",
        norms: Some((BlockType::PreNorm, QkNorm::None)),
        vocab_size: 32_000,
        rms_norm_eps: 1e-6,
        layers: Layers::Full,
        ..Self::BOLMO
    };

    /// The class of a source model with this `model_type`.
    pub(crate) fn of_source(model_type: &str) -> Option<&'static Self> {
        match model_type {
            "olmo2" => Some(&Self::OLMO2),
            "olmo3" => Some(&Self::OLMO3),
            "qwen3" => Some(&Self::QWEN3),
            "llama" => Some(&Self::LLAMA),
            _ => None,
        }
    }
}
