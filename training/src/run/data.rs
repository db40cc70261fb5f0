//! The data of a run.

use std::path::PathBuf;

use bolmo_runtime::{Error, Result};

use super::config::RunConfig;
use super::kind::Kind;
use crate::data::{Corpus, Dataset, Documents, RowOptions, SubwordTokenizer, TokenFile};

/// Texts in memory, in UTF-8, with separators between their documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// Texts to train on.
    pub train: &'a [Vec<u8>],
    /// Texts to evaluate on.
    pub held_out: &'a [Vec<u8>],
}

/// Path of the run's `tokenizer.json`.
pub(super) fn tokenizer_path(kind: Kind, config: &RunConfig) -> Result<PathBuf> {
    let (key, folder) = match (&config.data.tokenizer, kind) {
        (Some(path), _) => ("data.tokenizer", path.clone()),
        (None, Kind::Stage2) => ("model.student", config.model.student.clone().unwrap_or_default()),
        (None, _) => ("model.source", config.model.source.clone().unwrap_or_default()),
    };
    let path = if folder.is_dir() { folder.join("tokenizer.json") } else { folder };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::not_found(format!(
        "`{key}`: {}: there is no such file; name the folder of the subword tokenizer with `data.tokenizer`",
        path.display()
    )))
}

/// The subwords of files and of texts in memory. `key` names the files in messages.
fn corpus(
    key: &str,
    (files, texts): (&[PathBuf], &[Vec<u8>]),
    config: &RunConfig,
    tokenizer: &SubwordTokenizer,
) -> Result<Corpus> {
    let documents = Documents::Delimited(config.data.separator.clone());
    let mut corpus = Corpus::new(tokenizer);
    for path in files {
        let added = match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => TokenFile::open(path).map(|file| corpus.add_file(file)),
            _ => corpus.add_text_file(tokenizer, path, &documents),
        };
        added.map_err(|e| e.context(format_args!("`{key}`")))?;
    }
    for (i, text) in texts.iter().enumerate() {
        corpus.add_text(tokenizer, &format!("text {i}"), text.as_slice(), &documents)?;
    }
    let (found, row) = (corpus.len(), config.batch.subwords);
    if found >= row as u64 {
        return Ok(corpus);
    }
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let names = if names.is_empty() { String::new() } else { format!("{}: ", names.join(", ")) };
    Err(Error::invalid(match found {
        0 => format!("`{key}`: {names}there is no text, besides separators; name files with text"),
        _ => format!(
            "`{key}`: {names}expected at least one example, which has `batch.subwords` = {row} subwords, found {found} \
             subwords; add text, or lower `batch.subwords`"
        ),
    }))
}

/// Opens the rows to train on and the rows to evaluate on.
pub(super) fn datasets(
    config: &RunConfig,
    texts: &Texts<'_>,
    tokenizer: &SubwordTokenizer,
) -> Result<(Dataset, Dataset)> {
    let data = &config.data;
    let given = !data.held_out.is_empty() || !texts.held_out.is_empty();
    let share = if !given { data.held_out_share } else { 0.0 };
    let options = |held_out: f64| RowOptions { patches: config.batch.subwords, seed: config.seed, held_out };
    let train = corpus("data.train", (&data.train, texts.train), config, tokenizer)?;
    let held_out = match given {
        true => {
            let held_out = corpus("data.held_out", (&data.held_out, texts.held_out), config, tokenizer)?;
            Some(held_out.rows(&options(0.0)).map_err(|e| e.context("`data.held_out`"))?.train)
        }
        false => None,
    };
    let split = train.rows(&options(share)).map_err(|e| e.context("`data.train`"))?;
    match held_out.or(split.held_out) {
        Some(held_out) => Ok((split.train, held_out)),
        None => Err(Error::internal("a run was opened without held-out text")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Subwords, train_tokenizer};

    #[test]
    fn files_without_text_are_named_with_their_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let text = file("text.txt", &"Some text to train on.\n".repeat(50));
        train_tokenizer(&[&text], 300, Subwords::Pairs, dir.path()).unwrap();
        let tokenizer = SubwordTokenizer::open(&dir.path().join("tokenizer.json")).unwrap();
        let mut config = RunConfig::new("o", 1, 0.1);
        config.batch.subwords = 8;
        config.data.train = vec![text.clone()];
        let refused = |config: &RunConfig| datasets(config, &Texts::default(), &tokenizer).err().unwrap().to_string();
        for (name, text, says) in [
            ("empty.txt", "", "there is no text"),
            ("separators.txt", "<|endoftext|>\r\n<|endoftext|>", "there is no text"),
            ("short.txt", "ab", "`batch.subwords` = 8 subwords, found "),
        ] {
            let path = file(name, text);
            for key in ["data.train", "data.held_out"] {
                let mut config = config.clone();
                config.data.held_out = vec![path.clone()];
                if key == "data.train" {
                    config.data.train = std::mem::replace(&mut config.data.held_out, config.data.train);
                }
                let message = refused(&config);
                assert!(message.starts_with(&format!("`{key}`: {}: ", path.display())), "{message}");
                assert!(message.contains(says) && !message.contains("documents to train on"), "{message}");
            }
        }
        // A share of too little text.
        let message = refused(&config);
        assert!(message.contains("two documents or more"), "{message}");
        config.data.train = vec![file("two.txt", "ab\n<|endoftext|>\nSome text to train on. And some more.\n")];
        let message = refused(&config);
        assert!(message.contains("the documents held out") && message.contains("data.held_out"), "{message}");
        config.data.held_out = vec![text];
        datasets(&config, &Texts::default(), &tokenizer).unwrap();
    }
}
