//! A local layer: an mLSTM and a feed-forward, each after a norm and added to the residual stream (docs/model.md,
//! "Local layer (mLSTM)").

use bolmo_runtime::unstable::{
    CellShape, Context, LayerState, LocalLayer, Norm, NormRows, Over, Rows, Slice, Workspace, chunk_states,
    feed_forward, head_norm, mixer,
};
use bolmo_runtime::{Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{
    MlstmChunkOutGrad, MlstmChunkScanGrad, MlstmChunkScores, MlstmChunkStateGrad, MlstmGateDots, MlstmGatesGrad,
    MlstmNormGrad,
};
use bolmo_shaders::sizes::{mlstm_chunk_out_grad_grid, mlstm_chunk_scores_grid};

use super::activations::{ActivationSpec, Shape, buffer, copy_rows, stream, with_workspace};
use super::backward::{Backward, LinearGrad, MlpGrad, NormGrad, Output};

const PLAIN: WeightFormat = WeightFormat::F32;

/// Saved activations of a local layer: enough for a backward pass that repeats no product. Norms, gate norms and the
/// products of `silu` are recomputed.
#[derive(Debug)]
pub(crate) struct SavedActivations {
    /// The stream before the mLSTM, `[bytes, D]`.
    x: Slice,
    /// The stream before the feed-forward, `[bytes, D]`.
    middle: Slice,
    /// The common workspace with projections, gates, cell and gate_up of its own.
    workspace: Workspace,
    /// Whether the layer runs forward again before its backward pass, since later layers overwrite everything but `x`.
    recompute: bool,
}

impl SavedActivations {
    /// Allocates the activations of a layer. All buffers but the layer's input are those of `shared`, if given.
    pub(crate) async fn new(spec: ActivationSpec<'_>, shared: Option<&Self>, recompute: bool) -> Result<Self> {
        let ActivationSpec { device, config, shape, workspace } = spec;
        let bytes = shape.all_bytes();
        if let Some(Self { middle, workspace, .. }) = shared {
            let x = buffer(device, bytes, config.hidden_size).await?;
            return Ok(Self { x, middle: middle.clone(), workspace: workspace.clone(), recompute });
        }
        let (d, heads) = (config.hidden_size, config.num_local_heads);
        let (projections, gates) = (3 * d + 2 * heads, 4 * heads);
        let (cell, gate_up) = (heads * (config.mlstm_value_dim() + 1), 2 * config.local_intermediate_size);
        Ok(Self {
            recompute,
            x: buffer(device, bytes, d).await?,
            middle: buffer(device, bytes, d).await?,
            workspace: Workspace {
                projections: buffer(device, bytes, projections).await?,
                gates: buffer(device, bytes, gates).await?,
                cell: buffer(device, bytes, cell).await?,
                gate_up: buffer(device, bytes, gate_up).await?,
                ..workspace.clone()
            },
        })
    }
}

/// Runs `x` of the workspace through the layer and saves the activations of the backward pass.
pub(crate) fn forward(
    cx: &mut Context<'_>,
    w: &LocalLayer,
    saved: &SavedActivations,
    state: &LayerState,
    shape: Shape,
) -> Result<()> {
    let rows = shape.all_bytes();
    let mut cx = with_workspace(cx, &saved.workspace);
    copy_rows(&mut cx, &saved.workspace.x, &saved.x, rows)?;
    cx.recorder.clear(&state.c);
    cx.recorder.clear(&state.m);
    mixer(&mut cx, w, 0, Over::Batch(std::slice::from_ref(state), shape.rows, shape.bytes))?;
    copy_rows(&mut cx, &saved.workspace.x, &saved.middle, rows)?;
    feed_forward(&mut cx, w, rows)
}

/// Operands of the backward pass of a local layer.
#[derive(Clone, Copy)]
pub(crate) struct LayerGrad<'a> {
    pub(crate) w: &'a LocalLayer,
    pub(crate) dw: &'a LocalLayer,
    pub(crate) saved: &'a SavedActivations,
    /// States of all examples; scratch memory.
    pub(crate) state: &'a LayerState,
    /// Gradient of the layer's output, and afterwards that of its input.
    pub(crate) dx: &'a Slice,
    pub(crate) shape: Shape,
}

