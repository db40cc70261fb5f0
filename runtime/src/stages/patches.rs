//! Pooling: a patch is represented by the encoder state of its last byte, projected (SPEC 5.3).

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::{Context, Rows};

/// From the rows of `h` that the workspace's `ends` lists to the first `patches` rows of `patches`.
pub fn pool(cx: &mut Context<'_>, weights: &Weights, patches: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.gather_rows(&ws.h, &ws.ends, &ws.branch, 0, patches, false)?;
    cx.linear(&weights.pool_projection, Rows::new(&ws.branch, d, 0), Rows::new(&ws.patches, d, 0), patches, false)
}

/// As [`pool`], for the one byte in row 1 of `h`.
pub fn pool_one(cx: &mut Context<'_>, weights: &Weights) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(&weights.pool_projection, Rows::new(&ws.h, d, 1), Rows::new(&ws.patches, d, 0), 1, false)
}
