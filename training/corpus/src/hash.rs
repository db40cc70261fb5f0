//! A hash that stays the same over versions, machines and builds: what a word or a document is for hangs on it.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a of 64 bits, over as many pieces as come.
#[derive(Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    /// A hash of nothing yet.
    pub(crate) fn new() -> Self {
        Hash(OFFSET)
    }

    /// Takes in `bytes`.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }

    /// The plain sum, which is what a manifest states.
    pub(crate) fn sum(self) -> u64 {
        self.0
    }
}

/// One of `classes` for `text`, different for every `purpose`.
///
/// The low bits of the plain sum follow the last bytes too closely to be divided, so that the sum is stirred first.
pub(crate) fn class(purpose: &str, text: &str, classes: u64) -> u64 {
    let mut hash = Hash::new();
    hash.add(purpose.as_bytes());
    hash.add(&[0]);
    hash.add(text.as_bytes());
    let mut sum = hash.sum();
    for _ in 0..2 {
        sum = (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    (sum >> 32) % classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_takes_pieces_like_the_whole() {
        let mut pieces = Hash::new();
        pieces.add(b"two ");
        pieces.add(b"pieces");
        let mut whole = Hash::new();
        whole.add(b"two pieces");
        assert_eq!(pieces.sum(), whole.sum());
        // The published value for one letter.
        let mut letter = Hash::new();
        letter.add(b"a");
        assert_eq!(letter.sum(), 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn classes_are_even_and_differ_by_purpose() {
        let mut counts = [0usize; 8];
        let mut same = 0;
        for number in 0..8000 {
            let text = format!("text {number}");
            let one = class("one", &text, 8);
            counts[one as usize] += 1;
            same += usize::from(one == class("two", &text, 8));
        }
        // Each is near a thousand; five deviations are about 150.
        assert!(counts.iter().all(|&count| count.abs_diff(1000) < 150), "{counts:?}");
        assert!(same.abs_diff(1000) < 150, "{same}");
    }
}
