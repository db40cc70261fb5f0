//! Calls and their parts: a call that begins while the device is suspended is refused, and one that is in progress
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::{Device, Permit};
use crate::error::{Error, ErrorKind, Result};
use crate::session::cancel::CancelToken;

/// The calls in progress on an object: none, or one and those that it is made of.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<AtomicUsize>);

/// A call in progress, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Call(Arc<AtomicUsize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Calls {
    /// Begins a call, or a part of the one in progress.
    ///
    /// # Errors
    /// `Suspended` for a call.
    pub fn begin(&self, device: &Device) -> Result<Call> {
        if !self.in_progress() {
            drop(device.begin_work()?);
        }
        self.0.fetch_add(1, Ordering::AcqRel);
        Ok(Call(self.0.clone()))
    }

    /// Whether a call is in progress.
    pub(crate) fn in_progress(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// A permit for a piece of work. In a call in progress this waits while the device is suspended.
    ///
    /// # Errors
    /// `Suspended` outside of a call; `Cancelled` if `cancel` is requested while the device is suspended, which clears
    /// the request; `DeviceLost`.
    pub async fn permit(&self, device: &Device, cancel: &CancelToken) -> Result<Permit> {
        if !self.in_progress() {
            return device.begin_work();
        }
        let permit = device.continue_work(&[cancel.request()]).await;
        let is_cancelled = |error: &Error| error.kind() == ErrorKind::Cancelled;
        if permit.as_ref().err().is_some_and(is_cancelled) {
            cancel.take();
        }
        permit
    }
}
