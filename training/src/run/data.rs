//! The data of a run.

use std::path::PathBuf;

use bolmo_runtime::{Error, Result};

use super::config::{Kind, RunConfig};
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
    let folder = match (&config.data.tokenizer, kind) {
        (Some(path), _) => path.clone(),
        (None, Kind::Stage2) => config.model.student.clone().unwrap_or_default(),
        (None, _) => config.model.source.clone().unwrap_or_default(),
    };
    let path = if folder.is_dir() { folder.join("tokenizer.json") } else { folder };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::not_found(format!(
        "{}: there is no such tokenizer.json; name the subword tokenizer with `data.tokenizer`",
        path.display()
    )))
}

/// Opens the rows to train on and the rows to evaluate on.
pub(super) fn datasets(
    config: &RunConfig,
    texts: &Texts<'_>,
    tokenizer: &SubwordTokenizer,
) -> Result<(Dataset, Dataset)> {
    let data = &config.data;
    let documents = Documents::Delimited(data.separator.clone());
    let corpus = |files: &[PathBuf], texts: &[Vec<u8>]| {
        let mut corpus = Corpus::new(tokenizer);
        for path in files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("npy") => corpus.add_file(TokenFile::open(path)?),
                _ => corpus.add_text_file(tokenizer, path, &documents)?,
            }
        }
        for (i, text) in texts.iter().enumerate() {
            corpus.add_text(tokenizer, &format!("text {i}"), text.as_slice(), &documents)?;
        }
        Ok::<_, Error>(corpus)
    };
    let given = !data.held_out.is_empty() || !texts.held_out.is_empty();
    let share = if !given { data.held_out_share } else { 0.0 };
    let options = |held_out: f64| RowOptions { patches: config.batch.subwords, seed: config.seed, held_out };
    let split = corpus(&data.train, texts.train)?.rows(&options(share)).map_err(|e| e.context("`data.train`"))?;
    let held_out = match (split.held_out, given) {
        (_, true) => {
            corpus(&data.held_out, texts.held_out)?.rows(&options(0.0)).map_err(|e| e.context("`data.held_out`"))?.train
        }
        (Some(held_out), false) => held_out,
        (None, false) => {
            return Err(Error::invalid(
                "no text is held out for evaluation; name files with `data.held_out`, or set `data.held_out_share`",
            ));
        }
    };
    Ok((split.train, held_out))
}
