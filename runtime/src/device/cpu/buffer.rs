//! Buffers in the host's memory.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::hash::{Hash, Hasher};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use bolmo_shaders::simd::Memory;
#[cfg(not(target_family = "wasm"))]
use memmap2::MmapMut;

use crate::allocate::out_of_memory;
use crate::device::shared_bytes::SharedBytes;
use crate::error::Result;

/// Alignment of buffers: a cache line, and the widest vector.
const ALIGNMENT: usize = 64;

/// Bytes from which on a buffer has pages of its own.
#[cfg(not(target_family = "wasm"))]
const LEAST_PAGES: usize = 1 << 20;

/// A buffer. Cheap to clone.
///
/// Its contents are accessed by the executor's thread and its helpers alone, once a submission has used it.
#[derive(Debug, Clone)]
pub(in crate::device) struct HostBuffer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: NonNull<u8>,
    /// In bytes.
    size: usize,
    storage: Storage,
    /// Whether no submission has used the buffer yet. Held while the contents are written directly.
    unused: Mutex<bool>,
}

/// What holds the memory.
#[derive(Debug)]
enum Storage {
    Heap(Layout),
    /// Pages of its own, large ones where the system has them: reading gigabytes of weights in small pages spends much
    /// time on translating addresses.
    #[cfg(not(target_family = "wasm"))]
    Pages(#[allow(dead_code)] MmapMut), // dropped with the buffer
    /// Bytes of the program, which are only read.
    Shared(#[allow(dead_code)] SharedBytes), // dropped with the buffer
}

// SAFETY: the memory belongs to the buffer. `unused` keeps direct writes apart from the executor's accesses.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Storage::Heap(layout) = self.storage {
            // SAFETY: allocated with this layout in `zeroed`.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl PartialEq for HostBuffer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for HostBuffer {}

impl Hash for HostBuffer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl HostBuffer {
    /// A zeroed buffer of `bytes` bytes, not 0, for `what`.
    pub(super) fn zeroed(what: &str, bytes: u64) -> Result<Self> {
        let out_of_memory = || out_of_memory(bytes, what);
        let size = usize::try_from(bytes).map_err(|_| out_of_memory())?.max(ALIGNMENT);
        #[cfg(not(target_family = "wasm"))]
        if size >= LEAST_PAGES {
            let mut pages = MmapMut::map_anon(size).map_err(|_| out_of_memory())?;
            #[cfg(target_os = "linux")]
            // Systems without large pages refuse, and small ones do as well.
            let _ = pages.advise(memmap2::Advice::HugePage);
            let start = NonNull::new(pages.as_mut_ptr()).ok_or_else(out_of_memory)?;
            return Ok(Self::unused(start, size, Storage::Pages(pages)));
        }
        let layout = Layout::from_size_align(size, ALIGNMENT).map_err(|_| out_of_memory())?;
        // SAFETY: the size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(out_of_memory)?;
        Ok(Self::unused(start, size, Storage::Heap(layout)))
    }

    fn unused(start: NonNull<u8>, size: usize, storage: Storage) -> Self {
        Self(Arc::new(Inner { start, size, storage, unused: Mutex::new(true) }))
    }

    /// The `bytes` bytes from `offset` on of memory that is only read. `None` if the range is empty, exceeds it or does
    /// not begin at a word.
    pub(super) fn shared(memory: &SharedBytes, offset: u64, bytes: u64) -> Option<Self> {
        let [begin, size] = [offset, bytes].map(usize::try_from);
        let (begin, size) = (begin.ok()?, size.ok().filter(|&size| size > 0)?);
        let range = memory.as_bytes().get(begin..begin.checked_add(size)?)?;
        // Nothing is written through the pointer: `range_mut` refuses it.
        let start = NonNull::new(range.as_ptr().cast_mut()).filter(|start| start.cast::<u32>().is_aligned())?;
        Some(Self(Arc::new(Inner { start, size, storage: Storage::Shared(memory.clone()), unused: Mutex::new(false) })))
    }

    /// Whether the memory is only read.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self.0.storage, Storage::Shared(_))
    }

    /// Writes to a buffer that no submission has used. Returns false if one has.
    pub(super) fn write_unused(&self, offset: u64, bytes: &[u8]) -> bool {
        let unused = self.0.unused.lock().unwrap_or_else(|e| e.into_inner());
        if *unused {
            // SAFETY: nothing else accesses the memory: the executor does so only after `mark_used`, which waits for
            // the lock.
            unsafe { self.write(offset, bytes) };
        }
        *unused
    }

    /// Notes that a submission uses the buffer. Only the executor accesses it from here on.
    pub(super) fn mark_used(&self) {
        *self.0.unused.lock().unwrap_or_else(|e| e.into_inner()) = false;
    }

    /// Bytes from `offset` on. A range outside of the buffer panics; slices have been checked when they were made.
    fn range(&self, offset: u64, bytes: u64) -> (*mut u8, usize) {
        let end = offset.checked_add(bytes);
        assert!(end.is_some_and(|end| end <= self.0.size as u64), "a slice lies outside of its buffer");
        // SAFETY: the range lies within the allocation.
        (unsafe { self.0.start.as_ptr().add(offset as usize) }, bytes as usize)
    }

    /// As [`Self::range`], to be written. Memory that is only read panics; nothing records writes to it.
    fn range_mut(&self, offset: u64, bytes: u64) -> (*mut u8, usize) {
        assert!(!self.is_read_only(), "a buffer is only read");
        self.range(offset, bytes)
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    /// Nothing else accesses these bytes meanwhile.
    pub(super) unsafe fn write(&self, offset: u64, bytes: &[u8]) {
        let (to, count) = self.range_mut(offset, bytes.len() as u64);
        // SAFETY: `range` has checked the bounds, and the caller ensures exclusive access.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count) };
    }

    /// Fills `bytes` bytes from `offset` on with zeros.
    ///
    /// # Safety
    /// Nothing else accesses these bytes meanwhile.
    pub(super) unsafe fn clear(&self, offset: u64, bytes: u64) {
        let (to, count) = self.range_mut(offset, bytes);
        // SAFETY: `range` has checked the bounds, and the caller ensures exclusive access.
        unsafe { std::ptr::write_bytes(to, 0, count) };
    }

    /// The `bytes` bytes from `offset` on.
    ///
    /// # Safety
    /// Nothing writes to them while the slice is in use.
    pub(super) unsafe fn bytes(&self, offset: u64, bytes: u64) -> &[u8] {
        let (from, count) = self.range(offset, bytes);
        // SAFETY: `range` has checked the bounds, the memory is initialized, and the caller ensures that nothing
        // writes.
        unsafe { std::slice::from_raw_parts(from, count) }
    }

    /// The memory as a kernel binds it. `offset` and `bytes` are multiples of 4.
    ///
    /// # Safety
    /// Nothing but the kernel accesses these bytes while the range is in use, and it does not write to them if the
    /// buffer is [read only](Self::is_read_only).
    pub(super) unsafe fn memory(&self, offset: u64, bytes: u64) -> Memory<'_> {
        let (start, count) = self.range(offset, bytes);
        assert!(offset.is_multiple_of(4), "a slice does not begin at a word");
        // SAFETY: the buffer is aligned to a word at least and `offset` is a multiple of one; the rest is up to the
        // caller.
        unsafe { Memory::new(start.cast::<u32>(), count / 4) }
    }
}
