//! Training of a byte-level BPE tokenizer, for models that are trained from scratch.

use std::path::Path;

use bolmo_runtime::files::read_file;
use bolmo_runtime::unstable::output::{io_error, write_json};
use bolmo_runtime::{Error, Result, Vocabulary};
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder, decoders, normalizers, processors};

use super::documents::split_documents;
use super::prefixes;
use super::special_tokens::{END_OF_TEXT, PAD};

/// Kind of subwords that a tokenizer learns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Subwords {
    /// Frequent pairs anywhere in a word, as found by byte-pair encoding.
    #[default]
    Pairs,
    /// Prefixes of words, so that the text up to the next byte tells where a subword ends.
    Prefixes,
}

/// Learns `vocabulary` subwords from text files and writes `tokenizer.json` and `tokenizer_config.json` to the folder
/// `out`, which is created if necessary. The subwords include two special tokens and all bytes.
///
/// # Errors
/// `InvalidArgument` for a vocabulary that is too small for all bytes, for files without text and for the folder of a
/// checkpoint, `Io`, and text that is not UTF-8.
pub fn train_tokenizer(files: &[impl AsRef<Path>], vocabulary: usize, subwords: Subwords, out: &Path) -> Result<()> {
    if !(260..=1 << 20).contains(&vocabulary) {
        return Err(Error::invalid(format!(
            "a vocabulary must have between 260 and {} subwords, found {vocabulary}",
            1 << 20
        )));
    }
    if holds_checkpoint(out) {
        return Err(Error::invalid(format!("{}: holds a checkpoint; name a new folder", out.display())));
    }
    let mut texts = Vec::new();
    for path in files {
        let path = path.as_ref();
        let bytes = read_file(path, u64::MAX)?
            .ok_or_else(|| Error::not_found(format!("{}: does not exist; check the path", path.display())))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            Error::io(format!(
                "{}: expected text in UTF-8, found an invalid byte at offset {}; convert the file to UTF-8",
                path.display(),
                e.utf8_error().valid_up_to()
            ))
        })?;
        // Separators between documents are not text. Lines are short enough to be counted in parallel.
        let documents = split_documents(&text, END_OF_TEXT);
        texts.extend(documents.flat_map(|document| document.split_inclusive('\n')).map(str::to_owned));
    }
    if texts.iter().all(|line| line.trim().is_empty()) {
        let names: Vec<_> = files.iter().map(|path| path.as_ref().display().to_string()).collect();
        return Err(Error::invalid(format!(
            "{}: no text to learn subwords from; name files with text",
            names.join(", ")
        )));
    }
    let value = match subwords {
        Subwords::Pairs => pairs(texts, vocabulary)?,
        Subwords::Prefixes => prefixes::tokenizer(texts.iter().map(String::as_str), vocabulary),
    };
    std::fs::create_dir_all(out).map_err(|e| io_error(out, "cannot be created", &e))?;
    write_json(&out.join("tokenizer.json"), &value)?;
    let config = json!({
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "bos_token": null,
        "model_max_length": 1_000_000,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    write_json(&out.join("tokenizer_config.json"), &config)
}

/// Whether a folder has a model's configuration or weights, whose own tokenizer would be lost.
fn holds_checkpoint(folder: &Path) -> bool {
    // The folder may not exist yet. Errors of an existing one are reported when it is written.
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        path.ends_with("config.json") || path.extension().is_some_and(|extension| extension == "safetensors")
    })
}

/// Learns a `tokenizer.json` by byte-pair encoding.
fn pairs(texts: Vec<String>, vocabulary: usize) -> Result<Value> {
    let failed = |e: tokenizers::Error| Error::internal(format!("the tokenizer cannot be trained: {e}"));
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer =
        TokenizerBuilder::<BPE, normalizers::NormalizerWrapper, _, processors::PostProcessorWrapper, _>::default()
            .with_model(BPE::default())
            .with_pre_tokenizer(Some(bytes))
            .with_decoder(Some(decoders::DecoderWrapper::ByteLevel(bytes)))
            .build()
            .map_err(failed)?;
    let special = |content: &str| AddedToken::from(content, true);
    let mut trainer = BpeTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(2)
        // Each character of the alphabet is a byte.
        .max_token_length(Some(Vocabulary::MAX_TOKEN_BYTES))
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![special(END_OF_TEXT), special(PAD)])
        .build();
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(failed)?;
    let text = tokenizer.to_string(true).map_err(failed)?;
    serde_json::from_str(&text).map_err(|e| Error::internal(format!("the tokenizer is not valid JSON: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_subword_is_longer_than_a_vocabulary_may_have() {
        let text = format!("{}\n", "-".repeat(20_000));
        let json = pairs(vec![text], 300).unwrap();
        let longest = json["model"]["vocab"].as_object().unwrap().keys().map(String::len).max().unwrap();
        assert!((1000..=Vocabulary::MAX_TOKEN_BYTES).contains(&longest), "{longest}");
    }

    #[test]
    fn separators_teach_no_subwords() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.txt");
        std::fs::write(&text, "some text\r\n<|endoftext|>\r\n".repeat(50) + "<|endoftext|>").unwrap();
        for subwords in [Subwords::Pairs, Subwords::Prefixes] {
            let out = folder.path().join("out");
            train_tokenizer(&[&text], 320, subwords, &out).unwrap();
            let value: Value = serde_json::from_slice(&std::fs::read(out.join("tokenizer.json")).unwrap()).unwrap();
            let known = value["model"]["vocab"].as_object().unwrap();
            assert!(known.keys().any(|subword| subword.ends_with("text")), "{known:?}");
            let wrong: Vec<_> = known.keys().filter(|key| key.contains("end") && *key != END_OF_TEXT).collect();
            assert!(wrong.is_empty(), "{wrong:?}");
        }
    }

    #[test]
    fn the_tokenizer_of_a_checkpoint_is_not_replaced() {
        for name in ["config.json", "model.safetensors"] {
            let folder = tempfile::tempdir().unwrap();
            let text = folder.path().join("text.txt");
            std::fs::write(&text, "some text\n").unwrap();
            std::fs::write(folder.path().join(name), "{}").unwrap();
            let error = train_tokenizer(&[&text], 320, Subwords::Pairs, folder.path()).unwrap_err();
            assert!(error.message().contains("holds a checkpoint"), "{}", error.message());
            assert!(!folder.path().join("tokenizer.json").exists());
        }
    }
}
