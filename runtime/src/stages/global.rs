//! The global model: a decoder over patches, with rotary positions and a KV cache (SPEC 6).

use bolmo_shaders::params::{Attention, Rope};
use bolmo_shaders::table::{ATTENTION_QUERIES, WORKGROUP};
use bolmo_shaders::{KernelId, WeightFormat};

use super::{Context, Rows};
use crate::config::{BlockType, LayerType, QkNorm};
use crate::error::Result;
use crate::kv::KvCache;
use crate::weights::{GlobalLayer, Weights};

/// Runs the first `count` rows of the workspace's `patches` through all blocks; their positions follow those in `cache`, which
/// has room for them.
pub(crate) fn global(cx: &mut Context<'_>, weights: &Weights, cache: &KvCache, count: usize) -> Result<()> {
    for (i, layer) in weights.global.iter().enumerate() {
        block(cx, layer, cache, i, count)?;
    }
    Ok(())
}

fn block(cx: &mut Context<'_>, w: &GlobalLayer, cache: &KvCache, i: usize, count: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let eps = cx.config.rms_norm_eps;
    let (x, u, branch) = (Rows::new(&ws.patches, d, 0), Rows::new(&ws.u, d, 0), Rows::new(&ws.branch, d, 0));
    match cx.config.block_type {
        BlockType::PreNorm => {
            cx.norm(&w.attention_norm, eps, x, u, count, 1, d, false)?;
            attention(cx, w, cache, i, count, u)?;
            cx.linear(&w.out, Rows::new(&ws.mixed, w.out.k, 0), x, count, true)?;
            cx.norm(&w.feedforward_norm, eps, x, u, count, 1, d, false)?;
            cx.mlp(&w.mlp, &ws.u, &ws.patches, count, true)
        }
        BlockType::ReorderedNorm => {
            attention(cx, w, cache, i, count, x)?;
            cx.linear(&w.out, Rows::new(&ws.mixed, w.out.k, 0), branch, count, false)?;
            cx.norm(&w.attention_norm, eps, branch, x, count, 1, d, true)?;
            cx.mlp(&w.mlp, &ws.patches, &ws.branch, count, false)?;
            cx.norm(&w.feedforward_norm, eps, branch, x, count, 1, d, true)
        }
    }
}

/// From `x` to the heads' outputs in the workspace's `mixed`, keys and values laid down in layer `i` of `cache`.
fn attention(
    cx: &mut Context<'_>,
    w: &GlobalLayer,
    cache: &KvCache,
    i: usize,
    count: usize,
    x: Rows<'_>,
) -> Result<()> {
    let ws = cx.workspace;
    let plain = WeightFormat::F32;
    let config = cx.config;
    let (heads, kv_heads, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let (q_width, kv_width) = (config.query_width(), config.key_value_width());
    let qkv = Rows::new(&ws.projections, q_width + 2 * kv_width, 0);
    cx.linear(&w.qkv, x, qkv, count, false)?;

    let mut qk = qkv;
    if let (Some(q_norm), Some(k_norm)) = (&w.q_norm, &w.k_norm) {
        let eps = config.rms_norm_eps;
        qk = Rows::new(&ws.qk, q_width + kv_width, 0);
        let (q_groups, k_groups) = match config.qk_norm {
            QkNorm::PerHead => (heads, kv_heads),
            QkNorm::None | QkNorm::Whole => (1, 1),
        };
        cx.norm(q_norm, eps, qkv, qk, count, q_groups, q_width / q_groups, false)?;
        let (from, to) = (qkv.column(q_width), qk.column(q_width));
        cx.norm(k_norm, eps, from, to, count, k_groups, kv_width / k_groups, false)?;
    }

    // Sliding layers always have the plain kind of rotation.
    let table = match config.layer_types[i] {
        LayerType::Sliding => &ws.cos_sin[0],
        LayerType::Full => &ws.cos_sin[1],
    };
    let first = cache.len();
    for span in cache.spans(i, first..first + count) {
        let rows = span.positions.len();
        let params = Rope {
            count: rows as u32,
            first: (span.positions.start - first) as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            half_dim: (dim / 2) as u32,
            q_offset: qk.offset as u32,
            k_offset: (qk.offset + q_width) as u32,
            qk_stride: qk.stride as u32,
            v_offset: (q_width + kv_width) as u32,
            v_stride: qkv.stride as u32,
            kv_row: (span.positions.start - span.first) as u32,
        };
        let slices = [qk.slice, qkv.slice, table, &ws.q, &span.segment.slice];
        let grid = [((heads + 2 * kv_heads) * dim / 2).div_ceil(WORKGROUP as usize), rows, 1];
        cx.recorder.dispatch(KernelId::Rope, plain, &params, &slices, grid)?;
    }

    let window = cache.window(i);
    let oldest = if window == 0 { 0 } else { (first + 1).saturating_sub(window) };
    let mut spans = cache.spans(i, oldest..first + count).peekable();
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
        let slices = [&ws.q, &span.segment.slice, &ws.running, &ws.mixed];
        let grid = [count.div_ceil(ATTENTION_QUERIES as usize), heads, 1];
        cx.recorder.dispatch(KernelId::Attention, plain, &params, &slices, grid)?;
        begin = false;
    }
    Ok(())
}
