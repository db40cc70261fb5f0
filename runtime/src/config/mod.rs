//! The configuration of a model, read from `config.json`: every key that affects the computation, checked once.
//!
//! `docs/model.md` lists the keys with their defaults in the reference implementation and here.

pub(crate) mod blocks;
pub(crate) mod classes;
pub(crate) mod keys;
pub(crate) mod overrides;
pub mod preset;
mod read;
pub mod rope;
mod rotary;
mod scaling;
pub mod source;
mod special;
mod write;

#[cfg(test)]
mod defaults_tests;
#[cfg(test)]
mod rotary_tests;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};

/// Number of plain and fused byte ids, which is the number of logits of every Bolmo model.
pub const BYTE_VOCABULARY: usize = 520;
/// Largest accepted RoPE base; far above it, the angles are meaningless. The base must be above 1, where frequencies
/// stop falling.
const MAX_ROPE_THETA: f64 = 1e15;

/// Shape and constants of a model, read from its `config.json`.
///
/// Lengths are element counts. A `Config` from [`Config::from_json`] satisfies the kernels' requirements: widths are
/// multiples of 4, head counts divide the widths, and the product of any two sizes fits a `usize`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Width D of the residual streams, local and global.
    pub hidden_size: usize,
    /// Number of logits, always [`BYTE_VOCABULARY`].
    pub vocab_size: usize,
    /// Number of global blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads of a global block.
    pub num_attention_heads: usize,
    /// Number of key and value heads of a global block; divides the number of query heads.
    pub num_key_value_heads: usize,
    /// Width of an attention head, the same for queries, keys and values.
    pub head_dim: usize,
    /// Inner width of a global feed-forward.
    pub intermediate_size: usize,
    /// Inner width of a local feed-forward.
    pub local_intermediate_size: usize,
    /// Number of mLSTM heads of a local layer.
    pub num_local_heads: usize,
    /// Number of local layers before the boundary predictor, at least 1.
    pub num_local_encoder_layers: usize,
    /// Number of local layers after the global blocks, at least 1.
    pub num_local_decoder_layers: usize,
    /// Number of rows of the suffix table, the size of the source model's vocabulary; 0 if there is no table.
    pub subword_vocab_size: usize,
    /// Epsilon of the norms inside global and local layers and of the final norm.
    pub rms_norm_eps: f32,
    /// Epsilon of the norm after the encoder and of the decoder's initial norm.
    pub local_rms_norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies of full-attention layers.
    pub rope_scaling: RopeScaling,
    /// Base of the rotary frequencies of sliding layers if it differs from [`Self::rope_theta`]. No published model
    /// needs this.
    pub sliding_rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies of sliding layers; none in all published models.
    pub sliding_rope_scaling: RopeScaling,
    /// Attention of each global block, `num_hidden_layers` entries.
    pub layer_types: Vec<LayerType>,
    /// Number of patches that a sliding layer attends to, including the current one; above 0 if any layer slides.
    pub sliding_window: usize,
    /// Context length of the source model in patches, or 0 if it is unknown. It limits nothing here; some rotary
    /// scalings refer to it.
    pub max_position_embeddings: usize,
    /// Whether the suffix table is added to the byte embedding.
    pub add_expanded_embeddings: bool,
    /// Position of the norms in a global block.
    pub block_type: BlockType,
    /// Norm on the queries and keys of a global block, before they are rotated.
    pub qk_norm: QkNorm,
    /// Ids of the special tokens that the computation uses.
    pub special: SpecialIds,
    /// Names of the special tokens in the order of their ids.
    pub special_tokens: Vec<String>,
    /// Id of byte 0; byte `b` has the id `byte_offset + b`.
    pub byte_offset: u16,
    /// Name under which the source model's tokenizer was published, if the checkpoint tells.
    pub original_identifier: Option<String>,
}

/// Scaling of the rotary frequencies.
///
/// If the file gives no `original_max_position_embeddings`, it is 0 and `max_position_embeddings` takes its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// No scaling.
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        /// Divisor of the frequencies.
        factor: f64,
    },
    /// Low frequencies are divided by `factor`, high ones are kept, those in between are blended (Llama 3).
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Frequencies with fewer turns than this within the original context are divided.
        low_freq_factor: f64,
        /// Frequencies with more turns than this are kept.
        high_freq_factor: f64,
        /// Length of the original context, or 0 for the model's.
        original_max_position_embeddings: usize,
    },
    /// YaRN: a ramp over the dimensions from kept to divided, and a factor on cosine and sine.
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns above which a dimension is kept.
        beta_fast: f64,
        /// Turns below which a dimension is divided.
        beta_slow: f64,
        /// Length of the original context, or 0 for the model's.
        original_max_position_embeddings: usize,
        /// Factor on cosine and sine.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded outward to whole dimensions.
        truncate: bool,
    },
}

