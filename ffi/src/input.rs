//! Checks of pointer arguments, and places for results.

use std::ptr::NonNull;

use bolmo_runtime::{Error, ErrorKind, Result};

/// Runs one of this module's unsafe functions, or a callback, on arguments of a C caller.
macro_rules! trusted {
    ($call:expr) => {{
        // SAFETY: the header requires of every caller that pointers are NULL or valid for their use, that lengths are
        // true and that callbacks have the declared type. Nothing else is relied on here.
        unsafe { $call }
    }};
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// A place for a result. It is written by [`Out::set`] only, when everything has succeeded.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL or valid for a write of a `T` during the call.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self> {
        let place = NonNull::new(pointer).ok_or_else(|| invalid(format!("{name}: must not be NULL")))?;
        if !place.is_aligned() {
            return Err(invalid(format!("{name}: expected an aligned address, found {pointer:p}")));
        }
        Ok(Self(place))
    }

    /// # Safety
    /// As [`Out::new`]; NULL means that the result is not wanted.
    pub(crate) unsafe fn optional(pointer: *mut T) -> Result<Option<Self>> {
        // SAFETY: the caller's promise is the same.
        if pointer.is_null() { Ok(None) } else { unsafe { Self::new(pointer, "result") }.map(Some) }
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: the caller of `new` promised that the place can be written.
        unsafe { self.0.write(value) };
    }
}

/// The `size` items at `data`, which may be NULL if `size` is 0.
///
/// # Safety
/// `data` is NULL or valid for reads of `size` items, which don't change while the returned slice is in use.
pub(crate) unsafe fn items<'a, T>(data: *const T, size: usize, name: &str) -> Result<&'a [T]> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid(format!("{name}: must not be NULL for a size of {size}")));
    }
    if size.checked_mul(size_of::<T>().max(1)).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(invalid(format!("{name}: a size of {size} exceeds the address space")));
    }
    if !data.is_aligned() {
        return Err(invalid(format!("{name}: expected an aligned address, found {data:p}")));
    }
    // SAFETY: the pointer is not NULL, is aligned and stays inside the address space, as checked above; the caller
    // promised that it is readable.
    Ok(unsafe { std::slice::from_raw_parts(data, size) })
}

/// Bytes, passed as `const void *` so that callers need no cast for text.
///
/// # Safety
/// As [`items`].
pub(crate) unsafe fn bytes<'a>(data: *const std::ffi::c_void, size: usize, name: &str) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise is the same.
    unsafe { items(data.cast::<u8>(), size, name) }
}

/// Text that must be UTF-8.
///
/// # Safety
/// As [`items`].
pub(crate) unsafe fn text<'a>(data: *const std::ffi::c_void, size: usize, name: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { bytes(data, size, name) }?;
    std::str::from_utf8(bytes)
        .map_err(|e| invalid(format!("{name}: expected UTF-8, found an invalid byte at offset {}", e.valid_up_to())))
}

/// A path: any bytes except NUL where the system allows them, UTF-8 elsewhere.
///
/// # Safety
/// As [`items`].
pub(crate) unsafe fn path(data: *const std::ffi::c_void, size: usize, name: &str) -> Result<std::path::PathBuf> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { bytes(data, size, name) }?;
    if bytes.is_empty() {
        return Err(invalid(format!("{name}: the path is empty")));
    }
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        return Err(invalid(format!("{name}: the path has a NUL byte at offset {at}; check the size")));
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(std::ffi::OsStr::from_bytes(bytes).into())
    }
    #[cfg(not(unix))]
    {
        // SAFETY: the caller's promise is the same.
        Ok(unsafe { text(data, size, name) }?.into())
    }
}

/// Copies `all` to the caller's array of `capacity` items. Writes nothing if the array is too small.
///
/// # Safety
/// `to` is NULL or valid for writes of `capacity` items.
pub(crate) unsafe fn fill<T: Copy>(to: *mut T, capacity: usize, all: &[T], name: &str) -> Result<()> {
    if all.len() > capacity {
        return Err(invalid(format!("{name}: expected room for {} items, found room for {capacity}", all.len())));
    }
    if all.is_empty() {
        return Ok(());
    }
    if to.is_null() || !to.is_aligned() {
        return Err(invalid(format!("{name}: expected an aligned address, found {to:p}")));
    }
    // SAFETY: `to` is not NULL and is aligned, as checked above; the caller promised that `capacity` items are
    // writable, which is enough.
    unsafe { std::ptr::copy_nonoverlapping(all.as_ptr(), to, all.len()) };
    Ok(())
}

/// A pointer that the program gets back in its callbacks. The library never dereferences it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserData(*mut std::ffi::c_void);

// SAFETY: the header says which thread runs a callback; the program promises that the pointer may be used there.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

impl UserData {
    pub(crate) fn new(pointer: *mut std::ffi::c_void) -> Self {
        Self(pointer)
    }

    pub(crate) fn get(&self) -> *mut std::ffi::c_void {
        self.0
    }
}
