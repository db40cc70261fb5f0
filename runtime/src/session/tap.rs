//! Intermediate results of a forward pass, for scoring and dumps.

use crate::error::Result;

/// Receives intermediate results, row by row and in order.
pub(crate) struct Tap<'a> {
    /// Called with the position of the first row and the logits of some rows, `[rows, 520]`.
    pub(crate) logits: &'a mut (dyn FnMut(usize, &[f32]) -> Result<()> + Send),
    /// Receives everything else, if present.
    pub(crate) dump: Option<&'a mut Dump>,
}

/// Every intermediate tensor, in the order of positions or patches. `D` is the hidden size.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    /// `[n, D]`
    pub(crate) encoder_out: Vec<f32>,
    /// `[n]`, without the last position, which has no next byte
    pub(crate) cosine: Vec<f32>,
    /// `[p, D]`
    pub(crate) patch_embeddings: Vec<f32>,
    /// `[p, D]`
    pub(crate) global_out: Vec<f32>,
    /// `[n, D]`
    pub(crate) decoder_out: Vec<f32>,
    /// `[n, D]`
    pub(crate) final_hidden: Vec<f32>,
    /// `[n, 520]`
    pub(crate) logits: Vec<f32>,
}
