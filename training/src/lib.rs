//! Byteifies subword models: batches, losses and steps of training, with the runtime's own kernels and their gradients (SPEC 10).

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
pub use loss as losses; // TEMPORARY: old path
pub use models::subword::{HiddenStates, SubwordModel, SubwordOptions, SubwordReport};
pub use parameters::optimizer::{AdamOptions, Schedule};
pub use parameters::snapshot;
pub use parameters::{Group, TensorSource};
pub use step::{Examples, StageOutput};
pub use trainer::{StepReport, TeacherSource, Trainer, TrainerOptions};
