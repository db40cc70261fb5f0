//! The steady state of decoding: no device memory is taken but for the KV cache, and the host's heap neither grows nor is asked for more
//! and more.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bolmo_runtime::{GenerateOptions, Session, block_on};
use bolmo_tests::{engine, load, session_with};

/// The system's allocator, which counts.
struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static HELD: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the pointer comes from `alloc`, and so from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Calls of the allocator while `count` bytes are decoded, and what is held more behind it.
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
fn decoding_takes_no_memory() {
    let model = load("infer", "nano_trained");
    let mut session = session_with(&model, &[1, 100, 101, 102]);
    // Up to the second segment of the KV cache, 64 patches long as the first; its end is at 128 patches.
    decode(&mut session, 280);
    let on_device = engine().memory().current_bytes;
    let (first, _) = decode(&mut session, 80);
    let (second, held) = decode(&mut session, 80);
    assert_eq!(engine().memory().current_bytes, on_device, "device memory");
    // What grows is the list of ids, and what the graphics library keeps of submissions until it looks after them.
    assert!(held < 64 << 10, "{held} bytes are held after 20 more patches");
    let (a, b) = (first as f64, second as f64);
    assert!((a - b).abs() < 0.1 * a, "{first} calls of the allocator for 20 patches, then {second}");
    println!("{} calls of the allocator a patch, all in all", second / 20);
}
