//! Suspending a device: whoever submits work holds a [`Permit`], and a suspended device grants none.
//!
//! A call in progress gives its permit back between bounded pieces of work, and waits there until the device is
//! resumed. [`Device::suspend`] waits until no permit is held, then until the device has done what was submitted.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use crate::device::backend::Device;
use crate::device::interrupt::StopRequest;
use crate::device::status::Status;
use crate::device::suspension::{Flush, Next, register, suspended};
use crate::error::{Error, ErrorKind, Result};

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
