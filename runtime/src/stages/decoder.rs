//! The local decoder: its layers over depooled bytes (SPEC 7).

use super::Context;
use super::local_layer::local_layer;
use crate::error::Result;
use crate::state::LayerState;
use crate::weights::Weights;

/// Runs `bytes` rows of the workspace's `x` through the decoder's layers.
pub(crate) fn decoder(cx: &mut Context<'_>, weights: &Weights, states: &[LayerState], bytes: usize) -> Result<()> {
    for (layer, state) in weights.decoder.iter().zip(states) {
        local_layer(cx, layer, state, bytes)?;
    }
    Ok(())
}
