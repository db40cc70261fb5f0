//! Depooling: each byte's encoder state meets the global output of the last patch that has ended (SPEC 7).

use super::{Context, Rows};
use crate::error::Result;
use crate::gpu::Slice;
use crate::weights::Weights;

/// `g[first + j] = rms(patch j; initial_norm)` for the `count` new patches.
pub(crate) fn normalise(
    cx: &mut Context<'_>,
    weights: &Weights,
    count: usize,
    (g, first): (&Slice, usize),
) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (patches, g) = (Rows::new(&ws.patches, d, 0), Rows::new(g, d, first));
    cx.norm(&weights.initial_norm, cx.config.local_rms_norm_eps, patches, g, count, 1, d, false)
}

/// `x[t] = in_projection(h[first + t]) + g[patch_of[t]]`
pub(crate) fn depool(cx: &mut Context<'_>, weights: &Weights, first: usize, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(&weights.depool_projection, Rows::new(&ws.h, d, first), Rows::new(&ws.x, d, 0), bytes, false)?;
    cx.gather_rows(&ws.g, &ws.patch_of, &ws.x, bytes, true)
}

/// The same for the one byte in row 1 of h, with `g` `[D]`.
pub(crate) fn depool_one(cx: &mut Context<'_>, weights: &Weights, g: &Slice) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(&weights.depool_projection, Rows::new(&ws.h, d, 1), Rows::new(&ws.x, d, 0), 1, false)?;
    let first = cx.recorder.zero().clone();
    cx.gather_rows(g, &first, &ws.x, 1, true)
}
