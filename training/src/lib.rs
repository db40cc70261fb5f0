//! Training of byte-level models from subword models: batches, losses and optimizer steps on the runtime's own kernels
//! and their gradients (docs/model.md, "Training losses").
//!
//! Modules import only from modules above them in this list: `data`, `parameters`, `layers`, `loss`, `models`,
//! `checkpoint`, `init`, `step`, `trainer`, and `run` and `bench`.

pub mod bench;
mod checkpoint;
pub mod data;
pub mod init;
mod layers;
pub mod loss;
mod models;
mod parameters;
pub mod run;
mod step;
mod trainer;

pub use checkpoint::export;
pub use checkpoint::source::{LocalSizes, SourceModel};
pub use layers::Shape;
pub use models::subword::{HiddenStates, SubwordModel, SubwordOptions, SubwordReport};
pub use parameters::optimizer::{AdamOptions, Schedule};
pub use parameters::{Group, TensorSource};
pub use step::{Examples, StepOutput};
pub use trainer::{StepReport, TeacherSource, Trainer, TrainerOptions};
