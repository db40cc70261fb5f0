//! The source model's subword tokenizer.

use std::path::Path;

use bolmo_runtime::{Error, Result, Vocabulary};
use tokenizers::Tokenizer;

/// The token that stands where a model is to fill in what is missing. Bytes need no such repair of the tokenizer's bias, so it is taken out.
const FILL_MARKER: &str = "<|fim_middle|>";

/// The subword tokenizer of the source model, and its vocabulary as byte strings.
pub struct SubwordTokenizer {
    vocabulary: Vocabulary,
    /// Takes the names of special tokens for text.
    text: Tokenizer,
    /// Takes the names of special tokens for these tokens, as in text that was decoded from ids.
    decoded: Tokenizer,
    eos: u32,
    pad: u32,
    fill_marker: Option<u32>,
}

impl SubwordTokenizer {
    /// Reads a `tokenizer.json` and the `tokenizer_config.json` beside it.
    ///
    /// Where no padding is named, as in Llama 3, the end of text stands in for it.
    ///
    /// # Errors
    /// As [`Vocabulary::open`]; and tokenizers of an unknown kind, or that have no end of text.
    pub fn open(tokenizer_json_path: &Path) -> Result<Self> {
        let vocabulary = Vocabulary::open(tokenizer_json_path)?;
        let origin = tokenizer_json_path.display();
        let mut decoded = Tokenizer::from_file(tokenizer_json_path)
            .map_err(|error| Error::unsupported(format!("{origin}: expected a tokenizer of a known kind: {error}")))?;
        decoded.with_padding(None);
        decoded
            .with_truncation(None)
            .map_err(|error| Error::unsupported(format!("{origin}: truncation cannot be switched off: {error}")))?;
        let mut text = decoded.clone();
        text.set_encode_special_tokens(true);
        let eos = vocabulary.eos().ok_or_else(|| {
            Error::unsupported(format!(
                "{origin}: documents are separated by the source model's end of text, but the tokenizer_config.json beside it names no eos_token"
            ))
        })?;
        let pad = vocabulary.pad().unwrap_or(eos);
        let fill_marker = decoded.token_to_id(FILL_MARKER);
        Ok(Self { vocabulary, text, decoded, eos, pad, fill_marker })
    }

    /// The subword ids of a text. Special tokens that are spelled out in it are text.
    ///
    /// # Errors
    /// Text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        encode(&self.text, text)
    }

    /// The subwords as byte strings.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The source model's end of text.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The source model's padding.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Checks that an id is a subword's; `place` says where it stands.
    pub(super) fn check(&self, id: u32, place: impl FnOnce() -> String) -> Result<()> {
        if self.vocabulary.sequence(id).is_some() {
            return Ok(());
        }
        let max = self.vocabulary.max_id();
        Err(Error::invalid(format!(
            "{}: expected the id of a subword, at most {max}, found {id}; the data were made by another tokenizer",
            place()
        )))
    }

    /// A row as the model is to see it: without markers, tokenised anew where it had some, and as long as before.
    pub(super) fn without_markers(&self, row: &[u32]) -> Result<Vec<u32>> {
        let Some(marker) = self.fill_marker.filter(|marker| row.contains(marker)) else { return Ok(row.to_vec()) };
        let kept: Vec<u32> = row.iter().copied().filter(|&id| id != marker).collect();
        let text = self
            .decoded
            .decode(&kept, false)
            .map_err(|error| Error::unsupported(format!("a row cannot be decoded: {error}")))?;
        let mut again = encode(&self.decoded, &text)?;
        // A row that was cut within a character may become longer.
        again.resize(row.len(), self.pad);
        Ok(again)
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|error| Error::unsupported(format!("a text of {} bytes cannot be tokenised: {error}", text.len())))?;
    Ok(encoding.get_ids().to_vec())
}
