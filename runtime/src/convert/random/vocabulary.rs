//! A synthetic subword tokenizer: byte-level BPE with any number of entries, the same in every run.
//!
//! The entries resemble a real vocabulary: short strings of lower-case letters, half of them after a space, and runs of
//! spaces and newlines. Each merges two earlier entries, so that any BPE tokenizer can load them.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::convert::random::rng::Stream;
use crate::error::{Error, Result};
use crate::text::byte_alphabet::character_of;

/// The only added token, which is both end of text and padding, as in GPT-2.
const END_OF_TEXT: &str = "<|endoftext|>";
/// Letters in descending order of frequency.
const LETTERS: &str = "etaoinshrdlucmfwypvbgkjqxz";
/// Maximum length of a merged entry in characters, including its space.
const LONGEST: usize = 14;

/// Returns the `tokenizer.json` and `tokenizer_config.json` of a vocabulary with exactly `size` entries.
pub(super) fn tokenizer(size: usize) -> Result<(Value, Value)> {
    // All entries are merges, except the bytes and the end of text.
    let merged = size.checked_sub(256 + 1).ok_or_else(|| {
        Error::invalid(format!(
            "a vocabulary of {size} entries is too small; use at least 257, for the bytes and the end of text"
        ))
    })?;
    let mut vocabulary: Map<String, Value> =
        (0..=255u8).map(|byte| (character_of(byte).to_string(), json!(byte))).collect();
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

/// Returns `count` merges in order of rank. Each merges two earlier entries, and all results are distinct.
fn merge_list(count: usize) -> Vec<(String, String)> {
    let (space, newline) = (character_of(b' '), character_of(b'\n'));
    let mut merges = Vec::with_capacity(count);
    for blank in [space, newline] {
        let run = |length: usize| blank.to_string().repeat(length);
        merges.extend([(run(1), run(1)), (run(2), run(2)), (run(4), run(4))]);
    }
    merges.truncate(count);

    // The right entry of a merge has only letters; the left one may also begin with a space.
    let mut words: Vec<String> = LETTERS.chars().map(String::from).collect();
    let mut spaced = vec![space.to_string()];
    let mut known: HashSet<String> = HashSet::new();
    let stream = Stream::new(0, "vocabulary");
    let mut draws = 0;
    let mut draw = |below: usize| {
        draws += 1;
        // The square of a uniform fraction prefers early entries, which are short and frequent.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vocabulary_has_exactly_its_size() {
        for size in [257, 258, 262, 263, 264, 300, 811, 20_000] {
            let (tokenizer, config) = tokenizer(size).unwrap();
            let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
            assert_eq!(vocabulary.len(), size - 1);
            let ids: HashSet<u64> = vocabulary.values().map(|id| id.as_u64().unwrap()).collect();
            assert_eq!(ids.len(), size - 1);
            assert!(ids.iter().all(|&id| id < size as u64 - 1));
            assert_eq!(tokenizer["added_tokens"][0]["id"], json!(size - 1));
            assert_eq!(config["eos_token"], tokenizer["added_tokens"][0]["content"]);
            // A merge refers only to entries of lower rank.
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
