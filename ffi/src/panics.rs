//! Nothing unwinds into C: a panic within a call becomes a message, and is not printed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Calls of the library that this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// What the last panic within a call said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Inside;

impl Inside {
    fn enter() -> Self {
        // Threads that are ending have no such variables any more, and are none of ours.
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Runs `work`; if it panics, what it said.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                return others(info);
            }
            let _ = SAID.try_with(|said| {
                if let Ok(mut said) = said.try_borrow_mut() {
                    *said = info.to_string().replace('\n', " ");
                }
            });
        }));
    });
    let _inside = Inside::enter();
    // What a panic may leave half-done is either behind a lock that says so or dropped with it.
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| SAID.try_with(|said| said.try_borrow().map(|s| s.clone()).unwrap_or_default()).unwrap_or_default())
}
