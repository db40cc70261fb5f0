//! The KV cache: device memory that grows with the sequence and is shared between copies of it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{Config, LayerType};
use crate::device::{Device, Recorder, Slice};
use crate::error::{Error, Result};

/// Rows that a layer begins with. They double when they are full.
const FIRST_ROWS: usize = 64;

/// Rows of the largest segment of a layer of this kind, where a binding holds at most `most` rows and attention takes
/// segments of at most `segment_rows`.
pub(crate) fn largest_segment(kind: LayerType, window: usize, most: usize, segment_rows: usize) -> usize {
    match kind {
        LayerType::Full => most.min(segment_rows),
        // Short, so that rows which leave the window can be freed soon.
        LayerType::Sliding => most.min(window.next_power_of_two().max(FIRST_ROWS)),
    }
}

/// The rows that a layer has at most on its way to `patches` patches without a window. While a segment is replaced by
/// a larger one, both exist.
pub(crate) fn peak_rows(patches: usize, largest: usize) -> usize {
    if patches == 0 {
        return 0;
    }
    // Rows of the last segment once it has to hold `wanted`, and of the one that it replaced.
    let last = |wanted: usize| {
        let (mut before, mut rows) = (0, FIRST_ROWS.min(largest));
        while rows < wanted {
            before = rows;
            rows = larger(rows, largest);
        }
        (rows, before)
    };
    let full = (patches - 1) / largest;
    let (rows, before) = last(patches - full * largest);
    // The last of the full segments was once replaced as well.
    let (_, before_full) = if full > 0 { last(largest) } else { (0, 0) };
    (full * largest).saturating_add(rows.saturating_add(before).max(before_full))
}

/// Keys and values of neighboring patches of one layer, `[rows, 2, kv_heads, head_dim]` f32.
#[derive(Debug)]
pub struct Segment {
    pub slice: Slice,
    pub rows: usize,
    /// Rows that some sequence has taken to write to. A sequence may write behind them without disturbing others.
    taken: AtomicUsize,
}

impl Segment {
    async fn new(device: &Device, rows: usize, row_bytes: u64) -> Result<Self> {
        let slice = device.allocate("KV cache", rows as u64 * row_bytes).await?;
        Ok(Self { slice, rows, taken: AtomicUsize::new(0) })
    }

    /// Takes the rows up to `end` for a sequence that has `held` rows of the segment. Fails if another sequence has
    /// taken rows behind them.
    fn take(self: &Arc<Self>, held: usize, end: usize) -> bool {
        if Arc::strong_count(self) == 1 {
            self.taken.store(end, Ordering::Relaxed);
            return true;
        }
        let taken = self.taken.load(Ordering::Relaxed);
        let free = taken <= held || taken == end && held == end;
        free && self.taken.compare_exchange(taken, end, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The segments of one layer, without gaps: one, as long as a binding may be so large and no window lets it be freed
/// piece by piece.
#[derive(Debug, Clone)]
struct LayerCache {
    kind: LayerType,
    /// Position of the first segment's first row.
    first: usize,
    segments: VecDeque<Arc<Segment>>,
}

/// Keys and values of a sequence.
///
/// A clone shares all segments. Of several that share one, the first to add patches goes on in it, and the others copy
/// it when they add some.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    /// Patches held.
    len: usize,
    /// Floats of a row: keys and values of one patch.
    width: usize,
    window: usize,
    /// While patches may be taken back, the segments that were freed, each with its layer.
    retired: Option<Vec<(usize, Arc<Segment>)>>,
    replaced: u64,
}

/// A range of positions within one segment.
pub struct Span<'a> {
    pub segment: &'a Segment,
    /// Position of the segment's row 0.
    pub first: usize,
    /// The positions, all of them in the segment.
    pub positions: Range<usize>,
}

/// Rows of a segment of `rows` rows that has to hold `wanted`, at most `largest`: doubled until they suffice.
fn grown(rows: usize, wanted: usize, largest: usize) -> usize {
    let mut rows = rows;
    while rows < wanted {
        rows = larger(rows, largest);
    }
    rows
}

/// Rows of the segment that replaces a full one of `rows` rows.
fn larger(rows: usize, largest: usize) -> usize {
    rows.saturating_mul(2).min(largest)
}

impl KvCache {
    /// An empty cache without room.
    pub fn new(config: &Config) -> Self {
        let layer = |&kind| LayerCache { kind, first: 0, segments: VecDeque::new() };
        Self {
            layers: config.layer_types.iter().map(layer).collect(),
            len: 0,
            width: 2 * config.key_value_width(),
            window: config.sliding_window,
            retired: None,
            replaced: 0,
        }
    }