/// Attention of a global block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerType {
    /// All patches up to the current one.
    Full,
    /// The last `sliding_window` patches.
    Sliding,
}

/// Position of the norms in a global block.
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

/// Plain ids of the special tokens that the computation uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialIds {
    /// Padding.
    pub pad: u16,
    /// Beginning of text.
    pub bos: u16,
    /// End of text; released models use the id of `bos`.
    pub eos: u16,
    /// End of a subword; unused by released models.
    pub bpe_token_end: u16,
}

/// Names of the keys that describe a global block.
///
/// They come from converters; no published file has them, so the names may still change.
mod block_keys {
    /// `"reordered_norm"` or absent: norms after attention and feed-forward. `"default"` or `"pre_norm"`: before them.
    pub const BLOCK_TYPE: &str = "block_type";
    /// `false`: queries and keys are not normalized. `true` or absent: they are.
    pub const USE_QK_NORM: &str = "use_qk_norm";
    /// Order of a cast in the norms. It makes no difference in float32.
    pub const NORM_TYPE: &str = "norm_type";
    /// `true`: one norm per head. `false` or absent: one over the whole projection.
    pub const USE_HEAD_QK_NORM: &str = "use_head_qk_norm";
}

impl Config {
    /// Replaces the base of the rotary frequencies, for checkpoints that lost it in conversion.
    ///
    /// # Errors
    /// `InvalidArgument` unless `theta` is above 1 and at most 1e15.
    pub fn override_rope_theta(&mut self, theta: f64) -> Result<()> {
        Self::check_rope_theta(theta)?;
        (self.rope_theta, self.sliding_rope_theta) = (theta, None);
        Ok(())
    }

    /// Checks a base of rotary frequencies.
    ///
    /// # Errors
    /// As [`Self::override_rope_theta`].
    pub fn check_rope_theta(theta: f64) -> Result<()> {
        if rope_theta_is_sound(theta) {
            return Ok(());
        }
        Err(Error::invalid(format!("`rope_theta` must be above 1 and at most {MAX_ROPE_THETA:e}, found {theta:?}")))
    }

    /// Replaces the scaling of the rotary frequencies of full-attention layers, for checkpoints that lost it in
    /// conversion.
    ///
    /// # Errors
    /// `InvalidArgument` if the scaling needs an original context, has none, and the model has none either.
    pub fn override_rope_scaling(&mut self, scaling: RopeScaling) -> Result<()> {
        if self.max_position_embeddings == 0 && scaling.needs_context() {
            return Err(Error::invalid(
                "`rope_scaling` must have an `original_max_position_embeddings`, because the model has no \
                 `max_position_embeddings`",
            ));
        }
        self.rope_scaling = scaling;
        Ok(())
    }

    /// Rotary frequencies of the layers of a kind in radians per position, and the factor on cosine and sine.
    pub fn rotary_frequencies(&self, layers: LayerType) -> (Vec<f64>, f64) {
        let (theta, scaling) = match layers {
            LayerType::Full => (self.rope_theta, &self.rope_scaling),
            LayerType::Sliding => (self.sliding_rope_theta.unwrap_or(self.rope_theta), &self.sliding_rope_scaling),
        };
        rope::inverse_frequencies(self.head_dim, theta, scaling, self.max_position_embeddings)
    }

    /// A warning if a text of this many patches is longer than those that the model was trained with.
    pub fn beyond_context(&self, patches: usize) -> Option<String> {
        let trained = self.max_position_embeddings;
        (trained != 0 && patches > trained).then(|| {
            format!(
                "the text has more than {trained} patches, the length that the model was trained with \
                 (`max_position_embeddings`); what comes after them is less reliable"
            )
        })
    }

    /// Width of all queries: `num_attention_heads * head_dim`.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all keys, and of all values: `num_key_value_heads * head_dim`.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Number of positions that global block `block` attends to, including the current one; 0 for all.
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

    /// Device memory of a new session in bytes: the mLSTM states of the local layers and two hidden vectors.
    pub fn state_bytes(&self) -> u64 {
        let layer = self.num_local_heads * (self.mlstm_key_dim() * (self.mlstm_value_dim() + 1) + 1);
        4 * ((self.num_local_encoder_layers + self.num_local_decoder_layers) * layer + 2 * self.hidden_size) as u64
    }

    /// Device memory of the keys and values of one patch in `layers` layers, in bytes.
    pub fn patch_bytes(&self, layers: usize) -> u64 {
        8 * layers as u64 * self.key_value_width() as u64
    }
}

fn rope_theta_is_sound(theta: f64) -> bool {
    theta > 1.0 && theta <= MAX_ROPE_THETA
}
