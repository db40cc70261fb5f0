//! Sources of subword ids: lists in memory and files.

use std::ops::Range;

use bolmo_runtime::Result;

use super::TokenFile;

/// Maximum number of spans of whole documents that a source is divided into, so that some of them can be held out.
const MAX_SPANS: u64 = 1024;
/// Ids that are searched at a time for the end of a document.
const BLOCK: u64 = 1 << 14;

/// A source of ids.
pub(super) enum Source {
    Memory(Vec<u32>),
    File(TokenFile),
}

/// A range of the ids of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    /// Number of the source.
    pub(super) source: usize,
    pub(super) range: Range<u64>,
}

impl Span {
    /// Number of ids.
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

impl Source {
    /// Number of ids.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(ids) => ids.len() as u64,
            Self::File(file) => file.len(),
        }
    }

    /// Appends the ids of a range to `out`.
    pub(super) fn read(&self, range: Range<u64>, out: &mut Vec<u32>) -> Result<()> {
        match self {
            Self::Memory(ids) => {
                // A range of a list in memory fits a usize.
                out.extend_from_slice(&ids[range.start as usize..range.end as usize]);
                Ok(())
            }
            Self::File(file) => file.read(range, out),
        }
    }

    /// Divides the source into ranges of whole documents. Each has about a 1024th of the ids, or one longer document.
    pub(super) fn document_ranges(&self, eos: u32, mut found: impl FnMut(Range<u64>)) -> Result<()> {
        let len = self.len();
        let mut start = 0;
        while start < len {
            let end = self.document_end(eos, start + len.div_ceil(MAX_SPANS) - 1)?;
            found(start..end);
            start = end;
        }
        Ok(())
    }

    /// The position after the first end of text at or after `from`, or the end of the source.
    fn document_end(&self, eos: u32, mut from: u64) -> Result<u64> {
        let len = self.len();
        let mut block = Vec::new();
        while from < len {
            let until = len.min(from.saturating_add(BLOCK));
            block.clear();
            self.read(from..until, &mut block)?;
            if let Some(at) = block.iter().position(|&id| id == eos) {
                return Ok(from + at as u64 + 1);
            }
            from = until;
        }
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EOS: u32 = 9;

    #[test]
    fn sources_are_divided_only_between_documents() {
        let mut ids = Vec::new();
        for (document, length) in (0..5000).map(|i| i % 13).enumerate() {
            ids.extend(std::iter::repeat_n(100 + document as u32, length));
            ids.push(EOS);
        }
        let source = Source::Memory(ids.clone());
        let (mut at, mut count) = (0, 0);
        let found = |range: Range<u64>| {
            assert_eq!(range.start, at);
            assert_eq!(ids[range.end as usize - 1], EOS);
            (at, count) = (range.end, count + 1);
        };
        source.document_ranges(EOS, found).unwrap();
        assert_eq!(at, ids.len() as u64);
        assert!((500..=MAX_SPANS).contains(&count), "{count}");
    }
}
