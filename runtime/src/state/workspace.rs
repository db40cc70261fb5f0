//! Buffers for what is computed on the way: the activations of one stretch of bytes, made once and used again.

use std::sync::Arc;

use bolmo_shaders::table::MLSTM_CHUNK;

use crate::config::Config;
use crate::device::{Gpu, Slice};
use crate::error::{Error, Result};

/// Activations of up to `capacity` bytes, and so of up to `capacity` patches. `D` is the hidden size, f32 throughout.
#[derive(Debug, Clone)]
pub struct Workspace<S = Slice> {
    /// Whether what is computed on the way is kept for later, as training does: nothing is then computed row by row or together with
    /// what comes behind it.
    pub keep: bool,
    /// Room for a matrix as f16, `[n, k]`: products of many rows with a matrix in f32 are then made with that. Training only.
    pub halves: Option<S>,
    /// Bytes that fit.
    pub capacity: usize,
    /// Plain ids, `[capacity]` u32.
    pub ids: S,
    /// Suffix ids, `[capacity]` u32.
    pub suffix_ids: S,
    /// Rows of [`Self::h`] that end a patch, `[capacity]` u32.
    pub ends: S,
    /// Row of [`Self::g`] that each byte sees, `[capacity]` u32.
    pub patch_of: S,
    /// Angles of the patches' positions, plain and scaled: `[capacity, head_dim / 2, 2]`.
    pub cos_sin: [S; 2],
    /// Residual stream of the local layers, `[capacity, D]`.
    pub x: S,
    /// Residual stream of the global layers, `[capacity, D]`.
    pub patches: S,
    /// What a norm in front of a product made, `[capacity + 1, D]`.
    pub u: S,
    /// Encoder output, `[1 + capacity, D]`; row 0 is the byte that still waited for its lookahead.
    pub h: S,
    /// Global outputs behind their norm, `[1 + capacity, D]`; row 0 is that of the patch before.
    pub g: S,
    /// q, k, v and gates of a local layer, q, k, v of a global one, or q, k of the predictor.
    pub projections: S,
    /// Width of a row of [`Self::projections`] for a local layer.
    pub local_width: usize,
    /// Gates, `[capacity, H, 4]`.
    pub gates: S,
    /// Sums of the mLSTM cell, `[capacity, H, dv + 1]`.
    pub cell: S,
    /// States at the starts of chunks, `[chunks, H, dk, dv + 1]`.
    pub states: S,
    /// What goes into an output projection, `[capacity, D or heads head_dim]`.
    pub mixed: S,
    /// Rotated queries, `[capacity, heads, head_dim]`.
    pub q: S,
    /// Maximum and sum of each softmax under way, `[capacity, heads, 2]`.
    pub running: S,
    /// Output of attention or feed-forward before its norm, `[capacity, D]`.
    pub branch: S,
    /// gate and up of a feed-forward, `[capacity, F, 2]`.
    pub gate_up: S,
    /// `[capacity, F]`
    pub hidden: S,
    /// `[capacity]`
    pub cosine: S,
    /// Decoder output behind the final norm, `[capacity, D]`.
    pub final_hidden: S,
    /// `[capacity, 520]`
    pub logits: S,
}

/// Widths in floats of the rows that a workspace holds, by buffer.
struct Widths {
    hidden: usize,
    local: usize,
    projections: usize,
    gates: usize,
    cell: usize,
    state: usize,
    mixed: usize,
    q: usize,
    running: usize,
    feedforward: usize,
    angles: usize,
    logits: usize,
}

impl Widths {
    fn of(config: &Config) -> Self {
        let d = config.hidden_size;
        let heads = config.num_local_heads;
        let (dk, dv) = (config.mlstm_key_dim(), config.mlstm_value_dim());
        let local = 3 * d + 2 * heads;
        let (q, kv) = (config.query_width(), config.key_value_width());
        Self {
            hidden: d,
            local,
            projections: local.max(q + 2 * kv),
            gates: 4 * heads,
            cell: heads * (dv + 1),
            state: heads * dk * (dv + 1),
            mixed: d.max(q),
            q,
            running: 2 * config.num_attention_heads,
            feedforward: config.intermediate_size.max(config.local_intermediate_size),
            angles: config.head_dim,
            logits: config.vocab_size,
        }
    }

