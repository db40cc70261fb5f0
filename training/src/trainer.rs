//! A run of stage 1 or stage 2: batches in, losses out, parameters that follow.

use std::path::{Path, PathBuf};

use bolmo_runtime::internals::{Recorder, gpu};
use bolmo_runtime::{Config, Engine, Error, Result};
use serde_json::Value;

use crate::layers::Shape;
use crate::loss::{LossOptions, Losses};
use crate::models::byte_level::ByteLevel;
use crate::models::teacher::{Teacher, TeacherOptions};
use crate::parameters::optimizer::{AdamOptions, Optimiser, Schedule, Step};
use crate::parameters::snapshot;
use crate::parameters::{Group, TensorSource, Which};
use crate::step::{COMPARED_BLOCKS, Examples, StageOutput, stage1, stage2, teacher_nats};

/// Learning rates, schedule and losses of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainerOptions {
    /// Sizes of a batch.
    pub shape: Shape,
    /// How losses are added up.
    pub losses: LossOptions,
    /// How parameters follow their gradients.
    pub adam: AdamOptions,
    /// How learning rates change over the run.
    pub schedule: Schedule,
    /// Whether products are made of f16, with sums in f32. Weights are f32 in any case.
    pub half_products: bool,
    /// Whether layers keep no more than their inputs, and are run again on the way back.
    pub recompute: bool,
    /// The highest learning rate of the decoder and the head.
    pub local_rate: f64,
    /// The same of what lies in front of the patches: embeddings, encoder, boundary predictor.
    pub encoder_rate: f64,
    /// The highest learning rate of the global blocks; stage 1 leaves them as they are.
    pub global_rate: f64,
}

/// Who teaches in stage 1. Its blocks must be those of the student.
pub struct TeacherSource<'a> {
    /// Embeddings, final norm and head, by their names in a folder of the source model.
    pub tensors: &'a dyn TensorSource,
    /// Rows of its vocabulary.
    pub vocabulary: usize,
    /// Whether its head is its embedding.
    pub tied: bool,
    /// Subwords that begin with a space, a tab or a newline.
    pub spaces: &'a [u32],
    /// The ids of each subword's bytes, none for one without; only `losses.spelling` asks for them.
    pub sequences: &'a [Vec<u16>],
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Which step it was, counted from 1.
    pub step: u64,
    /// Means over the batches of the step.
    pub losses: Losses,
    /// Patches over all batches.
    pub patches: u64,
    /// Norm of all gradients together before it was bounded.
    pub gradient_norm: f64,
    /// Learning rate of the decoder and the head.
    pub rate: f64,
    /// Whether the parameters were left as they are, since a gradient was no finite number.
    pub skipped: bool,
}

/// A byte-level model in training.
#[derive(Debug)]
pub struct Trainer {
    model: ByteLevel,
    teacher: Option<Teacher>,
    optimiser: Optimiser,
    options: TrainerOptions,
    step: u64,
}

impl Trainer {
    /// Loads a model from `weights`, by the names of SPEC 2, and gets ready to train it: in stage 1 if there is a teacher, else in stage 2.
    ///
    /// # Errors
    /// `InvalidArgument` for options that cannot be meant, `OutOfMemory`, `Unsupported` where the adapter's limits are too low, and whatever
    /// `weights` reports.
    pub async fn new(
        engine: &Engine,
        config: &Config,
        options: TrainerOptions,
        weights: &dyn TensorSource,
        teacher: Option<TeacherSource<'_>>,
    ) -> Result<Self> {
        options.adam.check()?;
        let TrainerOptions { local_rate, encoder_rate, global_rate, .. } = options;
        for (name, rate) in [("local_rate", local_rate), ("encoder_rate", encoder_rate), ("global_rate", global_rate)] {
            if !rate.is_finite() || rate < 0.0 {
                return Err(Error::invalid(format!("`{name}` must be finite and not negative, found {rate}")));
            }
        }
        let gpu = gpu(engine);
        let frozen = teacher.is_some();
        let trained = |group| group != Group::Global || !frozen;
        let TrainerOptions { shape, half_products, recompute, .. } = options;
        let model = ByteLevel::new(gpu, config, shape, half_products, recompute, trained).await?;
        model.parameters.load(weights).await?;
        let teacher = match teacher {
            None => None,
            Some(TeacherSource { tensors, vocabulary, tied, spaces, sequences }) => {
                let compared = COMPARED_BLOCKS.min(config.num_hidden_layers);
                let sequences = (options.losses.spelling > 0.0).then_some(sequences);
                let parts = TeacherOptions { vocabulary, tied, spaces, compared, sequences };
                Some(Teacher::new(gpu, config, options.shape, &parts, tensors).await?)
            }
        };
        let optimiser = Optimiser::new(gpu, &model.parameters.arenas).await?;
        Ok(Self { model, teacher, optimiser, options, step: 0 })
    }

    /// The commands that it records.
    pub(crate) fn recorder(&mut self) -> &mut Recorder {
        &mut self.model.recorder
    }

