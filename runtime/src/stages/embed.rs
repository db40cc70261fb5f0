//! Ids to vectors: byte embedding, and the suffix table's row of the longest subword that ends here (SPEC 3).

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::Context;

/// `x[row + t] = byte_embedding[ids[t]] + subword_embedding[suffix_ids[t]]`, both `[bytes]` u32.
pub fn embed(
    cx: &mut Context<'_>,
    weights: &Weights,
    ids: &Slice,
    suffix_ids: &Slice,
    row: usize,
    bytes: usize,
) -> Result<()> {
    let ws = cx.workspace;
    cx.gather(&weights.byte_embedding, ids, &ws.x, row, bytes, false)?;
    if let Some(table) = &weights.suffix_embedding {
        cx.gather(table, suffix_ids, &ws.x, row, bytes, true)?;
    }
    Ok(())
}
