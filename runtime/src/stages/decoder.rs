//! The local decoder: its layers over depooled bytes (SPEC 7).

use crate::error::Result;
use crate::model::weights::Weights;
use crate::stages::Context;
use crate::stages::local_layer::{Over, local_layer};

/// Runs the rows of the workspace's `x` through the decoder's layers.
pub fn decoder(cx: &mut Context<'_>, weights: &Weights, over: Over<'_>) -> Result<()> {
    for (i, layer) in weights.decoder.iter().enumerate() {
        local_layer(cx, layer, i, over)?;
    }
    Ok(())
}
