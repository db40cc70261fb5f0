//! The learner of a byte-level model, in stage 1 or stage 2.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bolmo_runtime::unstable::device;
use bolmo_runtime::{Checkpoint, Config, Result};
use serde_json::{Value, json};

use super::prepare::{byte_sequences, check_blocks, compression, encoded_text, space_subwords, teacher_input};
use crate::checkpoint::export::{self, StoredType};
use crate::checkpoint::source::{LocalSizes, SourceModel};
use crate::data::{Batch, Batcher, ByteLength, Compression, CompressionKind};
use crate::init::{Byteified, PoolFit};
use crate::layers::Shape;
use crate::loss::{LossOptions, Losses, Targets};
use crate::models::subword::SubwordModel;
use crate::parameters::TensorSource;
use crate::run::config::Start;
use crate::run::inputs::Inputs;
use crate::run::kind::Kind;
use crate::step::Examples;
use crate::trainer::{TeacherSource, Trainer};

/// A byte-level model in training.
pub(in crate::run) struct ByteLevelLearner {
    pub(super) trainer: Trainer,
    batcher: Batcher,
    compression: Option<Compression>,
    /// The model whose entropies choose the merges.
    entropies: Option<SubwordModel>,
    tokenizer_folder: PathBuf,
    /// Ids of a batch.
    per_batch: usize,
    export: StoredType,
    /// About the configurations of the models that the run begins with.
    pub(super) warnings: Vec<String>,
}

impl ByteLevelLearner {
    pub(super) async fn open(inputs: Inputs<'_>) -> Result<Self> {
        let config = inputs.config;
        let mut warnings = Vec::new();
        let (trainer, batcher) = match inputs.kind {
            Kind::Stage2 => {
                let student = open_student(inputs.student()?)?;
                warnings.extend_from_slice(student.warnings());
                open_stage2(inputs, &student).await?
            }
            Kind::Stage1 | Kind::Subword => {
                let student = config.model.student.as_deref().map(open_student).transpose()?;
                let source = open_source(inputs, inputs.source()?)?;
                warnings.extend_from_slice(source.warnings());
                warnings.extend(student.iter().flat_map(Checkpoint::warnings).cloned());
                open_stage1(inputs, &source, student.as_ref()).await?
            }
        };
        let (compression, entropies) = compression(inputs, &batcher).await?;
        Ok(Self {
            trainer,
            compression,
            entropies,
            tokenizer_folder: inputs.tokenizer_folder(),
            per_batch: config.batch.rows * config.batch.subwords,
            export: config.model.export.into(),
            batcher,
            warnings,
        })
    }

