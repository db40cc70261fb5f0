//! Reading `tokenizer_config`: the special tokens and the id of byte 0.

use serde_json::{Value, json};

use crate::config::keys::{Keys, shown};
use crate::config::{BYTE_VOCABULARY, SpecialIds};
use crate::error::Result;

/// Number of plain ids: 256 bytes and the special tokens.
const PLAIN_IDS: usize = BYTE_VOCABULARY / 2;
/// Number of special tokens of the byte vocabulary: the plain ids that are not bytes.
pub(super) const SPECIAL_TOKENS: usize = PLAIN_IDS - 256;

/// The `tokenizer_config` of published models, which is also the reference's where a file has none:
/// `BolmoTokenizerConfig.bolmo()` in `tokenization_bolmo.py` of `allenai/bolmo-core`, commit `7037c6d`.
pub(super) fn published_vocabulary() -> Value {
    json!({
        "bos_token_id": 1,
        "bpe_token_end_id": 3,
        "eos_token_id": 1,
        "original_identifier": "allenai/dolma2-tokenizer",
        "pad_token_id": 0,
        "special_tokens": ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"],
        "special_tokens_first": true,
        "vocab_size": BYTE_VOCABULARY,
    })
}

/// Reads the ids and names of the special tokens and the id of byte 0 from `tokenizer_config`.
pub(super) fn read_special_tokens(keys: &Keys) -> Result<(SpecialIds, Vec<String>, u16)> {
    let size = keys.integer("vocab_size", 0, 1 << 22)?;
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
