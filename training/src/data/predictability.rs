//! Predictability of a tokenizer's boundaries from what a boundary predictor sees: the text so far and one more byte.
//!
//! A tokenizer segments whole words. Where it can segment a prefix in several ways, the byte after a boundary does not
//! tell which one it chose.

use std::collections::HashMap;

use bolmo_runtime::Result;
use serde::Serialize;

use super::documents::split_documents;
use super::tokenizer::SubwordTokenizer;

/// Bytes of text that [`boundary_predictability`] reads.
pub const PREDICTABILITY_BYTES: usize = 4 << 20;
/// One document of this many is for testing, the others are for learning.
const TESTED: usize = 5;

/// Result of [`boundary_predictability`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BoundaryPredictability {
    /// Bytes per subword.
    pub bytes_per_subword: f64,
    /// Accuracy of a rule that predicts boundaries from the current word, the byte before it and the byte after the
    /// position. It learns from four documents of five and is tested on the fifth. A model also sees earlier words,
    /// which help further.
    pub accuracy: f64,
    /// Share of the positions with a context that the rule has not seen, which `accuracy` leaves out.
    pub unknown: f64,
}

/// Measures the predictability of the boundaries in a text, whose documents are separated by lines with `separator`.
/// Returns `None` for less than two bytes of text.
///
/// # Errors
/// Text that the tokenizer refuses.
pub fn boundary_predictability(
    tokenizer: &SubwordTokenizer,
    text: &str,
    separator: &str,
) -> Result<Option<BoundaryPredictability>> {
    let mut end = text.len().min(PREDICTABILITY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut seen: HashMap<&[u8], [u32; 2]> = HashMap::new();
    let (mut bytes, mut subwords, mut tested) = (0, 0, Vec::new());
    for (i, document) in split_documents(&text[..end], separator).enumerate() {
        let ids = tokenizer.encode(document)?;
        subwords += ids.len();
        bytes += document.len();
        let document = document.as_bytes();
        let mut cut = vec![false; document.len()];
        let mut at = 0;
        for id in ids {
            at += tokenizer.vocabulary().sequence(id).map_or(0, <[u16]>::len);
            if let Some(cut) = at.checked_sub(1).and_then(|last| cut.get_mut(last)) {
                *cut = true;
            }
        }
        for (at, &cut) in cut[..document.len() - 1].iter().enumerate() {
            let context = context(document, at);
            match i % TESTED {
                0 => tested.push((context, cut)),
                _ => seen.entry(context).or_default()[usize::from(cut)] += 1,
            }
        }
    }
    if tested.is_empty() || subwords == 0 {
        return Ok(None);
    }
    let (mut known, mut right) = (0u64, 0u64);
    for (context, cut) in &tested {
        if let Some([without, with]) = seen.get(context) {
            known += 1;
            right += u64::from((with > without) == *cut);
        }
    }
    Ok(Some(BoundaryPredictability {
        bytes_per_subword: bytes as f64 / subwords as f64,
        accuracy: right as f64 / known.max(1) as f64,
        unknown: 1.0 - known as f64 / tested.len() as f64,
    }))
}

/// The context of a position: the byte before the word's whitespace, the word up to the byte `at`, and the byte after
/// it.
fn context(document: &[u8], at: usize) -> &[u8] {
    let blank = document[..=at].iter().rposition(u8::is_ascii_whitespace).unwrap_or(0);
    &document[blank.saturating_sub(1)..at + 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{END_OF_TEXT, Subwords, train_tokenizer};

    #[test]
    fn boundaries_of_words_are_predictable_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("text.txt");
        let tokenizer = |text: &str, vocabulary: usize| {
            std::fs::write(&file, text).unwrap();
            train_tokenizer(&[&file], vocabulary, Subwords::Pairs, dir.path()).unwrap();
            SubwordTokenizer::open(&dir.path().join("tokenizer.json")).unwrap()
        };
        let separator = format!("\n{END_OF_TEXT}\n");
        // Words are subwords, so boundaries are at spaces.
        let text = vec!["the cat sat on the mat the cat sat"; 50].join(&separator);
        let found = boundary_predictability(&tokenizer(&text, 300), &text, END_OF_TEXT).unwrap().unwrap();
        assert!(found.accuracy == 1.0 && found.unknown == 0.0 && found.bytes_per_subword > 2.0, "{found:?}");
        // `abcd` is a subword. `abce` begins with another one, `ab`, and its `c` does not tell which.
        let words = ["abcd", "abce", "ab", "cd", "abcd", "cd", "ab", "abcd", "abce", "cd", "ab"];
        let text = words.repeat(20).join(&separator);
        let found = boundary_predictability(&tokenizer(&text, 261), &text, END_OF_TEXT).unwrap().unwrap();
        assert!(found.accuracy < 1.0 && found.accuracy > 0.8, "{found:?}");
        let text = "x".to_owned();
        assert_eq!(boundary_predictability(&tokenizer(&text, 260), "", END_OF_TEXT).unwrap(), None);
    }
}
