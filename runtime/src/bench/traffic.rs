//! What a byte of text asks of the device, counted from the configuration.

use bolmo_shaders::WeightFormat;

use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::{Part, TensorSpec, expected_tensors};
use crate::config::{Config, LayerType};

/// Bytes moved and weights multiplied per byte of text, at a number of bytes per patch: what runs once a byte counts in full, what
/// runs once a patch by its share.
///
/// Decoding moves `w (P_local + P_global / r) / sessions + state + KV / r` bytes: all weights once (sessions that are decoded
/// together may share a read), the mLSTM states read and written, keys and values of the patches so far. Activations are left out;
/// they stay in caches.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Weights that a byte is multiplied with when it is decoded: local layers, depooling, head.
    pub local_weights: u64,
    /// Weights that a patch is multiplied with: pooling, global blocks.
    pub global_weights: u64,
    /// Bytes of those local weights, and of the byte's rows of the embedding tables.
    pub local_bytes: u64,
    /// Bytes of those global weights.
    pub global_bytes: u64,
    /// Weights that a byte of a prompt is multiplied with besides, to find its boundary, less those of the head, which a prompt needs once.
    prompt_more: i64,
    /// Weights that find the boundary behind a byte of a prompt.
    predictor_weights: u64,
    /// Bytes of the mLSTM states, read and written.
    pub state_bytes: u64,
    /// Bytes of keys and values that a patch reads for each patch that it sees, in layers that see everything, and in windowed ones.
    kv: [u64; 2],
    window: u64,
}

impl Traffic {
    /// Counts for a model whose matrices are kept in `formats`.
    pub fn of(config: &Config, formats: Formats) -> Self {
        let mut traffic = Self {
            local_weights: 0,
            global_weights: 0,
            local_bytes: 0,
            global_bytes: 0,
            prompt_more: 0,
            predictor_weights: 0,
            // Two vectors of the state's bytes are no mLSTM's, and far below a hundredth of it.
            state_bytes: 2 * config.state_bytes(),
            kv: [0; 2],
            window: config.sliding_window as u64,
        };
        for tensor in &expected_tensors(config) {
            let (weights, bytes) = (matrix_weights(tensor), formats.tensor_bytes(tensor));
            // The projection behind pooling belongs to the encoder in the files, and runs once a patch.
            let once_a_patch = tensor.part == Part::Global || tensor.name.contains("local_encoder.out_projection");
            match tensor.part {
                Part::ByteEmbedding | Part::SuffixEmbedding => {
                    traffic.local_bytes += bytes / tensor.shape.first().map_or(1, |&rows| rows.max(1) as u64);
                }
                Part::BoundaryPredictor => {
                    traffic.prompt_more += weights as i64;
                    traffic.predictor_weights += weights;
                }
                _ if once_a_patch => {
                    traffic.global_weights += weights;
                    traffic.global_bytes += bytes;
                }
                part => {
                    traffic.local_weights += weights;
                    traffic.local_bytes += bytes;
                    if part == Part::Head {
                        traffic.prompt_more -= weights as i64;
                    }
                }
            }
        }
        let windowed = config.layer_types.iter().filter(|kind| **kind == LayerType::Sliding).count();
        traffic.kv = [config.num_hidden_layers - windowed, windowed].map(|layers| config.patch_bytes(layers));
        traffic
    }

    /// Bytes moved for a byte that is decoded behind `patches` patches, in each of `sessions` sessions that are decoded together.
    pub fn decode_bytes(&self, bytes_per_patch: f64, patches: f64, sessions: usize) -> f64 {
        let weights = self.local_bytes as f64 + self.global_bytes as f64 / bytes_per_patch;
        weights / sessions.max(1) as f64 + self.state_bytes as f64 + self.kv_bytes(patches) / bytes_per_patch
    }

    /// Bytes of keys and values that a patch behind `patches` others reads.
    pub fn kv_bytes(&self, patches: f64) -> f64 {
        self.kv[0] as f64 * patches + self.kv[1] as f64 * patches.min(self.window as f64)
    }

    /// Seconds that the products of a decoded byte take at least, where `rate` tells weights per second in a format.
    pub fn decode_seconds(&self, formats: Formats, bytes_per_patch: f64, rate: impl Fn(WeightFormat) -> f64) -> f64 {
        self.local_weights as f64 / rate(formats.local)
            + self.global_weights as f64 / bytes_per_patch / rate(formats.global)
    }

