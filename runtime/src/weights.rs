//! The weights on the device: the matrices and vectors of a model, as the kernels take them.

use bolmo_shaders::WeightFormat;

use crate::gpu::Slice;

/// A matrix `[n, k]` on the device, cut by rows into pieces that one binding can cover.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// Rows: outputs of the product.
    pub(crate) n: usize,
    /// Columns: inputs of the product.
    pub(crate) k: usize,
    pub(crate) format: WeightFormat,
    pub(crate) pieces: Vec<Piece>,
}

/// Some rows of a [`Matrix`], and the same rows of its bias.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    /// `[rows, k]`
    pub(crate) weights: Slice,
    /// `[rows, k / 32]` f16, in formats that have scales.
    pub(crate) scales: Option<Slice>,
    /// `[rows]`
    pub(crate) bias: Option<Slice>,
}

/// A local layer, of encoder and decoder alike (SPEC 4).
#[derive(Debug)]
pub(crate) struct LocalLayer {
    /// `[D]`
    pub(crate) pre_xlstm_norm: Slice,
    /// q, k, v, output gate, input gate, forget gate one above the other: `[D/2 + D/2 + D + D + H + H, D]`, with the gates' biases.
    pub(crate) projections: Matrix,
    /// `[D]`, head by head
    pub(crate) head_norm: Slice,
    /// `[D, D]`
    pub(crate) out: Matrix,
    /// `[D]`
    pub(crate) pre_feedforward_norm: Slice,
    pub(crate) mlp: Mlp,
}

/// A SwiGLU feed-forward.
#[derive(Debug)]
pub(crate) struct Mlp {
    /// Rows of gate and up by turns: `[F, 2, D]`
    pub(crate) gate_up: Matrix,
    /// `[D, F]`
    pub(crate) down: Matrix,
}

/// A block of the global model (SPEC 6). The norms stand before or behind attention and feed-forward, as the config says.
#[derive(Debug)]
pub(crate) struct GlobalLayer {
    /// `[D]`
    pub(crate) attention_norm: Slice,
    /// q, k, v one above the other: `[(heads + 2 kv_heads) head_dim, D]`
    pub(crate) qkv: Matrix,
    /// `[heads head_dim]` or `[head_dim]`
    pub(crate) q_norm: Option<Slice>,
    /// `[kv_heads head_dim]` or `[head_dim]`
    pub(crate) k_norm: Option<Slice>,
    /// `[D, heads head_dim]`
    pub(crate) out: Matrix,
    /// `[D]`
    pub(crate) feedforward_norm: Slice,
    pub(crate) mlp: Mlp,
}

/// All weights of a model.
#[derive(Debug)]
pub(crate) struct Weights {
    /// `[520, D]`
    pub(crate) byte_embedding: Matrix,
    /// `[subword_vocab_size, D]`
    pub(crate) suffix_embedding: Option<Matrix>,
    pub(crate) encoder: Vec<LocalLayer>,
    /// `[D]`
    pub(crate) post_encoder_norm: Slice,
    /// q above k of the boundary predictor: `[2 D, D]`
    pub(crate) boundary: Matrix,
    /// `[D, D]` with bias
    pub(crate) pool_projection: Matrix,
    pub(crate) global: Vec<GlobalLayer>,
    /// `[D]`
    pub(crate) initial_norm: Slice,
    /// `[D, D]` with bias
    pub(crate) depool_projection: Matrix,
    pub(crate) decoder: Vec<LocalLayer>,
    /// `[D]`
    pub(crate) final_norm: Slice,
    /// `[520, D]`
    pub(crate) head: Matrix,
}
