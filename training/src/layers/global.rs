//! A global block: attention and feed-forward, with norms before or behind them (SPEC 6).

use bolmo_runtime::config::{BlockType, QkNorm};
use bolmo_runtime::internals::{
    Context, GlobalLayer, Norm, Rows, Sequences, Slice, Workspace, attention_half, feed_forward_half, rope, rotations,
};
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{AttentionGradKv, AttentionGradQ};
use bolmo_shaders::table::{attention_grad_kv_grid, attention_grad_q_grid};

use super::{Room, Shape, buffer, copy_rows, over, stream};
use crate::layers::backward::{Backward, Into};

/// What is kept of a block.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The stream in front of attention, `[patches, D]`.
    x: Slice,
    /// The stream in front of the feed-forward, `[patches, D]`.
    middle: Slice,
    /// Keys and values, `[patches, 2, kv_heads, head_dim]`.
    pub(crate) kv: Slice,
    /// Buffers of the first half: with its own projections, q, running, mixed and branch.
    attention: Workspace,
    /// Buffers of the second half: with its own gate_up and branch.
    feed_forward: Workspace,
    /// Whether only `x` outlives the blocks behind this one.
    again: bool,
}

impl Kept {
    /// Memory for a block; but for its input it is that of `lender`, if there is one.
    pub(crate) async fn new(room: Room<'_>, lender: Option<&Self>, again: bool) -> Result<Self> {
        let Room { gpu, config, shape, shared } = room;
        let patches = shape.all_patches();
        if let Some(Self { middle, kv, attention, feed_forward, .. }) = lender {
            return Ok(Self {
                x: buffer(gpu, patches, config.hidden_size).await?,
                middle: middle.clone(),
                kv: kv.clone(),
                attention: attention.clone(),
                feed_forward: feed_forward.clone(),
                again,
            });
        }
        let (d, q, kv) = (config.hidden_size, config.query_width(), config.key_value_width());
        let reordered = config.block_type == BlockType::ReorderedNorm;
        let branch = async || match reordered {
            true => buffer(gpu, patches, d).await,
            false => Ok(shared.branch.clone()),
        };
        Ok(Self {
            again,
            x: buffer(gpu, patches, d).await?,
            middle: buffer(gpu, patches, d).await?,
            kv: buffer(gpu, patches, 2 * kv).await?,
            attention: Workspace {
                projections: buffer(gpu, patches, q + 2 * kv).await?,
                q: buffer(gpu, patches, q).await?,
                running: buffer(gpu, patches, 2 * config.num_attention_heads).await?,
                mixed: buffer(gpu, patches, q).await?,
                branch: branch().await?,
                ..shared.clone()
            },
            feed_forward: Workspace {
                gate_up: buffer(gpu, patches, 2 * config.intermediate_size).await?,
                branch: branch().await?,
                ..shared.clone()
            },
        })
    }
}

/// Examples that each see themselves, with room for their keys and values.
pub(crate) fn sequences(kv: &Slice, shape: Shape) -> Sequences<'_> {
    Sequences::Whole { kv, sequences: shape.rows, rows: shape.patches }
}

/// Runs the workspace's `patches` through block `i` and keeps what is needed on the way back.
pub(crate) fn forward(cx: &mut Context<'_>, w: &GlobalLayer, kept: &Kept, i: usize, shape: Shape) -> Result<()> {
    let rows = shape.all_patches();
    let mut first = over(cx, &kept.attention);
    copy_rows(&mut first, &kept.attention.patches, &kept.x, rows)?;
    attention_half(&mut first, w, sequences(&kept.kv, shape), i)?;
    let mut second = over(cx, &kept.feed_forward);
    copy_rows(&mut second, &kept.feed_forward.patches, &kept.middle, rows)?;
    feed_forward_half(&mut second, w, rows)
}

/// Turns `dx` from the gradient of the block's output into that of its input, and adds up those of its weights if they are wanted.
pub(crate) fn backward(
    b: &mut Backward<'_, '_>,
    w: &GlobalLayer,
    dw: Option<&GlobalLayer>,
    kept: &Kept,
    i: usize,
    dx: &Slice,
    shape: Shape,
) -> Result<()> {
    if kept.again {
        copy_rows(b.cx, &kept.x, &kept.attention.patches, shape.all_patches())?;
        forward(b.cx, w, kept, i, shape)?;
    }
    second_half(b, w, dw, kept, dx, shape)?;
    first_half(b, w, dw, kept, i, dx, shape)
}

