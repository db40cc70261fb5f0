//! The global model: a decoder over patches, with rotary positions and a KV cache (`docs/model.md`, "Global blocks").

use bolmo_shaders::params::{Attention, Rope};
use bolmo_shaders::{KernelId, WeightFormat};

use crate::config::{BlockType, Config, LayerType, QkNorm};
use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::{GlobalLayer, Weights};
use crate::stages::ops::{Context, Norm, NormRows, Product, Rows};
use crate::state::kv_cache::KvCache;

/// The keys and values that rows of patches see.
#[derive(Debug, Clone, Copy)]
pub enum Sequences<'a> {
    /// For each sequence its cache, which has room for the new rows, and the number of new rows. Their positions follow
    /// those in the cache. With more than one sequence, rows of queries are aligned as bindings must be.
    Cached(&'a [(&'a KvCache, usize)]),
    /// Each sequence sees only itself, from its first row on. The workspace holds the angles of every row.
    Whole {
        /// Receives keys and values, `[sequences, rows, 2, kv_heads, head_dim]`.
        kv: &'a Slice,
        /// Number of sequences.
        sequences: usize,
        /// Rows of each.
        rows: usize,
    },
}

impl Sequences<'_> {
    /// Rows of all sequences together.
    fn rows(&self) -> usize {
        match self {
            Self::Cached(sequences) => sequences.iter().map(|(_, count)| count).sum(),
            Self::Whole { sequences, rows, .. } => sequences * rows,
        }
    }
}

/// Runs rows of the workspace's `patches` through all blocks.
pub fn global(cx: &mut Context<'_>, weights: &Weights, sequences: &[(&KvCache, usize)]) -> Result<()> {
    let sequences = Sequences::Cached(sequences);
    for (i, layer) in weights.global.iter().enumerate() {
        attention_half(cx, layer, sequences, i)?;
        feed_forward_half(cx, layer, sequences.rows())?;
    }
    Ok(())
}

/// The first half of block `i`: attention with its norm before or after it, added to the residual stream.
pub fn attention_half(cx: &mut Context<'_>, w: &GlobalLayer, sequences: Sequences<'_>, i: usize) -> Result<()> {
    let count = sequences.rows();
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let eps = cx.config.rms_norm_eps;
    let (x, branch) = (Rows::new(&ws.patches, d, 0), Rows::new(&ws.branch, d, 0));
    let qkv = Rows::new(&ws.projections, cx.config.query_width() + 2 * cx.config.key_value_width(), 0);
    let mixed = Rows::new(&ws.mixed, w.out.k, 0);
    match cx.config.block_type {
        BlockType::PreNorm => {
            cx.norm_linear(Norm { scale: &w.attention_norm, eps }, Product::new(&w.qkv, x, qkv, count))?;
            attentions(cx, w, sequences, i, qkv)?;
            cx.linear(Product::new(&w.out, mixed, x, count).accumulated())
        }
        BlockType::ReorderedNorm => {
            cx.linear(Product::new(&w.qkv, x, qkv, count))?;
            attentions(cx, w, sequences, i, qkv)?;
            cx.linear(Product::new(&w.out, mixed, branch, count))?;
            cx.norm(NormRows::new(Norm { scale: &w.attention_norm, eps }, branch, x, count, d).accumulated())
        }
    }
}

/// The second half of a block: the feed-forward with its norm before or after it, added to the residual stream.
pub fn feed_forward_half(cx: &mut Context<'_>, w: &GlobalLayer, count: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let eps = cx.config.rms_norm_eps;
    match cx.config.block_type {
        BlockType::PreNorm => {
            let norm = Norm { scale: &w.feedforward_norm, eps };
            cx.mlp(&w.mlp, Some(norm), &ws.patches, &ws.patches, count, true)
        }
        BlockType::ReorderedNorm => {
            cx.mlp(&w.mlp, None, &ws.patches, &ws.branch, count, false)?;
            let (x, branch) = (Rows::new(&ws.patches, d, 0), Rows::new(&ws.branch, d, 0));
            cx.norm(NormRows::new(Norm { scale: &w.feedforward_norm, eps }, branch, x, count, d).accumulated())
        }
    }
}

/// Attention from q, k and v into the workspace's `mixed`. Each row sees its own sequence.
fn attentions(cx: &mut Context<'_>, w: &GlobalLayer, sequences: Sequences<'_>, i: usize, qkv: Rows<'_>) -> Result<()> {
    match sequences {
        Sequences::Cached(sequences) => {
            let mut row = 0;
            for &(cache, count) in sequences {
                over_cache(cx, w, cache, i, (row, count), qkv)?;
                row += count;
            }
            Ok(())
        }
        Sequences::Whole { kv, sequences, rows } => {
            rotate(cx, w, i, qkv, (0, sequences * rows), (kv, 0))?;
            let ws = cx.workspace;
            let params = Attention { keys: rows as u32, begin: 1, end: 1, ..attention_params(cx, i, rows) };
            attend(cx, &params, sequences, [&ws.q, kv, &ws.running, &ws.mixed])
        }
    }
}

