//! Trainer of a byte-level model in stage 1 or stage 2: takes batches, reports losses and updates the parameters.

use std::path::{Path, PathBuf};

use bolmo_runtime::unstable::{Call, Calls, Permit, Recorder, device};
use bolmo_runtime::{CancelToken, Config, Engine, Error, Result};
use serde_json::Value;

use crate::layers::Shape;
use crate::loss::{LossOptions, Losses};
use crate::models::byte_level::{ByteLevel, ModelOptions};
use crate::models::teacher::{Teacher, TeacherOptions};
use crate::parameters::optimizer::{AdamOptions, Optimizer, OptimizerStep, Schedule};
use crate::parameters::{Group, TensorKind, TensorSource, snapshot};
use crate::step::{COMPARED_BLOCKS, Examples, StepOutput, stage1, stage2, teacher_nats};

/// Options of a [`Trainer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainerOptions {
    /// Shape of a batch.
    pub shape: Shape,
    /// Factors of the losses.
    pub losses: LossOptions,
    /// Options of AdamW.
    pub adam: AdamOptions,
    /// Schedule of the learning rates.
    pub schedule: Schedule,
    /// Whether products read f16 factors and accumulate in f32. Weights are always f32.
    pub half_products: bool,
    /// Whether layers save only their inputs and run forward again before their backward pass.
    pub recompute: bool,
    /// Peak learning rate of the decoder and the head.
    pub local_rate: f64,
    /// Peak learning rate of the embeddings, the encoder and the boundary predictor.
    pub encoder_rate: f64,
    /// Peak learning rate of the global blocks, which are frozen in stage 1.
    pub global_rate: f64,
}

/// The teacher of stage 1. Its blocks must be the student's.
pub struct TeacherSource<'a> {
    /// Source of the embeddings, the final norm and the head, named as in the source model's folder.
    pub tensors: &'a dyn TensorSource,
    /// Rows of its vocabulary.
    pub vocabulary: usize,
    /// Whether its head is its embedding.
    pub tied: bool,
    /// Subwords that begin with a space, a tab or a newline.
    pub spaces: &'a [u32],
    /// The byte ids of each subword, empty for one without bytes. Only byte distillation reads them.
    pub sequences: &'a [Vec<u16>],
}

/// Metrics of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean losses over the batches of the step.
    pub losses: Losses,
    /// Number of patches in all batches.
    pub patches: u64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the decoder and the head.
    pub rate: f64,
    /// Whether the step left the parameters unchanged because a gradient was not finite.
    pub skipped: bool,
}

/// A byte-level model in training.
#[derive(Debug)]
pub struct Trainer {
    model: ByteLevel,
    teacher: Option<Teacher>,
    optimizer: Optimizer,
    options: TrainerOptions,
    step: u64,
    calls: Calls,
}

