//! Rows of equal length in an order that depends on the seed and the epoch, with a position that can be saved.

use std::sync::Arc;

use bolmo_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::random::{Purpose, generator, shuffled};
use super::sources::{Source, Span};

/// A span, and the number of ids before it in the same part of the corpus.
pub(super) struct Segment {
    span: Span,
    before: u64,
}

impl Segment {
    /// Concatenates spans.
    pub(super) fn line_up(spans: Vec<Span>) -> Vec<Self> {
        let mut before = 0;
        let spans = spans.into_iter().filter(|span| !span.range.is_empty());
        spans
            .map(|span| {
                let segment = Self { before, span };
                before = segment.end();
                segment
            })
            .collect()
    }

    fn end(&self) -> u64 {
        self.before + self.span.len()
    }
}

/// Position in a [`Dataset`], saved with a training run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Number of completed epochs.
    pub epoch: u64,
    /// Number of rows of this epoch that were read.
    pub row: u64,
    /// Number of rows, which must match on restore.
    pub rows: u64,
    /// Subwords of a row, which must match on restore.
    pub patches: usize,
    /// Seed, which must match on restore.
    pub seed: u64,
}

/// Rows of subword ids: slices of a corpus of equal length, shuffled in each epoch.
pub struct Dataset {
    sources: Arc<[Source]>,
    segments: Vec<Segment>,
    patches: usize,
    seed: u64,
    epoch: u64,
    row: usize,
    /// Order of the rows in this epoch.
    order: Vec<u32>,
}

impl Dataset {
    pub(super) fn new(sources: Arc<[Source]>, segments: Vec<Segment>, patches: usize, seed: u64) -> Result<Self> {
        if patches == 0 {
            return Err(Error::invalid("a row must have at least one subword, found 0"));
        }
        let ids = segments.last().map_or(0, Segment::end);
        let rows = match ids / patches as u64 {
            0 => {
                return Err(Error::invalid(format!(
                    "expected at least {patches} ids, which make a row, found {ids}; add text, or use shorter rows"
                )));
            }
            rows => u32::try_from(rows).map_err(|_| {
                Error::unsupported(format!("expected at most {} rows, found {rows}; use longer rows", u32::MAX))
            })?,
        };
        Ok(Self { sources, segments, patches, seed, epoch: 0, row: 0, order: order(seed, 0, rows) })
    }

    /// Number of rows.
    #[allow(clippy::len_without_is_empty)] // There is always at least one row.
    pub fn len(&self) -> u64 {
        self.order.len() as u64
    }

    /// Subwords of a row.
    pub fn patches(&self) -> usize {
        self.patches
    }

    /// Row number `index` in the order of the corpus, in any epoch: `[patches]`.
    ///
    /// # Errors
    /// A row that does not exist, and errors of reading a file.
    pub fn get(&self, index: u64) -> Result<Vec<u32>> {
        let mut row = Vec::with_capacity(self.patches);
        if index >= self.len() {
            return Err(Error::invalid(format!("row {index} does not exist; the dataset has {} rows", self.len())));
        }
        self.read(index, &mut row)?;
        Ok(row)
    }

    /// The next `count` rows, concatenated: `[count, patches]`. After the last row a new epoch begins.
    ///
    /// # Errors
    /// Errors of reading a file, which leave the position unchanged.
    pub fn next(&mut self, count: usize) -> Result<Vec<u32>> {
        let start = (self.epoch, self.row);
        let mut rows = Vec::new();
        for _ in 0..count {
            if self.row == self.order.len() {
                self.seek(self.epoch + 1, 0);
            }
            if let Err(error) = self.read(self.order[self.row].into(), &mut rows) {
                self.seek(start.0, start.1);
                return Err(error);
            }
            self.row += 1;
        }
        Ok(rows)
    }

    /// Position of the next row.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, row: self.row as u64, rows: self.len(), patches: self.patches, seed: self.seed }
    }

    /// Moves to a position, after which the same rows follow as before.
    ///
    /// # Errors
    /// A position in other rows.
    pub fn restore(&mut self, cursor: &Cursor) -> Result<()> {
        let here = self.cursor();
        let same = (cursor.rows, cursor.patches, cursor.seed) == (here.rows, here.patches, here.seed);
        let row = usize::try_from(cursor.row).ok().filter(|&row| same && row <= self.order.len()).ok_or_else(|| {
            Error::invalid(format!(
                "the saved place is one of other data: expected {} rows of {} subwords with the seed {}, found row \
                 {} of {} \
                 with {} subwords and the seed {}; resume with the data of the snapshot",
                here.rows, here.patches, here.seed, cursor.row, cursor.rows, cursor.patches, cursor.seed
            ))
        })?;
        self.seek(cursor.epoch, row);
        Ok(())
    }

    fn seek(&mut self, epoch: u64, row: usize) {
        if epoch != self.epoch {
            // `new` checked that the number of rows fits a u32.
            self.order = order(self.seed, epoch, self.order.len() as u32);
        }
        (self.epoch, self.row) = (epoch, row);
    }

    /// Appends a row to `out`.
    fn read(&self, index: u64, out: &mut Vec<u32>) -> Result<()> {
        let mut at = index * self.patches as u64;
        let end = at + self.patches as u64;
        let first = self.segments.partition_point(|segment| segment.end() <= at);
        for segment in &self.segments[first..] {
            if at == end {
                break;
            }
            let Span { source, range } = &segment.span;
            let start = range.start + (at - segment.before);
            let stop = segment.end().min(end);
            self.sources[*source].read(start..start + (stop - at), out)?;
            at = stop;
        }
        Ok(())
    }
}

