//! The local decoder: its layers over depooled bytes (SPEC 7).

use super::Context;
use super::local_layer::{Over, local_layer};
use crate::error::Result;
use crate::weights::Weights;

/// Runs the rows of the workspace's `x` through the decoder's layers.
pub fn decoder(cx: &mut Context<'_>, weights: &Weights, over: Over<'_>) -> Result<()> {
    for (i, layer) in weights.decoder.iter().enumerate() {
        local_layer(cx, layer, i, over)?;
    }
    Ok(())
}
