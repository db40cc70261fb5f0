//! A hash that is the same in all versions and on all machines, since the assignment of words and documents depends on
//! it.

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Incremental 64-bit FNV-1a.
#[derive(Clone, Copy)]
pub(crate) struct Hash(u64);

impl Hash {
    /// Creates the hash of no bytes.
    pub(crate) fn new() -> Self {
        Hash(OFFSET)
    }

    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }

    /// The hash value, as in a manifest.
    pub(crate) fn sum(self) -> u64 {
        self.0
    }
}

/// Assigns `text` to one of `classes`, independently for every `purpose`.
///
/// The low bits of the hash depend too much on the last bytes, so the hash is mixed first.
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
    fn the_hash_of_parts_is_that_of_the_whole() {
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
        // Each is close to 1000; five standard deviations are about 150.
        assert!(counts.iter().all(|&count| count.abs_diff(1000) < 150), "{counts:?}");
        assert!(same.abs_diff(1000) < 150, "{same}");
    }
}
