//! The local encoder: its layers and the norm after them (`docs/model.md`, "Local layer (mLSTM)").

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::local_layer::{Over, local_layer};
use crate::stages::ops::{Context, Norm, NormRows, Rows};

/// Encodes the embeddings in `x` into rows 1 .. of the workspace's `h`.
pub fn encoder(cx: &mut Context<'_>, weights: &Weights, over: Over<'_>) -> Result<()> {
    for (i, layer) in weights.encoder.iter().enumerate() {
        local_layer(cx, layer, i, over)?;
    }
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (x, h) = (Rows::new(&ws.x, d, 0), Rows::new(&ws.h, d, 1));
    cx.norm(NormRows::new(
        Norm { scale: &weights.post_encoder_norm, eps: cx.config.local_rms_norm_eps },
        x,
        h,
        over.rows(),
        d,
    ))
}
