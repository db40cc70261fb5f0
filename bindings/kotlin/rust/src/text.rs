//! Whole characters from bytes.

use std::ffi::c_char;

use bolmo::text::{bolmo_utf8_create, bolmo_utf8_delete, bolmo_utf8_finish, bolmo_utf8_push};
use jni_sys::jlong;

use crate::env::{ByteArray, Result, at, slice};
use crate::native::{items, make, text};

/// The text that bytes complete.
///
/// # Safety
/// The assembler is not used otherwise while the result is.
pub(crate) unsafe fn push<'a>(assembler: jlong, bytes: &[u8]) -> Result<&'a str> {
    let data = bytes.as_ptr().cast();
    let push = |text: *mut _, size: *mut _| abi!(bolmo_utf8_push(at(assembler), data, bytes.len(), text, size));
    // SAFETY: the caller's promise; the library returns UTF-8.
    unsafe { items(push).map(|text| utf8(text)) }
}

/// The text at the end: U+FFFD for a character that is cut.
///
/// # Safety
/// As [`push`].
pub(crate) unsafe fn finish<'a>(assembler: jlong) -> Result<&'a str> {
    let finish = |text: *mut _, size: *mut _| abi!(bolmo_utf8_finish(at(assembler), text, size));
    // SAFETY: as in `push`.
    unsafe { items(finish).map(|text| utf8(text)) }
}

/// # Safety
/// The text is UTF-8.
unsafe fn utf8(text: &[c_char]) -> &str {
    // SAFETY: `c_char` and `u8` have the same layout; the caller promises the rest.
    unsafe { std::str::from_utf8_unchecked(slice(text.as_ptr().cast(), text.len())) }
}

natives! {
    fn utf8Create(_env) -> jlong { make(|out| abi!(bolmo_utf8_create(out))) }

    fn utf8Push(env, assembler: jlong, bytes: ByteArray) -> ByteArray {
        let bytes = env.bytes(bytes)?;
        text(env, |data, size| abi!(bolmo_utf8_push(at(assembler), bytes.pointer().cast(), bytes.len(), data, size)))
    }

    fn utf8Finish(env, assembler: jlong) -> ByteArray {
        text(env, |data, size| abi!(bolmo_utf8_finish(at(assembler), data, size)))
    }

    fn utf8Delete(_env, assembler: jlong) {
        bolmo_utf8_delete(at(assembler));
        Ok(())
    }
}
