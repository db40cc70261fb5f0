//! What learns in a run: a subword model or a byte-level one, on rows of subword ids.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bolmo_runtime::internals::gpu;
use bolmo_runtime::layout::expected_tensors;
use bolmo_runtime::stages::bytes::BYTE_OFFSET;
use bolmo_runtime::{Checkpoint, Engine, Error, Result};
use serde_json::{Value, json};

use super::config::{ExportType, Kind, LocalConfig, ModelConfig, NewModel, RunConfig, Start};
use crate::checkpoint::export::{self, StoredType};
use crate::checkpoint::source::{LocalSizes, SourceModel};
use crate::data::{Batch, Batcher, ByteLength, Compression, CompressionKind, Rows, SubwordTokenizer};
use crate::init::{Byteified, PoolFit, RandomSubword, SpeltOut};
use crate::layers::Shape;
use crate::loss::{LossOptions, Losses, NO_LABEL, Targets};
use crate::models::subword::{SubwordModel, SubwordOptions};
use crate::parameters::TensorSource;
use crate::step::Examples;
use crate::trainer::{TeacherSource, Trainer, TrainerOptions};

/// Rows that the tokenizer's own bytes a patch are measured on.
const MEASURED_ROWS: u64 = 64;

/// What learns.
pub(super) enum Learner {
    Subword(Box<Subword>),
    Bytes(Box<Bytes>),
}

/// A subword model.
pub(super) struct Subword {
    model: SubwordModel,
    tokenizer: SubwordTokenizer,
    tokenizer_folder: PathBuf,
    size: (usize, bool),
    tokens: usize,
    per_batch: usize,
    export: StoredType,
}

/// A byte-level model.
pub(super) struct Bytes {
    trainer: Trainer,
    batcher: Batcher,
    compression: Option<Compression>,
    entropies: Option<SubwordModel>,
    tokenizer_folder: PathBuf,
    per_batch: usize,
    export: StoredType,
}

impl Learner {
    pub(super) async fn open(
        engine: &Engine,
        kind: Kind,
        config: &RunConfig,
        tokenizer_path: &Path,
        rows: &Rows,
    ) -> Result<Self> {
        if config.compression.is_some() && kind != Kind::Stage2 {
            return Err(Error::invalid(
                "`compression` is for stage 2: before that patches are the source model's subwords",
            ));
        }
        match kind {
            Kind::Subword => Ok(Self::Subword(Box::new(Subword::open(engine, config, tokenizer_path).await?))),
            _ => Ok(Self::Bytes(Box::new(Bytes::open(engine, kind, config, tokenizer_path, rows).await?))),
        }
    }

    /// A step on rows of ids; its metrics.
    pub(super) async fn step(&mut self, ids: &[u32]) -> Result<Value> {
        match self {
            Self::Subword(this) => this.step(ids).await,
            Self::Bytes(this) => this.step(ids).await,
        }
    }

    /// Metrics of rows of ids without learning from them.
    pub(super) async fn evaluate(&mut self, ids: &[u32]) -> Result<Value> {
        match self {
            Self::Subword(this) => this.evaluate(ids).await,
            Self::Bytes(this) => this.evaluate(ids).await,
        }
    }

    pub(super) async fn save(&mut self, dir: &Path, step: u64, progress: &Value, keep: usize) -> Result<PathBuf> {
        match self {
            Self::Subword(this) => this.model.save(dir, step, progress, keep).await,
            Self::Bytes(this) => this.trainer.save(dir, step, progress, keep).await,
        }
    }

    pub(super) async fn restore(&mut self, path: &Path, step: u64) -> Result<()> {
        match self {
            Self::Subword(this) => this.model.restore(path, step).await,
            Self::Bytes(this) => this.trainer.restore(path, step).await,
        }
    }

    pub(super) async fn export(&mut self, dir: &Path) -> Result<()> {
        match self {
            Self::Subword(this) => this.export(dir).await,
            Self::Bytes(this) => this.export(dir).await,
        }
    }
}

fn stored(config: &RunConfig) -> StoredType {
    match config.model.export {
        ExportType::F32 => StoredType::F32,
        ExportType::F16 => StoredType::F16,
        ExportType::Bf16 => StoredType::Bf16,
    }
}

fn folder_of(tokenizer_path: &Path) -> PathBuf {
    tokenizer_path.parent().map(Path::to_owned).unwrap_or_default()
}

/// Local sizes that no subword model uses and a configuration needs.
const UNUSED: LocalSizes = LocalSizes::BLOCKS_ONLY;

