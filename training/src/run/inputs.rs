//! Inputs of a learner.

use std::path::{Path, PathBuf};

use bolmo_runtime::{Engine, Result};

use super::config::{Kind, RunConfig};
use crate::data::{Dataset, SubwordTokenizer};

/// What a learner is opened from.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a> {
    pub(super) engine: &'a Engine,
    pub(super) kind: Kind,
    pub(super) config: &'a RunConfig,
    /// Path of the `tokenizer.json`.
    pub(super) tokenizer_path: &'a Path,
    /// The rows to train on.
    pub(super) train: &'a Dataset,
}

impl Inputs<'_> {
    /// Opens the tokenizer.
    pub(super) fn tokenizer(&self) -> Result<SubwordTokenizer> {
        SubwordTokenizer::open(self.tokenizer_path)
    }

    /// Folder of the tokenizer's files.
    pub(super) fn tokenizer_folder(&self) -> PathBuf {
        self.tokenizer_path.parent().map(Path::to_owned).unwrap_or_default()
    }
}
