//! The 520 ids of the byte vocabulary: conversions between bytes and ids, and the check on ids from outside.
//!
//! Ids 0 to 3 are specials, `4 + b` is byte `b`, and adding [`FUSED_OFFSET`] to an id says that a patch ends there.

use crate::error::{Error, Result};

/// The number of plain ids: the specials and the 256 bytes.
pub const PLAIN_IDS: u16 = 260;
/// What a fused id is above its plain twin.
pub const FUSED_OFFSET: u16 = PLAIN_IDS;
/// The number of all ids, plain and fused; the width of the logits.
pub const IDS: usize = 2 * PLAIN_IDS as usize;
/// The id of byte 0 in published checkpoints: the number of specials in front of the bytes.
pub const BYTE_OFFSET: u8 = 4;

/// `<pad>`.
pub const PAD_ID: u16 = 0;
/// `<bos>`, which is also the end of text.
pub const END_ID: u16 = 1;
/// `<eos>`, which no released checkpoint uses.
pub const UNUSED_EOS_ID: u16 = 2;
/// `<bpe_token_end>`, which no released checkpoint uses.
pub const BPE_END_ID: u16 = 3;

/// The names of the specials, in the order of their ids.
pub const SPECIAL_NAMES: [&str; BYTE_OFFSET as usize] = ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"];

/// The plain twin of an id; plain ids are returned as they are.
pub const fn plain(id: u16) -> u16 {
    if is_fused(id) { id - FUSED_OFFSET } else { id }
}

/// Whether the id says that a patch ends at its position.
pub const fn is_fused(id: u16) -> bool {
    id >= FUSED_OFFSET
}

/// The plain id of a byte, where byte 0 has the id `byte_offset`.
pub fn byte_to_id(byte: u8, byte_offset: u8) -> u16 {
    u16::from(byte_offset) + u16::from(byte)
}

/// The byte of a plain or fused id; `None` for specials and for numbers that are no ids.
pub fn id_to_byte(id: u16, byte_offset: u8) -> Option<u8> {
    let byte = plain(id).checked_sub(u16::from(byte_offset))?;
    u8::try_from(byte).ok()
}

/// The plain ids of a byte string; `<bos>` is not added.
pub fn encode(bytes: &[u8], byte_offset: u8) -> Vec<u16> {
    bytes.iter().map(|&byte| byte_to_id(byte, byte_offset)).collect()
}

/// Checks ids that a caller gives as input: `<pad>`, `<bos>` and plain bytes.
///
/// # Errors
/// Names the position and the id of the first one that is fused, unused by the model or no id at all.
pub fn validate_input_ids(ids: &[u32]) -> Result<Vec<u16>> {
    ids.iter().enumerate().map(|(position, &id)| validate_input_id(position, id)).collect()
}

fn validate_input_id(position: usize, id: u32) -> Result<u16> {
    const FUSED_END: u16 = 2 * FUSED_OFFSET;
    let found = match u16::try_from(id).unwrap_or(u16::MAX) {
        id @ (PAD_ID | END_ID | 4..PLAIN_IDS) => return Ok(id),
        UNUSED_EOS_ID => "<eos>, which the model does not know",
        BPE_END_ID => "<bpe_token_end>, which the model does not know",
        FUSED_OFFSET..FUSED_END => "a fused id, but patches of the input are the model's to find",
        _ => "no id at all",
    };
    Err(Error::invalid(format!("input id {id} at position {position}: expected 0, 1 or 4 to 259, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_goes_to_its_id_and_back() {
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
    fn specials_and_strangers_have_no_byte() {
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