/// Back through the feed-forward.
fn second_half(
    b: &mut Backward<'_, '_>,
    w: &GlobalLayer,
    dw: Option<&GlobalLayer>,
    kept: &Kept,
    dx: &Slice,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_patches();
    let (config, scratch, ws) = (b.cx.config, b.scratch, &kept.feed_forward);
    let (d, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du) = (stream(config, dx), stream(config, &scratch.du));
    let (x, norm) = (stream(config, &kept.middle), Norm { scale: &w.feedforward_norm, eps });
    let (d_norm, d_mlp) = (dw.map(|dw| &dw.feedforward_norm), dw.map(|dw| &dw.mlp));
    match config.block_type {
        BlockType::PreNorm => {
            let u = stream(config, &b.cx.workspace.u);
            b.cx.norm(norm.scale, eps, x, u, rows, 1, d, false)?;
            b.mlp(&w.mlp, d_mlp, &ws.gate_up, u, dx, Into { rows: du, add: false }, rows)?;
            b.norm(norm, d_norm, x, du, Into { rows: dx, add: true }, rows, d)
        }
        BlockType::ReorderedNorm => {
            b.norm(norm, d_norm, stream(config, &ws.branch), dx, Into { rows: du, add: false }, rows, d)?;
            b.mlp(&w.mlp, d_mlp, &ws.gate_up, x, du, Into { rows: dx, add: true }, rows)
        }
    }
}

/// Back through attention.
fn first_half(
    b: &mut Backward<'_, '_>,
    w: &GlobalLayer,
    dw: Option<&GlobalLayer>,
    kept: &Kept,
    i: usize,
    dx: &Slice,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_patches();
    let (config, scratch, ws) = (b.cx.config, b.scratch, &kept.attention);
    let (d, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du) = (stream(config, dx), stream(config, &scratch.du));
    let (x, norm) = (stream(config, &kept.x), Norm { scale: &w.attention_norm, eps });
    let d_norm = dw.map(|dw| &dw.attention_norm);
    let q_width = config.query_width();
    let mixed = Rows::new(&ws.mixed, q_width, 0);
    let d_mixed = Into { rows: Rows::new(&scratch.d_mixed, q_width, 0), add: false };
    let (d_out, d_qkv) = (dw.map(|dw| &dw.out), dw.map(|dw| &dw.qkv));
    let width = q_width + 2 * config.key_value_width();
    let d_projections = Rows::new(&scratch.d_projections, width, 0);
    match config.block_type {
        BlockType::PreNorm => {
            b.linear(&w.out, d_out, 0, mixed, dx, Some(d_mixed), rows)?;
            attention(b, w, dw, kept, i, shape)?;
            let u = stream(config, &b.cx.workspace.u);
            b.cx.norm(norm.scale, eps, x, u, rows, 1, d, false)?;
            b.linear(&w.qkv, d_qkv, 0, u, d_projections, Some(Into { rows: du, add: false }), rows)?;
            b.norm(norm, d_norm, x, du, Into { rows: dx, add: true }, rows, d)
        }
        BlockType::ReorderedNorm => {
            b.norm(norm, d_norm, stream(config, &ws.branch), dx, Into { rows: du, add: false }, rows, d)?;
            b.linear(&w.out, d_out, 0, mixed, du, Some(d_mixed), rows)?;
            attention(b, w, dw, kept, i, shape)?;
            b.linear(&w.qkv, d_qkv, 0, x, d_projections, Some(Into { rows: dx, add: true }), rows)
        }
    }
}

/// From the gradient of the heads' outputs in `d_mixed` to that of q, k and v in `d_projections`.
fn attention(
    b: &mut Backward<'_, '_>,
    w: &GlobalLayer,
    dw: Option<&GlobalLayer>,
    kept: &Kept,
    i: usize,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_patches();
    let (config, scratch, ws) = (b.cx.config, b.scratch, &kept.attention);
    let plain = WeightFormat::F32;
    let (heads, kv_heads, dim) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let (q_width, kv_width) = (config.query_width(), config.key_value_width());
    let params = AttentionGradQ {
        count: shape.patches as u32,
        heads: heads as u32,
        heads_per_kv: (heads / kv_heads) as u32,
        dim4: (dim / 4) as u32,
        window: config.window(i) as u32,
        scale: 1.0 / (dim as f32).sqrt(),
    };
    let slices = [&ws.q, &kept.kv, &ws.running, &ws.mixed, &scratch.d_mixed, &scratch.delta, &scratch.dq];
    let grid = attention_grad_q_grid(shape.patches, heads, shape.rows);
    b.cx.recorder.dispatch(KernelId::AttentionGradQ, plain, &params, &slices, grid)?;
    let AttentionGradQ { count, heads: heads_u, heads_per_kv, dim4, window, scale } = params;
    let params = AttentionGradKv { count, heads: heads_u, heads_per_kv, dim4, window, scale };
    let slices = [&ws.q, &kept.kv, &ws.running, &scratch.d_mixed, &scratch.delta, &scratch.dkv];
    let grid = attention_grad_kv_grid(shape.patches, kv_heads, shape.rows);
    b.cx.recorder.dispatch(KernelId::AttentionGradKv, plain, &params, &slices, grid)?;

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
    b.cx.recorder.dispatch(KernelId::RopeGrad, plain, &params, &slices, grid)?;
    let Some((dq_norm, dk_norm)) = dw.and_then(|dw| dw.q_norm.as_ref().zip(dw.k_norm.as_ref())) else {
        return Ok(());
    };
    // Heads one behind the other have a weight of their own each, or all the same one.
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
