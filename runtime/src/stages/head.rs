//! The head: final norm and the 520 logits of the next id (SPEC 7).

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::{Context, Norm, Rows};

/// From rows `first ..` of the workspace's `x` to `logits`, `[rows, 520]`. What lies between norm and product is kept in the workspace's
/// `final_hidden`.
pub fn head(cx: &mut Context<'_>, weights: &Weights, first: usize, rows: usize, logits: &Slice) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (x, hidden) = (Rows::new(&ws.x, d, first), Rows::new(&ws.final_hidden, d, 0));
    cx.norm(&weights.final_norm, cx.config.rms_norm_eps, x, hidden, rows, 1, d, false)?;
    cx.linear(&weights.head, hidden, Rows::new(logits, weights.head.n, 0), rows, false)
}

/// The same for one row, without keeping what lies between.
pub fn head_row(cx: &mut Context<'_>, weights: &Weights, row: usize, logits: &Slice) -> Result<()> {
    let norm = Norm { scale: &weights.final_norm, eps: cx.config.rms_norm_eps };
    let x = Rows::new(&cx.workspace.x, cx.config.hidden_size, row);
    cx.norm_linear(norm, &weights.head, x, Rows::new(logits, weights.head.n, 0), 1)
}
