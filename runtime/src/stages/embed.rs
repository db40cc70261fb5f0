//! Ids to vectors: byte embedding, and the suffix table's row of the longest subword that ends here (SPEC 3).

use super::Context;
use crate::error::Result;
use crate::gpu::Slice;
use crate::weights::Weights;

/// `x[t] = byte_embedding[ids[t]] + subword_embedding[suffix_ids[t]]`, both `[bytes]` u32.
pub(crate) fn embed(
    cx: &mut Context<'_>,
    weights: &Weights,
    ids: &Slice,
    suffix_ids: &Slice,
    bytes: usize,
) -> Result<()> {
    let ws = cx.workspace;
    cx.gather(&weights.byte_embedding, ids, &ws.x, 0, bytes, false)?;
    if let Some(table) = &weights.suffix_embedding {
        cx.gather(table, suffix_ids, &ws.x, 0, bytes, true)?;
    }
    Ok(())
}
