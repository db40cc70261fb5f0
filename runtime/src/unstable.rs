//! Internals that the other crates of this workspace build on: device memory, recorded commands, weights as kernels
//! take them, the stages of the forward pass, and single kernels for tests and benches.
//!
//! **Unstable.** Nothing here is covered by the version number: items change or disappear without notice.

use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
pub use crate::checkpoint::output;
pub use crate::config::classes::LocalParts;
pub use crate::config::rope::{cos_sin, inverse_frequencies};
pub use crate::config::source::SourceConfig;
#[cfg(not(target_family = "wasm"))]
pub use crate::convert::random::rng::Stream;
#[cfg(not(target_family = "wasm"))]
pub use crate::device::KernelTime;
pub use crate::device::{Device, Form, KernelRunner, Permit, Recorder, Slice, matmul_tile, open_tested, run_kernel};
pub use crate::input::shorten::{quoted, shortened};
#[cfg(not(target_family = "wasm"))]
pub use crate::model::available_memory;
pub use crate::model::weights::{GlobalLayer, LocalLayer, Matrix, Mlp, Piece, Weights};
#[cfg(not(target_family = "wasm"))]
pub use crate::parallel::map_chunks;
pub use crate::session::{Call, Calls};
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
#[cfg(not(target_family = "wasm"))]
pub use crate::text::byte_alphabet::character_of;
pub use crate::text::suffix_trie::SuffixTrie;

/// The device of an engine.
pub fn device(engine: &crate::Engine) -> &Arc<Device> {
    &engine.device
}

/// An engine for a dry run: allocations on it are only counted (`Device::is_dry_run`).
#[cfg(not(target_family = "wasm"))]
pub fn dry_run(engine: &crate::Engine) -> crate::Result<crate::Engine> {
    Ok(crate::Engine { device: Arc::new(engine.device.dry_run()) })
}
