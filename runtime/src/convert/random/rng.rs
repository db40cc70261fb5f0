//! Counter-based random numbers: element `i` of a stream depends only on the stream and `i`.
//!
//! Weights therefore don't depend on the order, the chunks and the type in which they are written. A number costs one
//! 64-bit mix.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The increment of splitmix64. It is odd, so that its multiples visit every state.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// An infinite sequence of random words with random access.
#[derive(Clone, Copy)]
pub struct Stream {
    start: u64,
}

impl Stream {
    /// Creates the stream `name` of a seed.
    pub fn new(seed: u64, name: &str) -> Self {
        Stream { start: mix(xxh3_64_with_seed(name.as_bytes(), mix(seed.wrapping_add(GOLDEN)))) }
    }

    /// Returns word `index`, which is a word of the splitmix64 sequence.
    pub fn word(self, index: u64) -> u64 {
        mix(self.start.wrapping_add(index.wrapping_mul(GOLDEN)))
    }

    /// Fills `out` with the numbers from `first` on of a bell-shaped distribution with mean 0 and this deviation.
    ///
    /// A number is the sum of the four 16-bit parts of a word: the Irwin-Hall distribution of order 4, which is close
    /// to the normal distribution and ends at 3.46 deviations. Sums and differences are exact, so every platform gives
    /// the same bits.
    pub fn fill_bell(self, first: u64, deviation: f64, out: &mut [f32]) {
        // The sum of four uniform integers in 0..65536 has the mean 4 * 65535 / 2 and the variance
        // 4 * (65536^2 - 1) / 12.
        const MEAN: i32 = 2 * 65_535;
        let scale = (deviation / ((65_536.0f64 * 65_536.0 - 1.0) / 3.0).sqrt()) as f32;
        let mut state = self.start.wrapping_add(first.wrapping_mul(GOLDEN));
        for x in out {
            let word = mix(state);
            state = state.wrapping_add(GOLDEN);
            // Adds the parts in pairs within the word: each 32-bit half holds the sum of two 16-bit numbers.
            let pairs = (word & 0x0000_ffff_0000_ffff) + ((word >> 16) & 0x0000_ffff_0000_ffff);
            let sum = (pairs as u32).wrapping_add((pairs >> 32) as u32);
            *x = (sum as i32 - MEAN) as f32 * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_of_splitmix64() {
        // The published sequence of seed 0, whose first word is mix(GOLDEN).
        let stream = Stream { start: GOLDEN };
        assert_eq!(stream.word(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(stream.word(1), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn chunks_equal_the_whole() {
        let stream = Stream::new(7, "weight");
        let (mut whole, mut chunks) = (vec![0.0; 1000], vec![0.0; 1000]);
        stream.fill_bell(0, 0.5, &mut whole);
        let (left, right) = chunks.split_at_mut(123);
        stream.fill_bell(0, 0.5, left);
        stream.fill_bell(123, 0.5, right);
        assert_eq!(whole, chunks);
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut x = vec![0.0; 200_000];
        Stream::new(1, "a").fill_bell(0, 2.0, &mut x);
        let mean = |power: i32| x.iter().map(|&x| f64::from(x / 2.0).powi(power)).sum::<f64>() / x.len() as f64;
        assert!(mean(1).abs() < 0.01, "{}", mean(1));
        assert!((mean(2) - 1.0).abs() < 0.01, "{}", mean(2));
        assert!(mean(3).abs() < 0.03, "{}", mean(3));
        // The fourth moment is 3 for a normal distribution and 2.7 for this one.
        assert!((mean(4) - 2.7).abs() < 0.05, "{}", mean(4));
        assert!(x.iter().all(|x| x.abs() <= 2.0 * 3.47));
    }

    #[test]
    fn numbers_depend_on_name_and_seed() {
        let word = |seed, name| Stream::new(seed, name).word(0);
        assert_ne!(word(0, "a"), word(0, "b"));
        assert_ne!(word(0, "a"), word(1, "a"));
    }
}
