//! Pooling: a patch is represented by the projected encoder state of its last byte (`docs/model.md`, "Patches and
//! pooling").

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::ops::{Context, Gather, Product, Rows};

/// Pools the rows of `h` that the workspace's `ends` lists into the first `patches` rows of `patches`.
pub fn pooling(cx: &mut Context<'_>, weights: &Weights, patches: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.gather_rows(&ws.h, Gather { index: &ws.ends, y: &ws.branch, y_row: 0, count: patches, add: false })?;
    cx.linear(Product::new(
        &weights.pool_projection,
        Rows::new(&ws.branch, d, 0),
        Rows::new(&ws.patches, d, 0),
        patches,
    ))
}

/// As [`pooling`], for the one byte in row 1 of `h`.
pub fn pooling_one_byte(cx: &mut Context<'_>, weights: &Weights) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(Product::new(&weights.pool_projection, Rows::new(&ws.h, d, 1), Rows::new(&ws.patches, d, 0), 1))
}
