//! The 520 ids of the byte vocabulary: conversion between bytes and ids, and validation of input ids.
//!
//! Ids 0 to 3 are special tokens and `4 + b` is byte `b`. These 260 are the plain ids. Each has a fused id,
//! [`FUSED_OFFSET`] above it, which stands for the same token and also marks the end of a patch
//! (`docs/model.md`, Ids and vocabulary).

use crate::error::{Error, Result};

/// Number of plain ids: the special tokens and the 256 bytes.
pub const PLAIN_IDS: u16 = 260;
/// Distance from a plain id to its fused id.
pub const FUSED_OFFSET: u16 = PLAIN_IDS;
/// Number of all ids, plain and fused; the width of the logits.
pub const IDS: usize = 2 * PLAIN_IDS as usize;
/// Id of byte 0 in published checkpoints, where the special tokens come first.
pub const BYTE_OFFSET: u8 = 4;

/// `<pad>`.
pub const PAD_ID: u16 = 0;
/// `<bos>`, which also ends a text.
pub const END_ID: u16 = 1;
/// `<eos>`, unused by all released checkpoints.
pub const UNUSED_EOS_ID: u16 = 2;
/// `<bpe_token_end>`, unused by all released checkpoints.
pub const BPE_END_ID: u16 = 3;

/// Names of the special tokens, in the order of their ids.
pub const SPECIAL_NAMES: [&str; BYTE_OFFSET as usize] = ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"];

/// Returns the plain id of a fused id; a plain id is returned unchanged.
pub const fn plain(id: u16) -> u16 {
    if is_fused(id) { id - FUSED_OFFSET } else { id }
}

/// Whether the id is fused, so that a patch ends at its position.
pub const fn is_fused(id: u16) -> bool {
    id >= FUSED_OFFSET
}

/// Returns the plain id of a byte, given the id of byte 0.
pub fn byte_to_id(byte: u8, byte_offset: u8) -> u16 {
    u16::from(byte_offset) + u16::from(byte)
}

/// Returns the byte of a plain or fused id; `None` for special tokens and numbers out of range.
pub fn id_to_byte(id: u16, byte_offset: u8) -> Option<u8> {
    let byte = plain(id).checked_sub(u16::from(byte_offset))?;
    u8::try_from(byte).ok()
}

/// Encodes a byte string as plain ids, without `<bos>`.
pub fn encode(bytes: &[u8], byte_offset: u8) -> Vec<u16> {
    bytes.iter().map(|&byte| byte_to_id(byte, byte_offset)).collect()
}

/// Validates input ids: `<pad>`, `<bos>` and plain bytes are accepted.
///
/// # Errors
/// `InvalidArgument` for a fused id, an unused special token, or a number out of range. The message has its position.
pub fn validate_input_ids(ids: &[u32]) -> Result<Vec<u16>> {
    ids.iter().enumerate().map(|(position, &id)| validate_input_id(position, id)).collect()
}

fn validate_input_id(position: usize, id: u32) -> Result<u16> {
    const FUSED_END: u16 = 2 * FUSED_OFFSET;
    let found = match u16::try_from(id).unwrap_or(u16::MAX) {
        id @ (PAD_ID | END_ID | 4..PLAIN_IDS) => return Ok(id),
        UNUSED_EOS_ID => "<eos>, which the model does not use",
        BPE_END_ID => "<bpe_token_end>, which the model does not use",
        FUSED_OFFSET..FUSED_END => "a fused id; the model finds the patches of its input itself",
        _ => "a number above all ids",
    };
    Err(Error::invalid(format!("input id {id} at position {position}: expected 0, 1 or 4 to 259, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_round_trips() {
        for byte in 0..=255u8 {
            let id = byte_to_id(byte, BYTE_OFFSET);
            assert_eq!(id, 4 + u16::from(byte));
            assert_eq!(id_to_byte(id, BYTE_OFFSET), Some(byte));
            assert_eq!(id_to_byte(id + FUSED_OFFSET, BYTE_OFFSET), Some(byte));
            assert!(is_fused(id + FUSED_OFFSET) && !is_fused(id));
            assert_eq!(plain(id + FUSED_OFFSET), id);
        }
        assert_eq!(encode(b"A\x00\xff", BYTE_OFFSET), [69, 4, 259]);
    }

    #[test]
    fn special_tokens_and_numbers_out_of_range_have_no_byte() {
        for id in [0, 1, 2, 3, 260, 261, 262, 263, 520, 521, u16::MAX] {
            assert_eq!(id_to_byte(id, BYTE_OFFSET), None, "id {id}");
        }
    }

    #[test]
    fn input_ids_are_plain_bytes_pad_or_bos() {
        assert_eq!(validate_input_ids(&[1, 4, 259, 0]).unwrap(), [1, 4, 259, 0]);
        assert!(validate_input_ids(&[]).unwrap().is_empty());
        for id in [2, 3, 260, 261, 264, 519, 520, 65535, 65536, 65537, u32::MAX] {
            let error = validate_input_ids(&[1, 80, id]).unwrap_err().to_string();
            assert!(error.contains(&format!("input id {id} at position 2")), "{error}");
        }
    }
}
