//! Stop strings over a stream of bytes.

use crate::error::{Error, Result};

/// How many stop strings one matcher takes.
pub const MAX_STOPS: usize = 64;
/// How many bytes a stop string may have.
pub const MAX_STOP_BYTES: usize = 4096;

/// What one byte led to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StopStep {
    /// Bytes that can no longer be part of a stop string, in order.
    pub released: Vec<u8>,
    /// The index of the stop string that ended at this byte, if one did.
    pub matched: Option<usize>,
}

/// Finds the first of several byte strings in a stream and keeps it out of what is passed on.
///
/// Bytes that may be the beginning of a stop string are held back until that is decided. The match that ends first
/// wins, and of those that end at the same byte the longest one: with `bc` and `abcd`, `abc` is a match of `bc` that
/// releases `a`.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// The longest end of the stream that is a beginning of some stop string.
    held: Vec<u8>,
}

/// One stop string and how much of it the stream ends with, after Knuth, Morris and Pratt.
#[derive(Debug, Clone)]
struct Stop {
    bytes: Vec<u8>,
    /// For each prefix (by its length less one) the length of its longest proper prefix that is also its suffix.
    borders: Vec<u16>,
    matched: usize,
}

impl Stop {
    fn new(bytes: Vec<u8>) -> Self {
        let mut stop = Self { borders: Vec::with_capacity(bytes.len()), bytes, matched: 0 };
        stop.borders.push(0);
        // The borders of the whole string come from matching the string with itself, one byte late.
        for i in 1..stop.bytes.len() {
            stop.push(stop.bytes[i]);
            // Fits: at most MAX_STOP_BYTES.
            stop.borders.push(stop.matched as u16);
        }
        stop.matched = 0;
        stop
    }

    /// Advances by a byte; `matched` must be less than the length.
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
    /// A matcher for these stop strings; with none of them every byte passes at once.
    ///
    /// # Errors
    /// More than [`MAX_STOPS`] strings, an empty one, or one of more than [`MAX_STOP_BYTES`] bytes.
    pub fn new(stops: Vec<Vec<u8>>) -> Result<Self> {
        if stops.len() > MAX_STOPS {
            let found = stops.len();
            return Err(Error::invalid(format!("stop strings: expected at most {MAX_STOPS}, found {found}")));
        }
        for (index, stop) in stops.iter().enumerate() {
            if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
                let found = stop.len();
                return Err(Error::invalid(format!(
                    "stop string {index}: expected 1 to {MAX_STOP_BYTES} bytes, found {found}"
                )));
            }
        }
        Ok(Self { stops: stops.into_iter().map(Stop::new).collect(), held: Vec::new() })
    }

    /// Takes the next byte of the stream. After a match the matcher is as new.
    pub fn push(&mut self, byte: u8) -> StopStep {
        self.held.push(byte);
        for stop in &mut self.stops {
            stop.push(byte);
        }
        let complete = self.stops.iter().enumerate().filter(|(_, stop)| stop.is_complete());
        // Of equal strings the first one is named.
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

    /// Ends the stream: releases what is held back. The matcher is as new.
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

    /// What passes up to the first match, that match, and how many bytes were read.
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
    fn holds_back_only_what_may_become_a_stop() {
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
    fn a_beginning_at_the_end_is_released_by_flush() {
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

    /// The definition: the shortest beginning of the stream that ends with a stop string, without the longest such.
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
            // Each round goes on after the match of the one before: the matcher must be as new.
            while !rest.is_empty() {
                let (passed, matched, read) = run(&mut matcher, rest);
                prop_assert_eq!((passed, matched.is_some(), read), naive(&stops, rest));
                rest = &rest[read..];
            }
        }

        #[test]
        fn never_holds_more_than_it_must(
            stops in prop::collection::vec(prop::collection::vec(b'a'..=b'b', 1..6), 0..4),
            stream in prop::collection::vec(b'a'..=b'b', 0..30),
        ) {
            let mut matcher = StopMatcher::new(stops.clone()).unwrap();
            for i in 0..stream.len() {
                if matcher.push(stream[i]).matched.is_some() {
                    break;
                }
                let seen = &stream[..=i];
                let must = (0..=seen.len()).rev().find(|&n| stops.iter().any(|s| s.starts_with(&seen[seen.len() - n..])));
                prop_assert_eq!(matcher.held.len(), must.unwrap_or(0));
            }
        }
    }
}