impl Subword {
    async fn open(engine: &Engine, config: &RunConfig, tokenizer_path: &Path) -> Result<Self> {
        let tokenizer = SubwordTokenizer::open(tokenizer_path)?;
        let options = SubwordOptions {
            rows: config.batch.rows,
            tokens: config.batch.subwords,
            adam: config.optimiser.adam(),
            schedule: config.optimiser.schedule(),
            half_products: config.batch.half_products,
            recompute: config.batch.recompute,
            rate: config.optimiser.rate,
        };
        let (model, size) = match (&config.model.new, &config.model.source) {
            (Some(new), None) => {
                // A multiple of 64 suits products.
                let vocabulary = tokenizer.vocabulary().len().next_multiple_of(64);
                let source = RandomSubword { config: new_config(new, vocabulary)?, vocabulary, seed: config.seed };
                let size = (vocabulary, false);
                (SubwordModel::new(engine, &source.config, size, options, &source, true).await?, size)
            }
            (None, Some(dir)) => {
                let source = SourceModel::open(dir, UNUSED, None)?;
                let size = (source.vocabulary(), source.tied());
                (SubwordModel::new(engine, source.config(), size, options, &source, true).await?, size)
            }
            _ => {
                return Err(Error::invalid(
                    "a subword run has either `model.new`, the sizes of a new model, or `model.source`, a folder to go on from",
                ));
            }
        };
        if tokenizer.vocabulary().len() > size.0 {
            return Err(Error::invalid(format!(
                "the tokenizer has {} subwords, the model {}",
                tokenizer.vocabulary().len(),
                size.0
            )));
        }
        Ok(Self {
            model,
            tokenizer,
            tokenizer_folder: folder_of(tokenizer_path),
            size,
            tokens: options.tokens,
            per_batch: options.rows * options.tokens,
            export: stored(config),
        })
    }

    /// Input and labels of rows: the end of text in front, every subword a label.
    fn shifted(&self, ids: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let (mut input, mut labels) = (Vec::with_capacity(ids.len()), Vec::with_capacity(ids.len()));
        for row in ids.chunks(self.tokens) {
            input.push(self.tokenizer.eos());
            input.extend(&row[..row.len() - 1]);
            labels.extend(row.iter().map(|&id| if id == self.tokenizer.pad() { NO_LABEL } else { id }));
        }
        (input, labels)
    }

    /// Bytes that the labels are.
    fn bytes(&self, labels: &[u32]) -> u64 {
        let vocabulary = self.tokenizer.vocabulary();
        labels.iter().filter_map(|&id| vocabulary.sequence(id)).map(|bytes| bytes.len() as u64).sum()
    }

    async fn step(&mut self, ids: &[u32]) -> Result<Value> {
        let batches: Vec<_> = ids.chunks(self.per_batch).map(|ids| self.shifted(ids)).collect();
        let given: Vec<_> = batches.iter().map(|(input, labels)| (input.as_slice(), labels.as_slice())).collect();
        let report = self.model.step(&given).await?;
        let bytes: u64 = batches.iter().map(|(_, labels)| self.bytes(labels)).sum();
        let nats = report.loss * report.labels as f64;
        Ok(json!({
            "loss": report.loss,
            "bits_per_byte": nats / std::f64::consts::LN_2 / bytes.max(1) as f64,
            "gradient_norm": report.gradient_norm,
            "learning_rate": report.rate,
            "bytes": bytes,
            "skipped": u8::from(report.skipped),
        }))
    }

    async fn evaluate(&mut self, ids: &[u32]) -> Result<Value> {
        let (mut nats, mut count, mut bytes) = (0.0, 0, 0);
        for ids in ids.chunks(self.per_batch) {
            let (input, labels) = self.shifted(ids);
            let (sum, labelled) = self.model.evaluate(&input, &labels).await?;
            nats += sum;
            count += labelled;
            bytes += self.bytes(&labels);
        }
        Ok(json!({
            "loss": nats / count.max(1) as f64,
            "bits_per_byte": nats / std::f64::consts::LN_2 / bytes.max(1) as f64,
            "bytes": bytes,
        }))
    }

    async fn export(&mut self, dir: &Path) -> Result<()> {
        let mut tensors = HashMap::new();
        let mut keep = |name: &str, values: Vec<f32>| {
            tensors.insert(name.to_owned(), values);
            Ok(())
        };
        self.model.each_weight(&mut keep).await?;
        let tokenizer = (self.tokenizer_folder.as_path(), self.tokenizer.eos(), self.tokenizer.pad());
        export::subword(dir, self.model.config(), self.size, &tensors, self.export, tokenizer)
    }
}

