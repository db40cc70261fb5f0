//! Suspending a device: whoever submits work holds a [`Permit`], and a suspended device grants none.
//!
//! A call in progress gives its permit back between bounded pieces of work, and waits there until the device is
//! resumed. [`Device::suspend`] waits until no permit is held, then until the device has done what was submitted.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use crate::device::backend::Device;
use crate::device::interrupt::StopRequest;
use crate::device::status::Status;
use crate::error::{Error, ErrorKind, Result};

/// Whether a device is suspended, and who waits for a change of that.
#[derive(Debug, Default)]
pub(super) struct Suspension {
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    suspended: bool,
    /// Permits that are held.
    permits: usize,
    /// Whether a call of `suspend` waits for the device.
    flushing: bool,
    /// Whether the device has done all work since it was suspended.
    idle: bool,
    /// How often the device was resumed.
    resumes: u64,
    /// Calls that wait for a permit.
    paused: Vec<Waker>,
    /// Calls of `suspend`.
    suspending: Vec<Waker>,
}

/// What a call of `suspend` does next.
enum Next {
    /// Wait for the device.
    Flush,
    /// Return.
    Done,
}

/// The right to submit work. A device is not suspended while any is held.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    status: Arc<Status>,
}

impl Clone for Permit {
    /// Another permit, granted in any case.
    fn clone(&self) -> Self {
        if self.status.check_process().is_ok() {
            self.status.suspension.gate().permits += 1;
        }
        Self { status: self.status.clone() }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.status.check_process().is_err() {
            // Threads that don't exist here may hold the lock.
            return;
        }
        let mut gate = self.status.suspension.gate();
        gate.permits -= 1;
        if gate.suspended && gate.permits == 0 {
            let waiting = std::mem::take(&mut gate.suspending);
            drop(gate);
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

fn suspended() -> Error {
    Error::new(ErrorKind::Suspended, "the engine is suspended; resume it, then repeat the call")
}

/// Adds a waker unless it is there already.
fn register(list: &mut Vec<Waker>, waker: &Waker) {
    if !list.iter().any(|other| other.will_wake(waker)) {
        list.push(waker.clone());
    }
}

impl Suspension {
    fn gate(&self) -> MutexGuard<'_, Gate> {
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
    fn suspend(&self) -> u64 {
        let mut gate = self.gate();
        gate.suspended = true;
        gate.resumes
    }

    fn resume(&self) {
        let mut gate = self.gate();
        (gate.suspended, gate.idle) = (false, false);
        gate.resumes += 1;
        drop(gate);
        self.wake_all();
    }

    /// Waits until the device is idle or was resumed, or nobody waits for it yet.
    fn poll_next(&self, resumes: u64, cx: &Context<'_>) -> Poll<Next> {
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
struct Flush<'a> {
    suspension: &'a Suspension,
    resumes: u64,
    done: bool,
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

impl Device {
    /// Returns when nothing is in flight, after which nothing is submitted until [`Self::resume`].
    pub(super) async fn suspend(&self) -> Result<()> {
        self.status.check_process()?;
        let suspension = &self.status.suspension;
        let resumes = suspension.suspend();
        loop {
            let next = poll_fn(|cx| {
                let next = suspension.poll_next(resumes, cx);
                // A loss wakes those that were registered before it.
                match (next.is_pending(), self.status.found_lost()) {
                    (true, Some(lost)) => Poll::Ready(Err(lost)),
                    _ => next.map(Ok),
                }
            });
            match next.await? {
                Next::Done => return self.status.found_lost().map_or(Ok(()), Err),
                Next::Flush => {
                    let mut flush = Flush { suspension, resumes, done: false };
                    if let Some(lost) = self.status.found_lost() {
                        return Err(lost);
                    }
                    // A device that drops the wait is lost.
                    flush.done = self.idle().await.is_ok();
                }
            }
        }
    }

    /// Grants permits again.
    pub(super) fn resume(&self) -> Result<()> {
        self.status.check_process()?;
        self.status.suspension.resume();
        self.status.found_lost().map_or(Ok(()), Err)
    }

    /// Whether the device is suspended.
    pub(super) fn is_suspended(&self) -> bool {
        self.status.check_process().is_ok() && self.status.suspension.gate().suspended
    }

    /// A permit for a call that begins.
    ///
    /// # Errors
    /// `Suspended`.
    pub fn begin_work(&self) -> Result<Permit> {
        self.status.check_process()?;
        let mut gate = self.status.suspension.gate();
        if gate.suspended {
            drop(gate);
            // A lost device is the better reason.
            return Err(self.status.found_lost().unwrap_or_else(suspended));
        }
        gate.permits += 1;
        Ok(Permit { status: self.status.clone() })
    }

    /// A permit for the next piece of work of a call in progress. Waits while the device is suspended.
    ///
    /// # Errors
    /// `Cancelled` if one of `stops` is requested while the device is suspended, `DeviceLost`.
    pub(crate) async fn continue_work(&self, stops: &[&StopRequest]) -> Result<Permit> {
        self.status.check_process()?;
        poll_fn(|cx| {
            let mut gate = self.status.suspension.gate();
            let answer = if gate.suspended {
                register(&mut gate.paused, cx.waker());
                drop(gate);
                stops.iter().for_each(|stop| stop.listen(cx.waker()));
                // A loss and a request that come later wake those that were registered.
                if let Some(lost) = self.status.found_lost() {
                    Err(lost)
                } else if stops.iter().any(|stop| stop.is_requested()) {
                    Err(Error::new(ErrorKind::Cancelled, "stopped while the engine was suspended"))
                } else {
                    return Poll::Pending;
                }
            } else {
                gate.permits += 1;
                drop(gate);
                Ok(Permit { status: self.status.clone() })
            };
            stops.iter().for_each(|stop| stop.forget(cx.waker()));
            Poll::Ready(answer)
        })
        .await
    }

    /// A permit for one submission. It is granted as well to calls that are on their way to give their permit back.
    ///
    /// # Errors
    /// `Suspended` if nobody holds a permit while the device is suspended.
    pub(super) fn submission(&self) -> Result<Permit> {
        self.status.check_process()?;
        let mut gate = self.status.suspension.gate();
        if gate.suspended && gate.permits == 0 {
            return Err(suspended());
        }
        gate.permits += 1;
        Ok(Permit { status: self.status.clone() })
    }
}
