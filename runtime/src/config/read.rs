//! Reading a [`Config`] from a `config.json`: one function per group of keys, then the kernels' limits.

use crate::config::keys::{Keys, shown};
use crate::config::{
    BYTE_VOCABULARY, BlockType, Config, LayerType, MAX_ROPE_THETA, QkNorm, SpecialIds, block_keys, rope_theta_is_sound,
    scaling,
};
use crate::error::{Error, Result};
use crate::input::json;

/// Number of plain ids: 256 bytes and the special tokens.
const PLAIN_IDS: usize = BYTE_VOCABULARY / 2;
/// Number of special tokens of the byte vocabulary: the plain ids that are not bytes.
const SPECIAL_TOKENS: usize = PLAIN_IDS - 256;
/// RoPE base that the reference's configuration class fills in when a converter wrote none.
pub(super) const DEFAULT_ROPE_THETA: f64 = 10_000.0;
/// Key that confirms the default RoPE base; only this runtime writes it.
pub(super) const ROPE_THETA_CONFIRMED: &str = "rope_theta_confirmed";
/// Widest head that the attention and mLSTM kernels can keep in workgroup memory.
const MAX_HEAD_WIDTH: usize = 128;

impl Config {
    /// Reads a `config.json`, which messages call `origin`.
    ///
    /// The second result holds warnings: values that are accepted but are likely mistakes.
    ///
    /// # Errors
    /// `BadCheckpoint` for a missing key or an impossible value, `Unsupported` for a model that cannot be computed
    /// here. The message names the key.
    pub fn from_json(text: &[u8], origin: &str) -> Result<(Config, Vec<String>)> {
        let value = json::config(text, origin)?;
        let keys = Keys::new(&value, origin)?;
        refuse_unknown_computation(&keys)?;
        let mut warnings = Vec::new();

        let hidden_size = keys.integer("hidden_size", 1, 65_536)?;
        let vocab_size = keys.integer("vocab_size", 1, 1 << 22)?;
        if vocab_size != BYTE_VOCABULARY {
            return Err(keys.bad("vocab_size", format_args!("must be {BYTE_VOCABULARY}, found {vocab_size}")));
        }
        let num_hidden_layers = keys.integer("num_hidden_layers", 1, 1024)?;
        let num_attention_heads = keys.integer("num_attention_heads", 1, 1024)?;
        let head_dim = match keys.optional_integer("head_dim", 1, 65_536)? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(keys.bad(
                    "num_attention_heads",
                    format_args!(
                        "is {num_attention_heads}, which does not divide `hidden_size` {hidden_size}; change it or \
                         add `head_dim`"
                    ),
                ));
            }
        };
        let layer_types = read_layer_types(&keys, num_hidden_layers)?;
        let slides = layer_types.contains(&LayerType::Sliding);
        let sliding_window = keys.optional_integer("sliding_window", 0, 1 << 30)?.unwrap_or(0);
        if slides && sliding_window == 0 {
            return Err(keys.bad("sliding_window", "must be above 0, since `layer_types` has sliding layers"));
        }
        let max_position_embeddings = keys.integer("max_position_embeddings", 1, 1 << 30)?;
        let rope_theta = read_rope_theta(&keys, &mut warnings)?;
        let (add_expanded_embeddings, subword_vocab_size) = read_suffix_table(&keys)?;
        let tokenizer = keys.object("tokenizer_config")?;
        let (special, special_tokens, byte_offset) = read_special_tokens(&tokenizer)?;
        for (key, id) in [("pad_token_id", special.pad), ("bos_token_id", special.bos), ("eos_token_id", special.eos)] {
            if let Some(found) = keys.get(key).filter(|found| found.as_u64() != Some(id.into())) {
                warnings.push(format!(
                    "{origin}: `{key}` is {}, `tokenizer_config.{key}` is {id}; the latter is used",
                    shown(found)
                ));
            }
        }

        let config = Config {
            hidden_size,
            vocab_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: keys.optional_integer("num_key_value_heads", 1, 1024)?.unwrap_or(num_attention_heads),
            head_dim,
            intermediate_size: keys.integer("intermediate_size", 1, 1 << 20)?,
            local_intermediate_size: keys.integer("local_intermediate_size", 1, 1 << 20)?,
            num_local_heads: keys.integer("num_local_heads", 1, 1024)?,
            num_local_encoder_layers: keys.integer("num_local_encoder_layers", 1, 1024)?,
            num_local_decoder_layers: keys.integer("num_local_decoder_layers", 1, 1024)?,
            subword_vocab_size,
            rms_norm_eps: keys.epsilon("rms_norm_eps")?,
            local_rms_norm_eps: keys.epsilon("local_rms_norm_eps")?,
            rope_theta,
            rope_scaling: scaling::read(&keys)?,
            layer_types,
            sliding_window,
            max_position_embeddings,
            add_expanded_embeddings,
            block_type: read_block_type(&keys)?,
            qk_norm: read_qk_norm(&keys)?,
            special,
            special_tokens,
            byte_offset,
            original_identifier: tokenizer.text("original_identifier")?.map(str::to_owned),
        };
        config.check_kernel_limits(origin)?;
        Ok((config, warnings))
    }

    /// Checks the requirements of the kernels. Products cannot overflow: each factor was bounded when it was read.
    fn check_kernel_limits(&self, origin: &str) -> Result<()> {
        let unsupported = |key: &str, what: String| Err(Error::unsupported(format!("{origin}: `{key}` {what}")));
        for (key, size) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("local_intermediate_size", self.local_intermediate_size),
            ("head_dim", self.head_dim),
        ] {
            // Vector loads read four columns at a time. Products of head counts and `head_dim` are multiples then, too.
            if !size.is_multiple_of(4) {
                return unsupported(key, format!("is {size}, but the kernels need a multiple of 4"));
            }
        }
        if self.head_dim > MAX_HEAD_WIDTH {
            return unsupported(
                "head_dim",
                format!("is {}, but the attention kernels support at most {MAX_HEAD_WIDTH}", self.head_dim),
            );
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return unsupported(
                "num_key_value_heads",
                format!(
                    "is {}, which does not divide `num_attention_heads` {}",
                    self.num_key_value_heads, self.num_attention_heads
                ),
            );
        }
        if !(self.hidden_size / 2).is_multiple_of(self.num_local_heads) {
            return unsupported(
                "num_local_heads",
                format!(
                    "is {}, which does not divide half of `hidden_size` {}",
                    self.num_local_heads, self.hidden_size
                ),
            );
        }
        if self.mlstm_key_dim() > MAX_HEAD_WIDTH {
            let width = self.mlstm_key_dim();
            return unsupported(
                "num_local_heads",
                format!("gives mLSTM key heads of width {width}, but the kernels support at most {MAX_HEAD_WIDTH}"),
            );
        }
        Ok(())
    }
}

