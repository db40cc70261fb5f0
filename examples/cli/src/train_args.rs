//! Options of `train init`.

use std::path::PathBuf;

use bolmo_training::run::Kind;
use clap::{Args, ValueEnum};

/// Options of `train init`.
#[derive(Debug, Args)]
pub struct TrainInitArgs {
    /// Kind of training that the configuration is for
    #[arg(value_name = "STAGE", value_enum)]
    pub stage: Stage,
    /// File to write, a new one; default: standard output
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Kind of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// A subword model
    Subword,
    /// First stage of byteifying
    Stage1,
    /// Second stage of byteifying
    Stage2,
}

impl From<Stage> for Kind {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Subword => Kind::Subword,
            Stage::Stage1 => Kind::Stage1,
            Stage::Stage2 => Kind::Stage2,
        }
    }
}
