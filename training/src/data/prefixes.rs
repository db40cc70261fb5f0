//! A tokenizer with predictable boundaries: its subwords are prefixes of words.
//!
//! A boundary predictor sees the text so far and one more byte, but an ordinary BPE vocabulary segments whole words.
//! Here a word is a run of letters with the whitespace or quotation mark before it, and a subword of more than one byte
//! is a prefix of a word. The tokenizer takes the longest known prefix and then the rest of the word byte by byte, so
//! the subword and the next byte tell whether the subword continues. A word at the start of a line has nothing before
//! it and is spelled in bytes.
//!
//! The result is an ordinary BPE model, whose merges each append a byte to a prefix.

use std::collections::BTreeMap;

use bolmo_runtime::unstable::character_of;
use serde_json::{Map, Value, json};

use super::special_tokens::{END_OF_TEXT, PAD};

/// A word with the character before it. No other character that starts a word may occur within one.
const FRONT: &str = r#"[\s"]?\p{L}+"#;

fn is_front(c: char) -> bool {
    c.is_whitespace() || c == '"'
}

/// Counts the words, each with the character before it. Words without one are left out.
fn words<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<Vec<u8>, u64> {
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for line in lines {
        let mut front = None;
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let letters = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
            if letters == 0 {
                front = is_front(c).then_some(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
            if let Some(front) = front.take() {
                *counts.entry(format!("{front}{}", &rest[..letters]).into_bytes()).or_default() += 1;
            }
            rest = &rest[letters..];
        }
    }
    counts
}

/// The `count` most frequent prefixes of words that have at least two bytes and occur at least twice. Each follows the
/// prefix that is one byte shorter.
fn prefixes(words: &BTreeMap<Vec<u8>, u64>, count: usize) -> Vec<Vec<u8>> {
    let mut counts: BTreeMap<&[u8], u64> = BTreeMap::new();
    for (word, times) in words {
        (2..=word.len()).for_each(|end| *counts.entry(&word[..end]).or_default() += times);
    }
    let mut all: Vec<(&[u8], u64)> = counts.into_iter().filter(|&(_, times)| times >= 2).collect();
    // A shorter prefix is at least as frequent as a longer one, so it sorts first.
    all.sort_by_key(|&(prefix, times)| (std::cmp::Reverse(times), prefix.len()));
    all.truncate(count);
    all.into_iter().map(|(prefix, _)| prefix.to_vec()).collect()
}

/// Learns a `tokenizer.json` of up to `vocabulary` subwords, including two special tokens and all bytes, from lines of
/// text.
pub(super) fn tokenizer<'a>(lines: impl Iterator<Item = &'a str>, vocabulary: usize) -> Value {
    let text = |bytes: &[u8]| bytes.iter().map(|&byte| character_of(byte)).collect::<String>();
    let mut vocab: Vec<String> = vec![END_OF_TEXT.to_owned(), PAD.to_owned()];
    vocab.extend((0..=u8::MAX).map(|byte| text(&[byte])));
    let mut merges = Vec::new();
    for prefix in prefixes(&words(lines), vocabulary.saturating_sub(vocab.len())) {
        let (shorter, last) = prefix.split_at(prefix.len() - 1);
        merges.push(json!([text(shorter), text(last)]));
        vocab.push(text(&prefix));
    }
    let special = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let split = json!({ "type": "Split", "pattern": { "Regex": FRONT }, "behavior": "Isolated", "invert": false });
    let ids: Map<String, Value> = vocab.iter().enumerate().map(|(id, text)| (text.clone(), json!(id))).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(0, END_OF_TEXT), special(1, PAD)],
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [split, bytes] },
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": ids,
            "merges": merges,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{SubwordTokenizer, Subwords, boundary_predictability, train_tokenizer};

    fn opened(text: &str, vocabulary: usize) -> SubwordTokenizer {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text.txt");
        std::fs::write(&file, text).unwrap();
        train_tokenizer(&[&file], vocabulary, Subwords::Prefixes, dir.path()).unwrap();
        SubwordTokenizer::open(&dir.path().join("tokenizer.json")).unwrap()
    }

    fn cut(tokenizer: &SubwordTokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        let bytes = |id: &u32| -> Vec<u8> {
            tokenizer.vocabulary().sequence(*id).unwrap().iter().map(|&id| (id - 4) as u8).collect()
        };
        ids.iter().map(|id| String::from_utf8_lossy(&bytes(id)).into_owned()).collect()
    }

    #[test]
    fn words_are_segmented_after_their_longest_known_prefix() {
        let tokenizer = opened("the cat sat on the mat, \"cat\" said the cat\nthe cat on the mat\n", 400);
        assert_eq!(cut(&tokenizer, "so the cat"), ["s", "o", " the", " cat"]);
        // ` mat` is known and ` mate` is not. The rest of a word is spelled in bytes, even where it contains prefixes.
        assert_eq!(cut(&tokenizer, "a mates cathe"), ["a", " mat", "e", "s", " cat", "h", "e"]);
        assert_eq!(
            cut(&tokenizer, "\"cat\"\nthe  cat."),
            ["\"", "c", "a", "t", "\"", "\n", "t", "h", "e", " ", " cat", "."]
        );
    }

    #[test]
    fn the_vocabulary_is_limited_and_has_every_prefix_of_its_subwords() {
        let counts = words(["the then there them thumb the"].into_iter().cycle().take(3));
        let some = prefixes(&counts, 4);
        assert_eq!(some.len(), 4);
        for prefix in &some {
            assert!(prefix.len() == 2 || some.contains(&prefix[..prefix.len() - 1].to_vec()), "{some:?}");
        }
        assert!(prefixes(&words(["a b"].into_iter()), 9).is_empty(), "a prefix that occurs once is not a subword");
        assert_eq!(opened("the cat the cat\n the cat", 262).vocabulary().len(), 262);
    }

    #[test]
    fn boundaries_are_predictable() {
        let story: Vec<String> = (0..400)
            .map(|i| format!("word{} of \"some\" texts, wor and words\n", ["", "s", "ed", "ing"][i % 4]))
            .collect();
        let text = story.join(&format!("{END_OF_TEXT}\n"));
        for vocabulary in [262, 270, 300] {
            let found = boundary_predictability(&opened(&text, vocabulary), &text, END_OF_TEXT).unwrap().unwrap();
            assert_eq!(found.accuracy, 1.0, "{vocabulary}: {found:?}");
        }
    }
}
