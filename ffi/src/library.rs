//! The library itself: its version, and its log.
//!
//! ```c
//! static void log_line(int32_t level, const char *text, size_t size, void *user_data) {
//!     fprintf((FILE *)user_data, "%d %.*s\n", (int)level, (int)size, text);
//! }
//! ...
//! printf("bolmo %s, ABI %u\n", bolmo_version(), (unsigned)bolmo_abi_version());
//! bolmo_set_log_callback(BOLMO_LOG_WARN, log_line, stderr);
//! ```

use std::ffi::{c_char, c_void};

use log::{Level, LevelFilter};

use crate::handle;
use crate::input::invalid;
use crate::logging::{self, Target};
use crate::status::{bolmo_status, call};

/// Version of the ABI that a header describes. It grows when something is added; existing names keep their meaning.
pub const BOLMO_ABI_VERSION: u32 = 7;

/// How much is logged.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_log_level {
    /// Nothing.
    BOLMO_LOG_OFF = 0,
    /// Failures that no call can return, such as the loss of a device.
    BOLMO_LOG_ERROR = 1,
    /// Problems that don't stop the work.
    BOLMO_LOG_WARN = 2,
    /// Progress of the work, a line each: an engine opened, a checkpoint opened, a model loaded, a generation or a
    /// score finished, training that begins, evaluates, saves.
    BOLMO_LOG_INFO = 3,
    /// Details for finding a fault: adapters that were considered and why, kernels, sessions, appended texts,
    /// snapshots, steps of training.
    BOLMO_LOG_DEBUG = 4,
    /// Every submission to the device, and the graphics library's own messages from its level "info" up. At the other
    /// levels only its warnings and errors are included.
    BOLMO_LOG_TRACE = 5,
}

/// Receives a line of the log: `text` has `size` bytes of UTF-8 without a NUL at the end, and is valid during the call.
/// Called from any thread, also from several at once. It must not call the library: functions return BOLMO_BUSY, and
/// `_delete` functions do nothing.
pub type bolmo_log_callback =
    Option<unsafe extern "C" fn(level: i32, text: *const c_char, size: usize, user_data: *mut c_void)>;

/// The ABI version of this library. Compare it with BOLMO_ABI_VERSION of the header that the program was compiled with:
/// a library with a smaller number lacks something that the header declares.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_abi_version() -> u32 {
    BOLMO_ABI_VERSION
}

/// The library's version, such as "0.1.0", with a NUL at the end. Valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Passes log messages up to `level` (bolmo_log_level) to `callback`. NULL or BOLMO_LOG_OFF turns logging off. Without
/// a callback nothing is logged. No message contains text that a model reads or writes; paths and names of adapters
/// do occur. When the function returns, the previous callback is no longer running.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_set_log_callback(
    level: i32,
    callback: bolmo_log_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let filter = match level {
            0 => LevelFilter::Off,
            1 => LevelFilter::Error,
            2 => LevelFilter::Warn,
            3 => LevelFilter::Info,
            4 => LevelFilter::Debug,
            5 => LevelFilter::Trace,
            other => return Err(invalid(format!("level: expected a bolmo_log_level (0 to 5), found {other}"))),
        };
        let target = callback.filter(|_| filter != LevelFilter::Off).map(|callback| Target {
            callback,
            user_data,
            foreign: if filter == LevelFilter::Trace { Level::Info } else { Level::Warn },
        });
        logging::install(target, filter)
    })
}

/// Number of handles, of all types, that were created and not deleted: 0 when a program has cleaned up.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_handle_count() -> usize {
    handle::count()
}