    /// Steps that were made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step over the gradients of all `batches` together, of the trainer's shape each.
    ///
    /// # Errors
    /// `InvalidArgument` for a batch of another shape, and whatever the device reports; parameters may then be half changed.
    pub async fn step(&mut self, batches: &[Examples<'_>]) -> Result<StepReport> {
        if batches.is_empty() {
            return Err(Error::invalid("a step without batches"));
        }
        self.model.clear_gradients();
        let mut losses = Losses::default();
        let mut patches = 0;
        for examples in batches {
            let output = self.run(examples, true).await?;
            losses.add(&output.losses, 1.0 / batches.len() as f64);
            patches += output.patches;
        }
        self.step += 1;
        let factor = self.options.schedule.factor(self.step);
        let rate = |group: Group| {
            let TrainerOptions { local_rate, encoder_rate, global_rate, .. } = self.options;
            factor
                * match group {
                    Group::Embeddings | Group::Encoder => encoder_rate,
                    Group::Local => local_rate,
                    Group::Global => global_rate,
                }
        };
        let scale = 1.0 / batches.len() as f64 / f64::from(self.model.gradient_scale);
        let step = Step { options: &self.options.adam, step: self.step, scale };
        let arenas = &self.model.parameters.arenas;
        let squares = self.optimiser.record(&mut self.model.recorder, arenas, rate, step)?.part(0, 4)?;
        let squares = self.model.recorder.read_f32(&[squares]).await?.first().copied().unwrap_or(f32::NAN);
        Ok(StepReport {
            step: self.step,
            losses,
            patches,
            gradient_norm: scale * f64::from(squares).sqrt(),
            rate: rate(Group::Local),
            skipped: !squares.is_finite(),
        })
    }

    /// What the losses are on a batch with the boundaries that the model predicts and its own global outputs, without gradients.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn evaluate(&mut self, examples: &Examples<'_>, losses: &LossOptions) -> Result<StageOutput> {
        examples.check(self.options.shape)?;
        stage2(&mut self.model, examples, losses, false).await
    }

    /// What the model says behind each byte of a batch, with the boundaries that it predicts and its own global outputs: logits `[B, L, ids]`.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn logits(&mut self, examples: &Examples<'_>) -> Result<Vec<f32>> {
        self.evaluate(examples, &LossOptions::stage2()).await?;
        let count = self.options.shape.all_bytes() * self.model.config.vocab_size;
        self.model.recorder.read_f32(&[self.model.ws.logits.part(0, 4 * count as u64)?]).await
    }

    /// What the teacher makes of a batch: the sum of -log p of all subwords behind the first, those past the bytes' cap left out, in nats.
    /// `None` without a teacher.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn teacher_nats(&mut self, examples: &Examples<'_>) -> Result<Option<f64>> {
        examples.check(self.options.shape)?;
        match &self.teacher {
            Some(teacher) => teacher_nats(&mut self.model, teacher, examples).await.map(Some),
            None => Ok(None),
        }
    }

    /// Sizes of a batch.
    pub fn shape(&self) -> Shape {
        self.options.shape
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// Writes a snapshot of parameters and moments below `dir`, together with `progress`, and deletes all but the last `keep`.
    ///
    /// # Errors
    /// `Io`, and whatever the device reports.
    pub async fn save(&mut self, dir: &Path, step: u64, progress: &Value, keep: usize) -> Result<PathBuf> {
        let ByteLevel { recorder, parameters, .. } = &mut self.model;
        snapshot::write(dir, step, progress, (recorder, &parameters.arenas), keep).await
    }

    /// Goes back to a snapshot.
    ///
    /// # Errors
    /// `Io`, `BadCheckpoint` for one that is damaged or of another model.
    pub async fn restore(&mut self, path: &Path, step: u64) -> Result<()> {
        snapshot::restore(path, &self.model.gpu, &self.model.parameters.arenas).await?;
        self.step = step;
        Ok(())
    }

    async fn run(&mut self, examples: &Examples<'_>, train: bool) -> Result<StageOutput> {
        examples.check(self.options.shape)?;
        let options = &self.options.losses;
        match &self.teacher {
            Some(teacher) => stage1(&mut self.model, teacher, examples, options, train).await,
            None => stage2(&mut self.model, examples, options, train).await,
        }
    }

    /// Gives every tensor of the model, by the names of SPEC 2.
    ///
    /// # Errors
    /// Whatever the device and `each` report.
    pub async fn each_weight(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        self.each(Which::Weights, each).await
    }

    /// Gives the gradient of every tensor that is trained, as the last step left it, before it was scaled and bounded.
    ///
    /// # Errors
    /// Whatever the device and `each` report.
    pub async fn each_gradient(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let factor = 1.0 / self.model.gradient_scale;
        let mut unscaled = |name: &str, mut values: Vec<f32>| {
            values.iter_mut().for_each(|value| *value *= factor);
            each(name, values)
        };
        self.each(Which::Gradients, &mut unscaled).await
    }

    async fn each(&mut self, which: Which, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let recorder: &mut Recorder = &mut self.model.recorder;
        self.model.parameters.each_tensor(recorder, which, each).await
    }
}
