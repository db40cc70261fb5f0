//! Errors: status codes and their messages.
//!
//! Every function that can fail returns a `bolmo_status`. `BOLMO_OK` is 0. Each thread has its own message, about its
//! last failed call:
//!
//! ```c
//! bolmo_status status = bolmo_engine_create(NULL, &engine);
//! if (status != BOLMO_OK) {
//!     fprintf(stderr, "%s: %s\n", bolmo_status_name(status), bolmo_last_error_message());
//! }
//! ```

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use bolmo_runtime::{Error, ErrorKind, Hint, Result};

use crate::panics;

/// Result of a call. Codes keep their meaning; new ones may be added, so treat an unknown code as a failure.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_status {
    /// Success.
    BOLMO_OK = 0,
    /// An argument is NULL, out of range or contradicts another one; or a handle was deleted or has another type.
    BOLMO_INVALID_ARGUMENT = 1,
    /// A file, an adapter or an item that was asked for does not exist.
    BOLMO_NOT_FOUND = 2,
    /// A checkpoint, a tokenizer or a snapshot is damaged or contradicts itself.
    BOLMO_BAD_CHECKPOINT = 3,
    /// The input is well formed, but this version, model or adapter does not support it.
    BOLMO_UNSUPPORTED = 4,
    /// The device or the host has too little memory.
    BOLMO_OUT_OF_MEMORY = 5,
    /// The device was lost: create the engine again, and load the model on it again.
    BOLMO_DEVICE_LOST = 6,
    /// The call was cancelled, by a callback or by another thread.
    BOLMO_CANCELLED = 7,
    /// The object is in use by another thread, or by the call that this callback runs in.
    BOLMO_BUSY = 8,
    /// Reading or writing failed.
    BOLMO_IO = 9,
    /// A bug in this library; please report it.
    BOLMO_INTERNAL = 10,
    /// The engine is suspended: resume it, then repeat the call.
    BOLMO_SUSPENDED = 11,
}

use bolmo_status::*;

impl bolmo_status {
    fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument => BOLMO_INVALID_ARGUMENT,
            ErrorKind::NotFound => BOLMO_NOT_FOUND,
            ErrorKind::BadCheckpoint => BOLMO_BAD_CHECKPOINT,
            ErrorKind::Unsupported => BOLMO_UNSUPPORTED,
            ErrorKind::OutOfMemory => BOLMO_OUT_OF_MEMORY,
            ErrorKind::DeviceLost => BOLMO_DEVICE_LOST,
            ErrorKind::Cancelled => BOLMO_CANCELLED,
            ErrorKind::Busy => BOLMO_BUSY,
            ErrorKind::Io => BOLMO_IO,
            ErrorKind::Suspended => BOLMO_SUSPENDED,
            _ => BOLMO_INTERNAL,
        }
    }
}

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::default();
}

fn set_message(text: &str) {
    // A message may contain a NUL, for example from a file name; the rest of the message must stay readable.
    let text = CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
    // A thread that is ending has no message any more.
    let _ = MESSAGE.try_with(|message| message.replace(text));
}

/// The sentence of an error, with the function that its hint means.
fn with_hint(error: &Error) -> String {
    let function = match error.hint() {
        Some(Hint::SmallerFormat { .. }) => "bolmo_load_options_set_format",
        Some(Hint::VocabularyMissing { .. }) => "bolmo_load_options_set_tokenizer_path",
        Some(Hint::ReopenDevice) => "bolmo_engine_create, then bolmo_model_load",
        _ => return error.message().to_owned(),
    };
    format!("{} ({function})", error.message())
}

/// Runs the body of a function of the header. This is the only place where errors and panics become a status.
pub(crate) fn call(work: impl FnOnce() -> Result<()>) -> bolmo_status {
    let outcome = if crate::logging::is_logging() {
        let message =
            "a log callback may call bolmo_last_error_message and bolmo_status_name only; it called another function";
        Ok(Err(Error::new(ErrorKind::Busy, message)))
    } else {
        panics::caught(work)
    };
    match outcome {
        Ok(Ok(())) => BOLMO_OK,
        Ok(Err(error)) => {
            set_message(&with_hint(&error));
            bolmo_status::of(error.kind())
        }
        Err(said) => {
            set_message(&format!("bug in this library, please report it: {said}"));
            BOLMO_INTERNAL
        }
    }
}

/// Message of this thread's last failed call: one sentence, UTF-8, with a NUL at the end. Never NULL; empty if no call
/// has failed yet. Valid until this thread's next failed call, or until the thread ends. The `_delete` functions never
/// fail.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_last_error_message() -> *const c_char {
    // The pointer stays valid: only the next failure replaces the string.
    MESSAGE.try_with(|message| message.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Name of a status, such as "bad checkpoint", with a NUL at the end. Never NULL: "unknown status" for a code that this
/// version doesn't have. Valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_status_name(status: i32) -> *const c_char {
    let name: &CStr = match status {
        0 => c"ok",
        1 => c"invalid argument",
        2 => c"not found",
        3 => c"bad checkpoint",
        4 => c"unsupported",
        5 => c"out of memory",
        6 => c"device lost",
        7 => c"cancelled",
        8 => c"busy",
        9 => c"io",
        10 => c"internal",
        11 => c"suspended",
        _ => c"unknown status",
    };
    name.as_ptr()
}
