//! What the device reports outside of any call: errors, and its loss.

use std::sync::Mutex;

use futures_channel::oneshot;

use crate::error::{Error, ErrorKind, Hint, Result};

/// What the device has reported outside of any call.
#[derive(Debug, Default)]
pub(super) struct Status {
    failure: Mutex<Option<Error>>,
    /// Futures that wait for the loss of the device.
    waiting: Mutex<Vec<oneshot::Sender<Error>>>,
}

impl Status {
    /// Records the loss of the device and wakes whoever waits for it.
    pub(super) fn lose(&self, why: String) {
        let message = format!(
            "the device was lost: {}; open the engine again and load the model again",
            why.trim_end_matches('.')
        );
        let error = Error::new(ErrorKind::DeviceLost, message).with_hint(Hint::ReopenDevice);
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error.clone());
        self.tell(&error);
    }

    fn tell(&self, error: &Error) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(|e| e.into_inner()));
        for waiter in waiting {
            // Sending fails if the waiting future was dropped.
            let _ = waiter.send(error.clone());
        }
    }

    /// Receives the loss of the device, immediately if it is lost already.
    pub(super) fn loss(&self) -> oneshot::Receiver<Error> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(|e| e.into_inner()).push(sender);
        // Registering first means that a loss between the two steps is not missed.
        if let Some(error) = self.found_lost() {
            self.tell(&error);
        }
        receiver
    }

    /// The loss, if the device is lost.
    pub(super) fn found_lost(&self) -> Option<Error> {
        let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner()).clone();
        failure.filter(|error| error.kind() == ErrorKind::DeviceLost)
    }

    /// Records an error that belongs to no call.
    pub(super) fn report(&self, error: Error) {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        // The first error is the cause, and a loss is final.
        if failure.is_none() {
            *failure = Some(error);
        }
    }

    /// Returns the recorded failure as an error. A loss is returned on every call, any other failure once.
    pub(super) fn check(&self) -> Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match failure.as_ref() {
            None => Ok(()),
            Some(error) if error.kind() == ErrorKind::DeviceLost => Err(error.clone()),
            // The device itself is still usable after any other failure.
            Some(_) => failure.take().map_or(Ok(()), Err),
        }
    }
}
