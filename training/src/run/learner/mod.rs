//! The learner of a run: a subword model or a byte-level one, trained on rows of subword ids.

mod byte_level;
mod prepare;
mod subword;

use std::path::{Path, PathBuf};

use bolmo_runtime::Result;
use bolmo_runtime::unstable::Calls;
use byte_level::ByteLevelLearner;
use serde_json::Value;
use subword::SubwordLearner;

use super::inputs::Inputs;
use super::kind::Kind;

/// A model in training.
pub(super) enum Learner {
    Subword(Box<SubwordLearner>),
    ByteLevel(Box<ByteLevelLearner>),
}

impl Learner {
    /// Loads the models of a run.
    pub(super) async fn open(inputs: Inputs<'_>) -> Result<Self> {
        match inputs.kind {
            Kind::Subword => Ok(Self::Subword(Box::new(SubwordLearner::open(inputs).await?))),
            Kind::Stage1 | Kind::Stage2 => Ok(Self::ByteLevel(Box::new(ByteLevelLearner::open(inputs).await?))),
        }
    }

    /// Warnings about the configurations of the models that the run begins with.
    pub(super) fn warnings(&self) -> &[String] {
        match self {
            Self::Subword(this) => &this.warnings,
            Self::ByteLevel(this) => &this.warnings,
        }
    }

    /// The calls in progress on the model.
    pub(super) fn calls(&self) -> &Calls {
        match self {
            Self::Subword(this) => this.model.calls(),
            Self::ByteLevel(this) => this.trainer.calls(),
        }
    }

    /// Makes a step on rows of ids and returns its metrics.
    pub(super) async fn step(&mut self, ids: &[u32]) -> Result<Value> {
        match self {
            Self::Subword(this) => this.step(ids).await,
            Self::ByteLevel(this) => this.step(ids).await,
        }
    }

    /// Metrics of rows of ids, without a step.
    pub(super) async fn evaluate(&mut self, ids: &[u32]) -> Result<Value> {
        match self {
            Self::Subword(this) => this.evaluate(ids).await,
            Self::ByteLevel(this) => this.evaluate(ids).await,
        }
    }

    /// Writes a snapshot below `dir`, deletes all but the last `keep`, and returns its path.
    pub(super) async fn save(&mut self, dir: &Path, step: u64, progress: &Value, keep: usize) -> Result<PathBuf> {
        match self {
            Self::Subword(this) => this.model.save(dir, step, progress, keep).await,
            Self::ByteLevel(this) => this.trainer.save(dir, step, progress, keep).await,
        }
    }

    /// Restores a snapshot.
    pub(super) async fn restore(&mut self, path: &Path, step: u64) -> Result<()> {
        match self {
            Self::Subword(this) => this.model.restore(path, step).await,
            Self::ByteLevel(this) => this.trainer.restore(path, step).await,
        }
    }

    /// Writes the model to a folder.
    pub(super) async fn export(&mut self, dir: &Path) -> Result<()> {
        match self {
            Self::Subword(this) => this.export(dir).await,
            Self::ByteLevel(this) => this.export(dir).await,
        }
    }
}