    /// Batches of rows, compressed if the run asks for it.
    async fn batches(&mut self, ids: &[u32], step: u64) -> Result<Vec<PreparedBatch>> {
        let mut batches = Vec::new();
        for ids in ids.chunks(self.per_batch) {
            let mut batch = self.batcher.batch(ids)?;
            let subwords = teacher_input(&batch, self.batcher.tokenizer().eos());
            if let Some(compression) = &self.compression {
                let scores = match &mut self.entropies {
                    None => None,
                    Some(model) => {
                        // Part of a call on the trainer.
                        let _permit = self.trainer.permit().await?;
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
            batches.push(PreparedBatch { truth, subwords, shape: self.trainer.shape(), batch });
        }
        Ok(batches)
    }

    pub(super) async fn step(&mut self, ids: &[u32]) -> Result<Value> {
        let batches = self.batches(ids, self.trainer.steps() + 1).await?;
        let examples: Vec<_> = batches.iter().map(PreparedBatch::examples).collect();
        let report = self.trainer.step(&examples).await?;
        let mut record = record(&report.losses, report.patches);
        record["gradient_norm"] = json!(report.gradient_norm);
        record["learning_rate"] = json!(report.rate);
        record["skipped"] = json!(u8::from(report.skipped));
        if let Some(compression) = &self.compression {
            record["target_bytes_per_patch"] = json!(compression.ratio(report.step));
        }
        Ok(record)
    }

    /// Metrics with predicted boundaries in either stage, and the teacher's bits per byte if there is one.
    pub(super) async fn evaluate(&mut self, ids: &[u32]) -> Result<Value> {
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
        let mut record = record(&all, patches);
        if let Some(nats) = teacher {
            record["teacher_bits_per_byte"] = json!(nats / std::f64::consts::LN_2 / all.labels.max(1) as f64);
        }
        Ok(record)
    }

    pub(super) async fn export(&mut self, dir: &Path) -> Result<()> {
        let mut tensors = HashMap::new();
        let mut collect = |name: &str, values: Vec<f32>| {
            tensors.insert(name.to_owned(), values);
            Ok(())
        };
        self.trainer.each_weight(&mut collect).await?;
        export::byte_level(dir, self.trainer.config(), &tensors, self.export, &self.tokenizer_folder)
    }
}

/// Creates the batcher of a run for a model with this configuration.
fn batcher(inputs: Inputs<'_>, model: &Config) -> Result<Batcher> {
    let batch = &inputs.config.batch;
    Batcher::new(model, inputs.tokenizer()?, batch.subwords, ByteLength::PerSubword(batch.bytes_per_subword))
}

/// Shape of a run's batches.
fn shape(inputs: Inputs<'_>, batcher: &Batcher) -> Shape {
    let batch = &inputs.config.batch;
    Shape { rows: batch.rows, bytes: batcher.bytes(), patches: batch.subwords }
}

/// Opens stage 2: the student alone.
async fn open_stage2(inputs: Inputs<'_>, student: &Checkpoint) -> Result<(Trainer, Batcher)> {
    let batcher = batcher(inputs, student.config())?;
    let options = inputs.config.trainer_options(inputs.kind, shape(inputs, &batcher));
    Ok((Trainer::new(inputs.engine, student.config(), options, student, None).await?, batcher))
}

/// Opens stage 1: the teacher, and a student that is new or continues from a checkpoint.
async fn open_stage1(
    inputs: Inputs<'_>,
    source: &SourceModel,
    student: Option<&Checkpoint>,
) -> Result<(Trainer, Batcher)> {
    let Inputs { engine, config, .. } = inputs;
    let fresh = match student {
        // A dry run counts memory, whatever the weights are.
        _ if device(engine).is_dry_run() => None,
        Some(student) => check_blocks(student, source).map(|()| None)?,
        None => Some(fresh_student(inputs, source).await?),
    };
    let (weights, model): (&dyn TensorSource, _) = match (&fresh, student) {
        (Some(fresh), _) => (fresh, source.config()),
        (None, Some(student)) => (student, student.config()),
        (None, None) => (source, source.config()),
    };
    let batcher = batcher(inputs, model)?;
    let spaces = space_subwords(batcher.tokenizer());
    let sequences = byte_sequences(batcher.tokenizer());
    let teacher = TeacherSource {
        tensors: source,
        vocabulary: source.vocabulary(),
        tied: source.tied(),
        spaces: &spaces,
        sequences: &sequences,
    };
    let options = config.trainer_options(inputs.kind, shape(inputs, &batcher));
    Ok((Trainer::new(engine, model, options, weights, Some(teacher)).await?, batcher))
}

/// Opens the folder of a byte-level model.
fn open_student(dir: &Path) -> Result<Checkpoint> {
    Checkpoint::open(dir).map_err(|e| e.context("`model.student`"))
}

/// Opens the source model, with the sizes of the student's local parts.
fn open_source(inputs: Inputs<'_>, dir: &Path) -> Result<SourceModel> {
    let subwords = Some(inputs.tokenizer()?.vocabulary().len());
    // First without the local parts, so that an error of these is none of the source.
    let source = SourceModel::open(dir, LocalSizes::BLOCKS_ONLY, subwords).map_err(|e| e.context("`model.source`"))?;
    let (key, sizes) = match inputs.config.model.local {
        Some(local) => ("`model.local`", local.into()),
        None => ("`model.local` is not given", LocalSizes::for_width(source.config().hidden_size)),
    };
    SourceModel::open(dir, sizes, subwords).map_err(|e| e.context(key))
}

/// Initializes a new student.
async fn fresh_student<'a>(inputs: Inputs<'_>, source: &'a SourceModel) -> Result<Byteified<'a>> {
    let text;
    let fit = match inputs.config.model.start {
        Start::Moments => PoolFit::Exact,
        Start::Fitted => {
            let batcher = batcher(inputs, source.config())?;
            text = encoded_text(inputs, &batcher, shape(inputs, &batcher))?;
            PoolFit::Subwords(&text)
        }
    };
    Byteified::new(inputs.engine, source, inputs.config.seed, fit).await
}

/// A batch with the inputs of a step.
struct PreparedBatch {
    batch: Batch,
    truth: Vec<bool>,
    subwords: Vec<u32>,
    shape: Shape,
}

impl PreparedBatch {
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

/// Losses as a record of metrics.
fn record(losses: &Losses, patches: u64) -> Value {
    let Losses {
        total,
        cross_entropy,
        boundary,
        encoder,
        distill,
        byte_distillation,
        bits_per_byte,
        predictor,
        labels,
    } = *losses;
    json!({
        "total": total,
        "cross_entropy": cross_entropy,
        "boundary": boundary,
        "encoder": encoder,
        "distill": distill,
        "spelling": byte_distillation,
        "bits_per_byte": bits_per_byte,
        "boundary_accuracy": predictor.accuracy(),
        "boundary_precision": predictor.precision(),
        "boundary_recall": predictor.recall(),
        "bytes_per_patch": labels as f64 / patches.max(1) as f64,
        "bytes": labels,
    })
}