    /// Patches held.
    #[allow(clippy::len_without_is_empty)] // no caller needs it
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of device memory, shared segments included.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().flat_map(|l| &l.segments).map(|s| s.slice.size()).sum()
    }

    /// Reserves room for `count` more patches in every layer that no other copy of the sequence writes to.
    pub async fn reserve(&mut self, device: &Device, recorder: &mut Recorder, count: usize) -> Result<()> {
        let row_bytes = self.width as u64 * 4;
        let capabilities = &device.capabilities;
        let most = (capabilities.max_binding_bytes.min(capabilities.max_buffer_bytes) / row_bytes) as usize;
        if most == 0 {
            return Err(Error::unsupported(format!(
                "keys and values of a patch take {row_bytes} bytes, the adapter {} allows bindings of {}",
                device.adapter.name, capabilities.max_binding_bytes
            )));
        }
        let (len, end, window) = (self.len, self.len + count, self.window);
        let replaced = self.replaced;
        for layer in &mut self.layers {
            let largest = largest_segment(layer.kind, window, most, capabilities.segment_rows);
            // First position after the segments seen so far.
            let mut covered = layer.first;
            let last = layer.segments.len().saturating_sub(1);
            for (i, segment) in layer.segments.iter_mut().enumerate() {
                let first = covered;
                covered += segment.rows;
                // Room may be left over from patches that were taken back.
                if first >= end || covered <= len && !(i == last && segment.rows < largest) {
                    continue;
                }
                let held = len.saturating_sub(first).min(segment.rows);
                let wanted = (end - first).min(largest);
                let rows = if i == last { grown(segment.rows, wanted, largest) } else { segment.rows };
                if rows == segment.rows && (held == rows || segment.take(held, wanted.min(rows))) {
                    continue;
                }
                let new = Arc::new(Segment::new(device, rows, row_bytes).await?);
                new.take(held, wanted);
                if held > 0 {
                    recorder.copy(&segment.slice.part(0, held as u64 * row_bytes)?, &new.slice)?;
                    // The copy reads it later.
                    recorder.hold(&segment.slice);
                }
                *segment = new;
                self.replaced += 1;
                covered = first + rows;
            }
            while covered < end {
                let wanted = (end - covered).min(largest);
                let rows = grown(FIRST_ROWS.min(largest), wanted, largest);
                let new = Arc::new(Segment::new(device, rows, row_bytes).await?);
                new.take(0, wanted);
                layer.segments.push_back(new);
                covered += rows;
            }
        }
        if self.replaced != replaced {
            // Bind groups would keep the segments that were replaced.
            recorder.forget_bindings();
        }
        Ok(())
    }

