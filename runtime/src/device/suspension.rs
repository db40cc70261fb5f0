//! Whether a device is suspended, how many permits to submit work are held, and who waits for a change of either.

use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, ErrorKind};

/// Whether a device is suspended, and who waits for a change of that.
#[derive(Debug, Default)]
pub(super) struct Suspension {
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) suspended: bool,
    /// Permits that are held.
    pub(super) permits: usize,
    /// Whether a call of `suspend` waits for the device.
    flushing: bool,
    /// Whether the device has done all work since it was suspended.
    idle: bool,
    /// How often the device was resumed.
    resumes: u64,
    /// Calls that wait for a permit.
    pub(super) paused: Vec<Waker>,
    /// Calls of `suspend`.
    pub(super) suspending: Vec<Waker>,
}

/// What a call of `suspend` does next.
pub(super) enum Next {
    /// Wait for the device.
    Flush,
    /// Return.
    Done,
}

/// What a call is told that begins meanwhile.
pub(super) fn suspended() -> Error {
    Error::new(ErrorKind::Suspended, "the engine is suspended; resume it, then repeat the call")
}

/// Adds a waker unless it is there already.
pub(super) fn register(list: &mut Vec<Waker>, waker: &Waker) {
    if !list.iter().any(|other| other.will_wake(waker)) {
        list.push(waker.clone());
    }
}

impl Suspension {
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Has all that wait look at the device again.
    pub(super) fn wake_all(&self) {
        let mut gate = self.gate();
        let wakers = [std::mem::take(&mut gate.paused), std::mem::take(&mut gate.suspending)];
        drop(gate);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Grants no more permits. Returns how often the device was resumed so far.
    pub(super) fn suspend(&self) -> u64 {
        let mut gate = self.gate();
        gate.suspended = true;
        gate.resumes
    }

    pub(super) fn resume(&self) {
        let mut gate = self.gate();
        (gate.suspended, gate.idle) = (false, false);
        gate.resumes += 1;
        drop(gate);
        self.wake_all();
    }

    /// Waits until the device is idle or was resumed, or nobody waits for it yet.
    pub(super) fn poll_next(&self, resumes: u64, cx: &Context<'_>) -> Poll<Next> {
        let mut gate = self.gate();
        if gate.idle || gate.resumes != resumes {
            return Poll::Ready(Next::Done);
        }
        if gate.permits == 0 && !gate.flushing {
            gate.flushing = true;
            return Poll::Ready(Next::Flush);
        }
        register(&mut gate.suspending, cx.waker());
        Poll::Pending
    }
}

/// A wait for the device. If it is dropped early, another call of `suspend` waits in its place.
pub(super) struct Flush<'a> {
    pub(super) suspension: &'a Suspension,
    /// What [`Suspension::suspend`] returned.
    pub(super) resumes: u64,
    /// Whether the device has done what was submitted.
    pub(super) done: bool,
}

impl Drop for Flush<'_> {
    fn drop(&mut self) {
        let mut gate = self.suspension.gate();
        gate.flushing = false;
        gate.idle = self.done && gate.resumes == self.resumes;
        let waiting = std::mem::take(&mut gate.suspending);
        drop(gate);
        waiting.into_iter().for_each(Waker::wake);
    }
}