/// The configuration of a byte-level model with the blocks of a new subword model, as OLMo 2 has them.
fn new_config(new: &NewModel, vocabulary: usize) -> Result<bolmo_runtime::Config> {
    let json = json!({
        "model_type": "olmo2",
        "hidden_size": new.hidden_size,
        "num_hidden_layers": new.layers,
        "num_attention_heads": new.heads,
        "intermediate_size": new.intermediate_size,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": 4096,
        "vocab_size": vocabulary,
    });
    SourceModel::config_of(&json, "`model.new`", UNUSED, vocabulary).map(|(config, _)| config)
}

impl Bytes {
    async fn open(engine: &Engine, kind: Kind, config: &RunConfig, tokenizer_path: &Path, rows: &Rows) -> Result<Self> {
        let ModelConfig { source, student, local, start, .. } = &config.model;
        let length = ByteLength::PerSubword(config.batch.bytes_per_subword);
        let tokenizer = || SubwordTokenizer::open(tokenizer_path);
        let patches = config.batch.subwords;
        let student = student.as_deref().map(Checkpoint::open).transpose()?;
        let options = |shape: Shape| TrainerOptions {
            shape,
            losses: config.losses.options(kind),
            adam: config.optimiser.adam(),
            schedule: config.optimiser.schedule(),
            half_products: config.batch.half_products,
            recompute: config.batch.recompute,
            local_rate: config.optimiser.rate,
            encoder_rate: config.optimiser.encoder_rate.unwrap_or(config.optimiser.rate),
            global_rate: config.optimiser.global_rate.unwrap_or(config.optimiser.rate / 2.0),
        };
        let shape = |batcher: &Batcher| Shape { rows: config.batch.rows, bytes: batcher.bytes(), patches };
        let (trainer, batcher) = match (kind, source, &student) {
            (Kind::Stage2, _, Some(student)) => {
                let batcher = Batcher::new(student.config(), tokenizer()?, patches, length)?;
                let options = options(shape(&batcher));
                (Trainer::new(engine, student.config(), options, student, None).await?, batcher)
            }
            (Kind::Stage2, _, None) => {
                return Err(Error::invalid(
                    "stage 2 trains `model.student`, the folder of a byte-level model, and none is named",
                ));
            }
            (_, None, _) => {
                return Err(Error::invalid(
                    "stage 1 has a teacher, `model.source`, the folder of a subword model, and none is named",
                ));
            }
            (_, Some(dir), student) => {
                let subwords = tokenizer()?.vocabulary().len();
                let sizes = |hidden: usize| match *local {
                    None => LocalSizes::for_width(hidden),
                    Some(LocalConfig { encoder_layers, decoder_layers, heads, intermediate_size }) => {
                        LocalSizes { encoder_layers, decoder_layers, heads, intermediate_size }
                    }
                };
                let width = SourceModel::open(dir, UNUSED, Some(subwords))?.config().hidden_size;
                let source = SourceModel::open(dir, sizes(width), Some(subwords))?;
                let fresh = match student {
                    // What counts in a rehearsal is the memory, not what is in it.
                    _ if gpu(engine).is_rehearsal() => None,
                    None => {
                        let text;
                        let fit = match start {
                            Start::Moments => PoolFit::Exact,
                            Start::Fitted => {
                                let batcher = Batcher::new(source.config(), tokenizer()?, patches, length)?;
                                text = spelt_out(&batcher, shape(&batcher), rows)?;
                                PoolFit::Subwords(&text)
                            }
                        };
                        Some(Byteified::new(engine, &source, config.seed, fit).await?)
                    }
                    Some(student) => check_blocks(student, &source).map(|()| None)?,
                };
                let (weights, model_config): (&dyn TensorSource, _) = match (&fresh, student) {
                    (Some(fresh), _) => (fresh, source.config()),
                    (None, Some(student)) => (student, student.config()),
                    (None, None) => (&source, source.config()),
                };
                let batcher = Batcher::new(model_config, tokenizer()?, patches, length)?;
                let spaces = spaces(batcher.tokenizer());
                let sequences = sequences(batcher.tokenizer());
                let teacher = TeacherSource {
                    tensors: &source,
                    vocabulary: source.vocabulary(),
                    tied: source.tied(),
                    spaces: &spaces,
                    sequences: &sequences,
                };
                let options = options(shape(&batcher));
                (Trainer::new(engine, model_config, options, weights, Some(teacher)).await?, batcher)
            }
        };
        let (compression, entropies) = compression(engine, config, &batcher, rows).await?;
        Ok(Self {
            trainer,
            compression,
            entropies,
            tokenizer_folder: folder_of(tokenizer_path),
            per_batch: config.batch.rows * patches,
            export: stored(config),
            batcher,
        })
    }

