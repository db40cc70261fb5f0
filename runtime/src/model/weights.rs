//! The weights on the device: the matrices and vectors of a model, as the kernels take them.

use bolmo_shaders::WeightFormat;

use crate::device::Slice;

/// A matrix `[n, k]` on the device, cut by rows into pieces that one binding can cover.
#[derive(Debug)]
pub struct Matrix {
    /// Rows: outputs of the product.
    pub n: usize,
    /// Columns: inputs of the product.
    pub k: usize,
    /// How it is kept.
    pub format: WeightFormat,
    /// In order.
    pub pieces: Vec<Piece>,
}

/// Some rows of a [`Matrix`], and the same rows of its bias.
#[derive(Debug)]
pub struct Piece {
    /// Row of the matrix that is its row 0.
    pub first_row: usize,
    /// Rows that it has.
    pub rows: usize,
    /// `[rows, k]`
    pub weights: Slice,
    /// `[rows, k / 32]` f16, in formats that have scales.
    pub scales: Option<Slice>,
    /// `[rows]`
    pub bias: Option<Slice>,
}

/// A local layer, of encoder and decoder alike (SPEC 4).
#[derive(Debug)]
pub struct LocalLayer {
    /// `[D]`
    pub pre_xlstm_norm: Slice,
    /// q, k, v, output gate, input gate, forget gate one above the other: `[D/2 + D/2 + D + D + H + H, D]`, with the gates' biases.
    pub projections: Matrix,
    /// `[D]`, head by head
    pub head_norm: Slice,
    /// `[D, D]`
    pub out: Matrix,
    /// `[D]`
    pub pre_feedforward_norm: Slice,
    /// The feed-forward.
    pub mlp: Mlp,
}

/// A SwiGLU feed-forward.
#[derive(Debug)]
pub struct Mlp {
    /// Rows of gate and up by turns: `[F, 2, D]`
    pub gate_up: Matrix,
    /// `[D, F]`
    pub down: Matrix,
}

/// A block of the global model (SPEC 6). The norms stand before or behind attention and feed-forward, as the config says.
#[derive(Debug)]
pub struct GlobalLayer {
    /// `[D]`
    pub attention_norm: Slice,
    /// q, k, v one above the other: `[(heads + 2 kv_heads) head_dim, D]`
    pub qkv: Matrix,
    /// `[heads head_dim]` or `[head_dim]`
    pub q_norm: Option<Slice>,
    /// `[kv_heads head_dim]` or `[head_dim]`
    pub k_norm: Option<Slice>,
    /// `[D, heads head_dim]`
    pub out: Matrix,
    /// `[D]`
    pub feedforward_norm: Slice,
    /// The feed-forward.
    pub mlp: Mlp,
}

/// All weights of a model.
#[derive(Debug)]
pub struct Weights {
    /// `[520, D]`
    pub byte_embedding: Matrix,
    /// `[subword_vocab_size, D]`
    pub suffix_embedding: Option<Matrix>,
    /// Layers before the boundary predictor.
    pub encoder: Vec<LocalLayer>,
    /// `[D]`
    pub post_encoder_norm: Slice,
    /// q above k of the boundary predictor: `[2 D, D]`
    pub boundary: Matrix,
    /// `[D, D]` with bias
    pub pool_projection: Matrix,
    /// Blocks that run once a patch.
    pub global: Vec<GlobalLayer>,
    /// `[D]`
    pub initial_norm: Slice,
    /// `[D, D]` with bias
    pub depool_projection: Matrix,
    /// Layers behind the global blocks.
    pub decoder: Vec<LocalLayer>,
    /// `[D]`
    pub final_norm: Slice,
    /// `[520, D]`
    pub head: Matrix,
}
