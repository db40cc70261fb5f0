//! The subword tokenizer of the source model.

use std::path::Path;

use bolmo_runtime::files::{json, read_file};
use bolmo_runtime::{Error, Result, Vocabulary};
use tokenizers::Tokenizer;

/// The fill-in-the-middle marker. It works around a bias of tokenizers that bytes do not have, so it is removed.
const FILL_MARKER: &str = "<|fim_middle|>";

/// Subword tokenizer of the source model, with its vocabulary as byte strings.
pub struct SubwordTokenizer {
    vocabulary: Vocabulary,
    /// Tokenizer that treats the names of special tokens as text.
    text: Tokenizer,
    /// Tokenizer that turns the names of special tokens into these tokens, for text that was decoded from ids.
    decoded: Tokenizer,
    eos: u32,
    pad: u32,
    fill_marker: Option<u32>,
}

impl SubwordTokenizer {
    /// Reads a `tokenizer.json` and the `tokenizer_config.json` beside it.
    ///
    /// The end of text stands in for missing padding, as in Llama 3.
    ///
    /// # Errors
    /// Those of [`Vocabulary::open`], and a tokenizer of an unknown kind or without an end of text.
    pub fn open(tokenizer_json_path: &Path) -> Result<Self> {
        let vocabulary = Vocabulary::open(tokenizer_json_path)?;
        let origin = tokenizer_json_path.display();
        let unknown =
            |error: String| Error::unsupported(format!("{origin}: expected a tokenizer of a known kind: {error}"));
        // The vocabulary was read from the same file, with the same limits.
        let text = read_file(tokenizer_json_path, Vocabulary::LIMITS.bytes as u64)?
            .ok_or_else(|| Error::not_found(format!("{origin}: does not exist; check the path")))?;
        let text = json::strict(&text, &Vocabulary::LIMITS).map_err(|refusal| unknown(refusal.to_string()))?;
        let mut decoded = Tokenizer::from_bytes(text).map_err(|error| unknown(error.to_string()))?;
        decoded.with_padding(None);
        decoded
            .with_truncation(None)
            .map_err(|error| Error::unsupported(format!("{origin}: truncation cannot be disabled: {error}")))?;
        let mut text = decoded.clone();
        text.set_encode_special_tokens(true);
        let eos = vocabulary.eos().ok_or_else(|| {
            Error::unsupported(format!(
                "{origin}: the tokenizer_config.json beside it names no eos_token, which separates documents; add it"
            ))
        })?;
        let pad = vocabulary.pad().unwrap_or(eos);
        let fill_marker = decoded.token_to_id(FILL_MARKER);
        Ok(Self { vocabulary, text, decoded, eos, pad, fill_marker })
    }

    /// Subword ids of a text. Names of special tokens in it are text.
    ///
    /// # Errors
    /// Text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.text, text)
    }

    /// Subwords as byte strings.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// End of text of the source model.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// Padding of the source model.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Checks that an id is a subword; `place` describes its position.
    pub(super) fn check(&self, id: u32, place: impl FnOnce() -> String) -> Result<()> {
        if self.vocabulary.sequence(id).is_some() {
            return Ok(());
        }
        let max = self.vocabulary.max_id();
        Err(Error::invalid(format!(
            "{}: expected the id of a subword, at most {max}, found {id}; use data of this tokenizer",
            place()
        )))
    }

    /// A row without fill-in-the-middle markers, of the same length. A row that had some is tokenized again.
    pub(super) fn without_markers(&self, row: &[u32]) -> Result<Vec<u32>> {
        let Some(marker) = self.fill_marker.filter(|marker| row.contains(marker)) else { return Ok(row.to_vec()) };
        let kept: Vec<u32> = row.iter().copied().filter(|&id| id != marker).collect();
        let text = self
            .decoded
            .decode(&kept, false)
            .map_err(|error| Error::unsupported(format!("a row cannot be decoded: {error}")))?;
        let mut again = encode(&self.decoded, &text)?;
        // A row that ends within a character may become longer.
        again.resize(row.len(), self.pad);
        Ok(again)
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|error| Error::unsupported(format!("a text of {} bytes cannot be tokenized: {error}", text.len())))?;
    Ok(encoding.get_ids().to_vec())
}