/// Turns `dx` from the gradient of the layer's output into that of its input, and accumulates those of its weights.
pub(crate) fn backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>) -> Result<()> {
    let LayerGrad { w, saved, state, shape, .. } = layer;
    let scratch = b.scratch;
    if saved.recompute {
        copy_rows(b.cx, &saved.x, &saved.workspace.x, shape.all_bytes())?;
        forward(b.cx, w, saved, state, shape)?;
    }
    let mut cx = with_workspace(b.cx, &saved.workspace);
    let b = &mut Backward { cx: &mut cx, scratch };
    feed_forward_backward(b, layer)?;
    output_projection_backward(b, layer)?;
    let cell = CellShape::new(b.cx, shape.all_bytes(), shape.bytes);
    head_norm_backward(b, layer, cell)?;
    chunk_states_backward(b, layer, cell)?;
    chunk_outputs_backward(b, layer, cell)?;
    gates_backward(b, layer, cell)?;
    input_projections_backward(b, layer)
}

/// Backward pass of the feed-forward and its norm.
fn feed_forward_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>) -> Result<()> {
    let LayerGrad { w, dw, saved, shape, .. } = layer;
    let (config, ws, rows) = (b.cx.config, &saved.workspace, shape.all_bytes());
    let (dim, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du, u) = (stream(config, layer.dx), stream(config, &b.scratch.du), stream(config, &ws.u));
    let (x, norm) = (stream(config, &saved.middle), Norm { scale: &w.pre_feedforward_norm, eps });
    b.cx.norm(NormRows::new(Norm { scale: norm.scale, eps }, x, u, rows, dim))?;
    let gate_up = &ws.gate_up;
    b.mlp(MlpGrad { w: &w.mlp, dw: Some(&dw.mlp), gate_up, x: u, dy: dx, dx: Output::replace(du), rows })?;
    let d_scale = Some(&dw.pre_feedforward_norm);
    b.norm(NormGrad { norm, d_scale, x, dy: du, dx: Output::accumulate(dx), rows, dim })
}

/// Backward pass of the mLSTM's output projection, down to the gradient of its input in `d_mixed`.
fn output_projection_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>) -> Result<()> {
    let LayerGrad { w, dw, saved, shape, .. } = layer;
    let (config, rows) = (b.cx.config, shape.all_bytes());
    head_norm(b.cx, w, rows)?;
    b.linear(LinearGrad {
        w: &w.out,
        dw: Some(&dw.out),
        biased_from: 0,
        x: stream(config, &saved.workspace.mixed),
        dy: stream(config, layer.dx),
        dx: Output::replace(stream(config, &b.scratch.d_mixed)),
        rows,
    })
}

/// Backward pass of the norm and the output gate of each head, down to the gradient of the mLSTM's sums in `d_cell`.
fn head_norm_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>, cell: CellShape) -> Result<()> {
    let (scratch, ws, rows) = (b.scratch, &layer.saved.workspace, layer.shape.all_bytes());
    let CellShape { rows: all, heads, dv, stride, o_offset, eps, .. } = cell;
    let params = MlstmNormGrad { rows: all, heads, dv, x_stride: stride, o_offset, eps };
    let slices = [
        &ws.cell,
        &ws.gates,
        &ws.projections,
        &layer.w.head_norm,
        &scratch.d_mixed,
        &scratch.d_cell,
        &scratch.d_projections,
        &scratch.contributions,
    ];
    b.cx.recorder.dispatch(KernelId::MlstmNormGrad, PLAIN, &params, &slices, [heads as usize, rows, 1])?;
    let contributions = stream(b.cx.config, &scratch.contributions);
    b.sum_rows(contributions, &layer.dw.head_norm, 0, rows, b.cx.config.hidden_size)
}

