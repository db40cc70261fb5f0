//! Signals that ask the command to end: Ctrl-C, and on Unix SIGTERM and SIGHUP. A second Ctrl-C ends the program at
//! once.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bolmo_runtime::CancelToken;

/// Number of the signal that Ctrl-C sends.
const SIGINT: u8 = 2;

/// The first signal that was received; 0 before.
static RECEIVED: AtomicU8 = AtomicU8::new(0);

/// Exit status of a command that a signal ended: 128 plus the number of the signal, as shells report it. None if no
/// signal was received.
pub fn exit_status() -> Option<ExitCode> {
    match RECEIVED.load(Ordering::Acquire) {
        0 => None,
        signal => Some(ExitCode::from(128 + signal)),
    }
}

/// Makes writing beyond a limit of file sizes, such as that of `ulimit -f`, an error of the write. By default it ends
/// the process without a message.
pub fn report_large_files() {
    #[cfg(unix)]
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default()) {
        log::warn!("cannot handle SIGXFSZ: {error}");
    }
}

/// Knows whether a signal asked the command to end. Clones share their state.
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
        if let Err(error) = signals::handle(move |signal| handler.receive(signal)) {
            // Everything works without the handler; a signal then ends the program at once.
            log::warn!("cannot handle signals: {error}");
        }
        interrupt
    }

    /// Whether a signal was received.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Makes a signal cancel the session with this token from now on.
    pub fn stops(&self, token: CancelToken) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        // The signal may have come just before.
        if self.asked() {
            self.pass_on();
        }
    }

    /// Takes a signal. Only Ctrl-C counts twice: supervisors and closing terminals send the others more than once.
    fn receive(&self, signal: u8) {
        let first = RECEIVED.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !first && signal == SIGINT {
            std::process::exit(i32::from(128 + signal));
        }
        self.asked.store(true, Ordering::Release);
        self.pass_on();
    }

    fn pass_on(&self) {
        if let Some(token) = &*self.token.lock().unwrap_or_else(PoisonError::into_inner) {
            token.cancel();
        }
    }
}

#[cfg(unix)]
mod signals {
    use std::io;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    /// Calls `receive` with the number of each signal, on a thread of its own.
    pub fn handle(receive: impl Fn(u8) + Send + 'static) -> io::Result<()> {
        let mut numbers = vec![SIGINT, SIGTERM];
        // `nohup` ignores SIGHUP so that the command outlives its terminal.
        if !is_ignored(SIGHUP) {
            numbers.push(SIGHUP);
        }
        let mut signals = Signals::new(numbers)?;
        let listen = move || signals.forever().filter_map(|signal| u8::try_from(signal).ok()).for_each(receive);
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
        Ok(())
    }

    /// Whether the process ignores a signal.
    fn is_ignored(signal: i32) -> bool {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action the call only writes the present one, to memory of the right type. An action of
        // zeros is valid, so the memory may be read whether or not the call succeeded.
        let action = unsafe {
            libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
            action.assume_init()
        };
        action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
mod signals {
    use std::io;

    /// Calls `receive` for each Ctrl-C, on a thread of its own.
    pub fn handle(receive: impl Fn(u8) + Send + 'static) -> io::Result<()> {
        ctrlc::set_handler(move || receive(super::SIGINT)).map_err(io::Error::other)
    }
}
