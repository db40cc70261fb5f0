//! The weights of a model on the device, in the layout that the kernels read.

use bolmo_shaders::WeightFormat;

use crate::device::{Form, OddRows, Slice};

/// A matrix `[n, k]` on the device, split by rows into pieces that fit one binding each.
#[derive(Debug)]
pub struct Matrix {
    /// Rows: outputs of the product.
    pub n: usize,
    /// Columns: inputs of the product.
    pub k: usize,
    /// Format of the weights.
    pub format: WeightFormat,
    /// The pieces, in order of their rows.
    pub pieces: Vec<Piece>,
}

/// Consecutive rows of a [`Matrix`] and of its bias.
#[derive(Debug)]
pub struct Piece {
    /// Row of the matrix at which the piece begins.
    pub first_row: usize,
    /// Number of rows.
    pub rows: usize,
    /// `[rows, k]`
    pub weights: Slice,
    /// `[rows, k / 32]` f16, in formats that have scales.
    pub scales: Option<Slice>,
    /// If the rows lie in turns in two tensors, those with odd numbers: `weights` and `scales` have the even ones then.
    pub odd_rows: Option<OddRows>,
    /// `[rows]`
    pub bias: Option<Slice>,
}

impl Piece {
    /// How kernels read the piece.
    pub(crate) fn form(&self, format: WeightFormat) -> Form<'_> {
        Form { scales: self.scales.as_ref(), odd_rows: self.odd_rows.as_ref(), ..format.into() }
    }
}

/// A local layer of the encoder or the decoder (`docs/model.md`, Local layer).
#[derive(Debug)]
pub struct LocalLayer {
    /// `[D]`
    pub pre_xlstm_norm: Slice,
    /// q, k, v, output gate, input gate and forget gate, stacked: `[D/2 + D/2 + D + D + H + H, D]`, with the biases of
    /// the input and forget gates.
    pub projections: Matrix,
    /// `[D]`, by head
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
    /// Rows of gate and up, interleaved: `[F, 2, D]`
    pub gate_up: Matrix,
    /// `[D, F]`
    pub down: Matrix,
}

/// A block of the global model (`docs/model.md`, Global blocks). Depending on the configuration, the norms come before
/// or after attention and feed-forward.
#[derive(Debug)]
pub struct GlobalLayer {
    /// `[D]`
    pub attention_norm: Slice,
    /// q, k and v, stacked: `[(heads + 2 kv_heads) head_dim, D]`
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
    /// Local layers of the encoder.
    pub encoder: Vec<LocalLayer>,
    /// `[D]`
    pub post_encoder_norm: Slice,
    /// q and k of the boundary predictor, stacked: `[2 D, D]`
    pub boundary: Matrix,
    /// `[D, D]` with bias
    pub pool_projection: Matrix,
    /// Global blocks, which run once per patch.
    pub global: Vec<GlobalLayer>,
    /// `[D]`
    pub initial_norm: Slice,
    /// `[D, D]` with bias
    pub depool_projection: Matrix,
    /// Local layers of the decoder.
    pub decoder: Vec<LocalLayer>,
    /// `[D]`
    pub final_norm: Slice,
    /// `[520, D]`
    pub head: Matrix,
}