/// Recomputes the states at the starts of the chunks, and computes the gradients of those at their ends from later
/// rows.
fn chunk_states_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>, cell: CellShape) -> Result<()> {
    let (scratch, ws, shape) = (b.scratch, &layer.saved.workspace, layer.shape);
    b.cx.recorder.clear(&layer.state.c);
    chunk_states(b.cx, layer.state, cell)?;
    let CellShape { rows: all, heads, dk, dv, stride, q_offset, chunk, period, scale, .. } = cell;
    let params = MlstmChunkStateGrad { rows: all, heads, dk, dv, stride, q_offset, chunk, scale };
    let slices = [&ws.projections, &ws.gates, &scratch.d_cell, &scratch.d_states];
    let chunks = all.div_ceil(chunk) as usize;
    let grid = [CellShape::groups(dk.div_ceil(4) * (dv + 1)), heads as usize, chunks];
    b.cx.recorder.dispatch(KernelId::MlstmChunkStateGrad, PLAIN, &params, &slices, grid)?;
    let params = MlstmChunkScanGrad { rows: all, heads, size: cell.size(), chunk, period };
    let slices = [&ws.gates, &scratch.d_states];
    let grid = [CellShape::groups(cell.size()), heads as usize, shape.rows];
    b.cx.recorder.dispatch(KernelId::MlstmChunkScanGrad, PLAIN, &params, &slices, grid)
}

/// Computes the gradients of q, k and v, within chunks and through their states.
fn chunk_outputs_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>, cell: CellShape) -> Result<()> {
    let (scratch, ws, rows) = (b.scratch, &layer.saved.workspace, layer.shape.all_bytes());
    let CellShape { rows: all, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale, .. } = cell;
    let [weights, d_weights] = &scratch.scores;
    let params = MlstmChunkScores { rows: all, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
    let slices = [&ws.projections, &ws.gates, &scratch.d_cell, weights, d_weights];
    let grid = mlstm_chunk_scores_grid(rows, heads as usize);
    b.cx.recorder.dispatch(KernelId::MlstmChunkScores, PLAIN, &params, &slices, grid)?;
    let params = MlstmChunkOutGrad { rows: all, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
    let slices = [
        &ws.projections,
        &ws.gates,
        &ws.states,
        &scratch.d_states,
        &scratch.d_cell,
        weights,
        d_weights,
        &scratch.d_projections,
    ];
    let grid = mlstm_chunk_out_grad_grid(rows, heads as usize, dk as usize, dv as usize);
    b.cx.recorder.dispatch(KernelId::MlstmChunkOutGrad, PLAIN, &params, &slices, grid)
}

/// Computes the gradients of the input and forget gates from those of q and k.
fn gates_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>, cell: CellShape) -> Result<()> {
    let (scratch, ws) = (b.scratch, &layer.saved.workspace);
    let CellShape { rows: all, heads, dk, stride, q_offset, k_offset, i_offset, f_offset, cap, period, .. } = cell;
    let params = MlstmGateDots { rows: all, heads, dk, stride, q_offset, k_offset };
    let slices = [&ws.projections, &scratch.d_projections, &scratch.dots];
    let grid = [CellShape::groups(all * heads), 1, 1];
    b.cx.recorder.dispatch(KernelId::MlstmGateDots, PLAIN, &params, &slices, grid)?;
    let params = MlstmGatesGrad { rows: all, heads, stride, i_offset, f_offset, cap, period };
    let slices = [&ws.projections, &scratch.dots, &scratch.d_projections];
    let grid = [heads as usize, layer.shape.rows, 1];
    b.cx.recorder.dispatch(KernelId::MlstmGatesGrad, PLAIN, &params, &slices, grid)
}

/// Backward pass of the input projections and their norm. Of the projections only the gates have biases.
fn input_projections_backward(b: &mut Backward<'_, '_>, layer: LayerGrad<'_>) -> Result<()> {
    let LayerGrad { w, dw, saved, shape, .. } = layer;
    let (config, scratch, rows) = (b.cx.config, b.scratch, shape.all_bytes());
    let (dim, eps) = (config.hidden_size, config.rms_norm_eps);
    let (dx, du, u) = (stream(config, layer.dx), stream(config, &scratch.du), stream(config, &saved.workspace.u));
    let (x, norm) = (stream(config, &saved.x), Norm { scale: &w.pre_xlstm_norm, eps });
    b.cx.norm(NormRows::new(Norm { scale: norm.scale, eps }, x, u, rows, dim))?;
    b.linear(LinearGrad {
        w: &w.projections,
        dw: Some(&dw.projections),
        biased_from: 3 * dim,
        x: u,
        dy: Rows::new(&scratch.d_projections, 3 * dim + 2 * config.num_local_heads, 0),
        dx: Output::replace(du),
        rows,
    })?;
    let d_scale = Some(&dw.pre_xlstm_norm);
    b.norm(NormGrad { norm, d_scale, x, dy: du, dx: Output::accumulate(dx), rows, dim })
}
