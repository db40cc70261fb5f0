//! Division of a text into documents.

/// The byte order mark that some editors put before a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Whether a line is a separator: the text of one, and then the end of the line or of the file. A byte order mark
/// before the first line does not count.
pub(super) fn is_separator(line: &[u8], separator: &[u8], is_first: bool) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line == separator || is_first && line.strip_prefix(BYTE_ORDER_MARK) == Some(separator)
}

/// The documents of a text, without empty ones.
///
/// A separator is a line that has this text and nothing else. Lines end with LF or CRLF, and the last one may end with
/// the file. A line with anything else on it, even a space, is text. The text of a document stays as it is, with its
/// line ends.
pub fn split_documents<'a>(text: &'a str, separator: &str) -> impl Iterator<Item = &'a str> {
    let (mut start, mut at) = (0, 0);
    let mut lines = text.split_inclusive('\n');
    let mut done = false;
    std::iter::from_fn(move || {
        while !done {
            let Some(line) = lines.next() else {
                done = true;
                return Some(&text[start..]);
            };
            let is_first = at == 0;
            let end = at;
            at += line.len();
            if is_separator(line.as_bytes(), separator.as_bytes(), is_first) {
                let document = &text[start..end];
                start = at;
                return Some(document);
            }
        }
        None
    })
    .filter(|document| !document.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::END_OF_TEXT;

    fn documents(text: &str) -> Vec<&str> {
        split_documents(text, END_OF_TEXT).collect()
    }

    #[test]
    fn separators_are_lines_of_their_own() {
        for (text, expected) in [
            ("a\n<|endoftext|>\nb\n", &["a\n", "b\n"][..]),
            // CRLF, which stays in the text.
            ("a\r\n<|endoftext|>\r\nb\r\n<|endoftext|>\r\n", &["a\r\n", "b\r\n"]),
            // Both in one file.
            ("a\n<|endoftext|>\r\nb\r\n<|endoftext|>\nc", &["a\n", "b\r\n", "c"]),
            // The file ends without a newline.
            ("a\n<|endoftext|>", &["a\n"]),
            ("a\r\n<|endoftext|>\r", &["a\r\n"]),
            ("a", &["a"]),
            // Empty documents.
            ("<|endoftext|>\na\n<|endoftext|>\n<|endoftext|>\r\n\n<|endoftext|>", &["a\n", "\n"]),
            ("<|endoftext|>", &[]),
            ("", &[]),
            // A byte order mark.
            ("\u{feff}<|endoftext|>\na\n\u{feff}<|endoftext|>\n", &["a\n\u{feff}<|endoftext|>\n"]),
            ("\u{feff}a\n<|endoftext|>\n", &["\u{feff}a\n"]),
            // Anything else on the line.
            ("a <|endoftext|>\nb", &["a <|endoftext|>\nb"]),
            ("a\n<|endoftext|> \nb", &["a\n<|endoftext|> \nb"]),
            ("a\n <|endoftext|>\nb", &["a\n <|endoftext|>\nb"]),
            ("a\r<|endoftext|>\rb", &["a\r<|endoftext|>\rb"]),
        ] {
            assert_eq!(documents(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_empty_separator_is_an_empty_line() {
        let documents: Vec<&str> = split_documents("a\nb\n\nc\n\r\n\nd", "").collect();
        assert_eq!(documents, ["a\nb\n", "c\n", "d"]);
    }
}
