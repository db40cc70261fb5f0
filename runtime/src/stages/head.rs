//! The head: final norm and the 520 logits of the next id (`docs/model.md`, "Decoder and head").

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::ops::{Context, Norm, NormRows, Product, Rows};

/// Computes `logits`, `[rows, 520]`, from rows `first ..` of the workspace's `x`. The normalized rows stay in the
/// workspace's `final_hidden`.
pub fn head(cx: &mut Context<'_>, weights: &Weights, first: usize, rows: usize, logits: &Slice) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (x, hidden) = (Rows::new(&ws.x, d, first), Rows::new(&ws.final_hidden, d, 0));
    cx.norm(NormRows::new(Norm { scale: &weights.final_norm, eps: cx.config.rms_norm_eps }, x, hidden, rows, d))?;
    cx.linear(Product::new(&weights.head, hidden, Rows::new(logits, weights.head.n, 0), rows))
}

/// The same for one row, without storing the normalized row.
pub fn head_row(cx: &mut Context<'_>, weights: &Weights, row: usize, logits: &Slice) -> Result<()> {
    let norm = Norm { scale: &weights.final_norm, eps: cx.config.rms_norm_eps };
    let x = Rows::new(&cx.workspace.x, cx.config.hidden_size, row);
    cx.norm_linear(norm, Product::new(&weights.head, x, Rows::new(logits, weights.head.n, 0), 1))
}
