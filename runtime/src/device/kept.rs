//! Memory that is kept for reuse, until the engine is asked to release what can be made again.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

/// Something that keeps memory for reuse.
trait Keeper: Send + Sync {
    /// Drops what is kept and not in use.
    fn release(&self);
}

/// All that keep memory of a device for reuse.
#[derive(Default)]
pub(super) struct Keepers {
    list: Mutex<Vec<Weak<dyn Keeper>>>,
    /// How often memory was released.
    trims: AtomicU64,
}

impl fmt::Debug for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keepers").field("trims", &self.trims).finish_non_exhaustive()
    }
}

impl Keepers {
    fn list(&self) -> MutexGuard<'_, Vec<Weak<dyn Keeper>>> {
        self.list.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// How often memory was released.
    pub(super) fn trims(&self) -> u64 {
        self.trims.load(Ordering::Acquire)
    }

    /// Releases what is kept and not in use.
    pub(super) fn release(&self) {
        self.trims.fetch_add(1, Ordering::AcqRel);
        let keepers: Vec<_> = self.list().iter().filter_map(Weak::upgrade).collect();
        keepers.iter().for_each(|keeper| keeper.release());
    }
}

/// Values that are kept for reuse.
pub(crate) struct Kept<T>(Arc<Shelf<T>>);

struct Shelf<T> {
    values: Mutex<Vec<T>>,
    /// Whether the values are in use where they are.
    in_use: Box<dyn Fn() -> bool + Send + Sync>,
}

impl<T> Shelf<T> {
    fn values(&self) -> MutexGuard<'_, Vec<T>> {
        self.values.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<T: Send> Keeper for Shelf<T> {
    fn release(&self) {
        let mut values = self.values();
        // Under the lock: whoever uses a value has said so before it was put back here.
        let released = if (self.in_use)() { Vec::new() } else { std::mem::take(&mut *values) };
        drop(values);
        drop(released);
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Kept<T> {
    /// Keeps nothing yet. Values that are here are not released while `in_use` returns true.
    pub(super) fn new(keepers: &Keepers, in_use: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        let shelf = Arc::new(Shelf { values: Mutex::default(), in_use: Box::new(in_use) });
        let keeper: Arc<dyn Keeper> = shelf.clone();
        let mut list = keepers.list();
        list.retain(|keeper| keeper.strong_count() > 0);
        list.push(Arc::downgrade(&keeper));
        Self(shelf)
    }

    /// Takes a value out, to be used.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.values().pop()
    }

    /// Keeps a value.
    pub(crate) fn put(&self, value: T) {
        self.0.values().push(value);
    }

    /// A copy of a value.
    pub(crate) fn get(&self) -> Option<T>
    where
        T: Clone,
    {
        self.0.values().last().cloned()
    }
}
