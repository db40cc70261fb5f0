//! The KV cache: segments of device memory that grow with the sequence and are shared between copies until one writes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::config::{Config, LayerType};
use crate::device::{Device, Recorder, Slice};
use crate::error::{Error, Result};

/// Rows of the first segment of a layer. Each further segment doubles the cache.
const FIRST_ROWS: usize = 64;

/// Upper bound of the device memory that a session with `patches` patches takes, in bytes. The cache grows by doubling.
/// While it is undecided whether the last byte ends a patch, the state and the segments that are written to exist
/// twice. Layers with a sliding window take less once patches have left it.
pub fn session_bytes(config: &Config, patches: usize) -> u64 {
    let mut reserved = FIRST_ROWS;
    let mut last = FIRST_ROWS;
    while reserved < patches {
        last = reserved;
        reserved = reserved.saturating_mul(2);
    }
    let patch = config.patch_bytes(config.num_hidden_layers);
    2 * config.state_bytes() + patch.saturating_mul((reserved + last) as u64)
}

/// Keys and values of neighboring patches of one layer, `[rows, 2, kv_heads, head_dim]` f32.
#[derive(Debug)]
pub struct Segment {
    pub slice: Slice,
    pub rows: usize,
}

/// The segments of one layer, without gaps.
#[derive(Debug, Clone)]
struct LayerCache {
    kind: LayerType,
    /// Position of the first segment's first row.
    first: usize,
    segments: VecDeque<Arc<Segment>>,
}

/// Keys and values of a sequence. A clone shares all segments; a shared segment is copied before it is written.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    /// Patches held.
    len: usize,
    /// Floats of a row: keys and values of one patch.
    width: usize,
    window: usize,
}

/// A range of positions within one segment.
pub struct Span<'a> {
    pub segment: &'a Segment,
    /// Position of the segment's row 0.
    pub first: usize,
    /// The positions, all of them in the segment.
    pub positions: Range<usize>,
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

    /// Reserves room for `count` more patches in every layer, in segments that no other copy holds.
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
        let (len, window) = (self.len, self.window);
        for layer in &mut self.layers {
            // First position after the segments seen so far.
            let mut end = layer.first;
            for segment in &mut layer.segments {
                let first = end;
                end += segment.rows;
                if end > len && Arc::strong_count(segment) > 1 {
                    let copy = device.allocate("KV cache", segment.slice.size()).await?;
                    if len > first {
                        let used = segment.slice.part(0, (len - first) as u64 * row_bytes)?;
                        recorder.copy(&used, &copy)?;
                    }
                    *segment = Arc::new(Segment { slice: copy, rows: segment.rows });
                }
            }
            while end < len + count {
                // Segments of windowed layers are short, so that rows which leave the window can be freed soon.
                let largest = match layer.kind {
                    LayerType::Full => most,
                    LayerType::Sliding => most.min(window.next_power_of_two().max(FIRST_ROWS)),
                };
                let rows = (end - layer.first).clamp(FIRST_ROWS, capabilities.segment_rows).min(largest);
                let slice = device.allocate("KV cache", rows as u64 * row_bytes).await?;
                layer.segments.push_back(Arc::new(Segment { slice, rows }));
                end += rows;
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
        for layer in self.layers.iter_mut().filter(|l| l.kind == LayerType::Sliding) {
            while let Some(segment) = layer.segments.front() {
                if layer.first + segment.rows + window > len + 1 {
                    break;
                }
                layer.first += segment.rows;
                layer.segments.pop_front();
                freed = true;
            }
        }
        freed
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
