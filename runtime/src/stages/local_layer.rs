//! A local layer: mLSTM and feed-forward, each after a norm and added to the residual stream (`docs/model.md`, "Local
//! layer (mLSTM)"). Encoder and decoder share it.

use bolmo_shaders::params::{
    MlstmCell, MlstmChunkOut, MlstmChunkScan, MlstmChunkState, MlstmGates, MlstmNorm, MlstmStep,
};
use bolmo_shaders::sizes::{MLSTM_CELL_MAX_DV, MLSTM_CHUNK, WORKGROUP};
use bolmo_shaders::{KernelId, WeightFormat};

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::LocalLayer;
use crate::stages::ops::{Context, Norm, Product, Rows};
use crate::state::LayerState;

/// Soft cap of both gates' pre-activations.
const GATE_CAP: f32 = 15.0;
/// Epsilon of the norm over a head.
const HEAD_NORM_EPS: f32 = 1e-6;

/// The sequences whose rows go through the layers.
#[derive(Clone, Copy)]
pub enum Over<'a> {
    /// Rows of one sequence: the states of its layers, and the number of rows.
    Sequence(&'a [LayerState], usize),
    /// All rows of several sequences: the states of their layers, one sequence after the other, the number of
    /// sequences, and the rows of each, a multiple of [`MLSTM_CHUNK`].
    Batch(&'a [LayerState], usize, usize),
    /// One row of each of several sequences.
    Slots(&'a [SlotStates<'a>]),
}

/// A sequence that has one row among those of others.
#[derive(Clone, Copy)]
pub struct SlotStates<'a> {
    /// The states of its layers.
    pub states: &'a [LayerState],
    /// The flag that leaves them unchanged.
    pub halt: &'a Slice,
}

impl Over<'_> {
    pub(super) fn rows(&self) -> usize {
        match self {
            Over::Sequence(_, rows) => *rows,
            Over::Batch(_, sequences, period) => sequences * period,
            Over::Slots(slots) => slots.len(),
        }
    }
}

/// Runs rows of the workspace's `x` through layer `i` and updates its states.
pub fn local_layer(cx: &mut Context<'_>, w: &LocalLayer, i: usize, over: Over<'_>) -> Result<()> {
    mixer(cx, w, i, over)?;
    feed_forward(cx, w, over.rows())
}

/// The first half of a local layer: the mLSTM after its norm, added to the residual stream.
pub fn mixer(cx: &mut Context<'_>, w: &LocalLayer, i: usize, over: Over<'_>) -> Result<()> {
    let bytes = over.rows();
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let eps = cx.config.rms_norm_eps;
    let x = Rows::new(&ws.x, d, 0);

    let norm = Norm { scale: &w.pre_xlstm_norm, eps };
    cx.norm_linear(norm, Product::new(&w.projections, x, Rows::new(&ws.projections, ws.local_width, 0), bytes))?;
    let (dk, dv) = (cx.config.mlstm_key_dim(), cx.config.mlstm_value_dim());
    let few = bytes <= cx.recorder.device().capabilities.cell_rows(dk, dv);
    match over {
        Over::Slots(slots) => {
            for (row, slot) in slots.iter().enumerate() {
                let outer = cx.recorder.guard(Some(slot.halt));
                cell(cx, w, &slot.states[i], row, 1)?;
                cx.recorder.guard(outer.as_ref());
            }
        }
        Over::Sequence(states, _) if few && dv <= MLSTM_CELL_MAX_DV as usize => {
            cell(cx, w, &states[i], 0, bytes)?;
        }
        Over::Sequence(states, _) => {
            mlstm(cx, &states[i], bytes, bytes)?;
            head_norm(cx, w, bytes)?;
        }
        Over::Batch(states, _, period) => {
            mlstm(cx, &states[i], bytes, period)?;
            head_norm(cx, w, bytes)?;
        }
    }
    cx.linear(Product::new(&w.out, Rows::new(&ws.mixed, d, 0), x, bytes).accumulated())
}

/// The second half: the feed-forward after its norm, added to the residual stream.
pub fn feed_forward(cx: &mut Context<'_>, w: &LocalLayer, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let norm = Norm { scale: &w.pre_feedforward_norm, eps: cx.config.rms_norm_eps };
    cx.mlp(&w.mlp, Some(norm), &ws.x, &ws.x, bytes, true)
}

/// Computes the input of the output projection from q, k, v and gates, row after row from `row` on, in one dispatch. If
/// `row` is not 0, rows are aligned as bindings must be.
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

/// Sizes of a layer's cell and where its parts lie in a row of the projections, in floats.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // the names are those of the kernels' parameters
pub struct CellShape {
    pub rows: u32,
    pub heads: u32,
    pub dk: u32,
    pub dv: u32,
    pub stride: u32,
    pub q_offset: u32,
    pub k_offset: u32,
    pub v_offset: u32,
    pub o_offset: u32,
    pub i_offset: u32,
    pub f_offset: u32,
    pub scale: f32,
    pub cap: f32,
    pub eps: f32,
    pub chunk: u32,
    pub period: u32,
}