    /// Rows spelt out, with wider patches if that is wanted.
    async fn batches(&mut self, ids: &[u32], step: u64) -> Result<Vec<Prepared>> {
        let mut batches = Vec::new();
        for ids in ids.chunks(self.per_batch) {
            let mut batch = self.batcher.batch(ids)?;
            let subwords = teacher_input(&batch, self.batcher.tokenizer().eos());
            if let Some(compression) = &self.compression {
                let scores = match &mut self.entropies {
                    None => None,
                    Some(model) => {
                        let labels = batch.subword_ids.clone();
                        let (entropies, cross_entropies) = model.uncertainty(&subwords, &labels).await?;
                        Some(match compression.kind {
                            CompressionKind::CrossEntropy => cross_entropies,
                            _ => entropies,
                        })
                    }
                };
                compression.apply(&mut batch, step, scores.as_deref())?;
            }
            let truth = batch.boundaries.iter().map(|&end| end != 0).collect();
            batches.push(Prepared { truth, subwords, shape: self.trainer.shape(), batch });
        }
        Ok(batches)
    }

    async fn step(&mut self, ids: &[u32]) -> Result<Value> {
        let batches = self.batches(ids, self.trainer.steps() + 1).await?;
        let examples: Vec<_> = batches.iter().map(Prepared::examples).collect();
        let report = self.trainer.step(&examples).await?;
        let mut record = losses(&report.losses, report.patches);
        record["gradient_norm"] = json!(report.gradient_norm);
        record["learning_rate"] = json!(report.rate);
        record["skipped"] = json!(u8::from(report.skipped));
        if let Some(compression) = &self.compression {
            record["target_bytes_per_patch"] = json!(compression.ratio(report.step));
        }
        Ok(record)
    }

    /// With the boundaries that the model predicts itself, whatever the stage; beside the teacher if there is one.
    async fn evaluate(&mut self, ids: &[u32]) -> Result<Value> {
        let batches = self.batches(ids, self.trainer.steps()).await?;
        let (mut all, mut patches, mut teacher) = (Losses::default(), 0, None);
        for batch in &batches {
            let output = self.trainer.evaluate(&batch.examples(), &LossOptions::stage2()).await?;
            all.add(&output.losses, 1.0 / batches.len() as f64);
            patches += output.patches;
            if let Some(nats) = self.trainer.teacher_nats(&batch.examples()).await? {
                *teacher.get_or_insert(0.0) += nats;
            }
        }
        let mut record = losses(&all, patches);
        if let Some(nats) = teacher {
            record["teacher_bits_per_byte"] = json!(nats / std::f64::consts::LN_2 / all.labels.max(1) as f64);
        }
        Ok(record)
    }

    async fn export(&mut self, dir: &Path) -> Result<()> {
        let mut tensors = HashMap::new();
        let mut keep = |name: &str, values: Vec<f32>| {
            tensors.insert(name.to_owned(), values);
            Ok(())
        };
        self.trainer.each_weight(&mut keep).await?;
        export::byte_level(dir, self.trainer.config(), &tensors, self.export, &self.tokenizer_folder)
    }
}

/// Rows of the training text, as many as make whole batches.
fn spelt_out(batcher: &Batcher, shape: Shape, rows: &Rows) -> Result<SpeltOut> {
    let mut text = SpeltOut { shape, ids: Vec::new(), suffixes: Vec::new(), ends: Vec::new() };
    for row in 0..(MEASURED_ROWS as usize).next_multiple_of(shape.rows) as u64 {
        let batch = batcher.batch(&rows.get(row % rows.len().max(1))?)?;
        let subwords = teacher_input(&batch, batcher.tokenizer().eos());
        let before = text.ids.len();
        let ends = batch.boundaries.iter().zip(&batch.patch_of).enumerate();
        text.ends.extend(ends.filter_map(|(at, (&end, &patch))| {
            let subword = subwords.get(patch as usize).filter(|_| end != 0);
            subword.map(|&subword| (before + at, subword))
        }));
        text.ids.extend(&batch.byte_ids);
        text.suffixes.extend(&batch.suffix_ids);
    }
    Ok(text)
}

/// A batch with what the stages want of it.
struct Prepared {
    batch: Batch,
    truth: Vec<bool>,
    subwords: Vec<u32>,
    shape: Shape,
}

impl Prepared {
    fn examples(&self) -> Examples<'_> {
        Examples {
            ids: &self.batch.byte_ids,
            suffixes: &self.batch.suffix_ids,
            subwords: &self.subwords,
            targets: Targets {
                shape: self.shape,
                labels: &self.batch.labels,
                truth: &self.truth,
                patch_lens: &self.batch.patch_lens,
                patch_of: &self.batch.patch_of,
            },
        }
    }
}

