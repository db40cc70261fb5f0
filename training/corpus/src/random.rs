//! Random choices from a seed, the name of a stream and an index.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::hash::Hash;

/// A stream of choices.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// Creates the stream `name` of `seed` at `index`. Streams with other names or indices are independent.
    pub(crate) fn stream(seed: u64, name: &str, index: u64) -> Self {
        let mut hash = Hash::new();
        hash.add(name.as_bytes());
        let mut key = [0; 32];
        for (part, value) in key.chunks_exact_mut(8).zip([seed, hash.sum(), index]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        Random(ChaCha8Rng::from_seed(key))
    }

    /// A number below `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The upper half of the product is close to uniform, since `end` is far below 2^32.
        ((u64::from(self.0.next_u32()) * end as u64) >> 32) as usize
    }

    /// A number from `low` to `high`, inclusive.
    pub(crate) fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True with the probability `part / whole`.
    pub(crate) fn chance(&mut self, part: usize, whole: usize) -> bool {
        self.below(whole) < part
    }

    /// An element of `list`, which is not empty.
    pub(crate) fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(mut random: Random) -> Vec<usize> {
        (0..20).map(|_| random.below(1000)).collect()
    }

    #[test]
    fn streams_differ_by_seed_name_and_index() {
        let first = some(Random::stream(1, "a", 1));
        assert_eq!(first, some(Random::stream(1, "a", 1)));
        for other in [Random::stream(2, "a", 1), Random::stream(1, "b", 1), Random::stream(1, "a", 2)] {
            assert_ne!(first, some(other));
        }
    }

    #[test]
    fn choices_reach_both_ends_and_stay_in_range() {
        let mut random = Random::stream(3, "ends", 0);
        let drawn: Vec<usize> = (0..300).map(|_| random.between(4, 9)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&4), Some(&9)));
        assert!(!random.chance(0, 5) && random.chance(5, 5));
    }
}
