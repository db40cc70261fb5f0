//! Panics must not unwind into C: a panic inside a call becomes an error message and is not printed.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Nesting depth of library calls on this thread.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Message of the last panic inside a call.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Inside;

impl Inside {
    fn enter() -> Self {
        // Thread-locals of a thread that is ending are gone; such a thread is not inside a call.
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// Runs `work`; returns the message if it panics.
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
    // State that a panic may leave unfinished is either behind a lock, which is then poisoned, or dropped.
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| SAID.try_with(|said| said.try_borrow().map(|s| s.clone()).unwrap_or_default()).unwrap_or_default())
}
