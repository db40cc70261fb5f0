//! A local layer: mLSTM and feed-forward, both behind a norm and added to the stream (SPEC 4). Encoder and decoder share it.

use bolmo_shaders::params::{
    MlstmCell, MlstmChunkOut, MlstmChunkScan, MlstmChunkState, MlstmGates, MlstmNorm, MlstmStep,
};
use bolmo_shaders::table::{MLSTM_CELL_MAX_DV, MLSTM_CHUNK, WORKGROUP};
use bolmo_shaders::{KernelId, WeightFormat};

use super::{Context, Norm, Rows};
use crate::error::Result;
use crate::gpu::Slice;
use crate::state::LayerState;
use crate::weights::LocalLayer;

/// Soft cap of both gates' pre-activations.
const GATE_CAP: f32 = 15.0;
/// Epsilon of the norm over a head.
const HEAD_NORM_EPS: f32 = 1e-6;

/// Whose rows go through the layers.
#[derive(Clone, Copy)]
pub(crate) enum Over<'a> {
    /// So many rows of one sequence, and the states of its layers.
    Sequence(&'a [LayerState], usize),
    /// One row of each of several sequences.
    Lanes(&'a [LaneStates<'a>]),
}

/// What a sequence that has one row among others carries along.
#[derive(Clone, Copy)]
pub(crate) struct LaneStates<'a> {
    /// The states of its layers.
    pub(crate) states: &'a [LayerState],
    /// The flag that keeps them as they are.
    pub(crate) halt: &'a Slice,
}

impl Over<'_> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Over::Sequence(_, rows) => *rows,
            Over::Lanes(lanes) => lanes.len(),
        }
    }
}

/// Runs rows of the workspace's `x` through layer `i` and carries its states on.
pub(super) fn local_layer(cx: &mut Context<'_>, w: &LocalLayer, i: usize, over: Over<'_>) -> Result<()> {
    let bytes = over.rows();
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let eps = cx.config.rms_norm_eps;
    let x = Rows::new(&ws.x, d, 0);

    let norm = Norm { scale: &w.pre_xlstm_norm, eps };
    cx.norm_linear(norm, &w.projections, x, Rows::new(&ws.projections, ws.local_width, 0), bytes)?;
    let (dk, dv) = (cx.config.mlstm_key_dim(), cx.config.mlstm_value_dim());
    let few = bytes <= cx.recorder.gpu().capabilities.cell_rows(dk, dv);
    match over {
        Over::Lanes(lanes) => {
            for (row, lane) in lanes.iter().enumerate() {
                let outer = cx.recorder.guard(Some(lane.halt));
                cell(cx, w, &lane.states[i], row, 1)?;
                cx.recorder.guard(outer.as_ref());
            }
        }
        Over::Sequence(states, _) if few && dv <= MLSTM_CELL_MAX_DV as usize => {
            cell(cx, w, &states[i], 0, bytes)?;
        }
        Over::Sequence(states, _) => {
            mlstm(cx, &states[i], bytes)?;
            head_norm(cx, w, bytes)?;
        }
    }
    cx.linear(&w.out, Rows::new(&ws.mixed, d, 0), x, bytes, true)?;

    let norm = Norm { scale: &w.pre_feedforward_norm, eps };
    cx.mlp(&w.mlp, Some(norm), &ws.x, &ws.x, bytes, true)
}

/// From q, k, v and gates to what goes into the output projection, row after row from `row` on in one dispatch. Where that is not the
/// first row, rows begin where a binding may begin.
fn cell(cx: &mut Context<'_>, w: &LocalLayer, state: &LayerState, row: usize, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let first = row * ws.local_width;
    let (heads, dk, dv) = (cx.config.num_local_heads, cx.config.mlstm_key_dim(), cx.config.mlstm_value_dim());
    let params = MlstmCell {
        rows: bytes as u32,
        heads: heads as u32,
        dk: dk as u32,
        dv: dv as u32,
        stride: ws.local_width as u32,
        q_offset: first as u32,
        k_offset: (first + d / 2) as u32,
        v_offset: (first + d) as u32,
        o_offset: (first + 2 * d) as u32,
        i_offset: (first + 3 * d) as u32,
        f_offset: (first + 3 * d + heads) as u32,
        cap: GATE_CAP,
        scale: 1.0 / (dk as f32).sqrt(),
        eps: HEAD_NORM_EPS,
    };
    let out = ws.mixed.rows(row, bytes, d)?;
    let slices = [&ws.projections, &state.c, &state.m, &w.head_norm, &out];
    cx.recorder.dispatch(KernelId::MlstmCell, WeightFormat::F32, &params, &slices, [heads, 1, 1])
}

