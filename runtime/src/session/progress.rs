//! What other threads may read of a session while it works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::state::State;

/// Counts of a session that any thread may read at any time, while an operation runs as well. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    ids: AtomicU64,
    patches: AtomicU64,
    device_bytes: AtomicU64,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Number of ids that the session holds.
    pub fn ids(&self) -> u64 {
        self.0.ids.load(Ordering::Relaxed)
    }

    /// Number of patches that have gone through the global model.
    pub fn patches(&self) -> u64 {
        self.0.patches.load(Ordering::Relaxed)
    }

    /// Bytes of device memory that the sequence holds, shared ones included.
    pub fn device_bytes(&self) -> u64 {
        self.0.device_bytes.load(Ordering::Relaxed)
    }

    /// Bytes done, and bytes in all, of the append or the generation that runs, or that ran last. A generation may end
    /// before it has generated the most bytes that it was allowed to.
    pub fn work(&self) -> (u64, u64) {
        // A new task may have written one of the two.
        let done = self.0.done.load(Ordering::Acquire);
        (done, self.0.total.load(Ordering::Acquire).max(done))
    }

    /// Begins a task of `total` bytes.
    pub(crate) fn begin(&self, total: usize) {
        self.0.done.store(0, Ordering::Release);
        self.0.total.store(total as u64, Ordering::Release);
    }

    /// Says that `done` bytes of the task are done.
    pub(crate) fn advance(&self, done: usize) {
        self.0.done.store(done as u64, Ordering::Release);
    }

    /// Takes over the counts of `state`.
    pub(super) fn show(&self, state: &State) {
        self.0.ids.store(state.ids.len() as u64, Ordering::Relaxed);
        self.0.patches.store(state.kv.len() as u64, Ordering::Relaxed);
        self.0.device_bytes.store(state.device_bytes(), Ordering::Relaxed);
    }
}
