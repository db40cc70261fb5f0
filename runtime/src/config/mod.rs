//! What `config.json` says about a model: every key that changes the computation, checked once, here.

pub(crate) mod keys;
pub mod preset;
mod read;
pub mod rope;
mod scaling;
mod write;

#[cfg(test)]
mod tests;

use crate::error::{Error, Result};

/// Plain and fused byte ids together; every Bolmo has this many logits.
pub const BYTE_VOCABULARY: usize = 520;
/// The top of a believable RoPE base; far above, the angles lose all meaning. The bottom is 1, where frequencies stop
/// falling.
const MAX_ROPE_THETA: f64 = 1e15;

/// Shape and constants of one model, read from its `config.json`.
///
/// Lengths are element counts. A `Config` that came from [`Config::from_json`] fits the kernels: widths are multiples
/// of 4, head counts divide what they must divide, and products of two sizes don't overflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width D of every residual stream, local and global.
    pub hidden_size: usize,
    /// Logits of the head, always [`BYTE_VOCABULARY`].
    pub vocab_size: usize,
    /// Global blocks.
    pub num_hidden_layers: usize,
    /// Query heads of a global block.
    pub num_attention_heads: usize,
    /// Key and value heads of a global block; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one attention head, for queries, keys and values alike.
    pub head_dim: usize,
    /// Inner width of a global feed-forward.
    pub intermediate_size: usize,
    /// Inner width of a local feed-forward.
    pub local_intermediate_size: usize,
    /// mLSTM heads of a local layer.
    pub num_local_heads: usize,
    /// Local layers before the boundary predictor, at least 1.
    pub num_local_encoder_layers: usize,
    /// Local layers after the global blocks, at least 1.
    pub num_local_decoder_layers: usize,
    /// Rows of the suffix table, which is the size of the source model's vocabulary; 0 if there is no table.
    pub subword_vocab_size: usize,
    /// Epsilon of the norms inside global and local layers and of the final norm.
    pub rms_norm_eps: f32,
    /// Epsilon of the norm after the encoder and of the decoder's initial norm.
    pub local_rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How full-attention layers stretch the rotary frequencies; sliding layers never do.
    pub rope_scaling: RopeScaling,
    /// What each global block may attend to, `num_hidden_layers` entries.
    pub layer_types: Vec<LayerType>,
    /// Patches that a sliding layer sees, itself included; above 0 if any layer slides.
    pub sliding_window: usize,
    /// Patches that the source model was made for. No limit here; some rotary scalings refer to it.
    pub max_position_embeddings: usize,
    /// Whether the suffix table is added to the byte embedding.
    pub add_expanded_embeddings: bool,
    /// Where the norms of a global block sit.
    pub block_type: BlockType,
    /// What the queries and keys of a global block pass before they are rotated.
    pub qk_norm: QkNorm,
    /// Ids of the special tokens that have a role.
    pub special: SpecialIds,
    /// Names of the special tokens in the order of their ids.
    pub special_tokens: Vec<String>,
    /// Id of byte 0; byte `b` has id `byte_offset + b`.
    pub byte_offset: u16,
    /// Name under which the source model's tokenizer was published, if the checkpoint says.
    pub original_identifier: Option<String>,
}

/// How the rotary frequencies of full-attention layers are stretched.
///
/// `original_max_position_embeddings` is 0 where the file gives none; `max_position_embeddings` then takes its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// Long waves are divided by `factor`, short ones kept, those between blended (Llama 3).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Waves with fewer turns than this within the original context are divided.
        low_freq_factor: f64,
        /// Waves with more turns than this are kept.
        high_freq_factor: f64,
        /// Positions of the original context, 0 for the model's.
        original_max_position_embeddings: usize,
    },
    /// YaRN: a ramp over the dimensions between kept and divided, and a factor on cosine and sine.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns above which a dimension is kept.
        beta_fast: f64,
        /// Turns below which a dimension is divided.
        beta_slow: f64,
        /// Positions of the original context, 0 for the model's.
        original_max_position_embeddings: usize,
        /// Factor on cosine and sine.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded outwards to whole dimensions.
        truncate: bool,
    },
}

/// What a global block attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// Every patch so far.
    Full,
    /// The last `sliding_window` patches.
    Sliding,
}

/// Where the norms of a global block sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// After attention and after the feed-forward (OLMo 2 and 3).
    ReorderedNorm,
    /// Before attention and before the feed-forward (Llama, Qwen).
    PreNorm,
}

/// The RMS norm on queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// One norm over the whole projection.
    Whole,
    /// One norm of width `head_dim`, the same weight for every head.
    PerHead,
}

/// Plain ids of the special tokens that have a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// Padding.
    pub pad: u16,
    /// Begin of text.
    pub bos: u16,
    /// End of text; released models use the id of `bos`.
    pub eos: u16,
    /// End of a subword, unused by released models.
    pub bpe_token_end: u16,
}

/// The keys that describe a global block. They were seen in converters and not in published files, so this is the one
/// place that knows their names.
mod block_keys {
    /// `"reordered_norm"`, or absent: norms after attention and feed-forward. `"default"` or `"pre_norm"`: before them.
    pub const BLOCK_TYPE: &str = "block_type";
    /// `false`: queries and keys are not normalised. Absent: they are.
    pub const USE_QK_NORM: &str = "use_qk_norm";
    /// `true`: one norm per head. `false` or absent: one over the whole projection.
    pub const USE_HEAD_QK_NORM: &str = "use_head_qk_norm";
}

impl Config {
    /// Replaces the base of the rotary frequencies, for checkpoints whose conversion lost it.
    pub fn override_rope_theta(&mut self, theta: f64) -> Result<()> {
        if !rope_theta_is_sound(theta) {
            return Err(Error::invalid(format!(
                "`rope_theta` must be above 1 and at most {MAX_ROPE_THETA:e}, found {theta}"
            )));
        }
        self.rope_theta = theta;
        Ok(())
    }

    /// Columns of the query projection: `num_attention_heads * head_dim`.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Columns of the key and of the value projection: `num_key_value_heads * head_dim`.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// How many positions a query of global block `block` sees up to its own; 0 for all.
    pub fn window(&self, block: usize) -> usize {
        match self.layer_types[block] {
            LayerType::Full => 0,
            LayerType::Sliding => self.sliding_window,
        }
    }

    /// Width of an mLSTM query or key head: `hidden_size / 2 / num_local_heads`.
    pub fn mlstm_key_dim(&self) -> usize {
        self.hidden_size / 2 / self.num_local_heads
    }

    /// Width of an mLSTM value head: `hidden_size / num_local_heads`.
    pub fn mlstm_value_dim(&self) -> usize {
        self.hidden_size / self.num_local_heads
    }

    /// Bytes of device memory that a session holds from its first id on: the mLSTM states of the local layers, and two hidden
    /// vectors.
    pub fn state_bytes(&self) -> u64 {
        let layer = self.num_local_heads * (self.mlstm_key_dim() * (self.mlstm_value_dim() + 1) + 1);
        4 * ((self.num_local_encoder_layers + self.num_local_decoder_layers) * layer + 2 * self.hidden_size) as u64
    }

    /// Bytes of device memory that keys and values of one patch take in `layers` layers.
    pub fn patch_bytes(&self, layers: usize) -> u64 {
        8 * layers as u64 * self.key_value_width() as u64
    }
}

fn rope_theta_is_sound(theta: f64) -> bool {
    theta > 1.0 && theta <= MAX_ROPE_THETA
}
