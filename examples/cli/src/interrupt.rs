//! Ctrl-C: the first one asks the work to end, the second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bolmo_runtime::CancelToken;

/// The exit status of programs that an interrupt ended: 128 and the signal's number.
const INTERRUPTED: i32 = 130;

/// Knows whether the user asked for an end. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    /// The session at work, if there is one by now.
    token: Arc<Mutex<Option<CancelToken>>>,
}

impl Interrupt {
    /// Begins to listen.
    pub fn listen() -> Self {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        let installed = ctrlc::set_handler(move || {
            if handler.asked.swap(true, Ordering::AcqRel) {
                std::process::exit(INTERRUPTED);
            }
            handler.pass_on();
        });
        if let Err(error) = installed {
            // Everything works without it; Ctrl-C then ends the program at once.
            log::warn!("Ctrl-C cannot be listened to: {error}");
        }
        interrupt
    }

    /// Whether the user asked for an end.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// From now on the session with this token is the one to stop.
    pub fn stops(&self, token: CancelToken) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        // It may have been asked for just before.
        if self.asked() {
            self.pass_on();
        }
    }

    fn pass_on(&self) {
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            token.cancel();
        }
    }
}
