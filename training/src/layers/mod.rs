//! Layers with what training keeps of them, forwards and backwards.

pub(crate) mod backward;
pub(crate) mod global;
pub(crate) mod local;

use std::sync::Arc;

use bolmo_runtime::internals::{Context, Gpu, Recorder, Rows, Slice, Workspace};
use bolmo_runtime::{Config, Result};

/// How many rows there are of what.
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

/// Dispatches of a submission on a GPU, which begins with the first ones while the host records the next. Software adapters share the
/// host's cores.
const SUBMIT_EVERY: usize = 48;

/// A recorder for steps of training.
pub(crate) async fn recorder(gpu: &Arc<Gpu>) -> Result<Recorder> {
    let mut recorder = Recorder::new(gpu).await?;
    if !gpu.adapter.is_software() {
        recorder.submit_every(SUBMIT_EVERY);
    }
    Ok(recorder)
}

/// What the memory of a layer is for.
#[derive(Clone, Copy)]
pub(crate) struct Room<'a> {
    pub(crate) gpu: &'a Arc<Gpu>,
    pub(crate) config: &'a Config,
    pub(crate) shape: Shape,
    /// Buffers that layers share in any case.
    pub(crate) shared: &'a Workspace,
}

/// What is kept of each of `count` layers that follow one another. With `recompute` they share the memory of all but their inputs, and every
/// layer but the last is to be run again before it is gone back through; `new` gets the layer whose memory to share, and whether to run
/// again.
pub(crate) async fn kept<K>(
    count: usize,
    recompute: bool,
    new: impl AsyncFn(Option<&K>, bool) -> Result<K>,
) -> Result<Vec<K>> {
    let mut all = Vec::new();
    for i in 0..count {
        let layer = new(all.first().filter(|_| recompute), recompute && i + 1 < count).await?;
        all.push(layer);
    }
    Ok(all)
}

/// A buffer of so many rows of so many floats.
pub(crate) async fn buffer(gpu: &Arc<Gpu>, rows: usize, width: usize) -> Result<Slice> {
    gpu.allocate("activations", 4 * (rows * width) as u64).await
}

/// Copies the first `rows` rows of a stream.
pub(crate) fn copy_rows(cx: &mut Context<'_>, from: &Slice, to: &Slice, rows: usize) -> Result<()> {
    let bytes = 4 * (rows * cx.config.hidden_size) as u64;
    cx.recorder.copy(&from.part(0, bytes)?, to)
}

/// Rows of a stream, from the first on.
pub(crate) fn stream<'a>(config: &Config, slice: &'a Slice) -> Rows<'a> {
    Rows::new(slice, config.hidden_size, 0)
}

/// The same context over other buffers.
pub(crate) fn over<'a>(cx: &'a mut Context<'_>, workspace: &'a Workspace) -> Context<'a> {
    Context { recorder: cx.recorder, config: cx.config, workspace }
}
