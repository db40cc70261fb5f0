//! Configuration of a run: the fields are the keys of a TOML file. `keys` has their meaning, ranges and units.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::checkpoint::export::StoredType;
use crate::checkpoint::source::LocalSizes;
use crate::data::{CompressionKind, END_OF_TEXT};
use crate::layers::Shape;
use crate::loss::LossOptions;
use crate::models::subword::SubwordOptions;
use crate::parameters::optimizer::{AdamOptions, Schedule};
use crate::run::kind::Kind;
use crate::trainer::TrainerOptions;

/// Configuration of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Folder of the run: metrics, snapshots, charts, and finally the model.
    pub out: PathBuf,
    /// Seed of all random choices.
    #[serde(default)]
    pub seed: u64,
    /// The model to train.
    #[serde(default)]
    pub model: ModelConfig,
    /// The training data.
    #[serde(default)]
    pub data: DataConfig,
    /// Sizes of a step.
    #[serde(default)]
    pub batch: BatchConfig,
    /// Limits on the device.
    #[serde(default)]
    pub device: DeviceConfig,
    /// Learning rates, schedule and optimizer.
    #[serde(rename = "optimiser")]
    pub optimizer: OptimizerConfig,
    /// Factors of the losses of byte-level models.
    #[serde(default)]
    pub losses: LossConfig,
    /// Compression to larger patches than the tokenizer's; stage 2.
    pub compression: Option<CompressionConfig>,
    /// Intervals of snapshots and evaluations.
    #[serde(default)]
    pub every: EveryConfig,
}

/// The model to train.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Folder of a subword model: the source of stage 1, or the model that a subword run continues from.
    pub source: Option<PathBuf>,
    /// Folder of a byte-level model: that of stage 2, or one that stage 1 continues from.
    pub student: Option<PathBuf>,
    /// Stage 1: sizes of the local parts; default: those of the published models.
    pub local: Option<LocalConfig>,
    /// Stage 1: initialization of a new byte-level model.
    pub start: Start,
    /// Subword: sizes of a new model.
    pub new: Option<NewModel>,
    /// Type of the exported tensors: `f32`, `f16` or `bf16`.
    pub export: ExportType,
}

/// Initialization of a new byte-level model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// As in the paper: patches of random bytes have the mean and the standard deviation of the source's embeddings.
    #[default]
    Moments,
    /// A linear map fits patches of the training text to the embeddings of their subwords, and byte embeddings are
    /// small.
    Fitted,
}

/// Type of exported tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportType {
    /// Four bytes per element.
    #[default]
    F32,
    /// IEEE half precision, two bytes per element.
    F16,
    /// Upper half of an f32, two bytes per element.
    Bf16,
}

impl From<ExportType> for StoredType {
    fn from(kind: ExportType) -> Self {
        match kind {
            ExportType::F32 => Self::F32,
            ExportType::F16 => Self::F16,
            ExportType::Bf16 => Self::Bf16,
        }
    }
}

/// Sizes of the local parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocalConfig {
    /// Layers of the encoder.
    pub encoder_layers: usize,
    /// Layers of the decoder.
    pub decoder_layers: usize,
    /// Number of mLSTM heads.
    pub heads: usize,
    /// Inner width of the feed-forwards.
    pub intermediate_size: usize,
}

impl From<LocalConfig> for LocalSizes {
    fn from(config: LocalConfig) -> Self {
        let LocalConfig { encoder_layers, decoder_layers, heads, intermediate_size } = config;
        Self { encoder_layers, decoder_layers, heads, intermediate_size }
    }
}

/// Sizes of a new subword model with the blocks of OLMo 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewModel {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Inner width of the feed-forwards.
    pub intermediate_size: usize,
}

/// Training data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Text files, or `.npy` files of subword ids.
    pub train: Vec<PathBuf>,
    /// Files for evaluation; without any, a share of the training files is held out.
    pub held_out: Vec<PathBuf>,
    /// Share of the training text to hold out if there are no files for evaluation.
    pub held_out_share: f64,
    /// Line that separates the documents of a text file.
    pub separator: String,
    /// Folder or `tokenizer.json` of the subword tokenizer; default: that of the source or student.
    pub tokenizer: Option<PathBuf>,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            held_out: Vec::new(),
            held_out_share: 0.02,
            separator: END_OF_TEXT.to_owned(),
            tokenizer: None,
        }
    }
}

/// Sizes of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Examples of a batch.
    pub rows: usize,
    /// Subwords of an example, and its number of patch slots.
    pub subwords: usize,
    /// Maximum bytes of an example, for each of its subwords.
    pub bytes_per_subword: usize,
    /// Number of batches whose gradients are averaged in a step.
    pub accumulate: usize,
    /// Whether products read f16 factors and accumulate in f32. Gradients are scaled so that small ones do not vanish.
    pub half_products: bool,
    /// Whether layers save only their inputs and run forward again before their backward pass.
    pub recompute: bool,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { rows: 8, subwords: 128, bytes_per_subword: 6, accumulate: 1, half_products: false, recompute: false }
    }
}

/// Limits on the device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceConfig {
    /// Maximum device memory in MiB; default: the free memory on adapters that compute in main memory.
    pub memory_mib: Option<u64>,
}

