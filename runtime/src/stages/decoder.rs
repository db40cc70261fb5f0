//! The local decoder: its layers over depooled bytes (`docs/model.md`, "Decoder and head").

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::local_layer::{Over, local_layer};
use crate::stages::ops::Context;

/// Runs the rows of the workspace's `x` through the decoder's layers.
pub fn decoder(cx: &mut Context<'_>, weights: &Weights, over: Over<'_>) -> Result<()> {
    for (i, layer) in weights.decoder.iter().enumerate() {
        local_layer(cx, layer, i, over)?;
    }
    Ok(())
}
