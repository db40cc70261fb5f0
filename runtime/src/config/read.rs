//! Reading a [`Config`] from a `config.json`: one function per group of keys, then the kernels' limits.

use crate::config::blocks::Blocks;
use crate::config::classes::{Class, LocalParts};
use crate::config::keys::{Absent, Keys, shown};
use crate::config::overrides::Warnings;
use crate::config::special::{published_vocabulary, read_special_tokens};
use crate::config::{BYTE_VOCABULARY, Config};
use crate::error::{Error, Result};
use crate::input::json;

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
        let (config, warnings) = Self::read(text, origin)?;
        Ok((config, warnings.into_texts()))
    }

    /// The same, with warnings that an override can answer.
    pub(crate) fn read(text: &[u8], origin: &str) -> Result<(Config, Warnings)> {
        let value = json::config(text, origin)?;
        let keys = Keys::new(&value, origin)?;
        refuse_unknown_computation(&keys)?;
        let mut warnings = Warnings::default();

        let vocab_size = keys.optional_integer("vocab_size", 1, 1 << 22)?.unwrap_or(BYTE_VOCABULARY);
        if vocab_size != BYTE_VOCABULARY {
            return Err(keys.bad("vocab_size", format_args!("must be {BYTE_VOCABULARY}, found {vocab_size}")));
        }
        let mut absent = Absent::default();
        let blocks = Blocks::read(&keys, &Class::BOLMO, &mut absent, &mut warnings)?;
        let (add_expanded_embeddings, subword_vocab_size) = read_suffix_table(&keys, &mut absent)?;
        let published;
        let tokenizer = match keys.optional_object("tokenizer_config")? {
            Some(tokenizer) => tokenizer,
            None => {
                published = published_vocabulary();
                Keys::new(&published, origin)?
            }
        };
        let (special, special_tokens, byte_offset) = read_special_tokens(&tokenizer)?;
        for (key, id) in [("pad_token_id", special.pad), ("bos_token_id", special.bos), ("eos_token_id", special.eos)] {
            if let Some(found) = keys.get(key).filter(|found| found.as_u64() != Some(id.into())) {
                let found = shown(found);
                let text =
                    format!("{origin}: `{key}` is {found}, `tokenizer_config.{key}` is {id}; the latter is used");
                warnings.extend([text], None);
            }
        }

        let default = LocalParts::BOLMO;
        let local = LocalParts {
            intermediate_size: absent.integer(
                &keys,
                "local_intermediate_size",
                default.intermediate_size,
                (1, 1 << 20),
            )?,
            heads: absent.integer(&keys, "num_local_heads", default.heads, (1, 1024))?,
            encoder_layers: absent.integer(&keys, "num_local_encoder_layers", default.encoder_layers, (1, 1024))?,
            decoder_layers: absent.integer(&keys, "num_local_decoder_layers", default.decoder_layers, (1, 1024))?,
            rms_norm_eps: absent.epsilon(&keys, "local_rms_norm_eps", default.rms_norm_eps)?,
        };
        warnings.extend(absent.warning(&keys, Class::BOLMO.name), None);
        let config = Config {
            subword_vocab_size,
            add_expanded_embeddings,
            special,
            special_tokens,
            byte_offset,
            original_identifier: tokenizer.text("original_identifier")?.map(str::to_owned),
            ..Self::of_blocks(blocks, local)
        };
        config.check_kernel_limits(origin)?;
        config.warn_of_lost_scaling(&keys, &mut warnings);
        Ok((config, warnings))
    }

    /// Checks the requirements of the kernels. Products cannot overflow: each factor was bounded when it was read.
    pub(super) fn check_kernel_limits(&self, origin: &str) -> Result<()> {
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
    keys.must_be("boundary_threshold", "sample:0", false)?;
    if keys.optional_integer("boundary_predictor_lookahead", 0, 1 << 20)?.unwrap_or(1) != 1 {
        return Err(keys.unsupported_value("boundary_predictor_lookahead", "1"));
    }
    if keys.flag("tie_word_embeddings", false)? {
        return Err(keys.unsupported_value("tie_word_embeddings", "false"));
    }
    Ok(())
}

/// Reads whether there is a suffix table, and its number of rows.
fn read_suffix_table(keys: &Keys, absent: &mut Absent) -> Result<(bool, usize)> {
    /// Rows of the published tables.
    const ROWS: usize = 100_278;
    let rows = keys.optional_integer("subword_vocab_size", 0, 1 << 22)?;
    let used = keys.flag("add_expanded_embeddings", rows != Some(0))?;
    match rows {
        Some(0) if used => {
            Err(keys.bad("subword_vocab_size", "is 0, but `add_expanded_embeddings` requires a suffix table"))
        }
        Some(rows) => Ok((used, rows)),
        None if used => Ok((true, absent.integer(keys, "subword_vocab_size", ROWS, (1, 1 << 22))?)),
        None => Ok((false, 0)),
    }
}
