//! The global model: a decoder over patches, with rotary positions and a KV cache (SPEC 6).

use bolmo_shaders::params::{Attention, Rope};
use bolmo_shaders::{KernelId, WeightFormat};

use super::{Context, Norm, Rows};
use crate::config::{BlockType, LayerType, QkNorm};
use crate::error::Result;
use crate::kv::KvCache;
use crate::weights::{GlobalLayer, Weights};

/// Runs rows of the workspace's `patches` through all blocks. For each sequence there are its cache, which has room for them, and how
/// many rows are its own; their positions follow those in the cache. Where there is more than one sequence, rows of queries begin where a
/// binding may begin.
pub fn global(cx: &mut Context<'_>, weights: &Weights, sequences: &[(&KvCache, usize)]) -> Result<()> {
    for (i, layer) in weights.global.iter().enumerate() {
        block(cx, layer, sequences, i)?;
    }
    Ok(())
}

fn block(cx: &mut Context<'_>, w: &GlobalLayer, sequences: &[(&KvCache, usize)], i: usize) -> Result<()> {
    attention_half(cx, w, sequences, i)?;
    feed_forward_half(cx, w, sequences.iter().map(|(_, count)| count).sum())
}

/// The first half of block `i`: attention, with its norm before or behind it, added to the stream.
pub fn attention_half(cx: &mut Context<'_>, w: &GlobalLayer, sequences: &[(&KvCache, usize)], i: usize) -> Result<()> {
    let count = sequences.iter().map(|(_, count)| count).sum();
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let eps = cx.config.rms_norm_eps;
    let (x, branch) = (Rows::new(&ws.patches, d, 0), Rows::new(&ws.branch, d, 0));
    let qkv = Rows::new(&ws.projections, cx.config.query_width() + 2 * cx.config.key_value_width(), 0);
    let mixed = Rows::new(&ws.mixed, w.out.k, 0);
    match cx.config.block_type {
        BlockType::PreNorm => {
            cx.norm_linear(Norm { scale: &w.attention_norm, eps }, &w.qkv, x, qkv, count)?;
            attentions(cx, w, sequences, i, qkv)?;
            cx.linear(&w.out, mixed, x, count, true)
        }
        BlockType::ReorderedNorm => {
            cx.linear(&w.qkv, x, qkv, count, false)?;
            attentions(cx, w, sequences, i, qkv)?;
            cx.linear(&w.out, mixed, branch, count, false)?;
            cx.norm(&w.attention_norm, eps, branch, x, count, 1, d, true)
        }
    }
}

/// The second half of a block: the feed-forward, with its norm before or behind it, added to the stream.
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
            cx.norm(&w.feedforward_norm, eps, branch, x, count, 1, d, true)
        }
    }
}

/// Attention of each sequence over its own cache.
fn attentions(
    cx: &mut Context<'_>,
    w: &GlobalLayer,
    sequences: &[(&KvCache, usize)],
    i: usize,
    qkv: Rows<'_>,
) -> Result<()> {
    let mut row = 0;
    for &(cache, count) in sequences {
        attention(cx, w, cache, i, (row, count), qkv)?;
        row += count;
    }
    Ok(())
}

/// From q, k and v of `count` rows from `row` on to the heads' outputs in the workspace's `mixed`, keys and values laid down in layer `i`
/// of `cache`.
fn attention(
    cx: &mut Context<'_>,
    w: &GlobalLayer,
    cache: &KvCache,
    i: usize,
    (row, count): (usize, usize),
    qkv: Rows<'_>,
) -> Result<()> {
    let ws = cx.workspace;
    let plain = WeightFormat::F32;
    let config = cx.config;
    let (heads, kv_heads, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let (q_width, kv_width) = (config.query_width(), config.key_value_width());
    // Heads that share a norm go together, or else one by one.
    let (q_group, k_group) = if config.qk_norm == QkNorm::Whole { (heads, kv_heads) } else { (1, 1) };
    let norms = w.q_norm.as_ref().zip(w.k_norm.as_ref());
    // Without norms their places hold something that is not read.
    let (q_norm, k_norm) = norms.unwrap_or((qkv.slice, qkv.slice));

    // Sliding layers always have the plain kind of rotation.
    let table = match config.layer_types[i] {
        LayerType::Sliding => &ws.cos_sin[0],
        LayerType::Full => &ws.cos_sin[1],
    };
    let first = cache.len();
    for span in cache.spans(i, first..first + count) {
        let rows = span.positions.len();
        let params = Rope {
            first: (row + span.positions.start - first) as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            half_dim: (dim / 2) as u32,
            q_group: q_group as u32,
            k_group: k_group as u32,
            norm: norms.is_some().into(),
            q_offset: qkv.offset as u32,
            k_offset: (qkv.offset + q_width) as u32,
            v_offset: (qkv.offset + q_width + kv_width) as u32,
            stride: qkv.stride as u32,
            kv_row: (span.positions.start - span.first) as u32,
            eps: config.rms_norm_eps,
        };
        let slices = [qkv.slice, q_norm, k_norm, table, &ws.q, &span.segment.slice];
        let grid = [heads / q_group + kv_heads / k_group + 1, rows, 1];
        cx.recorder.dispatch(KernelId::Rope, plain, &params, &slices, grid)?;
    }

    let window = cache.window(i);
    let oldest = if window == 0 { 0 } else { (first + 1).saturating_sub(window) };
    let mut spans = cache.spans(i, oldest..first + count).peekable();
    let grid = cx.recorder.gpu().capabilities.tiles.attention_grid(count, heads);
    let (q, mixed) = (ws.q.rows(row, count, q_width)?, ws.mixed.rows(row, count, q_width)?);
    let running = if ws.keep { ws.running.rows(row, count, 2 * heads)? } else { ws.running.clone() };
    let mut begin = true;
    while let Some(span) = spans.next() {
        let params = Attention {
            count: count as u32,
            heads: heads as u32,
            heads_per_kv: (heads / kv_heads) as u32,
            dim4: (dim / 4) as u32,
            query_first: first as u32,
            key_first: span.first as u32,
            keys: (span.positions.end - span.first) as u32,
            window: window as u32,
            begin: begin.into(),
            end: spans.peek().is_none().into(),
            scale: 1.0 / (dim as f32).sqrt(),
        };
        let slices = [&q, &span.segment.slice, &running, &mixed];
        cx.recorder.dispatch(KernelId::Attention, plain, &params, &slices, grid)?;
        begin = false;
    }
    Ok(())
}
