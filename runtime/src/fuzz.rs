//! Random cases for tests: a fixed number of them, each with a seed of its own.

use std::ops::Range;

/// A xorshift generator.
pub(crate) struct Random(u64);

impl Random {
    /// A generator with a seed other than 0.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A random number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }
}

/// One random case. A test that fails during the case prints its number and its seed.
pub(crate) struct Case {
    number: u64,
    pub(crate) seed: u64,
    pub(crate) random: Random,
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed in random case {} with seed {:#018x}", self.number, self.seed);
        }
    }
}

/// The random cases of a test: `count` of them, which take about a second, times `BOLMO_FUZZ_FACTOR` if that is set.
/// They are the same in every run.
pub(crate) fn cases(test_seed: u64, count: u64) -> impl Iterator<Item = Case> {
    let factor = std::env::var("BOLMO_FUZZ_FACTOR").ok().map_or(1, |text| {
        text.parse().unwrap_or_else(|_| panic!("BOLMO_FUZZ_FACTOR: expected a whole number, found {text:?}"))
    });
    cases_of(test_seed, 0..count.saturating_mul(factor))
}

fn cases_of(test_seed: u64, numbers: Range<u64>) -> impl Iterator<Item = Case> {
    numbers.map(move |number| {
        let seed = mix(test_seed.wrapping_add(number)).max(1);
        Case { number, seed, random: Random::new(seed) }
    })
}

/// The output function of SplitMix64, so that seeds in sequence give unrelated cases.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn cases_are_the_same_in_every_run_and_differ_from_each_other() {
    let seeds = |numbers| cases_of(7, numbers).map(|case| case.seed).collect::<Vec<_>>();
    let all = seeds(0..100);
    assert_eq!(all[40..60], seeds(40..60));
    assert_eq!(std::collections::HashSet::<&u64>::from_iter(&all).len(), 100);
    let draws: Vec<usize> = cases_of(7, 0..100).map(|mut case| case.random.below(1000)).collect();
    assert!(std::collections::HashSet::<&usize>::from_iter(&draws).len() > 80, "{draws:?}");
}
