//! Patches that end before whitespace: words with the space before them, and runs of punctuation, alone or with the
//! words that they follow.

/// Maximum length of a patch, unless it begins with more whitespace than this.
const LONGEST: usize = 16;

/// Class of an id in the division into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Padding, or the beginning or end of text: a patch ends after it.
    Special,
    /// Space, tab or line break.
    Blank,
    /// Punctuation, a control character, or the first byte of a multi-byte character.
    Mark,
    /// An ASCII letter or digit, or a later byte of a multi-byte character.
    Word,
}

impl Kind {
    /// Class of a byte.
    pub(super) fn of_byte(byte: u8) -> Self {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => Self::Blank,
            0x80..=0xbf => Self::Word,
            _ if byte.is_ascii_alphanumeric() => Self::Word,
            _ => Self::Mark,
        }
    }

    /// The class if punctuation counts as part of the words around it.
    pub(super) fn in_word(self) -> Self {
        if self == Self::Mark { Self::Word } else { self }
    }
}

/// Lengths of patches that end where the class of the bytes changes. Whitespace belongs to the patch after it.
pub(super) fn space_patch_lens(kinds: &[Kind]) -> Vec<u32> {
    let mut lens = Vec::new();
    let mut start = 0;
    let mut only_blanks = true;
    for (i, &kind) in kinds.iter().enumerate() {
        only_blanks &= kind == Kind::Blank;
        // Whitespace might follow the end. A special id counts as a mark to its neighbor.
        let next = kinds.get(i + 1).copied().unwrap_or(Kind::Blank);
        let changes = plain(kind) != plain(next);
        if !only_blanks && (changes || kind == Kind::Special || i + 1 - start >= LONGEST) {
            lens.push(i + 1 - start);
            start = i + 1;
            only_blanks = true;
        }
    }
    if start < kinds.len() {
        lens.push(kinds.len() - start);
    }
    // A row is far shorter than a u32 can hold.
    lens.into_iter().map(|len| len as u32).collect()
}

fn plain(kind: Kind) -> Kind {
    if kind == Kind::Special { Kind::Mark } else { kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let kinds: Vec<Kind> = text.bytes().map(|b| if b == b'#' { Kind::Special } else { Kind::of_byte(b) }).collect();
        let mut rest = text;
        let lens = space_patch_lens(&kinds);
        lens.iter()
            .map(|&len| {
                let piece;
                (piece, rest) = rest.split_at(len as usize);
                piece
            })
            .collect()
    }

    #[test]
    fn whitespace_belongs_to_the_next_word() {
        assert_eq!(pieces("#given, as a\n\n  string."), ["#", "given", ",", " as", " a", "\n\n  string", "."]);
        assert_eq!(pieces("x = __main__ \t"), ["x", " =", " __", "main", "__", " \t"]);
        assert_eq!(pieces("##a#"), ["#", "#", "a", "#"]);
        assert!(pieces("").is_empty());
    }

    #[test]
    fn punctuation_stays_with_its_word_where_it_counts_as_one() {
        let text = "#\"Well,\" said x = f(1)\n\n  end.#";
        let kinds: Vec<Kind> = text.bytes().map(|b| if b == b'#' { Kind::Special } else { Kind::of_byte(b) }).collect();
        let lens = space_patch_lens(&kinds.iter().map(|kind| kind.in_word()).collect::<Vec<_>>());
        assert_eq!(lens, ["#", "\"Well,\"", " said", " x", " =", " f(1)", "\n\n  end.", "#"].map(|s| s.len() as u32));
    }

    #[test]
    fn long_words_are_split_but_whitespace_is_not() {
        let long = format!("{}x{}", " ".repeat(20), "y".repeat(20));
        // The first patch is already too long when its word begins.
        assert_eq!(pieces(&long), [&long[..21], &long[21..37], &long[37..]]);
    }
}
