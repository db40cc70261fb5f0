//! Log-probabilities of one id under the logits before it.

use crate::sampling::host;
use crate::text::ids;

/// Natural log-probabilities of an id, plain and fused. Which of them is the id's joint log-probability depends on
/// whether its byte ends a patch.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct IdLogProbs {
    plain: f64,
    fused: f64,
    /// Of the byte alone: plain and fused id together.
    pub(crate) marginal: f64,
}

impl IdLogProbs {
    /// Those of `id`, plain or fused, under a row of logits.
    pub(crate) fn new(logits: &[f32], id: u16) -> Self {
        let plain = ids::plain(id);
        Self {
            plain: host::joint(logits, plain),
            fused: host::joint(logits, plain + ids::FUSED_OFFSET),
            marginal: host::marginal(logits, plain),
        }
    }

    /// The log-probability of the fused id, or of the plain one.
    pub(crate) fn joint(&self, is_fused: bool) -> f64 {
        if is_fused { self.fused } else { self.plain }
    }
}
