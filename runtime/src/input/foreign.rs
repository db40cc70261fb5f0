//! Files of other kinds that stand in place of weights or JSON texts: unfinished downloads, web pages, other formats.

use crate::input::shorten::quoted;

/// Number of bytes at the start of a file by which its kind is recognized.
pub const START_BYTES: usize = 512;
/// Number of characters of a text that a message quotes.
const QUOTED: usize = 40;

/// What a file is, by its first bytes, if it is of a known other kind: a phrase that continues the name of the file and
/// says what to do. No JSON text and no safetensors file is recognized.
pub fn foreign(start: &[u8]) -> Option<String> {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let is_page = |tag: &[u8]| text.get(..tag.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(tag));
    let begins = |magics: &[&[u8]]| magics.iter().any(|magic| start.starts_with(magic));
    let what = if text.starts_with(b"version https://git-lfs.github.com/spec/") {
        "is a Git LFS pointer in place of the file; run `git lfs pull` in its folder"
    } else if [&b"<!doctype"[..], b"<html", b"<head", b"<?xml", b"<!--"].into_iter().any(is_page) {
        "is a web page (HTML) in place of the file; download the file itself (on Hugging Face, with `/resolve/` \
         instead of `/blob/` in the address)"
    } else if begins(&[b"\xff\xfe", b"\xfe\xff", b"{\0", b"\0{", b"[\0", b"\0["]) {
        "is a text in UTF-16; save it as UTF-8"
    } else if begins(&[b"GGUF"]) {
        "is a GGUF file, which is not supported; use the model's folder with weights in the safetensors format"
    } else if begins(&[b"PK\x03\x04"]) {
        "is a zip archive, perhaps a PyTorch file; unpack it, or save the weights as safetensors"
    } else if start.first() == Some(&0x80) && start.get(1).is_some_and(|version| (2..=5).contains(version)) {
        "is a pickle of PyTorch, which is not supported; save the weights as safetensors"
    } else if begins(&[b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"7z\xbc\xaf\x27\x1c", b"BZh"])
        || start.get(257..262) == Some(b"ustar")
    {
        "is a compressed file or an archive; unpack it"
    } else {
        return None;
    };
    Some(what.to_owned())
}

/// The first words of a text that is no JSON and no file of weights, quoted, such as the answer "Entry not found" of a
/// server. `None` for binary data.
pub fn words(start: &[u8]) -> Option<String> {
    let start = start.get(..START_BYTES).unwrap_or(start);
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A cut may divide a character.
        Err(e) if e.error_len().is_none() => std::str::from_utf8(start.get(..e.valid_up_to())?).ok()?,
        Err(_) => return None,
    };
    let is_text = text.chars().all(|c| !c.is_control() || c.is_ascii_whitespace());
    let line = text.trim_start().lines().next()?;
    if !is_text || !line.starts_with(char::is_alphabetic) {
        return None;
    }
    Some(quoted(line, QUOTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_files_are_recognized() {
        let tar = [&[b'a'; 257][..], b"ustar\0"].concat();
        let cases: [(&[u8], &str); 14] = [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"<HTML>", "web page"),
            (b"<?xml version=\"1.0\"?><Error>", "web page"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"\xfe\xff\0{", "UTF-16"),
            (b"{\0\"\0", "UTF-16"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"PK\x03\x04\0\0", "zip archive"),
            (b"\x80\x02}q\0", "pickle"),
            (b"\x1f\x8b\x08", "unpack"),
            (b"\x28\xb5\x2f\xfd\0", "unpack"),
            (b"BZh9", "unpack"),
            (&tar, "unpack"),
        ];
        for (start, word) in cases {
            let what = foreign(start).unwrap_or_else(|| panic!("{start:?}: nothing"));
            assert!(what.contains(word), "{what}");
        }
        for start in [&b""[..], b"{}", b"[1]", b"\xef\xbb\xbf{}", b" 7", b"\"<html\"", b"\x08\0\0\0\0\0\0\0{\"a\":{}}"]
        {
            assert_eq!(foreign(start), None, "{start:?}");
        }
    }

    #[test]
    fn the_first_words_of_a_text_are_quoted() {
        assert_eq!(words(b"Entry not found").as_deref(), Some("\"Entry not found\""));
        let long = words("é".repeat(300).as_bytes()).expect("a text");
        assert_eq!(long, format!("\"{}\"...", "é".repeat(40)));
        for start in [&b""[..], b"{\"error\": 1}", b"\x08\0\0\0\0\0\0\0{", b"ab\0", b"\xff\xff"] {
            assert_eq!(words(start), None, "{start:?}");
        }
    }
}