    /// How often a segment was replaced by a larger one, or by a copy.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// The segments that hold the positions `range` of a layer.
    pub fn spans(&self, layer: usize, range: Range<usize>) -> impl Iterator<Item = Span<'_>> {
        let mut first = self.layers[layer].first;
        self.layers[layer].segments.iter().filter_map(move |segment| {
            let here = first;
            first += segment.rows;
            let positions = range.start.max(here)..range.end.min(here + segment.rows);
            (!positions.is_empty()).then_some(Span { segment, first: here, positions })
        })
    }

    /// Counts `count` more patches as held, and frees segments that no later query sees. Returns whether any was freed,
    /// because bind groups may still hold it.
    pub fn advance(&mut self, count: usize) -> bool {
        self.len += count;
        let (len, window) = (self.len, self.window);
        let mut freed = false;
        let sliding = |(_, layer): &(usize, &mut LayerCache)| layer.kind == LayerType::Sliding;
        for (i, layer) in self.layers.iter_mut().enumerate().filter(sliding) {
            while let Some(segment) = layer.segments.front() {
                if layer.first + segment.rows + window > len + 1 {
                    break;
                }
                layer.first += segment.rows;
                let segment = layer.segments.pop_front();
                if let Some(retired) = &mut self.retired {
                    retired.extend(segment.map(|segment| (i, segment)));
                }
                freed = true;
            }
        }
        freed
    }

    /// Keeps what is freed from here on, so that [`Self::take_back`] can return to the present length.
    pub fn begin(&mut self) {
        self.retired = Some(Vec::new());
    }

    /// Ends what [`Self::begin`] began, with the patches added since then.
    pub fn keep(&mut self) {
        self.retired = None;
    }

    /// Ends what [`Self::begin`] began, without the patches added since then, when there were `len`.
    pub fn take_back(&mut self, len: usize) {
        for (i, segment) in self.retired.take().into_iter().flatten().rev() {
            let layer = &mut self.layers[i];
            layer.first -= segment.rows;
            layer.segments.push_front(segment);
        }
        self.len = len;
    }

    /// The contents, layer by layer: the first position and the memory of the rows.
    pub fn contents(&self) -> Result<Vec<(usize, Vec<Slice>)>> {
        let row_bytes = self.width as u64 * 4;
        let mut all = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            let mut slices = Vec::new();
            for span in self.spans(i, layer.first..self.len) {
                slices.push(span.segment.slice.part(0, span.positions.len() as u64 * row_bytes)?);
            }
            all.push((layer.first, slices));
        }
        Ok(all)
    }

    /// A cache of `len` patches whose layers begin at `firsts` and hold `rows` (f32, concatenated), as from
    /// [`Self::contents`].
    pub async fn restore(
        config: &Config,
        device: &Device,
        recorder: &mut Recorder,
        len: usize,
        layers: &[(usize, &[u8])],
    ) -> Result<Self> {
        let mut cache = Self::new(config);
        let damaged = || Error::bad_checkpoint("the snapshot's keys and values do not match the model");
        if layers.len() != cache.layers.len() {
            return Err(damaged());
        }
        let row_bytes = cache.width * 4;
        for (layer, &(first, rows)) in cache.layers.iter_mut().zip(layers) {
            let held = len.checked_sub(first).ok_or_else(damaged)?;
            let may_begin_late = layer.kind == LayerType::Sliding && held + 1 >= cache.window.min(len + 1);
            if rows.len() != held.checked_mul(row_bytes).ok_or_else(damaged)? || (first > 0 && !may_begin_late) {
                return Err(damaged());
            }
            layer.first = first;
        }
        // Each layer reserves from its own first position on.
        cache.reserve(device, recorder, len).await?;
        cache.len = len;
        for (i, &(first, rows)) in layers.iter().enumerate() {
            for span in cache.spans(i, first..len) {
                let bytes = &rows[(span.positions.start - first) * row_bytes..(span.positions.end - first) * row_bytes];
                device.write(&span.segment.slice, ((span.positions.start - span.first) * row_bytes) as u64, bytes)?;
            }
        }
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of a layer that grows patch by patch, replaced segments included, at most.
    fn simulated(patches: usize, largest: usize) -> usize {
        let (mut segments, mut most): (Vec<usize>, usize) = (Vec::new(), 0);
        for end in 1..=patches {
            let mut before = 0;
            if let Some(last) = segments.last_mut().filter(|last| **last < largest) {
                let full: usize = end - 1 - (end - 1) / largest * largest;
                if full == *last {
                    before = *last;
                    *last = grown(*last, full + 1, largest);
                }
            }
            if segments.iter().sum::<usize>() < end {
                segments.push(FIRST_ROWS.min(largest));
            }
            most = most.max(segments.iter().sum::<usize>() + before);
        }
        most
    }

    #[test]
    fn peak_rows_is_what_growing_patch_by_patch_reaches() {
        for largest in [1, 63, 64, 65, 100, 128, 1000, 1024, 3000, usize::MAX] {
            for patches in [0, 1, 63, 64, 65, 127, 128, 129, 200, 256, 1000, 1024, 1025, 2047, 2049, 3001, 6500] {
                assert_eq!(peak_rows(patches, largest), simulated(patches, largest), "{patches} in {largest}");
            }
        }
        assert!(peak_rows(usize::MAX, usize::MAX) == usize::MAX && peak_rows(usize::MAX, 64) == usize::MAX);
    }

    #[test]
    fn one_growing_segment_takes_no_less_than_several() {
        for largest in FIRST_ROWS..2500 {
            for patches in 1..5000 {
                assert!(peak_rows(patches + 1, usize::MAX) >= peak_rows(patches, largest), "{patches} in {largest}");
            }
        }
    }
}