/// Rejects keys whose values ask for another computation than the one implemented here.
fn refuse_unknown_computation(keys: &Keys) -> Result<()> {
    keys.must_be("model_type", "bolmo", true)?;
    keys.must_be("hidden_act", "silu", false)?;
    keys.must_be("boundary_threshold", "sample:0", false)?;
    if keys.optional_integer("boundary_predictor_lookahead", 0, 1 << 20)?.unwrap_or(1) != 1 {
        return Err(keys.unsupported_value("boundary_predictor_lookahead", "1"));
    }
    for key in ["attention_bias", "mlp_bias", "tie_word_embeddings"] {
        if keys.flag(key, false)? {
            return Err(keys.unsupported_value(key, "false"));
        }
    }
    if keys.get("partial_rotary_factor").is_some_and(|factor| factor.as_f64() != Some(1.0)) {
        return Err(keys.unsupported_value("partial_rotary_factor", "1.0"));
    }
    if keys.get("rope_parameters").is_some() {
        return Err(
            keys.unsupported("rope_parameters", "is not supported; use `rope_theta` and `rope_scaling` instead")
        );
    }
    Ok(())
}

/// Reads `rope_theta`, with a warning if the value was likely lost.
fn read_rope_theta(keys: &Keys, warnings: &mut Vec<String>) -> Result<f64> {
    let found = keys.real("rope_theta")?;
    let theta = found.unwrap_or(DEFAULT_ROPE_THETA);
    if !rope_theta_is_sound(theta) {
        return Err(
            keys.bad("rope_theta", format_args!("must be above 1 and at most {MAX_ROPE_THETA:e}, found {theta:?}"))
        );
    }
    if theta == DEFAULT_ROPE_THETA && !keys.flag(ROPE_THETA_CONFIRMED, false)? {
        let origin = keys.origin();
        let state = if found.is_none() { "is absent, so 10000 is used" } else { "is 10000" };
        warnings.push(format!(
            "{origin}: `rope_theta` {state}; converted checkpoints are known to lose the source model's value \
             (500000 for OLMo 2 and 3): if so, override `rope_theta`"
        ));
    }
    Ok(theta)
}

