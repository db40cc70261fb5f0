//! A global block: attention and a feed-forward, with norms before or after them (docs/model.md, "Global blocks").

use bolmo_runtime::unstable::{
    Context, GlobalLayer, Norm, NormRows, Rows, Sequences, Slice, Workspace, attention_half, feed_forward_half, rope,
    rotations,
};
use bolmo_runtime::{BlockType, QkNorm};
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{AttentionGradKv, AttentionGradQ};
use bolmo_shaders::sizes::{attention_grad_kv_grid, attention_grad_q_grid};

use super::activations::{ActivationSpec, Shape, buffer, copy_rows, stream, with_workspace};
use super::backward::{Backward, LinearGrad, MlpGrad, NormGrad, Output};

/// Saved activations of a block.
#[derive(Debug)]
pub(crate) struct SavedActivations {
    /// The stream before attention, `[patches, D]`.
    x: Slice,
    /// The stream before the feed-forward, `[patches, D]`.
    middle: Slice,
    /// Keys and values, `[patches, 2, kv_heads, head_dim]`.
    pub(crate) kv: Slice,
    /// Workspace of the first half, with projections, q, running, mixed and branch of its own.
    attention: Workspace,
    /// Workspace of the second half, with gate_up and branch of its own.
    feed_forward: Workspace,
    /// Whether the block runs forward again before its backward pass, since later blocks overwrite everything but `x`.
    recompute: bool,
}

impl SavedActivations {
    /// Allocates the activations of a block. All buffers but the block's input are those of `shared`, if given.
    pub(crate) async fn new(spec: ActivationSpec<'_>, shared: Option<&Self>, recompute: bool) -> Result<Self> {
        let ActivationSpec { device, config, shape, workspace } = spec;
        let patches = shape.all_patches();
        if let Some(Self { middle, kv, attention, feed_forward, .. }) = shared {
            return Ok(Self {
                x: buffer(device, patches, config.hidden_size).await?,
                middle: middle.clone(),
                kv: kv.clone(),
                attention: attention.clone(),
                feed_forward: feed_forward.clone(),
                recompute,
            });
        }
        let (d, q, kv) = (config.hidden_size, config.query_width(), config.key_value_width());
        let reordered = config.block_type == BlockType::ReorderedNorm;
        let branch = async || match reordered {
            true => buffer(device, patches, d).await,
            false => Ok(workspace.branch.clone()),
        };
        Ok(Self {
            recompute,
            x: buffer(device, patches, d).await?,
            middle: buffer(device, patches, d).await?,
            kv: buffer(device, patches, 2 * kv).await?,
            attention: Workspace {
                projections: buffer(device, patches, q + 2 * kv).await?,
                q: buffer(device, patches, q).await?,
                running: buffer(device, patches, 2 * config.num_attention_heads).await?,
                mixed: buffer(device, patches, q).await?,
                branch: branch().await?,
                ..workspace.clone()
            },
            feed_forward: Workspace {
                gate_up: buffer(device, patches, 2 * config.intermediate_size).await?,
                branch: branch().await?,
                ..workspace.clone()
            },
        })
    }
}

/// Sequences for attention: each example attends to itself, with its keys and values in `kv`.
pub(crate) fn sequences(kv: &Slice, shape: Shape) -> Sequences<'_> {
    Sequences::Whole { kv, sequences: shape.rows, rows: shape.patches }
}

/// Runs `patches` of the workspace through block `i` and saves the activations of the backward pass.
pub(crate) fn forward(
    cx: &mut Context<'_>,
    w: &GlobalLayer,
    saved: &SavedActivations,
    i: usize,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_patches();
    let mut first = with_workspace(cx, &saved.attention);
    copy_rows(&mut first, &saved.attention.patches, &saved.x, rows)?;
    attention_half(&mut first, w, sequences(&saved.kv, shape), i)?;
    let mut second = with_workspace(cx, &saved.feed_forward);
    copy_rows(&mut second, &saved.feed_forward.patches, &saved.middle, rows)?;
    feed_forward_half(&mut second, w, rows)
}

