//! The state of one sequence: what the layers carry from byte to byte, and the ids so far.

pub(crate) mod kv_cache;
pub(crate) mod workspace;

use std::sync::Arc;

use crate::config::Config;
use crate::device::{Device, Recorder, Slice};
use crate::error::Result;
use crate::state::kv_cache::KvCache;

/// State of an mLSTM layer (`docs/model.md`, "Local layer (mLSTM)").
#[derive(Debug, Clone)]
pub struct LayerState {
    /// C with n as its last column, `[heads, dk, dv + 1]`.
    pub c: Slice,
    /// The stabilizer, `[heads]`.
    pub m: Slice,
}

/// The last id of a sequence, as far as the model has not processed it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingByte {
    /// No byte is pending: the last id went through the whole model, or the sequence is empty.
    None,
    /// The last byte went through the encoder. Whether it ends a patch is undecided, because that depends on the byte
    /// after it.
    Undecided,
    /// The last id was chosen, plain or fused, and has not gone through the model.
    Chosen,
}

/// A sequence on the device. The parts of `arena` are copied together. The KV cache is shared between copies until one
/// of them writes.
#[derive(Debug)]
pub struct State {
    /// Every id so far, fused where the byte is known to end a patch.
    pub ids: Vec<u16>,
    /// Whether the last of `ids` is still pending.
    pub pending: PendingByte,
    /// The 520 logits after the last id that went through the whole model.
    pub logits: Option<Arc<[f32]>>,
    pub kv: KvCache,
    /// All device memory of the state except the KV cache.
    pub arena: Slice,
    pub encoder: Vec<LayerState>,
    pub decoder: Vec<LayerState>,
    /// Encoder output of the undecided byte, `[D]`.
    pub h: Slice,
    /// Normalized global output of the last patch, `[D]`.
    pub g: Slice,
}

impl State {
    /// The state before the first id.
    pub async fn new(device: &Device, config: &Config) -> Result<Self> {
        Self::with_kv(device, config, KvCache::new(config)).await
    }

    /// The state before the first id, with the given KV cache.
    pub async fn with_kv(device: &Device, config: &Config, kv: KvCache) -> Result<Self> {
        let arena = device.allocate("the state of a session", Self::arena_bytes(device, config)).await?;
        let mut at = 0;
        let mut part = |bytes: u64| {
            let slice = arena.part(at, bytes);
            at += device.align(bytes);
            slice
        };
        let [c_bytes, m_bytes, d_bytes] = Self::part_bytes(config);
        let mut layers = |count: usize| -> Result<Vec<LayerState>> {
            (0..count).map(|_| Ok(LayerState { c: part(c_bytes)?, m: part(m_bytes)? })).collect()
        };
        let encoder = layers(config.num_local_encoder_layers)?;
        let decoder = layers(config.num_local_decoder_layers)?;
        let (h, g) = (part(d_bytes)?, part(d_bytes)?);
        Ok(Self { ids: Vec::new(), pending: PendingByte::None, logits: None, kv, arena, encoder, decoder, h, g })
    }

    /// Bytes of a layer's C, of its m, and of a vector of the hidden size.
    fn part_bytes(config: &Config) -> [u64; 3] {
        let heads = config.num_local_heads;
        let c = heads * config.mlstm_key_dim() * (config.mlstm_value_dim() + 1);
        [c, heads, config.hidden_size].map(|n| 4 * n as u64)
    }

    /// Bytes of the arena.
    pub fn arena_bytes(device: &Device, config: &Config) -> u64 {
        Self::bytes(config, device.align(1))
    }

    /// Bytes of the arena where its parts begin at multiples of `alignment`.
    pub(crate) fn bytes(config: &Config, alignment: u64) -> u64 {
        let [c, m, d] = Self::part_bytes(config).map(|n| n.next_multiple_of(alignment));
        let layers = config.num_local_encoder_layers + config.num_local_decoder_layers;
        layers as u64 * (c + m) + 2 * d
    }

    /// Bytes of device memory, shared ones included.
    pub fn device_bytes(&self) -> u64 {
        self.arena.size() + self.kv.bytes()
    }

    /// An independent copy.
    pub async fn fork(&self, config: &Config, recorder: &mut Recorder) -> Result<Self> {
        let device = recorder.device().clone();
        let mut copy = Self::with_kv(&device, config, self.kv.clone()).await?;
        copy.ids = self.ids.clone();
        copy.pending = self.pending;
        copy.logits = self.logits.clone();
        recorder.copy(&self.arena, &copy.arena)?;
        recorder.submit()?;
        Ok(copy)
    }
}
