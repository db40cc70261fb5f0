//! Work on the host that is divided among the cores.

use std::ops::Range;

/// Does `work` on ranges that together are `0..len`, by as many threads as there are cores: ranges begin at multiples of `unit` and are of
/// `least` at least, but for the last one. What comes of each, in their order.
pub fn by_shares<R: Send>(
    len: usize,
    unit: usize,
    least: usize,
    work: impl Fn(Range<usize>) -> R + Sync,
) -> Vec<(Range<usize>, R)> {
    let share = share(len, unit, least);
    if share >= len {
        return vec![(0..len, work(0..len))];
    }
    std::thread::scope(|scope| {
        let work = &work;
        let spawn = |begin: usize| {
            let range = begin..len.min(begin + share);
            (range.clone(), scope.spawn(move || work(range)))
        };
        let running: Vec<_> = (0..len).step_by(share).map(spawn).collect();
        let join = |(range, thread): (_, std::thread::ScopedJoinHandle<'_, R>)| {
            (range, thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        };
        running.into_iter().map(join).collect()
    })
}

/// How much of `len` each core gets.
fn share(len: usize, unit: usize, least: usize) -> usize {
    // An error where there are no threads, as in browsers.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    len.div_ceil(cores).max(least).max(1).next_multiple_of(unit)
}

/// Lets `work` fill parts of `out`, by as many threads as there are cores: it is told where its part begins, and parts are of `least` at least, but
/// for the last one. The error of the first part that has one.
pub fn fill_by_shares<T: Send, E: Send>(
    out: &mut [T],
    least: usize,
    work: impl Fn(usize, &mut [T]) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let share = share(out.len(), 1, least);
    if share >= out.len() {
        return work(0, out);
    }
    std::thread::scope(|scope| {
        let work = &work;
        let parts = out.chunks_mut(share).enumerate();
        let running: Vec<_> = parts.map(|(i, part)| scope.spawn(move || work(i * share, part))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<(), E>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All are waited for, whatever comes of the first.
        let ended: Vec<_> = running.into_iter().map(join).collect();
        ended.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_and_the_first_error_is_told() {
        for (len, least) in [(0, 1), (1, 1), (1000, 1), (1000, 400), (77, 100)] {
            let mut out = vec![0; len];
            let number = |begin: usize, part: &mut [usize]| {
                part.iter_mut().enumerate().for_each(|(i, value)| *value = begin + i);
                Ok::<_, usize>(())
            };
            assert_eq!(fill_by_shares(&mut out, least, number), Ok(()));
            assert!(out.iter().copied().eq(0..len));
        }
        let fail = |begin: usize, part: &mut [u8]| {
            let wrong = [10, 990].into_iter().find(|at| (begin..begin + part.len()).contains(at));
            wrong.map_or(Ok(()), Err)
        };
        assert_eq!(fill_by_shares(&mut [0; 1000], 1, fail), Err(10));
    }

    #[test]
    fn shares_are_whole_units_in_order() {
        for (len, unit, least) in [(0, 1, 1), (1, 32, 1), (1000, 32, 1), (1024, 32, 512), (77, 1, 0)] {
            let made = by_shares(len, unit, least, |range| range.sum::<usize>());
            let mut end = 0;
            for (i, (range, sum)) in made.iter().enumerate() {
                assert!(range.start == end && range.start.is_multiple_of(unit), "{made:?}");
                assert!(range.len() >= least || i + 1 == made.len(), "{made:?}");
                assert_eq!(*sum, range.clone().sum::<usize>());
                end = range.end;
            }
            assert_eq!(end, len);
        }
    }
}
