//! Cancelling from another thread.

use std::sync::Arc;

use crate::device::{Interrupt, StopRequest};

/// Stops the work of a session from any thread.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<StopRequest>);

impl CancelToken {
    /// Requests that the session stop. The current operation, or else the next one, ends at its next submission, or on
    /// the CPU device at its next kernel. A call that waits for a suspended engine ends at once.
    pub fn cancel(&self) {
        self.0.request();
    }

    /// Withdraws a request that has not been acted on yet.
    pub fn reset(&self) {
        self.0.reset();
    }

    /// Returns and clears the request.
    pub fn take(&self) -> bool {
        self.0.take()
    }

    /// The request itself.
    pub(crate) fn request(&self) -> &StopRequest {
        &self.0
    }

    /// What makes the device stop work for this token.
    pub(crate) fn interrupt(&self) -> Interrupt {
        Self::any([self])
    }

    /// What makes the device stop work for any of `tokens`.
    pub(crate) fn any<'a>(tokens: impl IntoIterator<Item = &'a Self>) -> Interrupt {
        Interrupt::new(tokens.into_iter().map(|token| token.0.clone()).collect())
    }
}
