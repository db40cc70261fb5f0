//! Handles: numbers that look like pointers, and the table of the objects behind them.
//!
//! A handle is never an address and is never reused. A handle that was deleted, has another type or was made up is
//! therefore detected and rejected instead of being dereferenced.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, RwLock};

use bolmo_runtime::{Error, ErrorKind, Result};

/// A handle type of the header.
pub(crate) trait Opaque: 'static {
    /// The object behind the handle.
    type Object: Send + Sync + 'static;
    /// The type's name in C.
    const NAME: &'static str;
}

/// Declares a handle type of the header for `$object`.
macro_rules! opaque {
    ($name:ident, $object:ty) => {
        impl $crate::handle::Opaque for $name {
            type Object = $object;
            const NAME: &'static str = stringify!($name);
        }
    };
}
pub(crate) use opaque;

/// An object behind a handle, and the name of the handle's type.
#[derive(Clone)]
struct Entry {
    object: Arc<dyn Any + Send + Sync>,
    name: &'static str,
}

static TABLE: LazyLock<RwLock<HashMap<usize, Entry>>> = LazyLock::new(RwLock::default);
static COUNT: AtomicUsize = AtomicUsize::new(1);

/// The upper bits of every handle. No processor accepts an address with these bits.
#[cfg(target_pointer_width = "64")]
const MARK: usize = 0x3B01 << 48;
#[cfg(not(target_pointer_width = "64"))]
const MARK: usize = 0;

/// Creates a handle for `object`.
pub(crate) fn insert<T: Opaque>(object: T::Object) -> Result<*mut T> {
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let number = count
        .checked_mul(16)
        .filter(|n| MARK == 0 || *n < 1 << 48)
        .ok_or_else(|| Error::new(ErrorKind::OutOfMemory, "handle space exhausted: restart the process"))?;
    let handle = MARK | number;
    let entry = Entry { object: Arc::new(object), name: T::NAME };
    TABLE.write().unwrap_or_else(|e| e.into_inner()).insert(handle, entry);
    Ok(std::ptr::without_provenance_mut(handle))
}

/// The object behind `handle`. The returned reference keeps it alive.
pub(crate) fn get<T: Opaque>(handle: *const T) -> Result<Arc<T::Object>> {
    let invalid = |what: &str| Err(Error::new(ErrorKind::InvalidArgument, format!("{}: {what}", T::NAME)));
    if handle.is_null() {
        return invalid("the handle must not be NULL");
    }
    let entry = TABLE.read().unwrap_or_else(|e| e.into_inner()).get(&handle.addr()).cloned();
    match entry {
        None => invalid("the handle was deleted or never created"),
        Some(entry) => match entry.object.downcast() {
            Ok(object) => Ok(object),
            Err(_) => invalid(&format!("expected a handle of this type, found a {}", entry.name)),
        },
    }
}

/// The object behind `handle`, or `None` for NULL.
pub(crate) fn get_optional<T: Opaque>(handle: *const T) -> Result<Option<Arc<T::Object>>> {
    if handle.is_null() { Ok(None) } else { get(handle).map(Some) }
}

/// Removes `handle`. NULL and handles of other types are ignored.
pub(crate) fn delete<T: Opaque>(handle: *mut T) {
    // Dropping the object may reach into the graphics library, which may be in the middle of logging a line.
    if crate::logging::is_logging() {
        return;
    }
    let mut table = TABLE.write().unwrap_or_else(|e| e.into_inner());
    let of_type = table.get(&handle.addr()).is_some_and(|entry| entry.object.is::<T::Object>());
    let entry = of_type.then(|| table.remove(&handle.addr()));
    // The object may call back into the program when it is dropped, so the table is unlocked first.
    drop(table);
    // Nobody can be told of a panic here; the handle is gone all the same.
    let _ = crate::panics::caught(|| drop(entry));
}

/// Number of handles that were created and not deleted.
pub(crate) fn count() -> usize {
    TABLE.read().unwrap_or_else(|e| e.into_inner()).len()
}
