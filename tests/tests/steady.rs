//! The steady state of decoding: device memory grows for the KV cache alone, and the use of the host's heap is
//! constant.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bolmo_runtime::{GenerateOptions, Session, block_on};
use bolmo_tests::{engine, load, session_with};

/// The system's allocator with counters.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller upholds the contract, which is that of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: `alloc` got the pointer from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The allocator's calls while `count` bytes are decoded, and the growth of the heap in bytes.
fn decode(session: &mut Session, count: usize) -> (u64, i64) {
    let mut options = GenerateOptions::default();
    options.max_bytes = count;
    options.bytes_per_patch = Some(4.0);
    // No text ends before its budget.
    options.sampling.end_bias = -1e30;
    let before = (CALLS.load(Ordering::Relaxed), HELD.load(Ordering::Relaxed));
    let generation = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    assert_eq!(generation.bytes.len(), count);
    drop(generation);
    (CALLS.load(Ordering::Relaxed) - before.0, HELD.load(Ordering::Relaxed) - before.1)
}

#[test]
fn steady_decoding_allocates_no_memory() {
    let model = load("infer", "nano_trained");
    let mut session = session_with(&model, &[1, 100, 101, 102]);
    // Into the second segment of the KV cache, which ends at 128 patches.
    decode(&mut session, 280);
    let on_device = engine().memory().current_bytes;
    let (first, _) = decode(&mut session, 80);
    let (second, held) = decode(&mut session, 80);
    assert_eq!(engine().memory().current_bytes, on_device, "device memory");
    // The list of ids grows, and the graphics library keeps finished submissions until it cleans up.
    assert!(held < 64 << 10, "the heap grew by {held} bytes in 20 patches");
    let (a, b) = (first as f64, second as f64);
    assert!((a - b).abs() < 0.1 * a, "{first} allocator calls for 20 patches, then {second}");
    println!("{} allocator calls per patch", second / 20);
}
