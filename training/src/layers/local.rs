//! A local layer: mLSTM and feed-forward, both behind a norm and added to the stream (SPEC 4).

use bolmo_runtime::internals::{
    CellShape, Context, LayerState, LocalLayer, Norm, Over, Rows, Slice, Workspace, chunk_states, feed_forward,
    head_norm, mixer,
};
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{
    MlstmChunkOutGrad, MlstmChunkScanGrad, MlstmChunkScores, MlstmChunkStateGrad, MlstmGateDots, MlstmGatesGrad,
    MlstmNormGrad,
};
use bolmo_shaders::table::{mlstm_chunk_out_grad_grid, mlstm_chunk_scores_grid};

use super::{Room, Shape, buffer, copy_rows, over, stream};
use crate::layers::backward::{Backward, Into};

/// What is kept of a local layer: enough to go back through it without another product. Norms, gates' norms and `silu·mul` are
/// recomputed.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The stream in front of the mLSTM, `[bytes, D]`.
    x: Slice,
    /// The stream in front of the feed-forward, `[bytes, D]`.
    middle: Slice,
    /// The shared buffers, but for projections, gates, cell and gate_up.
    workspace: Workspace,
    /// Whether only `x` outlives the layers behind this one.
    again: bool,
}

impl Kept {
    /// Memory for a layer; but for its input it is that of `lender`, if there is one.
    pub(crate) async fn new(room: Room<'_>, lender: Option<&Self>, again: bool) -> Result<Self> {
        let Room { gpu, config, shape, shared } = room;
        let bytes = shape.all_bytes();
        if let Some(Self { middle, workspace, .. }) = lender {
            let x = buffer(gpu, bytes, config.hidden_size).await?;
            return Ok(Self { x, middle: middle.clone(), workspace: workspace.clone(), again });
        }
        let (d, heads) = (config.hidden_size, config.num_local_heads);
        let (projections, gates) = (3 * d + 2 * heads, 4 * heads);
        let (cell, gate_up) = (heads * (config.mlstm_value_dim() + 1), 2 * config.local_intermediate_size);
        Ok(Self {
            again,
            x: buffer(gpu, bytes, d).await?,
            middle: buffer(gpu, bytes, d).await?,
            workspace: Workspace {
                projections: buffer(gpu, bytes, projections).await?,
                gates: buffer(gpu, bytes, gates).await?,
                cell: buffer(gpu, bytes, cell).await?,
                gate_up: buffer(gpu, bytes, gate_up).await?,
                ..shared.clone()
            },
        })
    }
}

/// Runs the workspace's `x` through the layer and keeps what is needed on the way back.
pub(crate) fn forward(
    cx: &mut Context<'_>,
    w: &LocalLayer,
    kept: &Kept,
    state: &LayerState,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_bytes();
    let mut cx = over(cx, &kept.workspace);
    copy_rows(&mut cx, &kept.workspace.x, &kept.x, rows)?;
    cx.recorder.clear(&state.c);
    cx.recorder.clear(&state.m);
    mixer(&mut cx, w, 0, Over::Batch(std::slice::from_ref(state), shape.rows, shape.bytes))?;
    copy_rows(&mut cx, &kept.workspace.x, &kept.middle, rows)?;
    feed_forward(&mut cx, w, rows)
}

