//! The Bolmo runtime: loads a checkpoint of a byte-level language model and turns bytes into bytes, on any GPU that wgpu reaches.
//!
//! ```no_run
//! # async fn demo() -> bolmo_runtime::Result<()> {
//! use bolmo_runtime::{Checkpoint, Engine, EngineOptions, GenerateOptions, LoadOptions, Model, Session, Vocabulary};
//!
//! let engine = Engine::open(&EngineOptions::default()).await?;
//! let checkpoint = Checkpoint::open("bolmo-1b".as_ref())?;
//! let mut options = LoadOptions::default();
//! options.vocabulary = Some(Vocabulary::open("bolmo-1b/tokenizer.json".as_ref())?);
//! let model = Model::load(&engine, &checkpoint, options, &mut |_, _| true).await?;
//!
//! let mut session = Session::new(&model).await?;
//! session.append_bos().await?;
//! session.append(b"Once upon a time", &mut |_, _| {}).await?;
//! let made = session.generate(&GenerateOptions::default(), &mut |piece| {
//!     print!("{}", String::from_utf8_lossy(piece.bytes));
//!     std::ops::ControlFlow::Continue(())
//! }).await?;
//! # Ok(()) }
//! ```
//!
//! Everything that touches the device is async and never blocks. Programs without an executor of their own use [`block_on`].

#[cfg(not(target_family = "wasm"))]
pub mod bench;
pub mod checkpoint;
mod compare;
pub mod config;
#[cfg(feature = "constraints")]
mod constraint;
#[cfg(not(feature = "constraints"))]
#[path = "no_constraint.rs"]
mod constraint;
mod error;
mod formats;
mod generate;
mod gpu;
#[cfg(not(target_family = "wasm"))]
pub mod init;
#[doc(hidden)]
pub mod internals;
mod kv;
pub mod layout;
mod loader;
#[cfg(not(target_family = "wasm"))]
pub mod merge;
mod model;
mod packed;
#[cfg(not(target_family = "wasm"))]
pub mod quantise;
pub mod rope;
mod score;
mod session;
mod shares;
pub mod stages;
mod state;
pub mod stop;
pub mod suffix;
pub mod testing;
pub mod utf8;
pub mod vocabulary;
mod weights;
mod workspace;

pub use bolmo_shaders::{Reduce, Tiles, WeightFormat};
pub use checkpoint::Checkpoint;
pub use compare::Comparison;
pub use config::Config;
pub use constraint::{Constraint, Matcher};
pub use error::{Error, ErrorKind, Result};
pub use formats::Formats;
pub use generate::{GenerateOptions, Generation, Piece, StopReason, generate_batch};
pub use gpu::{AdapterChoice, AdapterInfo, Capabilities, Counters, DeviceMemory, Engine, EngineOptions, adapters};
pub use kv::session_bytes;
pub use loader::LoadProgress;
pub use model::{LoadOptions, Model, device_bytes};
pub use score::{Score, ScoreOptions, Tensors};
pub use session::{CancelToken, Checkpoint as SessionCheckpoint, Session};
pub use stages::sample::SamplingOptions;
pub use utf8::Utf8Assembler;
pub use vocabulary::Vocabulary;
pub use workspace::work_bytes;

/// The README's example, which has to compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Runs a future of this crate to its end on this thread, for programs without an executor.
#[cfg(not(target_family = "wasm"))]
pub fn block_on<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}
