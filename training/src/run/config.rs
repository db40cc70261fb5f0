//! Configuration of a run: a TOML file whose keys are the fields below.

use std::path::{Path, PathBuf};

use bolmo_runtime::files::read_file;
use bolmo_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::checkpoint::export::StoredType;
use crate::checkpoint::source::LocalSizes;
use crate::data::CompressionKind;
use crate::layers::Shape;
use crate::loss::LossOptions;
use crate::models::subword::SubwordOptions;
use crate::parameters::optimizer::{AdamOptions, Schedule};
use crate::trainer::TrainerOptions;

/// Maximum length of the file.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Kind of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A subword model, new or continued from a folder.
    Subword,
    /// Stage 1 of byteifying: frozen global blocks and a teacher.
    Stage1,
    /// Stage 2 of byteifying: the whole model, end to end.
    Stage2,
}

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
    pub model: ModelConfig,
    /// The training data.
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
    /// Stage 1: folder of the source model, which is also the teacher. Subword: folder of a model to continue from, in
    /// place of `new`.
    pub source: Option<PathBuf>,
    /// Stage 2: folder of the byte-level model. Stage 1: folder of a byte-level model to continue from, in place of a
    /// new one.
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
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Text files, or `.npy` files of subword ids.
    #[serde(default)]
    pub train: Vec<PathBuf>,
    /// Files for evaluation; without any, a share of the training files is held out.
    #[serde(default)]
    pub held_out: Vec<PathBuf>,
    /// Share of the training text to hold out if there are no files for evaluation.
    #[serde(default = "held_out_share")]
    pub held_out_share: f64,
    /// Line that separates the documents of a text file.
    #[serde(default = "separator")]
    pub separator: String,
    /// Folder or `tokenizer.json` of the subword tokenizer; default: that of the source or student.
    pub tokenizer: Option<PathBuf>,
}

fn held_out_share() -> f64 {
    0.02
}

