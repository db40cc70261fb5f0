//! The process that opened a device. A fork of it has none of the device's threads, and shares with it what drivers
//! hold.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process(u32);

impl Process {
    /// The process that calls.
    pub(super) fn current() -> Self {
        Self(number())
    }

    /// Whether this process calls, and not one that was forked from it.
    pub(super) fn is_current(self) -> bool {
        self == Self::current()
    }
}

#[cfg(unix)]
fn number() -> u32 {
    std::process::id()
}

/// Other systems cannot fork.
#[cfg(not(unix))]
fn number() -> u32 {
    0
}

/// A value that is dropped only in the process that made it. A fork of the process leaks it: dropping it could wait for
/// threads that don't exist there, or release what the driver still holds for the parent.
pub(super) struct OfProcess<T> {
    value: ManuallyDrop<T>,
    process: Process,
}

impl<T> OfProcess<T> {
    /// A value of the current process.
    pub(super) fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), process: Process::current() }
    }

    /// The value itself.
    pub(super) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped afterwards, so the value is taken once.
        unsafe { ManuallyDrop::take(&mut this.value) }
    }
}

impl<T> Drop for OfProcess<T> {
    fn drop(&mut self) {
        if self.process.is_current() {
            // SAFETY: the value is not used afterwards; `into_inner` takes it only from a wrapper that is not dropped.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

impl<T> Deref for OfProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for OfProcess<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for OfProcess<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn values_are_dropped_once_and_in_their_process_alone() {
        let value = Arc::new(());
        drop(OfProcess::new(value.clone()));
        assert_eq!(Arc::strong_count(&value), 1, "dropped");
        let taken = OfProcess::new(value.clone()).into_inner();
        assert_eq!(Arc::strong_count(&value), 2, "taken");
        drop(taken);
        #[cfg(unix)]
        {
            let mut inherited = OfProcess::new(value.clone());
            inherited.process = Process(std::process::id() + 1);
            drop(inherited);
            assert_eq!(Arc::strong_count(&value), 2, "leaked in a fork");
        }
    }
}