/// Attention of `count` rows from `row` on, after their keys and values were written to layer `i` of `cache`.
fn over_cache(
    cx: &mut Context<'_>,
    w: &GlobalLayer,
    cache: &KvCache,
    i: usize,
    (row, count): (usize, usize),
    qkv: Rows<'_>,
) -> Result<()> {
    let first = cache.len();
    for span in cache.spans(i, first..first + count) {
        let rows = (row + span.positions.start - first, span.positions.len());
        rotate(cx, w, i, qkv, rows, (&span.segment.slice, span.positions.start - span.first))?;
    }

    let ws = cx.workspace;
    let (heads, q_width) = (cx.config.num_attention_heads, cx.config.query_width());
    let window = cx.config.window(i);
    let oldest = if window == 0 { 0 } else { (first + 1).saturating_sub(window) };
    let mut spans = cache.spans(i, oldest..first + count).peekable();
    let (q, mixed) = (ws.q.rows(row, count, q_width)?, ws.mixed.rows(row, count, q_width)?);
    let running = if ws.saves_activations { ws.running.rows(row, count, 2 * heads)? } else { ws.running.clone() };
    let mut begin = true;
    while let Some(span) = spans.next() {
        let params = Attention {
            query_first: first as u32,
            key_first: span.first as u32,
            keys: (span.positions.end - span.first) as u32,
            begin: begin.into(),
            end: spans.peek().is_none().into(),
            ..attention_params(cx, i, count)
        };
        attend(cx, &params, 1, [&q, &span.segment.slice, &running, &mixed])?;
        begin = false;
    }
    Ok(())
}

/// Normalizes and rotates queries and keys of `count` rows from `row` on. Keys and values go to rows of `kv` from
/// `kv_row` on.
fn rotate(
    cx: &mut Context<'_>,
    w: &GlobalLayer,
    i: usize,
    qkv: Rows<'_>,
    (row, count): (usize, usize),
    (kv, kv_row): (&Slice, usize),
) -> Result<()> {
    let ws = cx.workspace;
    let norms = w.q_norm.as_ref().zip(w.k_norm.as_ref());
    // Without norms their bindings hold something that is not read.
    let (q_norm, k_norm) = norms.unwrap_or((qkv.slice, qkv.slice));
    let (params, grid) = rope(cx.config, norms.is_some(), qkv, (row, count), kv_row);
    let slices = [qkv.slice, q_norm, k_norm, rotations(cx, i), &ws.q, kv];
    cx.recorder.dispatch(KernelId::Rope, WeightFormat::F32, &params, &slices, grid)
}

/// Rotary angles of block `i`. Sliding layers always use unscaled frequencies.
pub fn rotations<'a>(cx: &Context<'a>, i: usize) -> &'a Slice {
    match cx.config.layer_types[i] {
        LayerType::Sliding => &cx.workspace.cos_sin[0],
        LayerType::Full => &cx.workspace.cos_sin[1],
    }
}

/// Parameters and grid of `rope`, and of `rope_grad`, over q, k and v of `count` rows from `row` on.
pub fn rope(
    config: &Config,
    norm: bool,
    qkv: Rows<'_>,
    (row, count): (usize, usize),
    kv_row: usize,
) -> (Rope, [usize; 3]) {
    let (heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
    let (q_width, kv_width) = (config.query_width(), config.key_value_width());
    // Heads that share a norm form a group; others are groups of one.
    let (q_group, k_group) = if config.qk_norm == QkNorm::Whole { (heads, kv_heads) } else { (1, 1) };
    let params = Rope {
        first: row as u32,
        heads: heads as u32,
        kv_heads: kv_heads as u32,
        half_dim: (config.head_dim / 2) as u32,
        q_group: q_group as u32,
        k_group: k_group as u32,
        norm: norm.into(),
        q_offset: qkv.offset as u32,
        k_offset: (qkv.offset + q_width) as u32,
        v_offset: (qkv.offset + q_width + kv_width) as u32,
        stride: qkv.stride as u32,
        kv_row: kv_row as u32,
        eps: config.rms_norm_eps,
    };
    (params, [heads / q_group + kv_heads / k_group + 1, count, 1])
}

/// Parameters of attention that are the same for every segment, for `count` queries of block `i`.
fn attention_params(cx: &Context<'_>, i: usize, count: usize) -> Attention {
    let config = cx.config;
    Attention {
        count: count as u32,
        heads: config.num_attention_heads as u32,
        heads_per_kv: (config.num_attention_heads / config.num_key_value_heads) as u32,
        dim4: (config.head_dim / 4) as u32,
        window: config.window(i) as u32,
        scale: 1.0 / (config.head_dim as f32).sqrt(),
        ..Attention::default()
    }
}

/// Attention over one segment of each of `sequences`.
fn attend(cx: &mut Context<'_>, params: &Attention, sequences: usize, slices: [&Slice; 4]) -> Result<()> {
    let tiles = cx.recorder.device().capabilities.tiles;
    let grid = tiles.attention_grid(params.count as usize, params.heads as usize, sequences);
    cx.recorder.dispatch(KernelId::Attention, WeightFormat::F32, params, &slices, grid)
}
