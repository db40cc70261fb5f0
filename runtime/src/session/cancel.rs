//! Cancelling from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Stops the work of a session from any thread.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Requests that the session stop. The current operation, or else the next one, ends at its next submission.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Withdraws a request that has not been acted on yet.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// Returns and clears the cancel request.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}
