//! Inputs of a learner.

use std::path::{Path, PathBuf};

use bolmo_runtime::{Engine, Error, Result};

use super::config::RunConfig;
use super::kind::Kind;
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

    /// Folder of the source model.
    pub(super) fn source(&self) -> Result<&Path> {
        self.config.model.source.as_deref().ok_or_else(|| unchecked("model.source"))
    }

    /// Folder of the student.
    pub(super) fn student(&self) -> Result<&Path> {
        self.config.model.student.as_deref().ok_or_else(|| unchecked("model.student"))
    }

    /// Folder of the tokenizer's files.
    pub(super) fn tokenizer_folder(&self) -> PathBuf {
        self.tokenizer_path.parent().map(Path::to_owned).unwrap_or_default()
    }
}

/// The error of a key without which no run opens.
fn unchecked(key: &str) -> Error {
    Error::internal(format!("a run was opened without `{key}`"))
}
