//! Depooling: adds to each byte's encoder state the global output of the last patch that has ended
//! (`docs/model.md`, "Depooling").

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::ops::{Context, Gather, Norm, NormRows, Product, Rows};

/// `g[first + j] = rms(patches[patch + j]; initial_norm)` for `count` new patches.
pub fn normalize(
    cx: &mut Context<'_>,
    weights: &Weights,
    patch: usize,
    count: usize,
    (g, first): (&Slice, usize),
) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (patches, g) = (Rows::new(&ws.patches, d, patch), Rows::new(g, d, first));
    cx.norm(NormRows::new(
        Norm { scale: &weights.initial_norm, eps: cx.config.local_rms_norm_eps },
        patches,
        g,
        count,
        d,
    ))
}

/// `x[t] = in_projection(h[first + t]) + g[patch_of[t]]`
pub fn depool(cx: &mut Context<'_>, weights: &Weights, first: usize, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(Product::new(&weights.depool_projection, Rows::new(&ws.h, d, first), Rows::new(&ws.x, d, 0), bytes))?;
    cx.gather_rows(&ws.g, Gather { index: &ws.patch_of, y: &ws.x, y_row: 0, count: bytes, add: true })
}

/// `x[row] = in_projection(h[1 + row]) + g` for one byte of each of several sequences. `slots` has the `g` of each,
/// `[D]`, and the flag that halts it.
pub fn depool_slots<'a>(
    cx: &mut Context<'_>,
    weights: &Weights,
    slots: impl ExactSizeIterator<Item = (&'a Slice, &'a Slice)>,
) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(Product::new(&weights.depool_projection, Rows::new(&ws.h, d, 1), Rows::new(&ws.x, d, 0), slots.len()))?;
    let first = cx.recorder.zero().clone();
    for (row, (g, halt)) in slots.enumerate() {
        let outer = cx.recorder.guard(Some(halt));
        cx.gather_rows(g, Gather { index: &first, y: &ws.x, y_row: row, count: 1, add: true })?;
        cx.recorder.guard(outer.as_ref());
    }
    Ok(())
}
