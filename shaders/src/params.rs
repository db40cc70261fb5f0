//! The parameter blocks that host and shader share.
//!
//! A block is a `#[repr(C)]` struct with the fields of the `Params` struct in the kernel's WGSL file, which documents
//! them. A test compares every block with naga's reflection.

use bytemuck::{Pod, Zeroable};

/// The layout of a parameter block, for checks against the shader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamsLayout {
    /// Size of the block in bytes.
    pub size: usize,
    /// Name, WGSL type and byte offset of each field.
    pub fields: &'static [(&'static str, &'static str, usize)],
}

/// A parameter block.
pub trait Params: Pod {
    /// Its layout.
    const LAYOUT: ParamsLayout;
}

macro_rules! params {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ident,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
        #[allow(missing_docs)] // the WGSL file documents the fields
        pub struct $name { $(pub $field: $type,)* }

        impl Params for $name {
            const LAYOUT: ParamsLayout = ParamsLayout {
                size: size_of::<$name>(),
                fields: &[$((stringify!($field), stringify!($type), std::mem::offset_of!($name, $field)),)*],
            };
        }
    )*};
}

params! {
    /// `gather_rows.wgsl`
    GatherRows { count: u32, dim4: u32, first_row: u32, rows: u32, add: u32, y_row: u32, }
    /// `rms_norm.wgsl`
    RmsNorm {
        rows: u32, groups: u32, dim4: u32, x_offset4: u32, x_stride4: u32, y_offset4: u32, y_stride4: u32, add: u32,
        eps: f32,
    }
    /// `matvec.wgsl`
    MatVec {
        n: u32, k4: u32, x_offset4: u32, x_stride4: u32, y_offset: u32, y_stride: u32, add: u32, bias: u32, eps: f32,
    }
    /// `matmul.wgsl`
    MatMul {
        rows: u32, n: u32, k4: u32, x_offset4: u32, x_stride4: u32, y_offset: u32, y_stride: u32, add: u32, bias: u32,
        part4: u32, y_part: u32,
    }
    /// `silu_mul.wgsl`
    SiluMul { rows: u32, dim4: u32, }
    /// `rope.wgsl`
    Rope {
        first: u32, heads: u32, kv_heads: u32, half_dim: u32, q_group: u32, k_group: u32, norm: u32, q_offset: u32,
        k_offset: u32,
        v_offset: u32, stride: u32, kv_row: u32, eps: f32,
    }
    /// `attention.wgsl`
    Attention {
        count: u32, heads: u32, heads_per_kv: u32, dim4: u32, query_first: u32, key_first: u32, keys: u32, window: u32,
        begin: u32, end: u32, scale: f32,
    }
    /// `mlstm_gates.wgsl`
    MlstmGates { rows: u32, heads: u32, stride: u32, i_offset: u32, f_offset: u32, chunk: u32, cap: f32, period: u32, }
    /// `mlstm_cell.wgsl`
    MlstmCell {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, q_offset: u32, k_offset: u32, v_offset: u32,
        i_offset: u32,
        f_offset: u32, o_offset: u32, cap: f32, scale: f32, eps: f32,
    }
    /// `mlstm_step.wgsl`
    MlstmStep {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, q_offset: u32, k_offset: u32, v_offset: u32, scale: f32,
    }
    /// `mlstm_chunk_state.wgsl`
    MlstmChunkState {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, k_offset: u32, v_offset: u32, chunk: u32,
    }
    /// `mlstm_chunk_scan.wgsl`
    MlstmChunkScan { rows: u32, heads: u32, size: u32, chunk: u32, period: u32, }
    /// `mlstm_chunk_out.wgsl`
    MlstmChunkOut {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, q_offset: u32, k_offset: u32, v_offset: u32, scale: f32,
    }
    /// `mlstm_norm.wgsl`
    MlstmNorm { rows: u32, heads: u32, dv: u32, x_stride: u32, o_offset: u32, eps: f32, }
    /// `sample.wgsl`
    Sample {
        temperature: f32, top_p: f32, min_p: f32, penalty: f32, boundary_bias: f32, top_k: u32, window: u32, flags: u32,
        nodes: u32, max_len: u32, ring: u32,
    }
    /// `boundary.wgsl`
    Boundary { rows: u32, dim4: u32, }
    /// `copy.wgsl`
    Copy { count4: u32, }
    /// `mlstm_norm_grad.wgsl`
    MlstmNormGrad { rows: u32, heads: u32, dv: u32, x_stride: u32, o_offset: u32, eps: f32, }
    /// `mlstm_chunk_state_grad.wgsl`
    MlstmChunkStateGrad {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, q_offset: u32, chunk: u32, scale: f32,
    }
    /// `mlstm_chunk_scan_grad.wgsl`
    MlstmChunkScanGrad { rows: u32, heads: u32, size: u32, chunk: u32, period: u32, }
    /// `mlstm_chunk_scores.wgsl`
    MlstmChunkScores {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, q_offset: u32, k_offset: u32, v_offset: u32, scale: f32,
    }
    /// `mlstm_chunk_out_grad.wgsl`
    MlstmChunkOutGrad {
        rows: u32, heads: u32, dk: u32, dv: u32, stride: u32, q_offset: u32, k_offset: u32, v_offset: u32, scale: f32,
    }
    /// `mlstm_gate_dots.wgsl`
    MlstmGateDots { rows: u32, heads: u32, dk: u32, stride: u32, q_offset: u32, k_offset: u32, }
    /// `mlstm_gates_grad.wgsl`
    MlstmGatesGrad { rows: u32, heads: u32, stride: u32, i_offset: u32, f_offset: u32, cap: f32, period: u32, }
    /// `rms_norm_grad.wgsl`
    RmsNormGrad {
        rows: u32, groups: u32, dim4: u32, x_offset4: u32, x_stride4: u32, dy_offset4: u32, dy_stride4: u32,
        dx_offset4: u32,
        dx_stride4: u32, add: u32, eps: f32,
    }
    /// `silu_mul_grad.wgsl`
    SiluMulGrad { rows: u32, dim4: u32, }
    /// `boundary_grad.wgsl`
    BoundaryGrad { rows: u32, dim4: u32, }
    /// `attention_grad_q.wgsl`
    AttentionGradQ { count: u32, heads: u32, heads_per_kv: u32, dim4: u32, window: u32, scale: f32, }
    /// `transpose.wgsl`
    Transpose { rows: u32, columns: u32, x_offset: u32, x_stride: u32, y_offset: u32, y_stride: u32, }
    /// `sum_rows.wgsl`
    SumRows { rows: u32, columns: u32, x_offset: u32, x_stride: u32, per: u32, y_offset: u32, add: u32, }
    /// `gather_rows_grad.wgsl`
    GatherRowsGrad { segments: u32, dim4: u32, first_row: u32, rows: u32, add: u32, }
    /// `log_softmax.wgsl`
    LogSoftmax { rows: u32, n: u32, stride: u32, offset: u32, }
    /// `log_softmax_grad.wgsl`
    LogSoftmaxGrad { rows: u32, n: u32, stride: u32, offset: u32, }
    /// `entropy.wgsl`
    Entropy { rows: u32, n: u32, }
    /// `next_ids.wgsl`
    NextIds { rows: u32, n: u32, vocabulary: u32, first: u32, count: u32, }
    /// `soft_labels.wgsl`
    SoftLabels { rows: u32, n: u32, scale: f32, }
    /// `row_distance.wgsl`
    RowDistance { rows: u32, dim4: u32, x_offset4: u32, x_stride4: u32, y_offset4: u32, y_stride4: u32, }
    /// `row_distance_grad.wgsl`
    RowDistanceGrad {
        rows: u32, dim4: u32, x_offset4: u32, x_stride4: u32, y_offset4: u32, y_stride4: u32, dx_offset4: u32,
        dx_stride4: u32,
        add: u32,
    }
    /// `round_f16.wgsl`
    RoundF16 { count4: u32, }
    /// `sum_squares.wgsl`
    SumSquares { count4: u32, per4: u32, }
    /// `adamw.wgsl`
    Adamw {
        count4: u32, lr: f32, beta1: f32, beta2: f32, eps: f32, decay: f32, bias1: f32, bias2: f32, clip: f32,
        scale: f32,
    }
}

/// `rope_grad.wgsl`: the same block as for `rope.wgsl`.
pub type RopeGrad = Rope;
/// `attention_grad_kv.wgsl`: the same block as for `attention_grad_q.wgsl`.
pub type AttentionGradKv = AttentionGradQ;
