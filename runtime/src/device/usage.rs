//! What a device was asked for: counts of its work, and the memory that is held on it.

use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Work that was sent to the device so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Dispatches of kernels.
    pub dispatches: u64,
    /// Submissions with commands in them.
    pub submits: u64,
    /// Results read back to the host, each of which waits for its submission.
    pub readbacks: u64,
}

impl Sub for Counters {
    type Output = Self;

    /// What came between an earlier count and this one.
    fn sub(self, earlier: Self) -> Self {
        Self {
            dispatches: self.dispatches.saturating_sub(earlier.dispatches),
            submits: self.submits.saturating_sub(earlier.submits),
            readbacks: self.readbacks.saturating_sub(earlier.readbacks),
        }
    }
}

/// Bytes of buffers on the device. What drivers add, pipelines and the copies that uploads take on their way are not in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// Held now.
    pub current_bytes: u64,
    /// The most that was held at one time.
    pub peak_bytes: u64,
}

/// The counts of a device, for all recorders on it.
#[derive(Debug, Default)]
pub(super) struct Usage {
    dispatches: AtomicU64,
    submits: AtomicU64,
    readbacks: AtomicU64,
    current_bytes: AtomicU64,
    peak_bytes: AtomicU64,
}

impl Usage {
    pub(super) fn add(&self, new: Counters) {
        self.dispatches.fetch_add(new.dispatches, Ordering::Relaxed);
        self.submits.fetch_add(new.submits, Ordering::Relaxed);
        self.readbacks.fetch_add(new.readbacks, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            dispatches: self.dispatches.load(Ordering::Relaxed),
            submits: self.submits.load(Ordering::Relaxed),
            readbacks: self.readbacks.load(Ordering::Relaxed),
        }
    }

    pub(super) fn memory(&self) -> DeviceMemory {
        DeviceMemory {
            current_bytes: self.current_bytes.load(Ordering::Relaxed),
            peak_bytes: self.peak_bytes.load(Ordering::Relaxed),
        }
    }

    /// Counts a new buffer for as long as what it returns is kept.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        let current = self.current_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_bytes.fetch_max(current, Ordering::Relaxed);
        Held { usage: self.clone(), bytes }
    }
}

/// A buffer's share of the memory that is held.
#[derive(Debug)]
pub(super) struct Held {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.usage.current_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_with_its_buffer_and_the_peak_stays() {
        let usage = Arc::new(Usage::default());
        let (first, second) = (usage.hold(100), usage.hold(50));
        drop(first);
        let third = usage.hold(20);
        assert_eq!(usage.memory(), DeviceMemory { current_bytes: 70, peak_bytes: 150 });
        drop((second, third));
        assert_eq!(usage.memory(), DeviceMemory { current_bytes: 0, peak_bytes: 150 });
    }

    #[test]
    fn counters_add_up_and_differ() {
        let usage = Usage::default();
        usage.add(Counters { dispatches: 5, submits: 1, readbacks: 1 });
        let before = usage.counters();
        usage.add(Counters { dispatches: 7, submits: 2, readbacks: 0 });
        assert_eq!(usage.counters() - before, Counters { dispatches: 7, submits: 2, readbacks: 0 });
        assert_eq!(usage.counters(), Counters { dispatches: 12, submits: 3, readbacks: 1 });
    }
}
