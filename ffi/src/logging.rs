//! The log of the library: from the `log` crate to the program's callback.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::{OnceLock, RwLock};

use bolmo_runtime::{Error, ErrorKind, Result};
use log::{LevelFilter, Log, Metadata, Record};

/// Where log messages go.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) callback: unsafe extern "C" fn(i32, *const c_char, usize, *mut c_void),
    pub(crate) user_data: *mut c_void,
    /// Down to which level the graphics library's own messages are included. Below "info" it logs tens of thousands of
    /// lines for a short text.
    pub(crate) foreign: log::Level,
}

// SAFETY: the header requires that callback and user data can be used from any thread, also from several at once.
// Nothing here dereferences the user data.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

static TARGET: RwLock<Option<Target>> = RwLock::new(None);

thread_local! {
    static LOGGING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside the log callback.
pub(crate) fn is_logging() -> bool {
    LOGGING.try_with(Cell::get).unwrap_or(false)
}

/// Sends messages up to `filter` to `target` from now on. When this returns, the previous callback is no longer
/// running.
pub(crate) fn install(target: Option<Target>, filter: LevelFilter) -> Result<()> {
    static LOGGER: Logger = Logger;
    // Fails only if the library is linked into a Rust program that has installed a logger already.
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    if !INSTALLED.get_or_init(|| log::set_logger(&LOGGER).is_ok()) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "the program that this library is linked into has installed a Rust logger; use that one",
        ));
    }
    log::set_max_level(if target.is_some() { filter } else { LevelFilter::Off });
    *TARGET.write().unwrap_or_else(|e| e.into_inner()) = target;
    Ok(())
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if is_logging() {
            return;
        }
        let own = record.target().starts_with("bolmo");
        let target = TARGET.read().unwrap_or_else(|e| e.into_inner());
        let Some(to) = *target else { return };
        if !own && record.level() > to.foreign {
            return;
        }
        let text = if own { record.args().to_string() } else { format!("{}: {}", record.target(), record.args()) };
        let _ = LOGGING.try_with(|logging| {
            logging.set(true);
            trusted!((to.callback)(record.level() as i32, text.as_ptr().cast(), text.len(), to.user_data));
            logging.set(false);
        });
    }

    fn flush(&self) {}
}
