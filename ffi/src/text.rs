//! Bytes that the library allocated, and text for display.
//!
//! Models write bytes, and a chunk of output may end in the middle of a character. For display, use an assembler, which
//! holds incomplete characters back until the rest has arrived:
//!
//! ```c
//! static int32_t show(const uint8_t *data, size_t size, const uint16_t *ids, void *user_data) {
//!     const char *text;
//!     size_t length;
//!     (void)ids;
//!     if (bolmo_utf8_push((bolmo_utf8 *)user_data, data, size, &text, &length) != BOLMO_OK) return 1;
//!     return fwrite(text, 1, length, stdout) != length || fflush(stdout) != 0;
//! }
//! ```

use std::ffi::{c_char, c_void};
use std::sync::{Mutex, TryLockError};

use bolmo_runtime::{Error, ErrorKind, Result, Utf8Assembler};

use crate::handle::{self, opaque};
use crate::input::{self, Out};
use crate::status::{bolmo_status, call};

/// Bytes that the library allocated for the caller, such as a snapshot.
pub struct bolmo_bytes {
    _opaque: [u8; 0],
}
opaque!(bolmo_bytes, Vec<u8>);

/// Assembles whole characters from chunks of bytes. For one thread at a time.
pub struct bolmo_utf8 {
    _opaque: [u8; 0],
}
opaque!(bolmo_utf8, Mutex<Assembler>);

/// An assembler and its latest text.
#[derive(Default)]
pub(crate) struct Assembler {
    assembler: Utf8Assembler,
    text: String,
}

/// Locks an object that one thread at a time may use.
pub(crate) fn lock<'a, T>(mutex: &'a Mutex<T>, name: &str) -> Result<std::sync::MutexGuard<'a, T>> {
    match mutex.try_lock() {
        Ok(guard) => Ok(guard),
        // The operations themselves check the state that a panic left behind.
        Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => Err(busy(name)),
    }
}

/// The error of an object that is in use.
pub(crate) fn busy(name: &str) -> Error {
    Error::new(ErrorKind::Busy, format!("{name}: in use by another thread, or by the call that this callback runs in"))
}

/// Gets the bytes and their number. `data` stays valid until the handle is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_bytes_get(
    bytes: *const bolmo_bytes,
    data: *mut *const u8,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (data, size) = trusted!((Out::new(data, "data")?, Out::new(size, "size")?));
        let bytes = handle::get(bytes)?;
        data.set(bytes.as_ptr());
        size.set(bytes.len());
        Ok(())
    })
}

/// Deletes the bytes. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_bytes_delete(bytes: *mut bolmo_bytes) {
    handle::delete(bytes);
}

/// Creates an assembler at the start of a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_utf8_create(assembler: *mut *mut bolmo_utf8) -> bolmo_status {
    call(|| {
        let assembler = trusted!(Out::new(assembler, "assembler"))?;
        assembler.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Takes the next bytes and returns the text that is complete by now, which may be empty. Invalid UTF-8 becomes U+FFFD.
/// `text` has `length` bytes of UTF-8 without a NUL at the end, and is valid until the next call with this assembler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_utf8_push(
    assembler: *mut bolmo_utf8,
    data: *const c_void,
    size: usize,
    text: *mut *const c_char,
    length: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, length) = trusted!((Out::new(text, "text")?, Out::new(length, "length")?));
        let data = trusted!(input::bytes(data, size, "data"))?;
        let object = handle::get(assembler)?;
        let mut this = lock(&object, "bolmo_utf8")?;
        this.text = this.assembler.push(data);
        text.set(this.text.as_ptr().cast());
        length.set(this.text.len());
        Ok(())
    })
}

/// Ends the text: returns U+FFFD if it stops inside a character, else an empty text. The assembler can then be used for
/// another text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_utf8_finish(
    assembler: *mut bolmo_utf8,
    text: *mut *const c_char,
    length: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, length) = trusted!((Out::new(text, "text")?, Out::new(length, "length")?));
        let object = handle::get(assembler)?;
        let mut this = lock(&object, "bolmo_utf8")?;
        this.text = this.assembler.finish();
        text.set(this.text.as_ptr().cast());
        length.set(this.text.len());
        Ok(())
    })
}

/// Deletes the assembler. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_utf8_delete(assembler: *mut bolmo_utf8) {
    handle::delete(assembler);
}