    /// As [`Self::decode_seconds`] for a byte of a prompt.
    pub fn prefill_seconds(&self, formats: Formats, bytes_per_patch: f64, rate: impl Fn(WeightFormat) -> f64) -> f64 {
        let local = self.local_weights as f64 + self.prompt_more as f64;
        local / rate(formats.local) + self.global_weights as f64 / bytes_per_patch / rate(formats.global)
    }

    /// Floating-point operations of the products of a byte in training: two a weight forwards, and twice as many backwards, for the gradients of
    /// what comes in and of the weight. Attention and mLSTM are not in it.
    pub fn training_operations(&self, bytes_per_patch: f64) -> f64 {
        6.0 * ((self.local_weights + self.predictor_weights) as f64 + self.global_weights as f64 / bytes_per_patch)
    }

    /// Floating-point operations of the products of a byte of a prompt, two a weight. Attention and mLSTM are not in it.
    pub fn prefill_operations(&self, bytes_per_patch: f64) -> f64 {
        let local = self.local_weights as f64 + self.prompt_more as f64;
        2.0 * (local + self.global_weights as f64 / bytes_per_patch)
    }
}

/// Elements of a tensor that takes part in a product; norms and biases don't.
fn matrix_weights(tensor: &TensorSpec) -> u64 {
    if tensor.shape.len() == 2 { tensor.element_count() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset::Preset;
    use crate::model::device_bytes;

    /// The figures that the design goes by, in millions of weights and of bytes.
    #[test]
    fn published_shapes() {
        for (preset, local, global, state) in
            [(Preset::Bolmo1b, 176.0, 1078.0, 5.2), (Preset::Bolmo7b, 693.0, 6493.0, 21.0)]
        {
            let traffic = Traffic::of(&preset.config(), WeightFormat::F16.into());
            let near = |found: u64, millions: f64| (found as f64 / 1e6 - millions).abs() < 0.03 * millions;
            assert!(near(traffic.local_weights, local), "{preset}: {} local weights", traffic.local_weights);
            assert!(near(traffic.global_weights, global), "{preset}: {} global weights", traffic.global_weights);
            assert!(near(traffic.state_bytes, state), "{preset}: {} bytes of state", traffic.state_bytes);
        }
    }

    /// Every byte of the weights is counted once, tables and predictor apart.
    #[test]
    fn parts_add_up() {
        for format in WeightFormat::ALL {
            let config = Preset::Nano.config();
            let traffic = Traffic::of(&config, format.into());
            let formats = Formats::from(format);
            let apart = |part| matches!(part, Part::ByteEmbedding | Part::SuffixEmbedding | Part::BoundaryPredictor);
            let tensors = expected_tensors(&config);
            let tables = tensors.iter().filter(|t| t.part == Part::ByteEmbedding || t.part == Part::SuffixEmbedding);
            let rows: u64 = tables.map(|t| formats.tensor_bytes(t) / t.shape[0] as u64).sum();
            let rest: u64 = tensors.iter().filter(|t| apart(t.part)).map(|t| formats.tensor_bytes(t)).sum();
            let all = traffic.local_bytes - rows + traffic.global_bytes + rest;
            assert_eq!(all, device_bytes(&config, format), "{}", format.name());
        }
    }

    #[test]
    fn patches_share_what_runs_once() {
        let traffic = Traffic::of(&Preset::Nano.config(), WeightFormat::F32.into());
        let at = |r| traffic.decode_bytes(r, 0.0, 1);
        let expected = traffic.global_bytes as f64 * (1.0 / 2.0 - 1.0 / 4.0);
        assert!((at(2.0) - at(4.0) - expected).abs() < 1e-6);
        let weights = at(4.0) - traffic.state_bytes as f64;
        assert!((traffic.decode_bytes(4.0, 0.0, 8) - traffic.state_bytes as f64 - weights / 8.0).abs() < 1e-6);
        // A window bounds what is read.
        let config = Preset::Nano.config();
        let all = traffic.kv_bytes(1e6);
        assert!(all <= config.patch_bytes(config.num_hidden_layers) as f64 * 1e6);
        assert!(traffic.kv_bytes(2.0) * 1.999 < traffic.kv_bytes(4.0));
    }
}
