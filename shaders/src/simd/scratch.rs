//! Memory that a thread reuses from task to task.

use std::cell::RefCell;

use super::memory::Memory;

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
#[allow(dead_code)] // accessed as a slice of values
struct Line([f32; 16]);

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    static SHARED: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `count` values for the tasks of a dispatch to share, aligned to a cache line, whose contents are
/// unspecified. The memory belongs to the calling thread, which keeps it for its next dispatch.
pub(super) fn with_shared<R>(count: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken, not borrowed: a nested call allocates memory of its own.
    let mut lines = SHARED.take();
    let result = f(values(&mut lines, count));
    SHARED.set(lines);
    result
}

/// Calls `f` with `count` values of scratch memory, aligned to a cache line, whose contents are unspecified. Calls must
/// not be nested.
pub(super) fn with_scratch<R>(count: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    LINES.with_borrow_mut(|lines| f(values(lines, count)))
}

/// Payload of the panic of a task that has not enough memory for its intermediate results. It is raised with
/// `resume_unwind`, which prints nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoMemory;

fn values(lines: &mut Vec<Line>, count: usize) -> &mut [f32] {
    let wanted = count.div_ceil(16);
    if lines.len() < wanted {
        if lines.try_reserve(wanted - lines.len()).is_err() {
            std::panic::resume_unwind(Box::new(NoMemory));
        }
        lines.resize(wanted, Line([0.0; 16]));
    }
    // SAFETY: a line is 16 consecutive values without padding.
    let values = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), 16 * lines.len()) };
    &mut values[..count]
}

/// As [`with_shared`], as memory that tasks write to at the same time.
pub(super) fn with_shared_memory<R>(count: usize, f: impl FnOnce(Memory<'_>) -> R) -> R {
    with_shared(count, |values| {
        // SAFETY: the values are initialized, and nobody else uses them before `f` returns.
        f(unsafe { Memory::new(values.as_mut_ptr().cast::<u32>(), values.len()) })
    })
}
