//! The shape of a batch, and the activations that a forward pass saves for the backward pass.

use std::sync::Arc;

use bolmo_runtime::unstable::{Context, Device, Recorder, Rows, Slice, Workspace};
use bolmo_runtime::{Config, Result};

/// Shape of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Examples of a batch.
    pub rows: usize,
    /// Bytes of an example, a multiple of 64.
    pub bytes: usize,
    /// Patch slots of an example.
    pub patches: usize,
}

impl Shape {
    /// Bytes of a batch.
    pub fn all_bytes(&self) -> usize {
        self.rows * self.bytes
    }

    /// Patch slots of a batch.
    pub fn all_patches(&self) -> usize {
        self.rows * self.patches
    }
}

/// Dispatches per submission on a GPU, so that the device starts while the host is still recording. The CPU device and
/// software adapters run on the host's cores and gain nothing from it.
const SUBMIT_EVERY: usize = 48;

/// Creates a recorder for training steps.
pub(crate) async fn recorder(device: &Arc<Device>) -> Result<Recorder> {
    let mut recorder = Recorder::new(device).await?;
    if !device.adapter.has_host_memory() {
        recorder.submit_every(SUBMIT_EVERY);
    }
    Ok(recorder)
}

/// What the saved activations of a layer are allocated for.
#[derive(Clone, Copy)]
pub(crate) struct ActivationSpec<'a> {
    pub(crate) device: &'a Arc<Device>,
    pub(crate) config: &'a Config,
    pub(crate) shape: Shape,
    /// Buffers that all layers share.
    pub(crate) workspace: &'a Workspace,
}

/// Allocates the saved activations of `count` consecutive layers.
///
/// With `recompute` the layers share every buffer but their inputs, and all layers but the last run forward again
/// before their backward pass. `new` receives the layer whose buffers to share, if any, and whether this layer is
/// recomputed.
pub(crate) async fn saved_activations<S>(
    count: usize,
    recompute: bool,
    new: impl AsyncFn(Option<&S>, bool) -> Result<S>,
) -> Result<Vec<S>> {
    let mut all = Vec::new();
    for i in 0..count {
        let layer = new(all.first().filter(|_| recompute), recompute && i + 1 < count).await?;
        all.push(layer);
    }
    Ok(all)
}

/// Allocates a buffer of `rows` rows of `width` floats.
pub(crate) async fn buffer(device: &Arc<Device>, rows: usize, width: usize) -> Result<Slice> {
    device.allocate("activations", 4 * (rows * width) as u64).await
}

/// Copies the first `rows` rows of a residual stream.
pub(crate) fn copy_rows(cx: &mut Context<'_>, from: &Slice, to: &Slice, rows: usize) -> Result<()> {
    let bytes = 4 * (rows * cx.config.hidden_size) as u64;
    cx.recorder.copy(&from.part(0, bytes)?, to)
}

/// All rows of a residual stream.
pub(crate) fn stream<'a>(config: &Config, slice: &'a Slice) -> Rows<'a> {
    Rows::new(slice, config.hidden_size, 0)
}

/// The same context with other buffers.
pub(crate) fn with_workspace<'a>(cx: &'a mut Context<'_>, workspace: &'a Workspace) -> Context<'a> {
    Context { recorder: cx.recorder, config: cx.config, workspace }
}
