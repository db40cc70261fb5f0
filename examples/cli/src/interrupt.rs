//! Ctrl-C: the first one asks the command to end, the second one ends the program.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bolmo_runtime::CancelToken;

/// Exit status of a program that an interrupt ended: 128 plus the number of the signal.
const INTERRUPTED: i32 = 130;

/// Knows whether the user pressed Ctrl-C. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
    /// Token of the running session, if there is one.
    token: Arc<Mutex<Option<CancelToken>>>,
}

impl Interrupt {
    /// Installs the handler.
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
            // Everything works without the handler; Ctrl-C then ends the program at once.
            log::warn!("cannot handle Ctrl-C: {error}");
        }
        interrupt
    }

    /// Whether the user pressed Ctrl-C.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Makes Ctrl-C cancel the session with this token from now on.
    pub fn stops(&self, token: CancelToken) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        // Ctrl-C may have been pressed just before.
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
