//! Depooling: each byte's encoder state meets the global output of the last patch that has ended (SPEC 7).

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::{Context, Rows};

/// `g[first + j] = rms(patch patch + j; initial_norm)` for `count` new patches.
pub fn normalise(
    cx: &mut Context<'_>,
    weights: &Weights,
    patch: usize,
    count: usize,
    (g, first): (&Slice, usize),
) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (patches, g) = (Rows::new(&ws.patches, d, patch), Rows::new(g, d, first));
    cx.norm(&weights.initial_norm, cx.config.local_rms_norm_eps, patches, g, count, 1, d, false)
}

/// `x[t] = in_projection(h[first + t]) + g[patch_of[t]]`
pub fn depool(cx: &mut Context<'_>, weights: &Weights, first: usize, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(&weights.depool_projection, Rows::new(&ws.h, d, first), Rows::new(&ws.x, d, 0), bytes, false)?;
    cx.gather_rows(&ws.g, &ws.patch_of, &ws.x, 0, bytes, true)
}

/// `x[row] = in_projection(h[1 + row]) + g` for one byte of each of several sequences: `lanes` has each one's `g` `[D]`, and the flag that
/// halts it.
pub fn depool_lanes<'a>(
    cx: &mut Context<'_>,
    weights: &Weights,
    lanes: impl ExactSizeIterator<Item = (&'a Slice, &'a Slice)>,
) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(&weights.depool_projection, Rows::new(&ws.h, d, 1), Rows::new(&ws.x, d, 0), lanes.len(), false)?;
    let first = cx.recorder.zero().clone();
    for (row, (g, halt)) in lanes.enumerate() {
        let outer = cx.recorder.guard(Some(halt));
        cx.gather_rows(g, &first, &ws.x, row, 1, true)?;
        cx.recorder.guard(outer.as_ref());
    }
    Ok(())
}
