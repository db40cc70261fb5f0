//! Parallel work on the host, divided into one chunk per core.

use std::ops::Range;
use std::sync::Mutex;

/// Divides `0..len` into chunks and calls `work` on each, in parallel on all cores. Returns the chunks with their
/// results, in order.
///
/// Chunks begin at multiples of `unit`. Except for the last one, they have at least `min_len` elements.
pub fn map_chunks<R: Send>(
    len: usize,
    unit: usize,
    min_len: usize,
    work: impl Fn(Range<usize>) -> R + Sync,
) -> Vec<(Range<usize>, R)> {
    let chunk = chunk_len(len, unit, min_len);
    if chunk >= len {
        return vec![(0..len, work(0..len))];
    }
    let ranges: Vec<_> = (0..len).step_by(chunk).map(|begin| begin..len.min(begin + chunk)).collect();
    map_all(ranges, |range| (range.clone(), work(range)))
}

/// Returns the length of the chunks of `len` elements.
fn chunk_len(len: usize, unit: usize, min_len: usize) -> usize {
    // Fails on platforms without threads, such as browsers.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    len.div_ceil(cores).max(min_len).max(1).next_multiple_of(unit)
}

/// Divides `out` into chunks and calls `work` on the start index of each and the chunk, in parallel on all cores.
///
/// Except for the last one, chunks have at least `min_len` elements.
///
/// # Errors
/// The error of the first chunk that fails.
pub fn fill_chunks<T: Send, E: Send>(
    out: &mut [T],
    min_len: usize,
    work: impl Fn(usize, &mut [T]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let chunk = chunk_len(out.len(), 1, min_len);
    if chunk >= out.len() {
        return work(0, out);
    }
    let parts: Vec<_> = out.chunks_mut(chunk).enumerate().collect();
    // All chunks are worked on, even if the first one fails.
    map_all(parts, |(i, part)| work(i * chunk, part)).into_iter().collect()
}

/// Calls `work` on each item, in parallel. Returns the results in order.
///
/// The calling thread takes items like the others. Where no more threads can be started, for example for lack of
/// memory, there are fewer of them.
fn map_all<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    map_on(items.len().saturating_sub(1), items, work)
}

/// As [`map_all`], with at most `helpers` threads beside the calling one.
fn map_on<T: Send, R: Send>(helpers: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(|e| e.into_inner()).next();
    let take = || {
        while let Some((i, item)) = next() {
            let result = work(item);
            *results[i].lock().unwrap_or_else(|e| e.into_inner()) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, take).ok();
        // Without the rest, those that were started do their work.
        let running: Vec<_> = (0..helpers).map_while(spawn).collect();
        take();
        for thread in running {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    // Every item was taken, and its result stored, unless a panic has been passed on.
    results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(|e| e.into_inner())).collect()
}

/// Calls both functions, `a` on another thread if one can be started, and returns their results.
pub fn both<A: Send, B>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B) -> (A, B) {
    let a = Mutex::new(Some(a));
    // Whoever takes it calls it.
    let take = || a.lock().unwrap_or_else(|e| e.into_inner()).take().map(|a| a());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, take).ok();
        let b = b();
        let here = take();
        let there = thread.and_then(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        match here.or(there) {
            Some(a) => (a, b),
            None => unreachable!("`a` was taken once and returned, or its panic was passed on"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also without any thread, as on a machine that can start none.
    #[test]
    fn results_are_in_order_with_any_number_of_threads() {
        for helpers in [0, 1, 3, 40] {
            let squares = map_on(helpers, (0..50_usize).collect(), |i| i * i);
            assert!(squares.into_iter().eq((0..50).map(|i| i * i)), "{helpers} threads");
        }
    }

    #[test]
    fn both_are_called() {
        let mut values = [1, 2];
        let [a, b] = &mut values;
        assert_eq!(both(|| std::mem::replace(a, 3), || std::mem::replace(b, 4)), (1, 2));
        assert_eq!(values, [3, 4]);
        let panics = |fails: bool| std::panic::catch_unwind(|| both(|| assert!(!fails, "a test of panics"), || ()));
        assert!(panics(true).is_err() && panics(false).is_ok());
    }

    #[test]
    fn a_panic_is_passed_on() {
        for bad in [0, 7, 49] {
            let call = || map_on(3, (0..50_usize).collect(), |i| assert!(i != bad, "a test of panics"));
            assert!(std::panic::catch_unwind(call).is_err(), "{bad}");
        }
    }

    #[test]
    fn chunks_are_filled_and_the_first_error_is_returned() {
        for (len, min_len) in [(0, 1), (1, 1), (1000, 1), (1000, 400), (77, 100)] {
            let mut out = vec![0; len];
            let number = |begin: usize, part: &mut [usize]| {
                part.iter_mut().enumerate().for_each(|(i, value)| *value = begin + i);
                Ok::<_, usize>(())
            };
            assert_eq!(fill_chunks(&mut out, min_len, number), Ok(()));
            assert!(out.iter().copied().eq(0..len));
        }
        let fail = |begin: usize, part: &mut [u8]| {
            let wrong = [10, 990].into_iter().find(|at| (begin..begin + part.len()).contains(at));
            wrong.map_or(Ok(()), Err)
        };
        assert_eq!(fill_chunks(&mut [0; 1000], 1, fail), Err(10));
    }

    #[test]
    fn chunks_are_whole_units_in_order() {
        for (len, unit, min_len) in [(0, 1, 1), (1, 32, 1), (1000, 32, 1), (1024, 32, 512), (77, 1, 0)] {
            let made = map_chunks(len, unit, min_len, |range| range.sum::<usize>());
            let mut end = 0;
            for (i, (range, sum)) in made.iter().enumerate() {
                assert!(range.start == end && range.start.is_multiple_of(unit), "{made:?}");
                assert!(range.len() >= min_len || i + 1 == made.len(), "{made:?}");
                assert_eq!(*sum, range.clone().sum::<usize>());
                end = range.end;
            }
            assert_eq!(end, len);
        }
    }
}
