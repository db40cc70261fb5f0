//! Byteifies subword models: batches, losses and steps of training, with the runtime's own kernels and their gradients (SPEC 10).

mod backward;
pub mod bench;
mod byte_level;
pub mod data;
pub mod export;
pub mod init;
mod layers;
mod least_squares;
pub mod losses;
mod optimiser;
mod parameters;
pub mod run;
pub mod snapshot;
mod source;
mod spelling;
mod stages;
mod subword;
mod teacher;
mod trainer;
mod weights;

pub use layers::Shape;
pub use optimiser::{AdamOptions, Schedule};
pub use parameters::{Group, TensorSource};
pub use source::{LocalSizes, SourceModel};
pub use stages::{Examples, StageOutput};
pub use subword::{HiddenStates, SubwordModel, SubwordOptions, SubwordReport};
pub use trainer::{StepReport, TeacherSource, Trainer, TrainerOptions};
