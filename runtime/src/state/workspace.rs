//! Buffers for the activations of one prefill chunk, allocated once and reused.

use std::sync::Arc;

use bolmo_shaders::sizes::MLSTM_CHUNK;

use crate::config::Config;
use crate::device::{Device, Slice, buffer_bytes};
use crate::error::{Error, Result};

/// Activations of up to `capacity` bytes, and so of up to `capacity` patches. `D` is the hidden size, f32 throughout.
#[derive(Debug, Clone)]
pub struct Workspace<S = Slice> {
    /// Whether activations are saved for a backward pass. Products are then never computed row by row or fused with the
    /// next operation. Training only.
    pub saves_activations: bool,
    /// Scratch for a matrix in f16, `[n, k]`. If present, products of many rows round f32 matrices into it first.
    /// Training only.
    pub f16_scratch: Option<S>,
    /// Rows of every buffer: the most bytes of a chunk.
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
    /// Output of a norm in front of a product, `[capacity + 1, D]`.
    pub u: S,
    /// Encoder output, `[1 + capacity, D]`; row 0 is the undecided byte of the chunk before.
    pub h: S,
    /// Normalized global outputs, `[1 + capacity, D]`; row 0 is that of the last patch of the chunk before.
    pub g: S,
    /// q, k, v and gates of a local layer, q, k, v of a global block, or q, k of the boundary predictor.
    pub projections: S,
    /// Width of a row of [`Self::projections`] for a local layer.
    pub local_width: usize,
    /// Gates, `[capacity, H, 4]`.
    pub gates: S,
    /// Sums of the mLSTM cell, `[capacity, H, dv + 1]`.
    pub cell: S,
    /// States at the starts of chunks, `[chunks, H, dk, dv + 1]`.
    pub states: S,
    /// Input of an output projection, `[capacity, D or heads head_dim]`.
    pub mixed: S,
    /// Rotated queries, `[capacity, heads, head_dim]`.
    pub q: S,
    /// Running maximum and sum of each softmax, `[capacity, heads, 2]`.
    pub running: S,
    /// Output of attention or feed-forward before its norm, `[capacity, D]`.
    pub branch: S,
    /// gate and up of a feed-forward, `[capacity, F, 2]`.
    pub gate_up: S,
    /// `[capacity, F]`
    pub hidden: S,
    /// `[capacity]`
    pub cosine: S,
    /// Decoder output after the final norm, `[capacity, D]`.
    pub final_hidden: S,
    /// `[capacity, 520]`
    pub logits: S,
}

/// Row widths of the buffers, in floats.
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

    /// The widest row of any buffer that has one row per byte.
    fn widest(&self) -> usize {
        self.projections.max(2 * self.feedforward).max(self.cell).max(self.logits).max(self.mixed)
    }
}

impl Workspace {
    /// Capacity of a workspace on this device: `wanted`, or less if the limits of the device require it.
    pub fn fitting(device: &Device, config: &Config, wanted: usize) -> Result<usize> {
        let widths = Widths::of(config);
        let limit = device.capabilities.max_binding_bytes.min(device.capabilities.max_buffer_bytes) as usize / 4;
        let by_rows = (limit / widths.widest()).saturating_sub(1);
        let by_chunks = limit / widths.state * MLSTM_CHUNK as usize;
        match by_rows.min(by_chunks) {
            0 => Err(Error::unsupported(format!(
                "a row of {} floats does not fit the {} bytes that adapter {} allows for a binding",
                widths.widest().max(widths.state),
                4 * limit,
                device.adapter.name
            ))),
            fits => Ok(fits.min(wanted).max(1)),
        }
    }

    /// A workspace for chunks of `capacity` bytes.
    pub async fn new(device: &Arc<Device>, config: &Config, capacity: usize) -> Result<Self> {
        let mut slices = Vec::new();
        for bytes in sizes(config, capacity) {
            slices.push(device.allocate("activations", bytes).await?);
        }
        let mut slices = slices.into_iter();
        // The same buffers in the same order.
        Self::build(config, capacity, |_, _| {
            slices.next().ok_or_else(|| Error::internal("a workspace without a buffer"))
        })
    }
}

impl<S> Workspace<S> {
    /// Makes every buffer by a call with its rows and its floats per row.
    fn build(config: &Config, capacity: usize, mut make: impl FnMut(usize, usize) -> Result<S>) -> Result<Self> {
        let w = Widths::of(config);
        let chunks = capacity.div_ceil(MLSTM_CHUNK as usize);
        Ok(Self {
            saves_activations: false,
            f16_scratch: None,
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
    // The closure never fails.
    let _ = Workspace::build(config, capacity, |rows, width| {
        sizes.push((rows * width * 4) as u64);
        Ok(())
    });
    sizes
}

/// Device memory, in bytes, that prefill in chunks of `chunk` bytes needs beside weights and sessions.
/// [`Capabilities::prefill_bytes`](crate::Capabilities) is the size of a chunk.
pub fn work_bytes(config: &Config, chunk: usize) -> u64 {
    sizes(config, chunk).into_iter().map(buffer_bytes).sum()
}
