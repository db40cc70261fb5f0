//! Cancelling from another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::Interrupt;

/// Stops the work of a session from any thread.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Requests that the session stop. The current operation, or else the next one, ends at its next submission, or on
    /// the CPU device at its next kernel.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Withdraws a request that has not been acted on yet.
    pub fn reset(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// What makes the device stop work for this token.
    pub(crate) fn interrupt(&self) -> Interrupt {
        Self::any([self])
    }

    /// What makes the device stop work for any of `tokens`.
    pub(crate) fn any<'a>(tokens: impl IntoIterator<Item = &'a Self>) -> Interrupt {
        Interrupt::new(tokens.into_iter().map(|token| token.0.clone()).collect())
    }

    /// Returns and clears the cancel request.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}