/// Operands of the backward pass of a block.
#[derive(Clone, Copy)]
pub(crate) struct BlockGrad<'a> {
    pub(crate) w: &'a GlobalLayer,
    /// Gradients of the weights; `None` if they are frozen.
    pub(crate) dw: Option<&'a GlobalLayer>,
    pub(crate) saved: &'a SavedActivations,
    /// Number of the block.
    pub(crate) i: usize,
    /// Gradient of the block's output, and afterwards that of its input.
    pub(crate) dx: &'a Slice,
    pub(crate) shape: Shape,
}

/// Turns `dx` from the gradient of the block's output into that of its input, and accumulates those of its weights.
pub(crate) fn backward(b: &mut Backward<'_, '_>, block: BlockGrad<'_>) -> Result<()> {
    let BlockGrad { w, saved, i, shape, .. } = block;
    if saved.recompute {
        copy_rows(b.cx, &saved.x, &saved.attention.patches, shape.all_patches())?;
        forward(b.cx, w, saved, i, shape)?;
    }
    feed_forward_backward(b, block)?;
    attention_backward(b, block)
}

/// Backward pass of the feed-forward and its norm.
fn feed_forward_backward(b: &mut Backward<'_, '_>, block: BlockGrad<'_>) -> Result<()> {
    let BlockGrad { w, dw, saved, shape, .. } = block;
    let rows = shape.all_patches();
    let (config, scratch, ws) = (b.cx.config, b.scratch, &saved.feed_forward);
    let (dim, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du) = (stream(config, block.dx), stream(config, &scratch.du));
    let (x, norm) = (stream(config, &saved.middle), Norm { scale: &w.feedforward_norm, eps });
    let d_scale = dw.map(|dw| &dw.feedforward_norm);
    let (w, dw, gate_up) = (&w.mlp, dw.map(|dw| &dw.mlp), &ws.gate_up);
    match config.block_type {
        BlockType::PreNorm => {
            let u = stream(config, &b.cx.workspace.u);
            b.cx.norm(NormRows::new(Norm { scale: norm.scale, eps }, x, u, rows, dim))?;
            b.mlp(MlpGrad { w, dw, gate_up, x: u, dy: dx, dx: Output::replace(du), rows })?;
            b.norm(NormGrad { norm, d_scale, x, dy: du, dx: Output::accumulate(dx), rows, dim })
        }
        BlockType::ReorderedNorm => {
            let branch = stream(config, &ws.branch);
            b.norm(NormGrad { norm, d_scale, x: branch, dy: dx, dx: Output::replace(du), rows, dim })?;
            b.mlp(MlpGrad { w, dw, gate_up, x, dy: du, dx: Output::accumulate(dx), rows })
        }
    }
}

/// Backward pass of attention with its projections and its norm.
fn attention_backward(b: &mut Backward<'_, '_>, block: BlockGrad<'_>) -> Result<()> {
    let BlockGrad { w, dw, saved, shape, .. } = block;
    let rows = shape.all_patches();
    let (config, scratch, ws) = (b.cx.config, b.scratch, &saved.attention);
    let (dim, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du) = (stream(config, block.dx), stream(config, &scratch.du));
    let (x, norm) = (stream(config, &saved.x), Norm { scale: &w.attention_norm, eps });
    let d_scale = dw.map(|dw| &dw.attention_norm);
    let q_width = config.query_width();
    let out = |dy| LinearGrad {
        w: &w.out,
        dw: dw.map(|dw| &dw.out),
        biased_from: 0,
        x: Rows::new(&ws.mixed, q_width, 0),
        dy,
        dx: Output::replace(Rows::new(&scratch.d_mixed, q_width, 0)),
        rows,
    };
    let qkv = |x, dx| LinearGrad {
        w: &w.qkv,
        dw: dw.map(|dw| &dw.qkv),
        biased_from: 0,
        x,
        dy: Rows::new(&scratch.d_projections, q_width + 2 * config.key_value_width(), 0),
        dx,
        rows,
    };
    match config.block_type {
        BlockType::PreNorm => {
            b.linear(out(dx))?;
            heads_backward(b, block)?;
            let u = stream(config, &b.cx.workspace.u);
            b.cx.norm(NormRows::new(Norm { scale: norm.scale, eps }, x, u, rows, dim))?;
            b.linear(qkv(u, Output::replace(du)))?;
            b.norm(NormGrad { norm, d_scale, x, dy: du, dx: Output::accumulate(dx), rows, dim })
        }
        BlockType::ReorderedNorm => {
            let branch = stream(config, &ws.branch);
            b.norm(NormGrad { norm, d_scale, x: branch, dy: dx, dx: Output::replace(du), rows, dim })?;
            b.linear(out(du))?;
            heads_backward(b, block)?;
            b.linear(qkv(x, Output::accumulate(dx)))
        }
    }
}

