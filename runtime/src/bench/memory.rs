//! How fast the CPU's threads read memory.

use std::hint::black_box;
use std::time::Instant;

use crate::error::{Error, ErrorKind, Result};

/// Seconds for which a sample reads, about.
const SAMPLE_SECONDS: f64 = 0.05;

/// Seconds in which `threads` threads read `bytes` bytes once, each a part of its own: `runs` samples after one that is
/// discarded.
///
/// # Errors
/// `OutOfMemory`.
pub(super) fn read_seconds(threads: usize, bytes: usize, runs: usize) -> Result<Vec<f64>> {
    let count = bytes / size_of::<u64>();
    let mut values: Vec<u64> = Vec::new();
    values.try_reserve_exact(count).map_err(|_| {
        Error::new(ErrorKind::OutOfMemory, format!("{bytes} bytes to read, for the limits, could not be allocated"))
    })?;
    // Written, so that every page is memory of its own.
    values.extend((0..count as u64).map(|i| i ^ 0x5555));
    let once = pass(&values, threads, 1)?;
    let passes = (SAMPLE_SECONDS / once.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    (0..runs).map(|_| Ok(pass(&values, threads, passes)? / passes as f64)).collect()
}

/// Seconds in which the threads read their parts `passes` times.
fn pass(values: &[u64], threads: usize, passes: usize) -> Result<f64> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for part in values.chunks(values.len().div_ceil(threads).max(1)) {
            let work = move || {
                for _ in 0..passes {
                    black_box(sum(black_box(part)));
                }
            };
            std::thread::Builder::new()
                .spawn_scoped(scope, work)
                .map_err(|e| Error::io(format!("a thread that reads memory could not be started: {e}")))?;
        }
        Ok(())
    })?;
    Ok(begun.elapsed().as_secs_f64())
}

/// A sum that compilers turn into vector instructions. Four ranges are read at a time, as products read rows: a single
/// one leaves memory idle.
fn sum(values: &[u64]) -> u64 {
    let (a, rest) = values.split_at(values.len() / 4);
    let (b, rest) = rest.split_at(values.len() / 4);
    let (c, d) = rest.split_at(values.len() / 4);
    let chunks = a.chunks_exact(4).zip(b.chunks_exact(4)).zip(c.chunks_exact(4)).zip(d.chunks_exact(4));
    let mut sums = [0_u64; 4];
    for (((a, b), c), d) in chunks {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(a[i]).wrapping_add(b[i]).wrapping_add(c[i]).wrapping_add(d[i]);
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}
