//! The work per byte of text, counted from the configuration.

use bolmo_shaders::WeightFormat;

use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::{Part, TensorSpec, expected_tensors};
use crate::config::{Config, LayerType};

/// Bytes moved and weights multiplied per byte of text. Work that runs once per patch is divided by the bytes per
/// patch.
///
/// With `r` bytes per patch, decoding a byte moves `w (P_local + P_global / r) / sessions + state + KV / r` bytes: all
/// weights once (sessions decoded together may share the read), the mLSTM states, read and written, and the keys and
/// values of the previous patches. Activations stay in caches and are not counted.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Traffic {
    /// Weights per decoded byte: local layers, depooling and head.
    pub local_weights: u64,
    /// Weights per patch: pooling and global blocks.
    pub global_weights: u64,
    /// Bytes of the local weights and of the rows of the embedding tables that a byte reads.
    pub local_bytes: u64,
    /// Bytes of the global weights.
    pub global_bytes: u64,
    /// Weights per prompt byte in addition to the local ones: those of the boundary predictor, less those of the head,
    /// which runs once per prompt.
    prompt_extra: i64,
    /// Weights of the boundary predictor.
    predictor_weights: u64,
    /// Bytes of the mLSTM states, read and written.
    pub state_bytes: u64,
    /// Bytes of keys and values per patch, in full and in sliding-window attention layers.
    kv: [u64; 2],
    window: u64,
}

impl Traffic {
    /// Counts the work of a model with matrices in `formats`.
    pub fn of(config: &Config, formats: Formats) -> Self {
        let mut traffic = Self {
            local_weights: 0,
            global_weights: 0,
            local_bytes: 0,
            global_bytes: 0,
            prompt_extra: 0,
            predictor_weights: 0,
            // This includes two vectors that are not part of the mLSTM states, far less than one percent of them.
            state_bytes: 2 * config.state_bytes(),
            kv: [0; 2],
            window: config.sliding_window as u64,
        };
        for tensor in &expected_tensors(config) {
            let (weights, bytes) = (matrix_weights(tensor), formats.tensor_bytes(tensor));
            // The checkpoint counts the projection after pooling as part of the encoder, but it runs once per patch.
            let per_patch = tensor.part == Part::Global || tensor.name.contains("local_encoder.out_projection");
            match tensor.part {
                Part::ByteEmbedding | Part::SuffixEmbedding => {
                    traffic.local_bytes += bytes / tensor.shape.first().map_or(1, |&rows| rows.max(1) as u64);
                }
                Part::BoundaryPredictor => {
                    traffic.prompt_extra += weights as i64;
                    traffic.predictor_weights += weights;
                }
                _ if per_patch => {
                    traffic.global_weights += weights;
                    traffic.global_bytes += bytes;
                }
                part => {
                    traffic.local_weights += weights;
                    traffic.local_bytes += bytes;
                    if part == Part::Head {
                        traffic.prompt_extra -= weights as i64;
                    }
                }
            }
        }
        let windowed = config.layer_types.iter().filter(|kind| **kind == LayerType::Sliding).count();
        traffic.kv = [config.num_hidden_layers - windowed, windowed].map(|layers| config.patch_bytes(layers));
        traffic
    }

    /// Bytes moved per decoded byte after `patches` patches, in each of `sessions` sessions decoded together.
    pub fn decode_bytes(&self, bytes_per_patch: f64, patches: f64, sessions: usize) -> f64 {
        let weights = self.local_bytes as f64 + self.global_bytes as f64 / bytes_per_patch;
        weights / sessions.max(1) as f64 + self.state_bytes as f64 + self.kv_bytes(patches) / bytes_per_patch
    }

    /// Bytes of keys and values that a patch reads after `patches` patches.
    pub fn kv_bytes(&self, patches: f64) -> f64 {
        self.kv[0] as f64 * patches + self.kv[1] as f64 * patches.min(self.window as f64)
    }