/// Learning rates, schedule and optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Number of steps.
    pub steps: u64,
    /// Peak learning rate.
    pub rate: f64,
    /// Peak learning rate of the embeddings, the encoder and the boundary predictor; default: `rate`.
    pub encoder_rate: Option<f64>,
    /// Peak learning rate of the global blocks in stage 2; default: half of `rate`.
    pub global_rate: Option<f64>,
    /// Share of the steps that warm up.
    #[serde(default = "warmup")]
    pub warmup: f64,
    /// Decay of the first moment.
    #[serde(default = "beta1")]
    pub beta1: f64,
    /// Decay of the second moment.
    #[serde(default = "beta2")]
    pub beta2: f64,
    /// Weight decay of everything but embeddings.
    #[serde(default = "decay")]
    pub decay: f64,
    /// Maximum norm of the gradients; 0 disables clipping.
    #[serde(default = "clip")]
    pub clip: f64,
}

fn warmup() -> f64 {
    0.1
}
fn beta1() -> f64 {
    AdamOptions::default().beta1
}
fn beta2() -> f64 {
    AdamOptions::default().beta2
}
fn decay() -> f64 {
    AdamOptions::default().decay
}
fn clip() -> f64 {
    AdamOptions::default().clip
}

impl OptimizerConfig {
    pub(crate) fn adam(&self) -> AdamOptions {
        let Self { beta1, beta2, decay, clip, .. } = *self;
        AdamOptions { beta1, beta2, decay, clip, ..AdamOptions::default() }
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule { steps: self.steps, warmup: self.warmup }
    }
}

/// Factors of the losses; default: those of the paper.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LossConfig {
    /// Factor of the distance of patches.
    pub encoder: Option<f64>,
    /// Factor of the cross-entropy.
    pub cross_entropy: Option<f64>,
    /// Factor of the distillation.
    pub distill: Option<f64>,
    /// Factor of the boundary predictor's cross-entropy.
    pub boundary: Option<f64>,
    /// Factor of byte distillation; default: 0.
    #[serde(rename = "spelling")]
    pub byte_distillation: Option<f64>,
    /// Whether cross-entropy and distillation are divided once more by the share of real bytes.
    pub divide_twice: bool,
}

impl LossConfig {
    pub(crate) fn options(&self, kind: Kind) -> LossOptions {
        let base = if kind == Kind::Stage1 { LossOptions::stage1() } else { LossOptions::stage2() };
        LossOptions {
            encoder: self.encoder.unwrap_or(base.encoder),
            cross_entropy: self.cross_entropy.unwrap_or(base.cross_entropy),
            distill: self.distill.unwrap_or(base.distill),
            boundary: self.boundary.unwrap_or(base.boundary),
            byte_distillation: self.byte_distillation.unwrap_or(base.byte_distillation),
            divide_twice: self.divide_twice,
            ..base
        }
    }
}

/// Compression to larger patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompressionConfig {
    /// Order of the merges: `bpe` (default), `entropy`, `cross_entropy`, `space` or `words`.
    #[serde(default)]
    pub kind: CompressionKind,
    /// Bytes per patch at the end.
    pub target: f64,
    /// Number of steps until then; default: half of the run as it began.
    pub steps: Option<u64>,
    /// Folder of the subword model whose entropies choose the merges, for kinds that need them.
    pub entropies: Option<PathBuf>,
}

/// Intervals in steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EveryConfig {
    /// Steps between snapshots.
    pub snapshot: u64,
    /// Number of snapshots to keep.
    pub keep: usize,
    /// Steps between evaluations.
    pub evaluate: u64,
    /// Batches of an evaluation.
    pub evaluate_batches: usize,
}

impl Default for EveryConfig {
    fn default() -> Self {
        Self { snapshot: 500, keep: 2, evaluate: 500, evaluate_batches: 4 }
    }
}

impl RunConfig {
    /// A configuration with default values. The model and the data remain to be named.
    pub fn new(out: impl Into<PathBuf>, steps: u64, rate: f64) -> Self {
        Self {
            out: out.into(),
            seed: 0,
            model: ModelConfig::default(),
            data: DataConfig::default(),
            batch: BatchConfig::default(),
            device: DeviceConfig::default(),
            optimizer: OptimizerConfig {
                steps,
                rate,
                encoder_rate: None,
                global_rate: None,
                warmup: warmup(),
                beta1: beta1(),
                beta2: beta2(),
                decay: decay(),
                clip: clip(),
            },
            losses: LossConfig::default(),
            compression: None,
            every: EveryConfig::default(),
        }
    }

    /// Options of a subword model that is trained at the learning rate `rate`.
    pub(super) fn subword_options(&self, rate: f64) -> SubwordOptions {
        SubwordOptions {
            rows: self.batch.rows,
            tokens: self.batch.subwords,
            adam: self.optimizer.adam(),
            schedule: self.optimizer.schedule(),
            half_products: self.batch.half_products,
            recompute: self.batch.recompute,
            rate,
        }
    }

    /// Options of the trainer of a byte-level model.
    pub(super) fn trainer_options(&self, kind: Kind, shape: Shape) -> TrainerOptions {
        let rate = self.optimizer.rate;
        TrainerOptions {
            shape,
            losses: self.losses.options(kind),
            adam: self.optimizer.adam(),
            schedule: self.optimizer.schedule(),
            half_products: self.batch.half_products,
            recompute: self.batch.recompute,
            local_rate: rate,
            encoder_rate: self.optimizer.encoder_rate.unwrap_or(rate),
            global_rate: self.optimizer.global_rate.unwrap_or(rate / 2.0),
        }
    }
}