impl Trainer {
    /// Loads a model from `weights` and prepares it for training: stage 1 with a teacher, otherwise stage 2. Tensors
    /// have their names in checkpoints (docs/model.md, "Tensors").
    ///
    /// # Errors
    /// `InvalidArgument` for invalid options, `OutOfMemory`, `Unsupported` if the adapter's limits are too low, and
    /// errors of `weights`.
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
        let device = device(engine);
        let frozen = teacher.is_some();
        let trained = |group| group != Group::Global || !frozen;
        let TrainerOptions { shape, half_products, recompute, .. } = options;
        let model = ByteLevel::new(device, config, ModelOptions { shape, half_products, recompute }, trained).await?;
        model.parameters.load(weights).await?;
        let teacher = match teacher {
            None => None,
            Some(TeacherSource { tensors, vocabulary, tied, spaces, sequences }) => {
                let compared = COMPARED_BLOCKS.min(config.num_hidden_layers);
                let sequences = (options.losses.byte_distillation > 0.0).then_some(sequences);
                let parts = TeacherOptions { vocabulary, tied, spaces, compared, sequences };
                Some(Teacher::new(device, config, options.shape, &parts, tensors).await?)
            }
        };
        let optimizer = Optimizer::new(device, &model.parameters.arenas).await?;
        Ok(Self { model, teacher, optimizer, options, step: 0, calls: Calls::default() })
    }

    /// The calls in progress.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    fn begin_call(&self) -> Result<Call> {
        self.calls.begin(&self.model.device)
    }

    /// A permit to submit work. Waits in a call if the engine is suspended.
    pub(crate) async fn permit(&self) -> Result<Permit> {
        self.calls.permit(&self.model.device, &CancelToken::default()).await
    }

    /// Recorder of the model's commands.
    pub(crate) fn recorder(&mut self) -> &mut Recorder {
        &mut self.model.recorder
    }

    /// Number of completed steps.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Makes one step with the mean gradient of all `batches`, each of the trainer's shape.
    ///
    /// # Errors
    /// `InvalidArgument` for a batch of another shape, and errors of the device, which may leave parameters partly
    /// updated.
    pub async fn step(&mut self, batches: &[Examples<'_>]) -> Result<StepReport> {
        if batches.is_empty() {
            return Err(Error::invalid("a step needs at least one batch, found none"));
        }
        let _call = self.begin_call()?;
        self.model.clear_gradients();
        let mut losses = Losses::default();
        let mut patches = 0;
        for examples in batches {
            // Batches are what a suspended engine divides a step into.
            let permit = self.permit().await?;
            let output = self.run_batch(examples, true).await?;
            drop(permit);
            losses.add(&output.losses, 1.0 / batches.len() as f64);
            patches += output.patches;
        }
        let _permit = self.permit().await?;
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
        let step = OptimizerStep { options: &self.options.adam, step: self.step, scale };
        let arenas = &self.model.parameters.arenas;
        let squares = self.optimizer.record(&mut self.model.recorder, arenas, rate, step)?.part(0, 4)?;
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

    /// Losses of a batch with predicted boundaries and the model's own global outputs, without gradients.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn evaluate(&mut self, examples: &Examples<'_>, losses: &LossOptions) -> Result<StepOutput> {
        examples.check(self.options.shape)?;
        let _permit = self.permit().await?;
        stage2(&mut self.model, examples, losses, false).await
    }

    /// Logits after each byte of a batch with predicted boundaries and the model's own global outputs, `[B, L, ids]`.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn logits(&mut self, examples: &Examples<'_>) -> Result<Vec<f32>> {
        let _call = self.begin_call()?;
        self.evaluate(examples, &LossOptions::stage2()).await?;
        let _permit = self.permit().await?;
        let count = self.options.shape.all_bytes() * self.model.config.vocab_size;
        self.model.recorder.read_f32(&[self.model.ws.logits.part(0, 4 * count as u64)?]).await
    }

    /// Sum of the teacher's -log p of all subwords that have bytes in the batch, without the first of each example, in
    /// nats. `None` without a teacher.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn teacher_nats(&mut self, examples: &Examples<'_>) -> Result<Option<f64>> {
        examples.check(self.options.shape)?;
        let _permit = self.permit().await?;
        match &self.teacher {
            Some(teacher) => teacher_nats(&mut self.model, teacher, examples).await.map(Some),
            None => Ok(None),
        }
    }

    /// Shape of a batch.
    pub fn shape(&self) -> Shape {
        self.options.shape
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// Writes a snapshot of parameters, moments and `progress` below `dir`, and deletes all but the last `keep`
    /// snapshots.
    ///
    /// # Errors
    /// `Io`, and errors of the device.
    pub async fn save(&mut self, dir: &Path, step: u64, progress: &Value, keep: usize) -> Result<PathBuf> {
        let _permit = self.permit().await?;
        let ByteLevel { recorder, parameters, .. } = &mut self.model;
        snapshot::write(dir, step, progress, (recorder, &parameters.arenas), keep).await
    }

    /// Restores a snapshot.
    ///
    /// # Errors
    /// `Io`, and `BadCheckpoint` for a snapshot that is damaged or belongs to another model.
    pub async fn restore(&mut self, path: &Path, step: u64) -> Result<()> {
        let _permit = self.permit().await?;
        snapshot::restore(path, &self.model.device, &self.model.parameters.arenas).await?;
        self.step = step;
        Ok(())
    }

    /// Runs a batch of the trainer's stage.
    async fn run_batch(&mut self, examples: &Examples<'_>, train: bool) -> Result<StepOutput> {
        examples.check(self.options.shape)?;
        let options = &self.options.losses;
        match &self.teacher {
            Some(teacher) => stage1(&mut self.model, teacher, examples, options, train).await,
            None => stage2(&mut self.model, examples, options, train).await,
        }
    }

    /// Calls `each` with every tensor of the model, under its name in checkpoints. `each` must not suspend the engine.
    ///
    /// # Errors
    /// Errors of the device and of `each`.
    pub async fn each_weight(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        self.each(TensorKind::Weights, each).await
    }

    /// Calls `each` with the gradient of every trained tensor after the last step, before scaling and clipping. `each`
    /// must not suspend the engine.
    ///
    /// # Errors
    /// Errors of the device and of `each`.
    pub async fn each_gradient(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let factor = 1.0 / self.model.gradient_scale;
        let mut unscaled = |name: &str, mut values: Vec<f32>| {
            values.iter_mut().for_each(|value| *value *= factor);
            each(name, values)
        };
        self.each(TensorKind::Gradients, &mut unscaled).await
    }

    async fn each(&mut self, kind: TensorKind, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let _permit = self.permit().await?;
        let recorder: &mut Recorder = &mut self.model.recorder;
        self.model.parameters.each_tensor(recorder, kind, each).await
    }
}
