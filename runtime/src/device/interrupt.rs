//! Stopping submitted work part-way, and calls that wait for a suspended device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

/// A request to stop, which any thread may make.
#[derive(Debug, Default)]
pub(crate) struct StopRequest {
    requested: AtomicBool,
    /// Whether `waiting` may hold something, so that a request usually takes no lock.
    has_waiting: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl StopRequest {
    /// Makes the request and wakes who waits for it.
    pub(crate) fn request(&self) {
        // In one order with `listen`: either this thread sees the waker, or that one sees the request.
        self.requested.store(true, Ordering::SeqCst);
        if self.has_waiting.load(Ordering::SeqCst) {
            let waiting = std::mem::take(&mut *self.waiting());
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Withdraws the request.
    pub(crate) fn reset(&self) {
        self.requested.store(false, Ordering::Release);
    }

    /// Returns and clears the request.
    pub(crate) fn take(&self) -> bool {
        self.requested.swap(false, Ordering::AcqRel)
    }

    /// Whether the request is made.
    pub(super) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Has `waker` called by the next request.
    pub(super) fn listen(&self, waker: &Waker) {
        let mut waiting = self.waiting();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        drop(waiting);
        self.has_waiting.store(true, Ordering::SeqCst);
    }

    /// Ends what [`Self::listen`] began.
    pub(super) fn forget(&self, waker: &Waker) {
        if self.has_waiting.load(Ordering::SeqCst) {
            self.waiting().retain(|other| !other.will_wake(waker));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Requests to stop submissions, and whether any was stopped. The device looks at them before each dispatch.
#[derive(Debug, Clone)]
#[cfg_attr(all(target_family = "wasm", feature = "gpu"), allow(dead_code))] // no device there looks at it
pub(crate) struct Interrupt {
    requests: Arc<[Arc<StopRequest>]>,
    skipped: Arc<AtomicBool>,
}

#[cfg_attr(all(target_family = "wasm", feature = "gpu"), allow(dead_code))] // as above
impl Interrupt {
    /// An interrupt that takes effect while any of `requests` is made.
    pub(crate) fn new(requests: Arc<[Arc<StopRequest>]>) -> Self {
        Self { requests, skipped: Arc::default() }
    }

    /// Whether dispatches were skipped, so that results are worthless.
    pub(super) fn has_skipped(&self) -> bool {
        self.skipped.load(Ordering::Acquire)
    }

    /// Whether to skip the next dispatch. Once one was skipped, all that follow are.
    pub(super) fn skips(&self) -> bool {
        if self.requests.iter().any(|request| request.is_requested()) {
            self.skipped.store(true, Ordering::Release);
        }
        self.has_skipped()
    }
}