impl CellShape {
    /// The shape for `rows` rows, in sequences of `period` rows each.
    pub fn new(cx: &Context<'_>, rows: usize, period: usize) -> Self {
        let d = cx.config.hidden_size;
        let (heads, dk, dv) = (cx.config.num_local_heads, cx.config.mlstm_key_dim(), cx.config.mlstm_value_dim());
        let [q_offset, k_offset, v_offset, o_offset, i_offset, f_offset] =
            [0, d / 2, d, 2 * d, 3 * d, 3 * d + heads].map(|n| n as u32);
        let [rows, heads, dk_u, dv, period] = [rows, heads, dk, dv, period].map(|n| n as u32);
        Self {
            rows,
            heads,
            dk: dk_u,
            dv,
            stride: cx.workspace.local_width as u32,
            q_offset,
            k_offset,
            v_offset,
            o_offset,
            i_offset,
            f_offset,
            scale: 1.0 / (dk as f32).sqrt(),
            cap: GATE_CAP,
            eps: HEAD_NORM_EPS,
            chunk: MLSTM_CHUNK,
            period,
        }
    }

    /// Elements of a head's state.
    pub fn size(&self) -> u32 {
        self.dk * (self.dv + 1)
    }

    /// Number of sequences.
    pub fn sequences(&self) -> u32 {
        self.rows.div_ceil(self.period.max(1))
    }

    /// Workgroups for `lanes` lanes.
    pub fn groups(lanes: u32) -> usize {
        lanes.div_ceil(WORKGROUP) as usize
    }
}

/// Computes the cell's sums from q, k, v and gates: recurrently for few rows, chunkwise for more.
fn mlstm(cx: &mut Context<'_>, state: &LayerState, bytes: usize, period: usize) -> Result<()> {
    let ws = cx.workspace;
    let plain = WeightFormat::F32;
    let shape = CellShape::new(cx, bytes, period);
    let CellShape { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale, .. } = shape;
    let CellShape { i_offset, f_offset, chunk, cap, period, .. } = shape;
    let gates = MlstmGates { rows, heads, stride, i_offset, f_offset, chunk, cap, period };
    let slices = [&ws.projections, &state.m, &ws.gates];
    let grid = [heads as usize, shape.sequences() as usize, 1];
    cx.recorder.dispatch(KernelId::MlstmGates, plain, &gates, &slices, grid)?;

    if !ws.saves_activations && bytes <= cx.recorder.device().capabilities.recurrent_rows {
        let params = MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
        let slices = [&ws.projections, &ws.gates, &state.c, &ws.cell];
        let grid = [CellShape::groups(dv + 1), heads as usize, 1];
        return cx.recorder.dispatch(KernelId::MlstmStep, plain, &params, &slices, grid);
    }
    chunk_states(cx, state, shape)?;
    let params = MlstmChunkOut { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
    let slices = [&ws.projections, &ws.gates, &ws.states, &ws.cell];
    let grid = cx.recorder.device().capabilities.tiles.chunk_out_grid(bytes, heads as usize, dv as usize);
    cx.recorder.dispatch(KernelId::MlstmChunkOut, plain, &params, &slices, grid)
}

/// Computes the states at the starts of chunks into the workspace's `states`, from q, k, v and gates, and updates
/// `state`.
pub fn chunk_states(cx: &mut Context<'_>, state: &LayerState, shape: CellShape) -> Result<()> {
    let ws = cx.workspace;
    let plain = WeightFormat::F32;
    let CellShape { rows, heads, dk, dv, stride, k_offset, v_offset, chunk, period, .. } = shape;
    let params = MlstmChunkState { rows, heads, dk, dv, stride, k_offset, v_offset, chunk };
    let slices = [&ws.projections, &ws.gates, &ws.states];
    let grid = [CellShape::groups(dk.div_ceil(4) * (dv + 1)), heads as usize, rows.div_ceil(chunk) as usize];
    cx.recorder.dispatch(KernelId::MlstmChunkState, plain, &params, &slices, grid)?;

    let params = MlstmChunkScan { rows, heads, size: shape.size(), chunk, period };
    let slices = [&ws.gates, &state.c, &ws.states];
    let grid = [CellShape::groups(shape.size()), heads as usize, shape.sequences() as usize];
    cx.recorder.dispatch(KernelId::MlstmChunkScan, plain, &params, &slices, grid)
}

/// Computes the input of the output projection from the cell's sums.
pub fn head_norm(cx: &mut Context<'_>, w: &LocalLayer, bytes: usize) -> Result<()> {
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