/// The end of text, then all subwords of a row but the last.
fn teacher_input(batch: &Batch, eos: u32) -> Vec<u32> {
    let rows = batch.subword_ids.chunks(batch.patches);
    rows.flat_map(|row| std::iter::once(eos).chain(row[..row.len() - 1].iter().copied())).collect()
}

/// Refuses a student whose blocks are not its teacher's: stage 1 runs the teacher through them.
fn check_blocks(student: &Checkpoint, source: &SourceModel) -> Result<()> {
    let blocks = |config| {
        let all = expected_tensors(config).into_iter();
        all.filter(|spec| spec.name.starts_with("model.layers.")).collect::<Vec<_>>()
    };
    let wanted = blocks(source.config());
    let mut same = wanted == blocks(student.config());
    for spec in &wanted {
        same = same && student.read(&spec.name)? == source.read(&spec.name)?;
    }
    if same {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`model.student` does not have the blocks of `model.source`, {}: stage 1 leaves blocks as they are, so only a model that was made from it can go on",
        source.origin()
    )))
}

/// Subwords that begin with a space, a tab or a newline.
fn spaces(tokenizer: &SubwordTokenizer) -> Vec<u32> {
    let vocabulary = tokenizer.vocabulary();
    let space_like = |&id: &u32| {
        let first = vocabulary.sequence(id).and_then(|ids| ids.first()).copied();
        first.is_some_and(|id| b" \t\n".iter().any(|&byte| id == u16::from(BYTE_OFFSET) + u16::from(byte)))
    };
    (0..vocabulary.len() as u32).filter(space_like).collect()
}

/// The ids of each subword's bytes.
fn sequences(tokenizer: &SubwordTokenizer) -> Vec<Vec<u16>> {
    let vocabulary = tokenizer.vocabulary();
    (0..vocabulary.len() as u32).map(|id| vocabulary.sequence(id).unwrap_or_default().to_vec()).collect()
}

fn losses(losses: &Losses, patches: u64) -> Value {
    let Losses { total, cross_entropy, boundary, encoder, distill, spelling, bits_per_byte, predictor, labels } =
        *losses;
    json!({
        "total": total,
        "cross_entropy": cross_entropy,
        "boundary": boundary,
        "encoder": encoder,
        "distill": distill,
        "spelling": spelling,
        "bits_per_byte": bits_per_byte,
        "boundary_accuracy": predictor.accuracy(),
        "boundary_precision": predictor.precision(),
        "boundary_recall": predictor.recall(),
        "bytes_per_patch": labels as f64 / patches.max(1) as f64,
        "bytes": labels,
    })
}

/// The schedule of wider patches, and the model whose entropies decide about it.
async fn compression(
    engine: &Engine,
    config: &RunConfig,
    batcher: &Batcher,
    rows: &Rows,
) -> Result<(Option<Compression>, Option<SubwordModel>)> {
    let Some(wanted) = &config.compression else { return Ok((None, None)) };
    let (mut bytes, mut patches) = (0, 0);
    for row in 0..rows.len().min(MEASURED_ROWS) {
        let batch = batcher.batch(&rows.get(row)?)?;
        bytes += batch.labels_of(0);
        patches += batch.patch_lens[1..].iter().filter(|&&len| len != 0).count();
    }
    let start = bytes as f64 / patches.max(1) as f64;
    let compression = Compression {
        kind: wanted.kind,
        start,
        target: wanted.target,
        steps: wanted.steps.unwrap_or(config.optimiser.steps / 2).max(1),
        seed: config.seed,
    };
    let entropies = match (&wanted.entropies, wanted.kind.needs_entropies()) {
        (_, false) => None,
        (None, true) => {
            return Err(Error::invalid(
                "`compression.kind` goes by entropies: name the folder of a small subword model with `compression.entropies`",
            ));
        }
        (Some(dir), true) => {
            let source = SourceModel::open(dir, UNUSED, None)?;
            let options = SubwordOptions {
                rows: config.batch.rows,
                tokens: config.batch.subwords,
                adam: config.optimiser.adam(),
                schedule: config.optimiser.schedule(),
                half_products: config.batch.half_products,
                recompute: config.batch.recompute,
                rate: 0.0,
            };
            let size = (source.vocabulary(), source.tied());
            Some(SubwordModel::new(engine, source.config(), size, options, &source, false).await?)
        }
    };
    Ok((Some(compression), entropies))
}