    /// Lower bound of the seconds for the products of a decoded byte, with `rate` weights per second in each format.
    pub fn decode_seconds(&self, formats: Formats, bytes_per_patch: f64, rate: impl Fn(WeightFormat) -> f64) -> f64 {
        self.local_weights as f64 / rate(formats.local)
            + self.global_weights as f64 / bytes_per_patch / rate(formats.global)
    }

    /// Same as [`Self::decode_seconds`], for a prompt byte.
    pub fn prefill_seconds(&self, formats: Formats, bytes_per_patch: f64, rate: impl Fn(WeightFormat) -> f64) -> f64 {
        let local = self.local_weights as f64 + self.prompt_extra as f64;
        local / rate(formats.local) + self.global_weights as f64 / bytes_per_patch / rate(formats.global)
    }

    /// Floating-point operations per byte in training: two per weight in the forward pass, and four in the backward
    /// pass, for the gradients of inputs and weights. Attention and the mLSTM are not counted.
    pub fn training_operations(&self, bytes_per_patch: f64) -> f64 {
        6.0 * ((self.local_weights + self.predictor_weights) as f64 + self.global_weights as f64 / bytes_per_patch)
    }

    /// Floating-point operations per prompt byte, two per weight. Attention and the mLSTM are not counted.
    pub fn prefill_operations(&self, bytes_per_patch: f64) -> f64 {
        let local = self.local_weights as f64 + self.prompt_extra as f64;
        2.0 * (local + self.global_weights as f64 / bytes_per_patch)
    }
}

/// Weights of a tensor that is multiplied; none for norms and biases.
fn matrix_weights(tensor: &TensorSpec) -> u64 {
    if tensor.shape.len() == 2 { tensor.element_count() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset::Preset;
    use crate::model::device_bytes;

    /// The figures that the design is based on, in millions of weights and of bytes.
    #[test]
    fn counts_match_the_published_models() {
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

    /// Tables and the boundary predictor are counted separately.
    #[test]
    fn every_byte_of_the_weights_is_counted_once() {
        for format in WeightFormat::ALL {
            let config = Preset::Nano.config();
            let traffic = Traffic::of(&config, format.into());
            let formats = Formats::from(format);
            let separate = |part| matches!(part, Part::ByteEmbedding | Part::SuffixEmbedding | Part::BoundaryPredictor);
            let tensors = expected_tensors(&config);
            let tables = tensors.iter().filter(|t| t.part == Part::ByteEmbedding || t.part == Part::SuffixEmbedding);
            let rows: u64 = tables.map(|t| formats.tensor_bytes(t) / t.shape[0] as u64).sum();
            let rest: u64 = tensors.iter().filter(|t| separate(t.part)).map(|t| formats.tensor_bytes(t)).sum();
            let all = traffic.local_bytes - rows + traffic.global_bytes + rest;
            assert_eq!(all, device_bytes(&config, format), "{}", format.name());
        }
    }

    #[test]
    fn longer_patches_share_the_work_per_patch() {
        let traffic = Traffic::of(&Preset::Nano.config(), WeightFormat::F32.into());
        let at = |r| traffic.decode_bytes(r, 0.0, 1);
        let expected = traffic.global_bytes as f64 * (1.0 / 2.0 - 1.0 / 4.0);
        assert!((at(2.0) - at(4.0) - expected).abs() < 1e-6);
        let weights = at(4.0) - traffic.state_bytes as f64;
        assert!((traffic.decode_bytes(4.0, 0.0, 8) - traffic.state_bytes as f64 - weights / 8.0).abs() < 1e-6);
        // A sliding window bounds what is read.
        let config = Preset::Nano.config();
        let all = traffic.kv_bytes(1e6);
        assert!(all <= config.patch_bytes(config.num_hidden_layers) as f64 * 1e6);
        assert!(traffic.kv_bytes(2.0) * 1.999 < traffic.kv_bytes(4.0));
    }
}