/// From q, k, v and gates to the cell's sums: recurrently for few rows, else chunkwise.
fn mlstm(cx: &mut Context<'_>, state: &LayerState, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let plain = WeightFormat::F32;
    let d = cx.config.hidden_size;
    let (heads, dk, dv) = (cx.config.num_local_heads, cx.config.mlstm_key_dim(), cx.config.mlstm_value_dim());
    let [rows, heads_u, dk_u, dv_u] = [bytes, heads, dk, dv].map(|n| n as u32);
    let stride = ws.local_width as u32;
    let [q_offset, k_offset, v_offset, i_offset, f_offset] = [0, d / 2, d, 3 * d, 3 * d + heads].map(|n| n as u32);
    let scale = 1.0 / (dk as f32).sqrt();
    let chunk = MLSTM_CHUNK;

    let gates = MlstmGates { rows, heads: heads_u, stride, i_offset, f_offset, chunk, cap: GATE_CAP, period: rows };
    let slices = [&ws.projections, &state.m, &ws.gates];
    let groups = |n: usize| n.div_ceil(WORKGROUP as usize);
    cx.recorder.dispatch(KernelId::MlstmGates, plain, &gates, &slices, [groups(heads), 1, 1])?;

    if bytes <= cx.recorder.gpu().capabilities.recurrent_rows {
        let params =
            MlstmStep { rows, heads: heads_u, dk: dk_u, dv: dv_u, stride, q_offset, k_offset, v_offset, scale };
        let slices = [&ws.projections, &ws.gates, &state.c, &ws.cell];
        return cx.recorder.dispatch(KernelId::MlstmStep, plain, &params, &slices, [groups(dv + 1), heads, 1]);
    }
    let chunks = bytes.div_ceil(chunk as usize);
    let params = MlstmChunkState { rows, heads: heads_u, dk: dk_u, dv: dv_u, stride, k_offset, v_offset, chunk };
    let slices = [&ws.projections, &ws.gates, &ws.states];
    let grid = [groups(dk.div_ceil(4) * (dv + 1)), heads, chunks];
    cx.recorder.dispatch(KernelId::MlstmChunkState, plain, &params, &slices, grid)?;

    let size = dk * (dv + 1);
    let params = MlstmChunkScan { rows, heads: heads_u, size: size as u32, chunk, period: rows };
    let slices = [&ws.gates, &state.c, &ws.states];
    cx.recorder.dispatch(KernelId::MlstmChunkScan, plain, &params, &slices, [groups(size), heads, 1])?;

    let params =
        MlstmChunkOut { rows, heads: heads_u, dk: dk_u, dv: dv_u, stride, q_offset, k_offset, v_offset, scale };
    let slices = [&ws.projections, &ws.gates, &ws.states, &ws.cell];
    let grid = cx.recorder.gpu().capabilities.tiles.chunk_out_grid(bytes, heads, dv);
    cx.recorder.dispatch(KernelId::MlstmChunkOut, plain, &params, &slices, grid)
}

/// From the cell's sums to what goes into the output projection.
fn head_norm(cx: &mut Context<'_>, w: &LocalLayer, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let heads = cx.config.num_local_heads;
    let params = MlstmNorm {
        rows: bytes as u32,
        heads: heads as u32,
        dv: cx.config.mlstm_value_dim() as u32,
        x_stride: ws.local_width as u32,
        o_offset: (2 * cx.config.hidden_size) as u32,
        eps: HEAD_NORM_EPS,
    };
    let slices = [&ws.cell, &ws.gates, &ws.projections, &w.head_norm, &ws.mixed];
    cx.recorder.dispatch(KernelId::MlstmNorm, WeightFormat::F32, &params, &slices, [heads, bytes, 1])
}
