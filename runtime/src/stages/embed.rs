//! Ids to vectors: byte embedding, and the suffix table's row of the longest subword that ends here (SPEC 3).

use super::Context;
use crate::error::Result;
use crate::weights::Weights;

/// `x[t] = byte_embedding[id_t] + subword_embedding[suffix_t]` for the ids in the workspace.
pub(crate) fn embed(cx: &mut Context<'_>, weights: &Weights, bytes: usize) -> Result<()> {
    let ws = cx.workspace;
    cx.gather(&weights.byte_embedding, &ws.ids, &ws.x, 0, bytes, false)?;
    if let Some(table) = &weights.suffix_embedding {
        cx.gather(table, &ws.suffix_ids, &ws.x, 0, bytes, true)?;
    }
    Ok(())
}