/// Turns `dx` from the gradient of the layer's output into that of its input, and adds up those of its weights.
pub(crate) fn backward(
    b: &mut Backward<'_, '_>,
    w: &LocalLayer,
    dw: &LocalLayer,
    kept: &Kept,
    state: &LayerState,
    dx: &Slice,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_bytes();
    let scratch = b.scratch;
    if kept.again {
        copy_rows(b.cx, &kept.x, &kept.workspace.x, rows)?;
        forward(b.cx, w, kept, state, shape)?;
    }
    let mut cx = over(b.cx, &kept.workspace);
    let b = &mut Backward { cx: &mut cx, scratch };
    let (config, ws) = (b.cx.config, &kept.workspace);
    let (d, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du, u) = (stream(config, dx), stream(config, &scratch.du), stream(config, &ws.u));
    let plain = WeightFormat::F32;

    // the feed-forward
    let (x, norm) = (stream(config, &kept.middle), Norm { scale: &w.pre_feedforward_norm, eps });
    b.cx.norm(norm.scale, eps, x, u, rows, 1, d, false)?;
    b.mlp(&w.mlp, Some(&dw.mlp), &ws.gate_up, u, dx, Into { rows: du, add: false }, rows)?;
    b.norm(norm, Some(&dw.pre_feedforward_norm), x, du, Into { rows: dx, add: true }, rows, d)?;

    // the output projection
    let (x, norm) = (stream(config, &kept.x), Norm { scale: &w.pre_xlstm_norm, eps });
    head_norm(b.cx, w, rows)?;
    let d_mixed = Rows::new(&scratch.d_mixed, d, 0);
    let into = Into { rows: d_mixed, add: false };
    b.linear(&w.out, Some(&dw.out), 0, Rows::new(&ws.mixed, d, 0), dx, Some(into), rows)?;

    // the mLSTM
    let cell = CellShape::new(b.cx, rows, shape.bytes);
    let CellShape { heads, dk, dv, stride, q_offset, k_offset, v_offset, o_offset, i_offset, f_offset, .. } = cell;
    let CellShape { rows: all, scale, chunk, period, cap, eps: head_eps, .. } = cell;
    let d_projections = &scratch.d_projections;
    let params = MlstmNormGrad { rows: all, heads, dv, x_stride: stride, o_offset, eps: head_eps };
    let slices = [
        &ws.cell,
        &ws.gates,
        &ws.projections,
        &w.head_norm,
        &scratch.d_mixed,
        &scratch.d_cell,
        d_projections,
        &scratch.contributions,
    ];
    b.cx.recorder.dispatch(KernelId::MlstmNormGrad, plain, &params, &slices, [heads as usize, rows, 1])?;
    b.sum_rows(Rows::new(&scratch.contributions, d, 0), &dw.head_norm, 0, rows, d)?;

    // The states at the starts of chunks are made again; those behind them get their gradients from later rows.
    b.cx.recorder.clear(&state.c);
    chunk_states(b.cx, state, cell)?;
    let recorder = &mut *b.cx.recorder;
    let params = MlstmChunkStateGrad { rows: all, heads, dk, dv, stride, q_offset, chunk, scale };
    let slices = [&ws.projections, &ws.gates, &scratch.d_cell, &scratch.d_states];
    let chunks = all.div_ceil(chunk) as usize;
    let grid = [CellShape::groups(dk.div_ceil(4) * (dv + 1)), heads as usize, chunks];
    recorder.dispatch(KernelId::MlstmChunkStateGrad, plain, &params, &slices, grid)?;
    let params = MlstmChunkScanGrad { rows: all, heads, size: cell.size(), chunk, period };
    let grid = [CellShape::groups(cell.size()), heads as usize, shape.rows];
    recorder.dispatch(KernelId::MlstmChunkScanGrad, plain, &params, &[&ws.gates, &scratch.d_states], grid)?;
    let [a, c] = &scratch.scores;
    let params = MlstmChunkScores { rows: all, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
    let slices = [&ws.projections, &ws.gates, &scratch.d_cell, a, c];
    recorder.dispatch(
        KernelId::MlstmChunkScores,
        plain,
        &params,
        &slices,
        mlstm_chunk_scores_grid(rows, heads as usize),
    )?;
    let params = MlstmChunkOutGrad { rows: all, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
    let slices = [&ws.projections, &ws.gates, &ws.states, &scratch.d_states, &scratch.d_cell, a, c, d_projections];
    recorder.dispatch(
        KernelId::MlstmChunkOutGrad,
        plain,
        &params,
        &slices,
        mlstm_chunk_out_grad_grid(rows, heads as usize, dk as usize, dv as usize),
    )?;
    let params = MlstmGateDots { rows: all, heads, dk, stride, q_offset, k_offset };
    let slices = [&ws.projections, d_projections, &scratch.dots];
    recorder.dispatch(KernelId::MlstmGateDots, plain, &params, &slices, [CellShape::groups(all * heads), 1, 1])?;
    let params = MlstmGatesGrad { rows: all, heads, stride, i_offset, f_offset, cap, period };
    let slices = [&ws.projections, &scratch.dots, d_projections];
    let grid = [heads as usize, shape.rows, 1];
    recorder.dispatch(KernelId::MlstmGatesGrad, plain, &params, &slices, grid)?;

    // the projections; only the gates have biases
    b.cx.norm(norm.scale, eps, x, u, rows, 1, d, false)?;
    let d_projections = Rows::new(d_projections, stride as usize, 0);
    let into = Into { rows: du, add: false };
    b.linear(&w.projections, Some(&dw.projections), 3 * d, u, d_projections, Some(into), rows)?;
    b.norm(norm, Some(&dw.pre_xlstm_norm), x, du, Into { rows: dx, add: true }, rows, d)
}
