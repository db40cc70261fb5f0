//! What comes in through pointers, checked, and where results go.

use std::ptr::NonNull;

use bolmo_runtime::{Error, ErrorKind, Result};

/// Runs one of this module's unsafe functions, or a callback, on what the caller of a C function passed.
macro_rules! trusted {
    ($call:expr) => {{
        // SAFETY: the header asks of every caller that pointers are NULL or valid for what they are used for, that lengths are
        // true and that callbacks have the declared type. Nothing more is relied on here.
        unsafe { $call }
    }};
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

/// Where a result goes; written only by [`Out::set`], when everything has gone well.
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL or valid for a write of a `T` for the time of the call.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self> {
        let place =
            NonNull::new(pointer).ok_or_else(|| invalid(format!("{name}: expected a place for it, found NULL")))?;
        if !place.is_aligned() {
            return Err(invalid(format!("{name}: expected an aligned address, found {pointer:p}")));
        }
        Ok(Self(place))
    }

    /// # Safety
    /// As [`Out::new`]; NULL says that the result is not wanted.
    pub(crate) unsafe fn optional(pointer: *mut T) -> Result<Option<Self>> {
        // SAFETY: the caller's promise is the same.
        if pointer.is_null() { Ok(None) } else { unsafe { Self::new(pointer, "result") }.map(Some) }
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: `new` was promised that the place can be written.
        unsafe { self.0.write(value) };
    }
}

/// The `size` items at `data`, which may be NULL if there are none.
///
/// # Safety
/// `data` is NULL or valid for reads of `size` items, unchanged while what is returned is in use.
pub(crate) unsafe fn items<'a, T>(data: *const T, size: usize, name: &str) -> Result<&'a [T]> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(invalid(format!("{name}: expected {size} items, found NULL")));
    }
    if size.checked_mul(size_of::<T>().max(1)).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(invalid(format!("{name}: {size} items are more than can be addressed")));
    }
    if !data.is_aligned() {
        return Err(invalid(format!("{name}: expected an aligned address, found {data:p}")));
    }
    // SAFETY: not NULL, aligned and within what can be addressed, as was checked; readable, as the caller promised.
    Ok(unsafe { std::slice::from_raw_parts(data, size) })
}

/// Bytes, passed as `const void *` so that texts need no cast.
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
        .map_err(|e| invalid(format!("{name}: expected UTF-8, found other bytes at {}", e.valid_up_to())))
}

/// A path: any bytes but NUL where the system takes them, UTF-8 elsewhere.
///
/// # Safety
/// As [`items`].
pub(crate) unsafe fn path(data: *const std::ffi::c_void, size: usize, name: &str) -> Result<std::path::PathBuf> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe { bytes(data, size, name) }?;
    if bytes.is_empty() {
        return Err(invalid(format!("{name}: expected a path, found none")));
    }
    if let Some(at) = bytes.iter().position(|&b| b == 0) {
        return Err(invalid(format!(
            "{name}: expected a path without NUL bytes, found one at {at}; is the size right?"
        )));
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

/// Copies `all` to a caller's array of `capacity` items; with too little room nothing is written.
///
/// # Safety
/// `to` is NULL or valid for writes of `capacity` items.
pub(crate) unsafe fn fill<T: Copy>(to: *mut T, capacity: usize, all: &[T], name: &str) -> Result<()> {
    if all.len() > capacity {
        return Err(invalid(format!("{name}: {} items need room, found room for {capacity}", all.len())));
    }
    if all.is_empty() {
        return Ok(());
    }
    if to.is_null() || !to.is_aligned() {
        return Err(invalid(format!("{name}: expected an aligned address, found {to:p}")));
    }
    // SAFETY: not NULL and aligned, as was checked; writable for `capacity` items, as the caller promised, which is enough.
    unsafe { std::ptr::copy_nonoverlapping(all.as_ptr(), to, all.len()) };
    Ok(())
}

/// A pointer that the program gets back in its callbacks; nothing here looks into it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UserData(*mut std::ffi::c_void);

// SAFETY: the header says which thread calls a callback; that the pointer may be used there is the program's promise.
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
