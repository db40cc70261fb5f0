//! Host memory as kernels see it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// A range of 32-bit words in host memory that a kernel binds. Several threads write to it at the same time, each to
/// other words.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'a> {
    start: *mut u32,
    words: usize,
    lifetime: PhantomData<&'a u32>,
}

// SAFETY: a range is an address and a length. Its words are accessed by kernels, whose tasks write to disjoint words.
unsafe impl Send for Memory<'_> {}
// SAFETY: as above.
unsafe impl Sync for Memory<'_> {}

impl<'a> Memory<'a> {
    /// The `words` words from `start` on.
    ///
    /// # Safety
    /// As long as `'a` lasts, the words are initialized and valid for reads and, where a kernel binds the range for
    /// writing, for writes. Nothing else accesses words that the kernel writes, and nothing writes words that it reads.
    /// `start` is a multiple of 4 bytes.
    pub unsafe fn new(start: *mut u32, words: usize) -> Self {
        Self { start, words, lifetime: PhantomData }
    }

    /// Length in words.
    pub fn words(&self) -> usize {
        self.words
    }

    /// Whether the two ranges share a word.
    pub fn overlaps(&self, other: &Memory<'_>) -> bool {
        let range = |memory: &Memory<'_>| {
            let start = memory.start as usize;
            start..start + 4 * memory.words
        };
        let (a, b) = (range(self), range(other));
        a.start < b.end && b.start < a.end
    }

    /// The first `count` values of type `T`, whose alignment is at most that of a word.
    pub(super) fn values<T: bytemuck::Pod>(&self, count: usize) -> Option<&'a [T]> {
        let bytes = count.checked_mul(size_of::<T>())?;
        // SAFETY: the range is valid for reads of these bytes, and nothing writes to them (see `new`). It begins at a
        // word.
        (bytes <= 4 * self.words).then(|| unsafe { std::slice::from_raw_parts(self.start.cast::<T>(), count) })
    }

    /// Access for writing to the first `count` values of type `T`, as for [`Self::values`].
    pub(super) fn output<T: bytemuck::Pod>(&self, count: usize) -> Option<Output<'a, T>> {
        let bytes = count.checked_mul(size_of::<T>())?;
        (bytes <= 4 * self.words).then_some(Output { start: self.start.cast(), count, lifetime: PhantomData })
    }
}

/// Values that the tasks of a kernel write, each task others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output<'a, T = f32> {
    start: *mut T,
    count: usize,
    lifetime: PhantomData<&'a T>,
}

// SAFETY: as for `Memory`.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: as for `Memory`.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> From<&'a mut [T]> for Output<'a, T> {
    fn from(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), count: values.len(), lifetime: PhantomData }
    }
}

impl<'a, T> Output<'a, T> {
    /// The values in `range`. A range outside of the binding panics.
    ///
    /// # Safety
    /// While the slice is in use, nothing else accesses these values: no other task, and no other slice of this task.
    #[inline(always)]
    pub(super) unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.count, "{range:?} of {} values", self.count);
        // SAFETY: the range lies within the binding, which is valid for writes; the rest is up to the caller.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.end - range.start) }
    }
}

/// Why a kernel refused its bindings. This is a mistake of the program that dispatched it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}
