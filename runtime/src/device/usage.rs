//! Counts of a device's work, and the memory held on it.

use std::ops::{Add, Sub};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(target_family = "wasm"))]
use std::time::Duration;

/// Work submitted to the device so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Dispatches of kernels.
    pub dispatches: u64,
    /// Submissions of commands.
    pub submits: u64,
    /// Readbacks to the host, each of which waits for its submission.
    pub readbacks: u64,
}

impl Add for Counters {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            dispatches: self.dispatches + other.dispatches,
            submits: self.submits + other.submits,
            readbacks: self.readbacks + other.readbacks,
        }
    }
}

impl Sub for Counters {
    type Output = Self;

    /// The work between an earlier count and this one.
    fn sub(self, earlier: Self) -> Self {
        Self {
            dispatches: self.dispatches.saturating_sub(earlier.dispatches),
            submits: self.submits.saturating_sub(earlier.submits),
            readbacks: self.readbacks.saturating_sub(earlier.readbacks),
        }
    }
}

/// The number and total time of a kernel's dispatches.
#[cfg(not(target_family = "wasm"))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelTime {
    /// Number of dispatches.
    pub dispatches: u64,
    /// Total time on the device. On a device without timestamps it includes the cost of submitting each dispatch and
    /// waiting for it.
    pub time: Duration,
}

/// Bytes of buffers on the device, without pipelines, staging copies of uploads, and what drivers add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// Held now.
    pub current_bytes: u64,
    /// Largest amount held at one time.
    pub peak_bytes: u64,
}

/// The counts of a device, over all of its recorders.
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

    /// Counts a new buffer until the returned guard is dropped.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Held {
        let current = self.current_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak_bytes.fetch_max(current, Ordering::Relaxed);
        Held { usage: self.clone(), bytes }
    }
}

/// Guard that counts the memory of one buffer as held.
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
    fn memory_is_released_with_its_buffer_and_the_peak_remains() {
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