    /// The widest row of any buffer that has one row a byte.
    fn widest(&self) -> usize {
        self.projections.max(2 * self.feedforward).max(self.cell).max(self.logits).max(self.mixed)
    }
}

impl Workspace {
    /// How many bytes a workspace may hold on this device: `wanted` unless its limits allow only fewer.
    pub fn fitting(gpu: &Gpu, config: &Config, wanted: usize) -> Result<usize> {
        let widths = Widths::of(config);
        let limit = gpu.capabilities.max_binding_bytes.min(gpu.capabilities.max_buffer_bytes) as usize / 4;
        let by_rows = (limit / widths.widest()).saturating_sub(1);
        let by_chunks = limit / widths.state * MLSTM_CHUNK as usize;
        match by_rows.min(by_chunks) {
            0 => Err(Error::unsupported(format!(
                "a row of {} floats does not fit the {} bytes that adapter {} allows for a binding",
                widths.widest().max(widths.state),
                4 * limit,
                gpu.adapter.name
            ))),
            fits => Ok(fits.min(wanted).max(1)),
        }
    }

    /// Buffers for so many bytes.
    pub async fn new(gpu: &Arc<Gpu>, config: &Config, capacity: usize) -> Result<Self> {
        let mut slices = Vec::new();
        for bytes in sizes(config, capacity) {
            slices.push(gpu.allocate("activations", bytes).await?);
        }
        let mut slices = slices.into_iter();
        // The same buffers in the same order.
        Self::build(config, capacity, |_, _| {
            slices.next().ok_or_else(|| Error::internal("a workspace without a buffer"))
        })
    }
}

impl<S> Workspace<S> {
    /// Makes every buffer of so many rows of so many floats.
    fn build(config: &Config, capacity: usize, mut make: impl FnMut(usize, usize) -> Result<S>) -> Result<Self> {
        let w = Widths::of(config);
        let chunks = capacity.div_ceil(MLSTM_CHUNK as usize);
        Ok(Self {
            keep: false,
            halves: None,
            capacity,
            ids: make(capacity, 1)?,
            suffix_ids: make(capacity, 1)?,
            ends: make(capacity, 1)?,
            patch_of: make(capacity, 1)?,
            cos_sin: [make(capacity, w.angles)?, make(capacity, w.angles)?],
            x: make(capacity, w.hidden)?,
            patches: make(capacity, w.hidden)?,
            u: make(capacity + 1, w.hidden)?,
            h: make(capacity + 1, w.hidden)?,
            g: make(capacity + 1, w.hidden)?,
            projections: make(capacity + 1, w.projections)?,
            local_width: w.local,
            gates: make(capacity, w.gates)?,
            cell: make(capacity, w.cell)?,
            states: make(chunks, w.state)?,
            mixed: make(capacity, w.mixed)?,
            q: make(capacity, w.q)?,
            running: make(capacity, w.running)?,
            branch: make(capacity, w.hidden)?,
            gate_up: make(capacity, 2 * w.feedforward)?,
            hidden: make(capacity, w.feedforward)?,
            cosine: make(capacity, 1)?,
            final_hidden: make(capacity, w.hidden)?,
            logits: make(capacity, w.logits)?,
        })
    }
}

/// Bytes of each buffer.
fn sizes(config: &Config, capacity: usize) -> Vec<u64> {
    let mut sizes = Vec::new();
    // Nothing fails here.
    let _ = Workspace::build(config, capacity, |rows, width| {
        sizes.push((rows * width * 4) as u64);
        Ok(())
    });
    sizes
}

/// Bytes of device memory that prefill in stretches of so many bytes works in, beside weights and sessions.
/// [`Capabilities::prefill_bytes`](crate::Capabilities) says how long stretches are.
pub fn work_bytes(config: &Config, stretch: usize) -> u64 {
    sizes(config, stretch).iter().sum()
}