/// Backward pass of the heads: from the gradient of their outputs in `d_mixed` to that of q, k and v in
/// `d_projections`.
fn heads_backward(b: &mut Backward<'_, '_>, block: BlockGrad<'_>) -> Result<()> {
    let BlockGrad { saved, i, shape, .. } = block;
    let (config, scratch, ws) = (b.cx.config, b.scratch, &saved.attention);
    let plain = WeightFormat::F32;
    let (heads, kv_heads, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let params = AttentionGradQ {
        count: shape.patches as u32,
        heads: heads as u32,
        heads_per_kv: (heads / kv_heads) as u32,
        dim4: (dim / 4) as u32,
        window: config.window(i) as u32,
        scale: 1.0 / (dim as f32).sqrt(),
    };
    let slices = [&ws.q, &saved.kv, &ws.running, &ws.mixed, &scratch.d_mixed, &scratch.delta, &scratch.dq];
    let grid = attention_grad_q_grid(shape.patches, heads, shape.rows);
    b.cx.recorder.dispatch(KernelId::AttentionGradQ, plain, &params, &slices, grid)?;
    let AttentionGradQ { count, heads, heads_per_kv, dim4, window, scale } = params;
    let params = AttentionGradKv { count, heads, heads_per_kv, dim4, window, scale };
    let slices = [&ws.q, &saved.kv, &ws.running, &scratch.d_mixed, &scratch.delta, &scratch.dkv];
    let grid = attention_grad_kv_grid(shape.patches, kv_heads, shape.rows);
    b.cx.recorder.dispatch(KernelId::AttentionGradKv, plain, &params, &slices, grid)?;
    rope_backward(b, block)
}

/// Backward pass of the rotary embeddings and the norms of q and k.
fn rope_backward(b: &mut Backward<'_, '_>, block: BlockGrad<'_>) -> Result<()> {
    let BlockGrad { w, dw, saved, i, shape, .. } = block;
    let (config, scratch, ws, rows) = (b.cx.config, b.scratch, &saved.attention, shape.all_patches());
    let (heads, kv_heads, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let (q_width, kv_width) = (config.query_width(), config.key_value_width());
    let norms = w.q_norm.as_ref().zip(w.k_norm.as_ref());
    let (q_norm, k_norm) = norms.unwrap_or((&ws.projections, &ws.projections));
    let qkv = Rows::new(&ws.projections, q_width + 2 * kv_width, 0);
    let (params, grid) = rope(config, norms.is_some(), qkv, (0, rows), 0);
    let slices = [
        &ws.projections,
        q_norm,
        k_norm,
        rotations(b.cx, i),
        &scratch.dq,
        &scratch.dkv,
        &scratch.d_projections,
        &scratch.contributions,
    ];
    b.cx.recorder.dispatch(KernelId::RopeGrad, WeightFormat::F32, &params, &slices, grid)?;
    let Some((dq_norm, dk_norm)) = dw.and_then(|dw| dw.q_norm.as_ref().zip(dw.k_norm.as_ref())) else {
        return Ok(());
    };
    // Contributions are `[rows, heads + kv_heads, head_dim]`. A norm has a weight for each head or one for all of them.
    let stride = (heads + kv_heads) * dim;
    let contributions = |head: usize| Rows { slice: &scratch.contributions, offset: head * dim, stride };
    match config.qk_norm {
        QkNorm::Whole => {
            b.sum_rows(contributions(0), dq_norm, 0, rows, q_width)?;
            b.sum_rows(contributions(heads), dk_norm, 0, rows, kv_width)
        }
        QkNorm::PerHead | QkNorm::None => {
            for head in 0..heads + kv_heads {
                let to = if head < heads { dq_norm } else { dk_norm };
                b.sum_rows(contributions(head), to, 0, rows, dim)?;
            }
            Ok(())
        }
    }
}