/// Order of the rows in an epoch.
fn order(seed: u64, epoch: u64, rows: u32) -> Vec<u32> {
    shuffled(&mut generator(seed, Purpose::Order, epoch), rows)
}

#[cfg(test)]
mod tests {
    use bolmo_runtime::ErrorKind;
    use bolmo_runtime::files::MemoryFile;

    use super::super::{Corpus, IdType, RowOptions, TokenFile};
    use super::*;

    /// 10 rows of 3 ids and a single id more, from memory, an empty list and a file.
    fn rows(seed: u64) -> Dataset {
        let mut corpus = Corpus::with_eos(1000);
        corpus.add_ids((0..13).collect());
        corpus.add_ids(Vec::new());
        let bytes: Vec<u8> = (13u16..31).flat_map(u16::to_le_bytes).collect();
        corpus.add_file(TokenFile::from_raw(Box::new(MemoryFile::new("ids", bytes)), IdType::U16).unwrap());
        corpus.rows(&RowOptions { patches: 3, seed, held_out: 0.0 }).unwrap().train
    }

    #[test]
    fn rows_are_slices_across_sources() {
        let rows = rows(1);
        assert_eq!(rows.len(), 10);
        for i in 0..10 {
            assert_eq!(rows.get(i).unwrap(), [3 * i as u32, 3 * i as u32 + 1, 3 * i as u32 + 2]);
        }
        assert_eq!(rows.get(10).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn an_epoch_has_every_row_once_in_its_own_order() {
        let mut rows = rows(1);
        let mut epoch = || {
            let ids = [rows.next(4).unwrap(), rows.next(6).unwrap()].concat();
            let order: Vec<u32> = ids.chunks(3).map(|row| row[0] / 3).collect();
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..10));
            order
        };
        let (first, second) = (epoch(), epoch());
        assert_ne!(first, second);
        assert_ne!(first, self::rows(2).next(10).unwrap().chunks(3).map(|row| row[0] / 3).collect::<Vec<_>>());
        assert_eq!(rows.cursor().epoch, 1);
    }

    #[test]
    fn a_saved_position_gives_the_same_rows_after_a_restart() {
        for before in 0..25 {
            let mut running = rows(3);
            running.next(before).unwrap();
            let saved = serde_json::to_string(&running.cursor()).unwrap();
            let mut restarted = rows(3);
            restarted.restore(&serde_json::from_str(&saved).unwrap()).unwrap();
            assert_eq!(restarted.next(23).unwrap(), running.next(23).unwrap(), "{before}");
            // The same after moving back.
            restarted.restore(&serde_json::from_str(&saved).unwrap()).unwrap();
            let mut again = rows(3);
            again.next(before).unwrap();
            assert_eq!(restarted.next(3).unwrap(), again.next(3).unwrap(), "{before}");
        }
    }

    #[test]
    fn a_position_in_other_rows_is_refused() {
        let mut rows = rows(3);
        let here = rows.cursor();
        for other in [
            Cursor { seed: 4, ..here.clone() },
            Cursor { rows: 11, ..here.clone() },
            Cursor { patches: 2, ..here.clone() },
            Cursor { row: 11, ..here.clone() },
        ] {
            let error = rows.restore(&other).unwrap_err();
            assert!(error.message().starts_with("the saved place is one of other data"), "{error}");
        }
        assert_eq!(rows.cursor(), here);
    }

    #[test]
    fn a_row_that_cannot_be_read_leaves_the_position_unchanged() {
        let mut corpus = Corpus::with_eos(1000);
        let bytes: Vec<u8> = (0i32..40).map(|i| if i == 20 { -1 } else { i }).flat_map(i32::to_le_bytes).collect();
        corpus.add_file(TokenFile::from_raw(Box::new(MemoryFile::new("ids", bytes)), IdType::I32).unwrap());
        let mut rows = corpus.rows(&RowOptions { patches: 4, seed: 1, held_out: 0.0 }).unwrap().train;
        rows.next(10).unwrap_err();
        assert_eq!((rows.cursor().epoch, rows.cursor().row), (0, 0));
        let error = rows.next(10).unwrap_err();
        assert!(error.message().contains("position 20, found -1"), "{error}");
    }
}
