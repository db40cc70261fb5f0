//! Parallel work on the host, divided into one chunk per core.

use std::ops::Range;

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
    std::thread::scope(|scope| {
        let work = &work;
        let spawn = |begin: usize| {
            let range = begin..len.min(begin + chunk);
            (range.clone(), scope.spawn(move || work(range)))
        };
        let running: Vec<_> = (0..len).step_by(chunk).map(spawn).collect();
        let join = |(range, thread): (_, std::thread::ScopedJoinHandle<'_, R>)| {
            (range, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        running.into_iter().map(join).collect()
    })
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
    std::thread::scope(|scope| {
        let work = &work;
        let chunks = out.chunks_mut(chunk).enumerate();
        let running: Vec<_> = chunks.map(|(i, part)| scope.spawn(move || work(i * chunk, part))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), E>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All threads are joined, even if the first one fails.
        let results: Vec<_> = running.into_iter().map(join).collect();
        results.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
