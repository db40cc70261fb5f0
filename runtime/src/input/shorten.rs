//! Texts of unknown length in messages.

/// The beginning of a text for a message, with dots if it has more than `characters` characters.
pub fn shortened(text: &str, characters: usize) -> String {
    let (start, dots) = cut(text, characters);
    format!("{start}{dots}")
}

/// The same in quotation marks, with escapes, so that it stays on one line.
pub fn quoted(text: &str, characters: usize) -> String {
    let (start, dots) = cut(text, characters);
    format!("{start:?}{dots}")
}

fn cut(text: &str, characters: usize) -> (&str, &'static str) {
    match text.char_indices().nth(characters) {
        Some((end, _)) => (text.get(..end).unwrap_or_default(), "..."),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_end_in_dots() {
        assert_eq!(["", "éé", "ééé"].map(|text| shortened(text, 2)), ["", "éé", "éé..."]);
        assert_eq!(["", "\n", "a\"b"].map(|text| quoted(text, 2)), ["\"\"", "\"\\n\"", "\"a\\\"\"..."]);
    }
}
