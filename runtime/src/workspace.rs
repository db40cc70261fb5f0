//! Buffers for what is computed on the way: the activations of one stretch of bytes, made once and used again.

use std::sync::Arc;

use bolmo_shaders::table::MLSTM_CHUNK;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slice};

/// Activations of up to `capacity` bytes, and so of up to `capacity` patches. `D` is the hidden size, f32 throughout.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Bytes that fit.
    pub(crate) capacity: usize,
    /// Plain ids, `[capacity]` u32.
    pub(crate) ids: Slice,
    /// Suffix ids, `[capacity]` u32.
    pub(crate) suffix_ids: Slice,
    /// Rows of [`Self::h`] that end a patch, `[capacity]` u32.
    pub(crate) ends: Slice,
    /// Row of [`Self::g`] that each byte sees, `[capacity]` u32.
    pub(crate) patch_of: Slice,
    /// Angles of the patches' positions, plain and scaled: `[capacity, head_dim / 2, 2]`.
    pub(crate) cos_sin: [Slice; 2],
    /// Residual stream of the local layers, `[capacity, D]`.
    pub(crate) x: Slice,
    /// Residual stream of the global layers, `[capacity, D]`.
    pub(crate) patches: Slice,
    /// What a norm in front of a product made, `[capacity + 1, D]`.
    pub(crate) u: Slice,
    /// Encoder output, `[1 + capacity, D]`; row 0 is the byte that still waited for its lookahead.
    pub(crate) h: Slice,
    /// Global outputs behind their norm, `[1 + capacity, D]`; row 0 is that of the patch before.
    pub(crate) g: Slice,
    /// q, k, v and gates of a local layer, q, k, v of a global one, or q, k of the predictor.
    pub(crate) projections: Slice,
    /// Width of a row of [`Self::projections`] for a local layer.
    pub(crate) local_width: usize,
    /// Gates, `[capacity, H, 4]`.
    pub(crate) gates: Slice,
    /// Sums of the mLSTM cell, `[capacity, H, dv + 1]`.
    pub(crate) cell: Slice,
    /// States at the starts of chunks, `[chunks, H, dk, dv + 1]`.
    pub(crate) states: Slice,
    /// What goes into an output projection, `[capacity, D or heads head_dim]`.
    pub(crate) mixed: Slice,
    /// Rotated queries, `[capacity, heads, head_dim]`.
    pub(crate) q: Slice,
    /// Maximum and sum of each softmax under way, `[capacity, heads, 2]`.
    pub(crate) running: Slice,
    /// Output of attention or feed-forward before its norm, `[capacity, D]`.
    pub(crate) branch: Slice,
    /// gate and up of a feed-forward, `[capacity, F, 2]`.
    pub(crate) gate_up: Slice,
    /// `[capacity, F]`
    pub(crate) hidden: Slice,
    /// `[capacity]`
    pub(crate) cosine: Slice,
    /// Decoder output behind the final norm, `[capacity, D]`.
    pub(crate) final_hidden: Slice,
    /// `[capacity, 520]`
    pub(crate) logits: Slice,
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
    pub(crate) fn fitting(gpu: &Gpu, config: &Config, wanted: usize) -> Result<usize> {
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

    pub(crate) async fn new(gpu: &Arc<Gpu>, config: &Config, capacity: usize) -> Result<Self> {
        let w = Widths::of(config);
        let chunks = capacity.div_ceil(MLSTM_CHUNK as usize);
        let make = async |rows: usize, width: usize| gpu.allocate("activations", (rows * width * 4) as u64).await;
        Ok(Self {
            capacity,
            ids: make(capacity, 1).await?,
            suffix_ids: make(capacity, 1).await?,
            ends: make(capacity, 1).await?,
            patch_of: make(capacity, 1).await?,
            cos_sin: [make(capacity, w.angles).await?, make(capacity, w.angles).await?],
            x: make(capacity, w.hidden).await?,
            patches: make(capacity, w.hidden).await?,
            u: make(capacity + 1, w.hidden).await?,
            h: make(capacity + 1, w.hidden).await?,
            g: make(capacity + 1, w.hidden).await?,
            projections: make(capacity + 1, w.projections).await?,
            local_width: w.local,
            gates: make(capacity, w.gates).await?,
            cell: make(capacity, w.cell).await?,
            states: make(chunks, w.state).await?,
            mixed: make(capacity, w.mixed).await?,
            q: make(capacity, w.q).await?,
            running: make(capacity, w.running).await?,
            branch: make(capacity, w.hidden).await?,
            gate_up: make(capacity, 2 * w.feedforward).await?,
            hidden: make(capacity, w.feedforward).await?,
            cosine: make(capacity, 1).await?,
            final_hidden: make(capacity, w.hidden).await?,
            logits: make(capacity, w.logits).await?,
        })
    }
}
