//! Search for stop strings in a stream of bytes.

use crate::error::{Error, Result};

/// Maximum number of stop strings per matcher.
pub const MAX_STOPS: usize = 64;
/// Maximum length of a stop string in bytes.
pub const MAX_STOP_BYTES: usize = 4096;

/// The result of one byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopStep {
    /// Bytes that can no longer become part of a stop string, in order.
    pub released: Vec<u8>,
    /// The index of the stop string that ended at this byte, if one did.
    pub matched: Option<usize>,
}

/// A matcher that finds the first of several stop strings in a stream and removes it from the output.
///
/// Bytes that may begin a stop string are held back until that is decided. The match that ends first wins; among
/// matches that end at the same byte, the longest wins. With the stop strings `bc` and `abcd`, the input `abc` matches
/// `bc` and releases `a`.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// The longest suffix of the stream that is a prefix of some stop string.
    held: Vec<u8>,
}

/// One stop string and the state of its Knuth-Morris-Pratt search.
#[derive(Debug, Clone)]
struct Stop {
    bytes: Vec<u8>,
    /// For each prefix, at its length minus 1, the length of its longest border (a proper prefix that is also a
    /// suffix).
    borders: Vec<u16>,
    /// Length of the longest prefix that the stream ends with.
    matched: usize,
}

impl Stop {
    fn new(bytes: Vec<u8>) -> Self {
        let mut stop = Self { borders: Vec::with_capacity(bytes.len()), bytes, matched: 0 };
        stop.borders.push(0);
        // Matching the string against itself, delayed by one byte, gives its borders.
        for i in 1..stop.bytes.len() {
            stop.push(stop.bytes[i]);
            // Fits: at most MAX_STOP_BYTES.
            stop.borders.push(stop.matched as u16);
        }
        stop.matched = 0;
        stop
    }

    /// Advances by one byte; the string must not be complete.
    fn push(&mut self, byte: u8) {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = usize::from(self.borders[self.matched - 1]);
        }
        if self.bytes[self.matched] == byte {
            self.matched += 1;
        }
    }

    fn is_complete(&self) -> bool {
        self.matched == self.bytes.len()
    }
}

