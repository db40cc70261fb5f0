//! A synthetic subword tokenizer: byte-level BPE with any number of entries, the same for every run.
//!
//! Its entries only have the look of a real vocabulary: short pieces of lower-case letters, half of them with a space
//! in front, and runs of spaces and newlines. Each merges two earlier entries, so any BPE tokenizer can load it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::convert::random::rng::Stream;
use crate::error::{Error, Result};

/// The only added token: end of text and padding in one, as in GPT-2.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Letters, frequent ones first.
const LETTERS: &str = "etaoinshrdlucmfwypvbgkjqxz";
/// Characters that a merged entry has at most, its space included.
const LONGEST: usize = 14;

/// `tokenizer.json` and `tokenizer_config.json` of a vocabulary with exactly `size` entries.
pub(super) fn tokenizer(size: usize) -> Result<(Value, Value)> {
    // The bytes and the end of text; what is left is merged.
    let merged = size.checked_sub(256 + 1).ok_or_else(|| {
        Error::invalid(format!("a vocabulary needs at least 257 entries for bytes and end of text, found {size}"))
    })?;
    let mut vocabulary: Map<String, Value> =
        (0..=255u8).map(|byte| (printable(byte).to_string(), json!(byte))).collect();
    let mut merges = Vec::with_capacity(merged);
    for (i, (left, right)) in merge_list(merged).into_iter().enumerate() {
        vocabulary.insert(format!("{left}{right}"), json!(256 + i));
        merges.push(json!([left, right]));
    }
    let end_of_text = size - 1;
    let flags = |mut token: Value| {
        for flag in ["single_word", "lstrip", "rstrip", "normalized"] {
            token[flag] = json!(false);
        }
        token["special"] = json!(true);
        token
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [flags(json!({ "id": end_of_text, "content": END_OF_TEXT }))],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    });
    let config = json!({
        "added_tokens_decoder": { end_of_text.to_string(): flags(json!({ "content": END_OF_TEXT })) },
        "bos_token": null,
        "clean_up_tokenization_spaces": false,
        "eos_token": END_OF_TEXT,
        "extra_special_tokens": {},
        "model_max_length": 8192,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    });
    Ok((tokenizer, config))
}

/// `count` merges in order of rank, each of two entries that exist by then, with distinct results.
fn merge_list(count: usize) -> Vec<(String, String)> {
    let (space, newline) = (printable(b' '), printable(b'\n'));
    let mut merges = Vec::with_capacity(count);
    for blank in [space, newline] {
        let run = |length: usize| blank.to_string().repeat(length);
        merges.extend([(run(1), run(1)), (run(2), run(2)), (run(4), run(4))]);
    }
    merges.truncate(count);

    // Entries that may stand on the right: letters alone. On the left any of these, or one with a space in front.
    let mut words: Vec<String> = LETTERS.chars().map(String::from).collect();
    let mut spaced = vec![space.to_string()];
    let mut known: HashSet<String> = HashSet::new();
    let stream = Stream::new(0, "vocabulary");
    let mut draws = 0;
    let mut draw = |below: usize| {
        draws += 1;
        // The upper bits as a fraction, squared: early entries, which are short and frequent, are merged most.
        let fraction = (stream.word(draws) >> 11) as f64 / (1u64 << 53) as f64;
        ((fraction * fraction * below as f64) as usize).min(below - 1)
    };
    while merges.len() < count {
        let spaced_first = merges.len() % 2 == 0;
        let left = if spaced_first { &spaced[draw(spaced.len())] } else { &words[draw(words.len())] };
        let right = &words[draw(words.len())];
        let result = format!("{left}{right}");
        if result.chars().count() > LONGEST || !known.insert(result.clone()) {
            continue;
        }
        merges.push((left.clone(), right.clone()));
        if spaced_first { spaced.push(result) } else { words.push(result) }
    }
    merges
}

/// GPT-2's stand-in for a byte: itself where it is printable, else the next character from 256 on.
pub fn printable(byte: u8) -> char {
    let is_printable = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    if is_printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !is_printable(b)).count();
    char::from_u32(256 + rank as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_those_of_gpt2() {
        assert_eq!([b' ', b'\n', b'\t', b'A', 0, 173].map(printable), ['Ġ', 'Ċ', 'ĉ', 'A', 'Ā', 'Ń']);
        let distinct: HashSet<char> = (0..=255).map(printable).collect();
        assert_eq!(distinct.len(), 256);
    }

    #[test]
    fn every_size_has_exactly_its_entries() {
        for size in [257, 258, 262, 263, 264, 300, 811, 20_000] {
            let (tokenizer, config) = tokenizer(size).unwrap();
            let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
            assert_eq!(vocabulary.len(), size - 1);
            let ids: HashSet<u64> = vocabulary.values().map(|id| id.as_u64().unwrap()).collect();
            assert_eq!(ids.len(), size - 1);
            assert!(ids.iter().all(|&id| id < size as u64 - 1));
            assert_eq!(tokenizer["added_tokens"][0]["id"], json!(size - 1));
            assert_eq!(config["eos_token"], tokenizer["added_tokens"][0]["content"]);
            // A merge refers to entries of lower rank only.
            let id = |text: &Value| vocabulary[text.as_str().unwrap()].as_u64().unwrap();
            for (rank, merge) in tokenizer["model"]["merges"].as_array().unwrap().iter().enumerate() {
                let result = format!("{}{}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap());
                assert_eq!(vocabulary[&result], json!(256 + rank));
                assert!(id(&merge[0]) < 256 + rank as u64 && id(&merge[1]) < 256 + rank as u64);
            }
        }
        assert!(tokenizer(256).is_err());
    }
}
