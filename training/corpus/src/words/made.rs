//! Pronounceable made-up words, too many for a model to memorize.

use crate::random::Random;

const STARTS: &[&str] = &[
    "b", "br", "c", "ch", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "pl", "qu", "r",
    "s", "sh", "sl", "st", "t", "th", "tr", "v", "w", "y", "z",
];
const MIDDLES: &[&str] = &["a", "e", "i", "o", "u", "ai", "ea", "oo", "ou"];
const ENDS: &[&str] = &["", "", "", "b", "ck", "d", "ft", "g", "l", "m", "n", "nd", "p", "r", "s", "sk", "t", "x"];

/// Minimum letters of a word in a puzzle. A shorter one leaves nothing to edit.
pub(crate) const SHORTEST: usize = 3;
/// Maximum letters of a word in a puzzle.
pub(crate) const LONGEST: usize = 10;

/// A word of one to three syllables.
pub(crate) fn made_word(random: &mut Random) -> String {
    loop {
        let syllables = random.pick(&[1, 2, 2, 2, 3]);
        let mut word = String::new();
        for _ in 0..syllables {
            for list in [STARTS, MIDDLES, ENDS] {
                word.push_str(random.pick(list));
            }
        }
        if (SHORTEST..=LONGEST).contains(&word.len()) {
            return word;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn made_words_are_plentiful_and_of_fair_length() {
        let mut random = Random::stream(5, "made", 0);
        let words: HashSet<String> = (0..20_000).map(|_| made_word(&mut random)).collect();
        assert!(words.len() > 12_000, "{}", words.len());
        for word in &words {
            assert!((SHORTEST..=LONGEST).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()), "{word}");
            assert!(word.contains(['a', 'e', 'i', 'o', 'u']), "{word}");
        }
    }
}
