//! Errors: status codes and their messages.
//!
//! Every function that can fail returns a `bolmo_status`. `BOLMO_OK` is 0. Each thread has its own message, about its
//! last failed call. It is kept in one place for as long as the thread lives, so a call and its message may be
//! arguments of the same `printf`:
//!
//! ```c
//! bolmo_status status = bolmo_engine_create(NULL, &engine);
//! if (status != BOLMO_OK) {
//!     fprintf(stderr, "%s: %s\n", bolmo_status_name(status), bolmo_last_error_message());
//! }
//! printf("%s: %s\n", bolmo_status_name(bolmo_session_append_bos(NULL)), bolmo_last_error_message());
//! ```

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};

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
    pub(crate) fn of(kind: ErrorKind) -> Self {
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

/// Size of the buffer of a message, in bytes, with the NUL at its end.
const MESSAGE_BYTES: usize = 4096;
/// The end of a message that was cut.
const CUT: &str = "\u{2026}";

thread_local! {
    // Without a destructor, so that the pointer is valid until the thread's memory is gone.
    static MESSAGE: UnsafeCell<[u8; MESSAGE_BYTES]> = const { UnsafeCell::new([0; MESSAGE_BYTES]) };
}

/// `text` in at most `size` bytes: whole characters, with a mark if it was cut, and without NULs, which file names in
/// messages may contain and which would hide the rest.
fn shown(text: &str, size: usize) -> String {
    let mut text = text.replace('\0', "\u{fffd}");
    if text.len() > size {
        text.truncate(text.floor_char_boundary(size.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
    text
}

fn set_message(text: &str) {
    let text = shown(text, MESSAGE_BYTES - 1);
    MESSAGE.with(|message| {
        // SAFETY: only this thread reaches the buffer, and no reference to it outlives this statement. Pointers that
        // the program has are read by the program alone, which may not do so during a call.
        let buffer = unsafe { &mut *message.get() };
        let (used, rest) = buffer.split_at_mut(text.len());
        used.copy_from_slice(text.as_bytes());
        rest[0] = 0;
    });
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
/// has failed yet. A message of more than 4095 bytes is cut at a character and ends with an ellipsis. The text stays
/// until this thread's next failing call returns; the pointer is the same for every call of a thread, and valid until
/// the thread ends. The `_delete` functions never fail.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_last_error_message() -> *const c_char {
    MESSAGE.with(|message| message.get().cast_const().cast())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        assert_eq!(shown("short", 5), "short");
        assert_eq!(shown("with a \0 inside", 30), "with a \u{fffd} inside");
        assert_eq!(shown("longer", 5), "lo\u{2026}");
        for size in 3..40 {
            let cut = shown(&"\u{00e4}\u{1f600}".repeat(20), size);
            assert!(cut.len() <= size && cut.len() + 4 > size && cut.ends_with(CUT), "{size}: {cut}");
        }
        // What replaces a NUL is longer than a NUL.
        assert_eq!(shown(&"\0".repeat(10), 20), format!("{}{CUT}", "\u{fffd}".repeat(5)));
    }

    #[test]
    fn the_place_of_the_message_stays() {
        let first = bolmo_last_error_message();
        set_message(&"x".repeat(3 * MESSAGE_BYTES));
        // SAFETY: the buffer is this thread's and ends with a NUL.
        let text = unsafe { CStr::from_ptr(first) }.to_str().expect("UTF-8");
        assert!(text.len() == MESSAGE_BYTES - 1 && text.ends_with(CUT));
        set_message("short");
        // SAFETY: as above.
        assert_eq!(unsafe { CStr::from_ptr(bolmo_last_error_message()) }, c"short");
        assert_eq!(bolmo_last_error_message(), first);
        let other = std::thread::spawn(|| bolmo_last_error_message().addr()).join().expect("a thread");
        assert_ne!(other, first.addr());
    }
}
