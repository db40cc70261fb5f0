//! Embedding: the byte's row plus the suffix table's row of the longest subword that ends at the byte
//! (`docs/model.md`, "Suffix table").

use crate::device::Slice;
use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::ops::{Context, Gather};

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
    cx.gather(&weights.byte_embedding, Gather { index: ids, y: &ws.x, y_row: row, count: bytes, add: false })?;
    if let Some(table) = &weights.suffix_embedding {
        cx.gather(table, Gather { index: suffix_ids, y: &ws.x, y_row: row, count: bytes, add: true })?;
    }
    Ok(())
}
