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

/// Upper bound of the device memory that a session with `patches` patches takes, in bytes. The cache grows by doubling:
/// its rows are copied into memory of twice the size. While it is undecided whether the last byte ends a patch, the
/// state exists twice. Layers with a sliding window take less once patches have left it.
pub fn session_bytes(config: &Config, patches: usize) -> u64 {
    let mut reserved = FIRST_ROWS;
    while reserved < patches {
        reserved = reserved.saturating_mul(2);
    }
    let patch = config.patch_bytes(config.num_hidden_layers);
    // One layer at a time has its old memory and its new memory.
    let growing = config.patch_bytes(1).saturating_mul((reserved / 2) as u64);
    2 * config.state_bytes() + patch.saturating_mul(reserved as u64).saturating_add(growing)
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
        rows = (2 * rows).min(largest);
    }
    rows
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
        for layer in &mut self.layers {
            // Segments of windowed layers are short, so that rows which leave the window can be freed soon.
            let largest = match layer.kind {
                LayerType::Full => most.min(capabilities.segment_rows),
                LayerType::Sliding => most.min(window.next_power_of_two().max(FIRST_ROWS)),
            };
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
                }
                *segment = new;
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
        Ok(())
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
