//! Random choices from a seed, the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Purpose of a generator. Each has its own streams, so that none depends on how often another was used.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Order of rows, one stream per epoch.
    Order,
    /// Choice of held-out documents.
    HeldOut,
    /// Choice between merges, one stream for each row of each step.
    Merges,
}

/// Creates generator number `index` of a purpose.
pub(super) fn generator(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(((purpose as u64) << 60) | (index & ((1 << 60) - 1)));
    generator
}

/// A uniform number below `n`; 0 if `n` is 0.
pub(super) fn below(generator: &mut ChaCha8Rng, n: usize) -> usize {
    let n = n as u64;
    // The upper half of the product is the number. Products whose lower half would bias it are drawn again.
    let unfair = n.wrapping_neg().checked_rem(n).unwrap_or(0);
    loop {
        let product = u128::from(generator.next_u64()) * u128::from(n);
        if product as u64 >= unfair {
            return (product >> 64) as usize;
        }
    }
}

/// The numbers below `n` in random order.
pub(super) fn shuffled(generator: &mut ChaCha8Rng, n: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, below(generator, i + 1));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_uniform() {
        let mut generator = generator(3, Purpose::Merges, 0);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut generator, 7)] += 1;
        }
        // Five standard deviations of a binomial distribution with 70 000 draws.
        assert!(counts.iter().all(|&n| n.abs_diff(10_000) < 463), "{counts:?}");
        assert_eq!(below(&mut generator, 1), 0);
        assert_eq!(below(&mut generator, 0), 0);
    }

    #[test]
    fn each_stream_is_a_permutation_of_its_own() {
        let order = |seed, index| shuffled(&mut generator(seed, Purpose::Order, index), 1000);
        let mut sorted = order(1, 0);
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        assert!(shuffled(&mut generator(1, Purpose::HeldOut, 0), 0).is_empty());
    }
}
