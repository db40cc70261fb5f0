//! Device memory of sessions, known before there are any.

use crate::checkpoint::Checkpoint;
use crate::config::{Config, LayerType};
use crate::device::{Capabilities, buffer_bytes, list_bytes};
use crate::model::Model;
use crate::sampling::device::DeviceSampler;
use crate::state::State;
use crate::state::kv_cache::{largest_segment, peak_rows};
use crate::state::workspace::{Workspace, work_bytes};

/// Largest offset alignment of bindings, to which the parts of a state are rounded.
const ALIGNMENT: u64 = 256;

/// What the memory of a session depends on beside the configuration.
struct Terms {
    /// Bytes that a binding may have.
    binding_bytes: u64,
    /// Rows that attention takes at once.
    segment_rows: usize,
    /// Patches that a prefill chunk may have.
    chunk: usize,
    /// Patches for which room is reserved ahead.
    ahead: usize,
    /// States that exist at one time: the present one, the one before the last byte was decided, the one that a rewind
    /// makes or a prompt's chunk begins with, the one that the device may still be reading, and the one from before a
    /// decode step that may be stopped.
    states: u64,
    /// Whether commands are recorded for a GPU.
    on_gpu: bool,
}

impl Terms {
    /// For any device and default options.
    const ANY: Self = Self {
        binding_bytes: u64::MAX,
        segment_rows: usize::MAX,
        chunk: Capabilities::GPU_PREFILL_BYTES,
        ahead: 1,
        states: 5,
        on_gpu: true,
    };

    fn session_bytes(&self, config: &Config, patches: usize) -> u64 {
        let row = config.patch_bytes(1);
        let most = usize::try_from(self.binding_bytes / row.max(1)).unwrap_or(usize::MAX).max(1);
        let patches = if patches == 0 { 0 } else { patches.saturating_add(self.ahead) };
        let rows = config.layer_types.iter().map(|&kind| {
            let window = config.sliding_window;
            let largest = largest_segment(kind, window, most, self.segment_rows);
            // A segment is freed once all of its rows have left the window.
            let held = match kind {
                LayerType::Full => patches,
                LayerType::Sliding => patches.min(largest.saturating_add(window).saturating_add(self.chunk)),
            };
            peak_rows(held, largest) as u64
        });
        let rows = rows.fold(0u64, u64::saturating_add);
        let fixed = self.states * State::bytes(config, ALIGNMENT)
            + work_bytes(config, 1)
            + DeviceSampler::usual_bytes()
            + list_bytes(self.on_gpu);
        fixed.saturating_add(rows.saturating_mul(row))
    }
}

/// Upper bound of the device memory that a session takes while it grows to `patches` patches, in bytes, on any device
/// that is opened with default options. [`Model::session_bytes`] is exact about the device.
pub fn session_bytes(config: &Config, patches: usize) -> u64 {
    Terms::ANY.session_bytes(config, patches)
}

impl Checkpoint {
    /// Upper bound of [`Model::work_bytes`] on any device that is opened with default options, for a vocabulary whose
    /// subwords have up to 16 bytes on average.
    pub fn work_bytes(&self) -> u64 {
        let config = self.config();
        // The vocabulary may not be known yet. A node of its trie takes three words.
        let nodes = if config.add_expanded_embeddings { 16 * config.subword_vocab_size as u64 } else { 0 };
        let trie = 12 * nodes;
        work_bytes(config, Capabilities::GPU_PREFILL_BYTES) + list_bytes(true) + trie
    }
}

impl Model {
    /// Upper bound of the device memory that a session takes while it grows to `patches` patches, in bytes.
    ///
    /// It includes the KV cache, whose memory doubles when it is full and is copied then, the states, activations of a
    /// byte, and what decoding on the device needs, with a repetition window of up to 2000 ids and up to 400 bytes of
    /// stop strings. A clone or a checkpoint counts as a session of its own: it shares memory with the session until
    /// one of them writes. [`Self::work_bytes`] comes on top, once for each prompt that is processed at the same time.
    pub fn session_bytes(&self, patches: usize) -> u64 {
        let device = self.inner.device();
        let capabilities = &device.capabilities;
        let terms = Terms {
            binding_bytes: capabilities.max_binding_bytes.min(capabilities.max_buffer_bytes),
            segment_rows: capabilities.segment_rows,
            chunk: capabilities.prefill_bytes,
            ahead: usize::from(capabilities.records_ahead),
            states: 4 + u64::from(self.inner.stops_steps(1)),
            on_gpu: !device.adapter.is_cpu(),
        };
        terms.session_bytes(&self.inner.config, patches)
    }

    /// Device memory that the model keeps to process prompts, in bytes, once for each prompt that is processed at the
    /// same time; and what generating shares between sessions. It is allocated when it is first needed.
    pub fn work_bytes(&self) -> u64 {
        let (device, config) = (self.inner.device(), &self.inner.config);
        let wanted = device.capabilities.prefill_bytes;
        let capacity = Workspace::fitting(device, config, wanted).unwrap_or(wanted);
        let trie = self.inner.suffixes.as_ref().map_or(0, |trie| buffer_bytes(trie.bytes()));
        work_bytes(config, capacity) + list_bytes(!device.adapter.is_cpu()) + trie
    }
}
