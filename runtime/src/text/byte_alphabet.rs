//! The alphabet of GPT-2's byte-level tokenizers: one printable character for each byte.
//!
//! A printable byte stands for itself (Latin-1). The other bytes, in ascending order, are the characters from U+0100
//! on.

/// The end of the range that all characters of the alphabet lie in: 68 bytes are not printable.
const END: usize = 0x100 + 68;
/// The character of each byte.
const CHARACTERS: [char; 256] = characters();
/// The byte of each character.
const BYTES: [Option<u8>; END] = bytes();

/// Returns the character of a byte.
#[cfg(any(test, not(target_family = "wasm")))]
pub fn character_of(byte: u8) -> char {
    CHARACTERS[usize::from(byte)]
}

/// Returns the byte of a character; `None` for a character outside the alphabet.
pub fn byte_of(character: char) -> Option<u8> {
    BYTES.get(character as usize).copied().flatten()
}

const fn characters() -> [char; 256] {
    let mut characters = ['\0'; 256];
    let (mut byte, mut next) = (0, '\u{100}' as u32);
    while byte < 256 {
        let code = if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        characters[byte] = match char::from_u32(code) {
            Some(character) => character,
            None => char::REPLACEMENT_CHARACTER,
        };
        byte += 1;
    }
    characters
}

const fn bytes() -> [Option<u8>; END] {
    let mut bytes = [None; END];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARACTERS[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_those_of_gpt2() {
        assert_eq!([b' ', b'\n', b'\t', b'A', 0, 173].map(character_of), ['Ġ', 'Ċ', 'ĉ', 'A', 'Ā', 'Ń']);
    }

    #[test]
    fn the_alphabet_is_a_bijection() {
        for byte in 0..=255 {
            assert_eq!(byte_of(character_of(byte)), Some(byte));
        }
        assert_eq!((0..0x1000).filter_map(char::from_u32).filter_map(byte_of).count(), 256);
    }
}
