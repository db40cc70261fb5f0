//! Logits that a cancelled prefill could not read back.

use crate::model::PrefillBuffers;

/// The end of a prefill that was cancelled while the device was suspended: what it has computed and not read back.
#[derive(Debug)]
pub(super) struct UnreadLogits {
    pub(super) buffers: PrefillBuffers,
    pub(super) rows: usize,
}
