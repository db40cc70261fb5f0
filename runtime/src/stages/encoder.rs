//! The local encoder: its layers, and the norm behind them (SPEC 5.1).

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::local_layer::{Over, local_layer};
use crate::stages::{Context, Rows};

/// From the embeddings in `x` to rows 1 .. of the workspace's `h`.
pub fn encoder(cx: &mut Context<'_>, weights: &Weights, over: Over<'_>) -> Result<()> {
    for (i, layer) in weights.encoder.iter().enumerate() {
        local_layer(cx, layer, i, over)?;
    }
    let ws = cx.workspace;
    let d = cx.config.hidden_size;
    let (x, h) = (Rows::new(&ws.x, d, 0), Rows::new(&ws.h, d, 1));
    cx.norm(&weights.post_encoder_norm, cx.config.local_rms_norm_eps, x, h, over.rows(), 1, d, false)
}
