//! Depooling: each byte's encoder state meets the global output of the last patch that has ended (SPEC 7).

use super::{Context, Rows};
use crate::error::Result;
use crate::weights::Weights;

/// `g[1 + j] = rms(patch j; initial_norm)` for the `count` new patches; row 0 holds that of the patch before.
pub(crate) fn normalise(cx: &mut Context<'_>, weights: &Weights, count: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (patches, g) = (Rows::new(&ws.patches, d, 0), Rows::new(&ws.g, d, 1));
    cx.norm(&weights.initial_norm, cx.config.local_rms_norm_eps, patches, g, count, 1, d, false)
}

/// `x[t] = in_projection(h[first + t]) + g[patch_of[t]]`
pub(crate) fn depool(cx: &mut Context<'_>, weights: &Weights, first: usize, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    cx.linear(&weights.depool_projection, Rows::new(&ws.h, d, first), Rows::new(&ws.x, d, 0), bytes, false)?;
    cx.gather_rows(&ws.g, &ws.patch_of, &ws.x, bytes, true)
}
