//! What the training module builds on: device memory, recorded commands, weights as kernels take them, and the stages
//! of the forward pass. Only for crates of this workspace: it changes without notice.

use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
pub use crate::checkpoint::output;
#[cfg(not(target_family = "wasm"))]
pub use crate::convert::random::rng::Stream;
#[cfg(not(target_family = "wasm"))]
pub use crate::convert::random::vocabulary::printable;
#[cfg(not(target_family = "wasm"))]
pub use crate::device::KernelTime;
pub use crate::device::{Form, Gpu, Recorder, Slice};
#[cfg(not(target_family = "wasm"))]
pub use crate::model::available_memory;
pub use crate::model::weights::{GlobalLayer, LocalLayer, Matrix, Mlp, Piece, Weights};
#[cfg(not(target_family = "wasm"))]
pub use crate::parallel::by_shares;
pub use crate::stages::boundary::{boundary, ends_patch, log_probability};
pub use crate::stages::depool::{depool, normalize};
pub use crate::stages::embed::embed;
pub use crate::stages::global::{Sequences, attention_half, feed_forward_half, rope, rotations};
pub use crate::stages::head::head;
pub use crate::stages::local_layer::Over;
pub use crate::stages::local_layer::{CellShape, chunk_states, feed_forward, head_norm, local_layer, mixer};
pub use crate::stages::ops::{Context, Gather, Norm, NormRows, Product, Rows};
pub use crate::stages::patches::pooling;
pub use crate::state::LayerState;
pub use crate::state::workspace::Workspace;

/// The device of an engine.
pub fn gpu(engine: &crate::Engine) -> &Arc<Gpu> {
    &engine.gpu
}

/// An engine that only counts what is allocated on it (`Gpu::is_rehearsal`).
#[cfg(not(target_family = "wasm"))]
pub fn rehearsal(engine: &crate::Engine) -> crate::Result<crate::Engine> {
    Ok(crate::Engine { gpu: Arc::new(engine.gpu.rehearsal()?) })
}
