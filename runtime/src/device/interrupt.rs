//! Stopping submitted work part-way.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
#[cfg(not(target_family = "wasm"))]
use std::sync::atomic::Ordering;

/// A request to stop submissions, and whether any was. The device looks at it before each dispatch.
#[derive(Debug, Clone)]
#[cfg_attr(target_family = "wasm", allow(dead_code))] // browsers have no device that looks at it
pub(crate) struct Interrupt {
    requested: Arc<[Arc<AtomicBool>]>,
    skipped: Arc<AtomicBool>,
}

impl Interrupt {
    /// An interrupt that takes effect while any of `requested` is set.
    pub(crate) fn new(requested: Arc<[Arc<AtomicBool>]>) -> Self {
        Self { requested, skipped: Arc::default() }
    }

    /// Whether dispatches were skipped, so that results are worthless.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn has_skipped(&self) -> bool {
        self.skipped.load(Ordering::Acquire)
    }

    /// Whether to skip the next dispatch. Once one was skipped, all that follow are.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn skips(&self) -> bool {
        if self.requested.iter().any(|requested| requested.load(Ordering::Acquire)) {
            self.skipped.store(true, Ordering::Release);
        }
        self.has_skipped()
    }
}