fn separator() -> String {
    "<|endoftext|>".to_owned()
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
    /// Whether products read f16 factors and accumulate in f32. This is faster on adapters with matrix units and halves
    /// the reads of weights elsewhere. Weights are always f32, and gradients are scaled so that small ones do not
    /// vanish.
    pub half_products: bool,
    /// Whether layers save only their inputs and run forward again before their backward pass. This saves memory, the
    /// more the deeper the model, for one more forward pass. The results have the same bits.
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
    /// Maximum device memory in MiB. By default there is no limit, except on adapters that compute in main memory:
    /// there it is the free memory.
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
    /// Peak learning rate of the embeddings, the encoder and the boundary predictor of byte-level models; default:
    /// `rate`. A lower one suits a fitted start, where most of them is already right.
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
    /// Stage 1: factor of byte distillation, the divergence of the next byte's distribution from the teacher's. With it
    /// the decoder learns from every byte that the teacher considers possible. The paper has no such term; default: 0.
    #[serde(rename = "spelling")]
    pub byte_distillation: Option<f64>,
    /// Whether cross-entropy and distillation are divided once more by the share of real bytes, as in the reference;
    /// default: plain means.
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
    /// Order of the merges: `bpe` (default), `entropy`, `cross_entropy` or `space`.
    #[serde(default)]
    pub kind: CompressionKind,
    /// Bytes per patch at the end.
    pub target: f64,
    /// Number of steps until then; default: half of the run.
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

/// What serde expects, and the same in the words of a configuration.
const EXPECTED: [(&str, &str); 7] = [
    ("expected u64", "expected a whole number of at least 0"),
    ("expected usize", "expected a whole number of at least 0"),
    ("expected f64", "expected a number"),
    ("expected path string", "expected a path"),
    ("expected a sequence", "expected a list"),
    ("invalid type: sequence", "invalid type: list"),
    ("invalid type: map", "invalid type: table"),
];

/// The error of a text that is not TOML, with its place.
fn syntax_error(text: &str, error: &toml::de::Error) -> Error {
    let at = error.span().map_or(0, |span| span.start);
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let message = error.message().trim_end().replace('\n', "; ");
    Error::invalid(format!("line {line}, column {column} is not valid TOML: {message}"))
}

/// The error of a key that is unknown or missing, or whose value is of another type.
fn value_error(error: &toml::de::Error) -> Error {
    let mut message = error.to_string().trim_end().replace('\n', " ");
    for (serde, words) in EXPECTED {
        message = message.replace(serde, words);
    }
    if let Some((before, after)) = message.split_once("expected struct ") {
        let rest = after.trim_start_matches(|c: char| c.is_alphanumeric());
        message = format!("{before}expected a table{rest}");
    }
    Error::invalid(message)
}

impl RunConfig {
    /// Reads a TOML file. `overrides` are `key=value` pairs with dotted keys, as in `optimiser.steps=100`. Paths are
    /// relative to the current folder.
    ///
    /// # Errors
    /// `NotFound`, and `InvalidArgument` that names the wrong key.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = read_file(path, MAX_FILE_BYTES)?
            .ok_or_else(|| Error::not_found(format!("{}: does not exist; check the path", path.display())))?;
        let text = String::from_utf8(text).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::io(format!("{}: expected text in UTF-8, found an invalid byte at offset {at}", path.display()))
        })?;
        Self::parse(text.trim_start_matches('\u{feff}'), overrides).map_err(|e| e.context(path.display()))
    }

    /// Parses a configuration from a text.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table = text.parse::<toml::Table>().map_err(|e| syntax_error(text, &e))?;
        for pair in overrides {
            let refuse = |why: &str| Error::invalid(format!("{pair:?}: {why}"));
            let (key, value) =
                pair.split_once('=').ok_or_else(|| refuse("an override must have the form key=value"))?;
            if key.split('.').any(|part| part.trim().is_empty()) {
                return Err(refuse("the key is empty; an override must have the form key=value"));
            }
            // A value that is not valid TOML is a string, so that paths need no quotes.
            let value = format!("v = {value}")
                .parse::<toml::Table>()
                .ok()
                .and_then(|mut table| table.remove("v"))
                .unwrap_or_else(|| toml::Value::String(value.to_owned()));
            let mut place = &mut table;
            let mut parts = key.split('.').peekable();
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    place.insert(part.to_owned(), value.clone());
                    break;
                }
                let entry = place.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
                place = entry.as_table_mut().ok_or_else(|| refuse("the key before the last dot is not a table"))?;
            }
        }
        let config: Self = table.try_into().map_err(|e| value_error(&e))?;
        config.check()?;
        Ok(config)
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

    fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::invalid(what));
        self.optimizer.adam().check()?;
        let OptimizerConfig { steps, rate, warmup, .. } = self.optimizer;
        if steps == 0 || !rate.is_finite() || rate < 0.0 || !(0.0..=1.0).contains(&warmup) {
            return refuse(format!(
                "`optimiser` must have `steps` above 0, a finite `rate` of at least 0 and a `warmup` between 0 and \
                 1; found \
                 {steps}, {rate} and {warmup}"
            ));
        }
        let BatchConfig { rows, subwords, bytes_per_subword, accumulate, .. } = self.batch;
        if accumulate == 0 || rows == 0 || subwords < 2 || bytes_per_subword == 0 {
            return refuse(format!(
                "`batch` must have `rows`, `bytes_per_subword` and `accumulate` above 0 and `subwords` of at least 2; \
                 found {rows}, {bytes_per_subword}, {accumulate} and {subwords}"
            ));
        }
        let EveryConfig { snapshot, keep, evaluate, evaluate_batches } = self.every;
        if snapshot == 0 || keep == 0 || evaluate == 0 || evaluate_batches == 0 {
            return refuse(format!(
                "`every` must have `snapshot`, `keep`, `evaluate` and `evaluate_batches` above 0; found {snapshot}, \
                 {keep}, {evaluate} and {evaluate_batches}"
            ));
        }
        let LossConfig { encoder, cross_entropy, distill, boundary, byte_distillation, .. } = self.losses;
        for (key, factor) in [
            ("encoder", encoder),
            ("cross_entropy", cross_entropy),
            ("distill", distill),
            ("boundary", boundary),
            ("spelling", byte_distillation),
        ] {
            if let Some(factor) = factor
                && !(factor.is_finite() && factor >= 0.0)
            {
                return refuse(format!("`losses.{key}` must be a finite number of at least 0, found {factor:?}"));
            }
        }
        if let Some(CompressionConfig { target, .. }) = self.compression
            && !(target.is_finite() && target >= 1.0)
        {
            return refuse(format!("`compression.target` must be at least 1, found {target} bytes a patch"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "out = \"o\"\n[model]\n[data]\ntrain = [\"a.txt\"]\n[optimiser]\nsteps = 10\nrate = 1e-3\n";

    #[test]
    fn overrides_replace_and_add_keys() {
        let overrides = ["optimiser.steps=20", "batch.rows=3", "model.source=some/dir"].map(str::to_owned);
        let config = RunConfig::parse(TEXT, &overrides).unwrap();
        assert_eq!((config.optimizer.steps, config.batch.rows), (20, 3));
        assert_eq!(config.model.source, Some("some/dir".into()));
        assert_eq!(config.batch.subwords, BatchConfig::default().subwords);
        let config = RunConfig::parse(TEXT, &["compression.target=4.5".to_owned()]).unwrap();
        let wanted = CompressionConfig { kind: CompressionKind::Bpe, target: 4.5, steps: None, entropies: None };
        assert_eq!(config.compression, Some(wanted));
    }

    #[test]
    fn errors_name_the_key() {
        for (text, overrides, named) in [
            ("out = 1", vec![], "out"),
            (TEXT, vec!["optimiser.stpes=3"], "stpes"),
            (TEXT, vec!["optimiser.steps=0"], "steps"),
            (TEXT, vec!["out.x=0"], "out.x"),
            (TEXT, vec!["nothing"], "key=value"),
            (TEXT, vec!["optimiser.beta1=1.5"], "beta1"),
        ] {
            let overrides: Vec<String> = overrides.into_iter().map(str::to_owned).collect();
            let error = RunConfig::parse(text, &overrides).unwrap_err();
            assert!(error.message().contains(named) && !error.message().contains('\n'), "{error}");
        }
    }
}
