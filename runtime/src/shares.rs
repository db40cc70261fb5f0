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
    // An error where there are no threads, as in browsers.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let share = len.div_ceil(cores).max(least).max(1).next_multiple_of(unit);
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

#[cfg(test)]
mod tests {
    use super::*;

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