impl StopMatcher {
    /// Creates a matcher for these stop strings. Without any, every byte is released at once.
    ///
    /// # Errors
    /// `InvalidArgument` for more than 64 strings, an empty string, or one of more than 4096
    /// bytes.
    pub fn new(stops: Vec<Vec<u8>>) -> Result<Self> {
        if stops.len() > MAX_STOPS {
            let found = stops.len();
            return Err(Error::invalid(format!(
                "stop strings: expected at most {MAX_STOPS}, found {found}; leave some out"
            )));
        }
        for (index, stop) in stops.iter().enumerate() {
            if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
                let found = stop.len();
                let advice = if stop.is_empty() { "leave it out" } else { "shorten it" };
                return Err(Error::invalid(format!(
                    "stop string {index} (the first is 0): expected 1 to {MAX_STOP_BYTES} bytes, found {found}; \
                     {advice}"
                )));
            }
        }
        Ok(Self { stops: stops.into_iter().map(Stop::new).collect(), held: Vec::new() })
    }

    /// Takes the next byte of the stream. A match resets the matcher.
    pub fn push(&mut self, byte: u8) -> StopStep {
        self.held.push(byte);
        for stop in &mut self.stops {
            stop.push(byte);
        }
        let complete = self.stops.iter().enumerate().filter(|(_, stop)| stop.is_complete());
        // Of equal strings, the first one is reported.
        let longest = complete.max_by_key(|(index, stop)| (stop.bytes.len(), std::cmp::Reverse(*index)));
        if let Some((index, stop)) = longest {
            let mut released = std::mem::take(&mut self.held);
            released.truncate(released.len() - stop.bytes.len());
            self.reset();
            return StopStep { released, matched: Some(index) };
        }
        let keep = self.stops.iter().map(|stop| stop.matched).max().unwrap_or(0);
        StopStep { released: self.held.drain(..self.held.len() - keep).collect(), matched: None }
    }

    /// Ends the stream: releases the bytes held back and resets the matcher.
    pub fn flush(&mut self) -> Vec<u8> {
        self.reset();
        std::mem::take(&mut self.held)
    }

    fn reset(&mut self) {
        for stop in &mut self.stops {
            stop.matched = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matcher(stops: &[&str]) -> StopMatcher {
        StopMatcher::new(stops.iter().map(|stop| stop.as_bytes().to_vec()).collect()).unwrap()
    }

    /// Returns the output before the first match, that match, and the number of bytes read.
    fn run(matcher: &mut StopMatcher, stream: &[u8]) -> (Vec<u8>, Option<usize>, usize) {
        let mut passed = Vec::new();
        for (i, &byte) in stream.iter().enumerate() {
            let step = matcher.push(byte);
            passed.extend(step.released);
            if step.matched.is_some() {
                return (passed, step.matched, i + 1);
            }
        }
        passed.extend(matcher.flush());
        (passed, None, stream.len())
    }

    #[test]
    fn only_possible_stop_strings_are_held_back() {
        let mut matcher = matcher(&["\n\n"]);
        assert_eq!(matcher.push(b'a'), StopStep { released: b"a".to_vec(), matched: None });
        assert_eq!(matcher.push(b'\n'), StopStep::default());
        assert_eq!(matcher.push(b'b'), StopStep { released: b"\nb".to_vec(), matched: None });
        assert_eq!(matcher.push(b'\n'), StopStep::default());
        assert_eq!(matcher.push(b'\n'), StopStep { released: vec![], matched: Some(0) });
        assert!(matcher.flush().is_empty());
    }

    #[test]
    fn the_earliest_end_wins_then_the_longest() {
        assert_eq!(run(&mut matcher(&["abcd", "bc"]), b"xabcd"), (b"xa".to_vec(), Some(1), 4));
        assert_eq!(run(&mut matcher(&["c", "abc", "bc"]), b"xabc"), (b"x".to_vec(), Some(1), 4));
        assert_eq!(run(&mut matcher(&["ab", "ab"]), b"ab"), (vec![], Some(0), 2));
        assert_eq!(run(&mut matcher(&["aab"]), b"aaab"), (b"a".to_vec(), Some(0), 4));
    }

    #[test]
    fn a_prefix_at_the_end_is_released_by_flush() {
        let mut matcher = matcher(&["stop"]);
        assert_eq!(run(&mut matcher, b"it is sto"), (b"it is sto".to_vec(), None, 9));
        assert_eq!(run(&mut matcher, b"p"), (b"p".to_vec(), None, 1));
        assert_eq!(run(&mut matcher, b"stop"), (vec![], Some(0), 4));
    }

    #[test]
    fn limits_are_errors() {
        assert!(StopMatcher::new(vec![b"a".to_vec(), vec![]]).unwrap_err().message().contains("stop string 1"));
        assert!(StopMatcher::new(vec![vec![b'a'; MAX_STOP_BYTES + 1]]).unwrap_err().message().contains("found 4097"));
        assert!(StopMatcher::new(vec![b"a".to_vec(); MAX_STOPS + 1]).unwrap_err().message().contains("found 65"));
        let mut longest = StopMatcher::new(vec![vec![b'a'; MAX_STOP_BYTES]; MAX_STOPS]).unwrap();
        assert_eq!(run(&mut longest, &[b'a'; MAX_STOP_BYTES]), (vec![], Some(0), MAX_STOP_BYTES));
    }

    /// The definition: the shortest prefix of the stream that ends with a stop string, without the longest such string.
    fn naive(stops: &[Vec<u8>], stream: &[u8]) -> (Vec<u8>, bool, usize) {
        for end in 1..=stream.len() {
            if let Some(n) = stops.iter().filter(|s| stream[..end].ends_with(s)).map(Vec::len).max() {
                return (stream[..end - n].to_vec(), true, end);
            }
        }
        (stream.to_vec(), false, stream.len())
    }

    proptest! {
        #[test]
        fn equals_a_naive_search(
            stops in prop::collection::vec(prop::collection::vec(b'a'..=b'c', 1..6), 0..5),
            stream in prop::collection::vec(b'a'..=b'c', 0..60),
        ) {
            let mut matcher = StopMatcher::new(stops.clone()).unwrap();
            let mut rest = stream.as_slice();
            // Each round continues after the previous match, which must have reset the matcher.
            while !rest.is_empty() {
                let (passed, matched, read) = run(&mut matcher, rest);
                prop_assert_eq!((passed, matched.is_some(), read), naive(&stops, rest));
                rest = &rest[read..];
            }
        }

        #[test]
        fn holds_back_no_more_than_necessary(
            stops in prop::collection::vec(prop::collection::vec(b'a'..=b'b', 1..6), 0..4),
            stream in prop::collection::vec(b'a'..=b'b', 0..30),
        ) {
            let mut matcher = StopMatcher::new(stops.clone()).unwrap();
            for i in 0..stream.len() {
                if matcher.push(stream[i]).matched.is_some() {
                    break;
                }
                let seen = &stream[..=i];
                let is_prefix = |end: &[u8]| stops.iter().any(|stop| stop.starts_with(end));
                let must = (0..=seen.len()).rev().find(|&n| is_prefix(&seen[seen.len() - n..]));
                prop_assert_eq!(matcher.held.len(), must.unwrap_or(0));
            }
        }
    }
}
