//! What the device reports outside of any call: errors, and its loss.

use std::sync::Mutex;

use futures_channel::oneshot;

use crate::device::process::Process;
use crate::device::suspension::Suspension;
use crate::error::{Error, ErrorKind, Hint, Result};

/// What the device has reported outside of any call.
#[derive(Debug)]
pub(super) struct Status {
    /// The process that opened the device.
    process: Process,
    failure: Mutex<Option<Error>>,
    /// Futures that wait for the loss of the device.
    waiting: Mutex<Vec<oneshot::Sender<Error>>>,
    pub(super) suspension: Suspension,
}

impl Default for Status {
    /// The status of a device that this process opens.
    fn default() -> Self {
        Self {
            process: Process::current(),
            failure: Mutex::default(),
            waiting: Mutex::default(),
            suspension: Suspension::default(),
        }
    }
}

fn lost(why: &str) -> Error {
    let message = format!("the device was lost: {why}; open the engine again and load the model again");
    Error::new(ErrorKind::DeviceLost, message).with_hint(Hint::ReopenDevice)
}

impl Status {
    /// Fails in a process that was forked from the one that opened the device. Nothing else may be done with the device
    /// there: threads that don't exist may hold its locks.
    pub(super) fn check_process(&self) -> Result<()> {
        match self.process.is_current() {
            true => Ok(()),
            false => Err(lost("it belongs to the process that this one was forked from")),
        }
    }

    /// Records the loss of the device, wakes whoever waits for it, and logs the first one at `level`.
    pub(super) fn lose(&self, why: &str, level: log::Level) {
        let error = lost(why.trim_end_matches('.'));
        let before = self.failure.lock().unwrap_or_else(|e| e.into_inner()).replace(error.clone());
        if before.is_none_or(|before| before.kind() != ErrorKind::DeviceLost) {
            log::log!(level, "{}", error.message());
        }
        self.tell(&error);
        self.suspension.wake_all();
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
        if let Err(error) = self.check_process() {
            // The receiver is here.
            let _ = sender.send(error);
            return receiver;
        }
        self.waiting.lock().unwrap_or_else(|e| e.into_inner()).push(sender);
        // Registering first means that a loss between the two steps is not missed.
        if let Some(error) = self.found_lost() {
            self.tell(&error);
        }
        receiver
    }

    /// The loss, if the device is lost.
    pub(super) fn found_lost(&self) -> Option<Error> {
        if let Err(error) = self.check_process() {
            return Some(error);
        }
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
        self.check_process()?;
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match failure.as_ref() {
            None => Ok(()),
            Some(error) if error.kind() == ErrorKind::DeviceLost => Err(error.clone()),
            // The device itself is still usable after any other failure.
            Some(_) => failure.take().map_or(Ok(()), Err),
        }
    }
}
