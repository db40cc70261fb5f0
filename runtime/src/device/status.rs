//! What the device reports outside of any call: errors and its loss.

use std::sync::Mutex;

use futures_channel::oneshot;

use crate::error::{Error, ErrorKind, Result};

/// What the device has reported outside of any call.
#[derive(Debug, Default)]
pub(super) struct Status {
    failure: Mutex<Option<Error>>,
    /// Who waits for a loss.
    waiting: Mutex<Vec<oneshot::Sender<Error>>>,
}

impl Status {
    pub(super) fn lose(&self, why: String) {
        let advice = match cfg!(target_family = "wasm") {
            true => "reload() of the model gets a new one",
            false => "open the engine again and load the model again to go on",
        };
        let message = format!("the device was lost: {}; {advice}", why.trim_end_matches('.'));
        let error = Error::new(ErrorKind::DeviceLost, message);
        *self.failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(error.clone());
        self.tell(&error);
    }

    fn tell(&self, error: &Error) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(|e| e.into_inner()));
        for waiter in waiting {
            // Nobody waits any more if the future was dropped.
            let _ = waiter.send(error.clone());
        }
    }

    /// Hears of a loss, at once if there was one.
    pub(super) fn loss(&self) -> oneshot::Receiver<Error> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(|e| e.into_inner()).push(sender);
        // In this order no loss slips through in between.
        if let Some(error) = self.found_lost() {
            self.tell(&error);
        }
        receiver
    }

    /// The loss, if there was one.
    pub(super) fn found_lost(&self) -> Option<Error> {
        let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner()).clone();
        failure.filter(|error| error.kind() == ErrorKind::DeviceLost)
    }

    pub(super) fn report(&self, error: wgpu::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        // The first error is the cause; a loss stays a loss.
        if failure.is_none() {
            *failure = Some(from_wgpu(error));
        }
    }

    /// The failure that every further call returns, if there was one.
    pub(super) fn check(&self) -> Result<()> {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match failure.as_ref() {
            None => Ok(()),
            Some(error) if error.kind() == ErrorKind::DeviceLost => Err(error.clone()),
            // Anything else is reported once: the device itself goes on.
            Some(_) => failure.take().map_or(Ok(()), Err),
        }
    }
}

pub(super) fn from_wgpu(error: wgpu::Error) -> Error {
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::new(
            ErrorKind::OutOfMemory,
            "the device has no memory left; use a smaller model, a smaller format (--quantize f16, q8 or q4), or fewer sessions at once",
        ),
        other => Error::internal(format!("the graphics library refused a command: {other}")),
    }
}
