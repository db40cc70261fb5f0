//! The Bolmo runtime: loads a checkpoint of a byte-level language model and turns bytes into bytes, on any GPU that
//! wgpu reaches, and on CPUs.
//!
//! ```no_run
//! # async fn demo() -> bolmo_runtime::Result<()> {
//! use std::io::Write;
//! use std::ops::ControlFlow;
//!
//! use bolmo_runtime::{Checkpoint, Engine, EngineOptions, GenerateOptions, LoadOptions, Model, Session};
//!
//! let engine = Engine::open(&EngineOptions::default()).await?;
//! let checkpoint = Checkpoint::open("bolmo-1b")?;
//! let model = Model::load(&engine, &checkpoint, LoadOptions::default()).await?;
//!
//! let mut session = Session::new(&model).await?;
//! session.append_bos().await?;
//! session.append(b"Once upon a time").await?;
//! let mut out = std::io::stdout();
//! session
//!     .generate(&GenerateOptions::default(), &mut |piece| {
//!         match out.write_all(piece.bytes).and_then(|()| out.flush()) {
//!             Ok(()) => ControlFlow::Continue(()),
//!             Err(_) => ControlFlow::Break(()),
//!         }
//!     })
//!     .await?;
//! # Ok(()) }
//! ```
//!
//! | to | see |
//! |---|---|
//! | open a device | [`Engine`], [`EngineOptions`], [`adapters`] |
//! | load a model | [`Checkpoint`], [`Model`], [`LoadOptions`], [`device_bytes`] |
//! | write text | [`Session`], [`GenerateOptions`], [`Constraint`], [`GenerationBatch`] |
//! | choose each id yourself | [`Session::logits`], [`Sampler`], [`StopMatcher`], [`Session::push`] |
//! | score text | [`Model::score_ids`], [`ScoreOptions`] |
//! | read or write checkpoint files | [`files`], [`layout`], `convert` |
//!
//! Everything that touches the device is async and never blocks. Programs without an executor of their own use
//! [`block_on`].

mod allocate;
#[cfg(not(target_family = "wasm"))]
pub mod bench;
mod checkpoint;
mod config;
#[cfg(feature = "constraints")]
mod constraint;
#[cfg(not(feature = "constraints"))]
#[path = "constraint/disabled.rs"]
mod constraint;
#[cfg(not(target_family = "wasm"))]
pub mod convert;
mod device;
mod error;
#[cfg(test)]
mod fuzz;
mod generate;
mod input;
mod model;
mod parallel;
mod sampling;
mod score;
mod session;
mod stages;
mod state;
mod text;
mod timer;
#[doc(hidden)]
pub mod unstable;

pub use bolmo_shaders::{Products, Reduce, Tiles, WeightFormat};
pub use checkpoint::formats::Formats;
pub use checkpoint::{Checkpoint, layout};
pub use config::preset::Preset;
pub use config::{BYTE_VOCABULARY, BlockType, Config, LayerType, QkNorm, RopeScaling, SpecialIds};
pub use constraint::{Constraint, Matcher};
pub use device::{AdapterChoice, AdapterInfo, Capabilities, Counters, DeviceMemory, Engine, EngineOptions, adapters};
pub use error::{Error, ErrorKind, Hint, Result};
pub use generate::{Ended, GenerateOptions, Generation, GenerationBatch, LogProbs, Piece, StopReason, generate_batch};
pub use model::loader::LoadProgress;
pub use model::{LoadOptions, Model, device_bytes};
pub use sampling::host::{CANDIDATES, Sampler, SamplingOptions};
pub use score::compare::Comparison;
pub use score::{Score, ScoreOptions, Tensors};
pub use session::{CancelToken, Checkpoint as SessionCheckpoint, Progress as SessionProgress, Session, session_bytes};

pub use state::workspace::work_bytes;
pub use text::ids;
pub use text::stop::StopMatcher;
pub use text::utf8::Utf8Assembler;
pub use text::vocabulary::Vocabulary;

/// Files of a checkpoint folder, for programs that read or write them by other means than [`Checkpoint::open`], and
/// files that programs write.
pub mod files {
    #[cfg(not(target_family = "wasm"))]
    pub use crate::checkpoint::MappedFile;
    #[cfg(not(target_family = "wasm"))]
    pub use crate::checkpoint::output::{check_file, write_file};
    pub use crate::checkpoint::stored_formats::stored_formats;
    pub use crate::checkpoint::{
        CheckpointFile, DType, Fetching, Index, MemoryFile, Tensor, TensorFolder, check_finite,
    };
    #[cfg(not(target_family = "wasm"))]
    pub use crate::input::file::{exists_or_is_link, open_file, read_file};
    pub use crate::input::foreign::START_BYTES;
    pub use crate::input::json;
}

/// The README's example, which has to compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Runs a future of this crate to its end on this thread, for programs without an executor.
#[cfg(not(target_family = "wasm"))]
pub fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}