fn read_layer_types(keys: &Keys, layers: usize) -> Result<Vec<LayerType>> {
    let Some(list) = keys.list("layer_types")? else { return Ok(vec![LayerType::Full; layers]) };
    if list.len() != layers {
        return Err(keys.bad(
            "layer_types",
            format_args!("must have `num_hidden_layers` = {layers} entries, found {}", list.len()),
        ));
    }
    list.iter()
        .map(|entry| match entry.as_str() {
            Some("full_attention") => Ok(LayerType::Full),
            Some("sliding_attention") => Ok(LayerType::Sliding),
            _ => Err(keys.unsupported(
                "layer_types",
                format_args!("has {}; known are \"full_attention\" and \"sliding_attention\"", shown(entry)),
            )),
        })
        .collect()
}

fn read_block_type(keys: &Keys) -> Result<BlockType> {
    match keys.text(block_keys::BLOCK_TYPE)? {
        None | Some("reordered_norm") => Ok(BlockType::ReorderedNorm),
        Some("default" | "pre_norm") => Ok(BlockType::PreNorm),
        Some(_) => {
            Err(keys.unsupported_value(block_keys::BLOCK_TYPE, "\"reordered_norm\", \"default\" or \"pre_norm\""))
        }
    }
}

fn read_qk_norm(keys: &Keys) -> Result<QkNorm> {
    let (any, per_head) = (keys.flag(block_keys::USE_QK_NORM, true)?, keys.flag(block_keys::USE_HEAD_QK_NORM, false)?);
    Ok(match (any, per_head) {
        (false, _) => QkNorm::None,
        (true, false) => QkNorm::Whole,
        (true, true) => QkNorm::PerHead,
    })
}

/// Reads whether there is a suffix table, and its number of rows.
fn read_suffix_table(keys: &Keys) -> Result<(bool, usize)> {
    let rows = keys.optional_integer("subword_vocab_size", 0, 1 << 22)?;
    let used = keys.flag("add_expanded_embeddings", rows != Some(0))?;
    match rows {
        Some(0) if used => {
            Err(keys.bad("subword_vocab_size", "is 0, but `add_expanded_embeddings` requires a suffix table"))
        }
        Some(rows) => Ok((used, rows)),
        None if used => Err(keys.missing("subword_vocab_size")),
        None => Ok((false, 0)),
    }
}

/// Reads the ids and names of the special tokens and the id of byte 0 from `tokenizer_config`.
fn read_special_tokens(keys: &Keys) -> Result<(SpecialIds, Vec<String>, u16)> {
    let size = keys.optional_integer("vocab_size", 0, 1 << 22)?.unwrap_or(BYTE_VOCABULARY);
    if size != BYTE_VOCABULARY {
        return Err(keys.bad("vocab_size", format_args!("must be {BYTE_VOCABULARY}, found {size}")));
    }
    let list = keys.list("special_tokens")?.ok_or_else(|| keys.missing("special_tokens"))?;
    if list.len() != SPECIAL_TOKENS {
        return Err(
            keys.bad("special_tokens", format_args!("must have {SPECIAL_TOKENS} entries, found {}", list.len()))
        );
    }
    let mut names: Vec<String> = Vec::with_capacity(SPECIAL_TOKENS);
    for entry in list {
        match entry.as_str() {
            Some(name) if !name.is_empty() && names.iter().all(|known| known != name) => names.push(name.to_owned()),
            _ => {
                return Err(keys.bad("special_tokens", format_args!("must be distinct names, found {}", shown(entry))));
            }
        }
    }
    let (first, byte_offset) = match keys.flag("special_tokens_first", true)? {
        true => (0, SPECIAL_TOKENS as u16),
        false => (256, 0),
    };
    let last = first + SPECIAL_TOKENS - 1;
    let id = |key: &str| keys.integer(key, first, last).map(|id| id as u16);
    let special = SpecialIds {
        pad: id("pad_token_id")?,
        bos: id("bos_token_id")?,
        eos: id("eos_token_id")?,
        bpe_token_end: id("bpe_token_end_id")?,
    };
    if special.pad == special.bos || special.pad == special.eos {
        return Err(
            keys.bad("pad_token_id", format_args!("is {}, which is also the id of `bos` or `eos`", special.pad))
        );
    }
    Ok((special, names, byte_offset))
}
