//! Incremental UTF-8 decoding that never splits a character.

/// An incremental UTF-8 decoder.
///
/// The concatenated output equals [`String::from_utf8_lossy`] of all the bytes: invalid bytes become U+FFFD. A
/// character that is split across several calls appears whole in the output of the call that completes it.
#[derive(Debug, Clone, Default)]
pub struct Utf8Assembler {
    /// The first bytes of an incomplete character, at most three.
    pending: Vec<u8>,
}

impl Utf8Assembler {
    /// Creates an assembler at the start of a text.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and returns the text that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(self.pending.len() + bytes.len());
        let joined;
        let bytes = if self.pending.is_empty() {
            bytes
        } else {
            self.pending.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.pending);
            &joined
        };
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            // Only the last bytes can be an incomplete character; anywhere else they are invalid.
            if chunks.peek().is_none() && is_unfinished(chunk.invalid()) {
                self.pending = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }

    /// Number of bytes held back because they may begin a character, at most three.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Ends the text and resets the assembler. Returns U+FFFD if the text ends within a character, otherwise nothing.
    pub fn finish(&mut self) -> String {
        if self.pending.is_empty() {
            return String::new();
        }
        self.pending.clear();
        char::REPLACEMENT_CHARACTER.to_string()
    }
}

/// Whether more bytes could complete `bytes` to a character.
fn is_unfinished(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble(pieces: &[&[u8]]) -> String {
        let mut assembler = Utf8Assembler::new();
        let mut text: String = pieces.iter().map(|piece| assembler.push(piece)).collect();
        text += &assembler.finish();
        text
    }

    #[test]
    fn a_split_character_appears_whole() {
        let mut assembler = Utf8Assembler::new();
        assert_eq!(assembler.push(b"a\xf0\x9f"), "a");
        assert_eq!(assembler.push(b"\x98"), "");
        assert_eq!(assembler.push(b"\x80b"), "😀b");
        assert_eq!(assembler.finish(), "");
    }

    #[test]
    fn an_incomplete_character_at_the_end_is_one_replacement() {
        let mut assembler = Utf8Assembler::new();
        assert_eq!(assembler.push(b"\xf0\x9f\x98"), "");
        assert_eq!(assembler.finish(), "\u{fffd}");
        assert_eq!(assembler.push(b"again"), "again");
        assert_eq!(assembler.finish(), "");
    }

    #[test]
    fn an_invalid_byte_does_not_swallow_what_follows() {
        assert_eq!(assemble(&[b"\xe2\x82", b"A"]), "\u{fffd}A");
        assert_eq!(assemble(&[b"\xe2", b"\xe2\x82\xac"]), "\u{fffd}€");
        assert_eq!(assemble(&[b"\xed", b"\xa0", b"\x80"]), "\u{fffd}\u{fffd}\u{fffd}");
    }

    /// Random bytes that are often parts of characters, valid and invalid.
    fn fragment() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<char>().prop_map(|c| c.to_string().into_bytes()),
            any::<char>().prop_map(|c| c.to_string().into_bytes()[..c.len_utf8().div_ceil(2)].to_vec()),
            prop::collection::vec(0x80u8..=0xff, 0..4),
            prop::collection::vec(any::<u8>(), 0..4),
        ]
    }

    proptest! {
        #[test]
        fn pieces_equal_the_whole(
            fragments in prop::collection::vec(fragment(), 0..20),
            cuts in prop::collection::vec(0usize..6, 0..60),
        ) {
            let whole = fragments.concat();
            let (mut pieces, mut rest) = (Vec::new(), whole.as_slice());
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(assemble(&pieces), String::from_utf8_lossy(&whole));
        }
    }
}
