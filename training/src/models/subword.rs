//! A subword model, in training and for its hidden states and logits. Its blocks are those of a byte-level model
//! (docs/model.md, "Global blocks").

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bolmo_runtime::LayerType;
use bolmo_runtime::unstable::cos_sin;
use bolmo_runtime::unstable::{
    Calls, Context, Device, Gather, Matrix, Norm, NormRows, Permit, Product, Recorder, Rows, Slice, Workspace, device,
};
use bolmo_runtime::{CancelToken, Config, Engine, Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{Entropy, LogSoftmax, LogSoftmaxGrad};
use bolmo_shaders::sizes::WORKGROUP;
use serde_json::Value;

use crate::layers::activations::{ActivationSpec, buffer, copy_rows, recorder, saved_activations, stream};
use crate::layers::backward::{Backward, LinearGrad, NormGrad, Output, Scratch, ScratchSizes};
use crate::layers::segments::Segments;
use crate::layers::{Shape, global};
use crate::loss::NO_LABEL;
use crate::parameters::optimizer::{AdamOptions, Optimizer, OptimizerStep, Schedule, gradient_scale};
use crate::parameters::weights::{self, SubwordWeights};
use crate::parameters::{Parameters, TensorKind, TensorSource, snapshot};

/// Logits that are in memory at a time.
const LOGITS: usize = 8 << 20;

/// How a subword model is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubwordOptions {
    /// Examples of a batch.
    pub rows: usize,
    /// Subwords of an example.
    pub tokens: usize,
    /// Options of AdamW.
    pub adam: AdamOptions,
    /// Schedule of the learning rate.
    pub schedule: Schedule,
    /// Whether products read f16 factors and accumulate in f32. Weights are always f32.
    pub half_products: bool,
    /// Whether blocks save only their inputs and run forward again before their backward pass.
    pub recompute: bool,
    /// Peak learning rate.
    pub rate: f64,
}

/// Hidden states and logits of a model. `D` is the hidden size.
#[derive(Debug, Clone, Default)]
pub struct HiddenStates {
    /// `[tokens, D]`
    pub embeddings: Vec<f32>,
    /// After each block, `[tokens, D]` each.
    pub hidden: Vec<Vec<f32>>,
    /// After the final norm, `[tokens, D]`.
    pub final_hidden: Vec<f32>,
    /// `[tokens, vocabulary]`
    pub logits: Vec<f32>,
}

/// Metrics of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubwordReport {
    /// Number of the step, from 1.
    pub step: u64,
    /// Mean cross-entropy of a subword, in nats.
    pub loss: f64,
    /// Subwords that have a label.
    pub labels: u64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    /// Learning rate.
    pub rate: f64,
    /// Whether the step left the parameters unchanged because a gradient was not finite.
    pub skipped: bool,
}

/// A subword model with its parameters and the buffers for batches of one shape.
#[derive(Debug)]
pub struct SubwordModel {
    device: Arc<Device>,
    config: Config,
    vocabulary: usize,
    shape: Shape,
    gradient_scale: f32,
    options: SubwordOptions,
    parameters: Parameters<SubwordWeights>,
    optimizer: Optimizer,
    recorder: Recorder,
    ws: Workspace,
    scratch: Scratch,
    blocks: Vec<global::SavedActivations>,
    /// The stream after the blocks, `[tokens, D]`.
    last: Slice,
    /// Gradient of the stream, `[tokens, D]`.
    dx: Slice,
    ids: Slice,
    labels: Slice,
    members: Slice,
    /// `[rows at a time, vocabulary]`
    logits: Slice,
    likelihood: Slice,
    likelihood_weights: Slice,
    by_id: Segments,
    step: u64,
    calls: Calls,
}

impl SubwordModel {
    /// Loads a model of `vocabulary` subwords from `source`. `config` describes a byte-level model with the same
    /// blocks. Gradients and moments are allocated only if the model is to be `trained`.
    ///
    /// # Errors
    /// `InvalidArgument` for invalid options, `OutOfMemory`, `Unsupported`, and errors of `source`.
    pub async fn new(
        engine: &Engine,
        config: &Config,
        (vocabulary, tied): (usize, bool),
        options: SubwordOptions,
        source: &dyn TensorSource,
        trained: bool,
    ) -> Result<Self> {
        options.adam.check()?;
        let device = device(engine);
        let shape = Shape { rows: options.rows, bytes: 0, patches: options.tokens };
        let tokens = shape.all_patches();
        check(shape, vocabulary, trained)?;
        let parameters =
            Parameters::new(device, |_| trained, |allocator| weights::subword(config, vocabulary, tied, allocator))
                .await?;
        parameters.load(source).await?;
        let optimizer = Optimizer::new(device, &parameters.arenas).await?;
        let mut ws = Workspace::new(device, config, tokens).await?;
        ws.saves_activations = true;
        let spec = ActivationSpec { device, config, shape, workspace: &ws };
        let blocks = saved_activations(config.num_hidden_layers, options.recompute, async |shared, recompute| {
            global::SavedActivations::new(spec, shared, recompute).await
        })
        .await?;
        let d = config.hidden_size;
        let at_once = rows_at_once(vocabulary, tokens);
        let largest =
            d * vocabulary.max(2 * config.intermediate_size).max(config.query_width() + 2 * config.key_value_width());
        let sizes = ScratchSizes { bytes: 0, patches: tokens, logit_rows: at_once, vocabulary, largest };
        let scratch = Scratch::new(device, config, sizes).await?;
        if options.half_products {
            ws.f16_scratch = Some(scratch.allocate_f16(device).await?);
        }
        for (layers, table) in [LayerType::Sliding, LayerType::Full].into_iter().zip(&ws.cos_sin) {
            let (inverse, factor) = config.rotary_frequencies(layers);
            let one = cos_sin(0..shape.patches, &inverse, factor);
            device.write(table, 0, bytemuck::cast_slice(&one.repeat(shape.rows)))?;
        }
        Ok(Self {
            optimizer,
            recorder: recorder(device).await?,
            scratch,
            blocks,
            last: buffer(device, tokens, d).await?,
            dx: buffer(device, tokens, d).await?,
            ids: buffer(device, tokens, 1).await?,
            labels: buffer(device, tokens, 1).await?,
            members: buffer(device, vocabulary, 1).await?,
            logits: buffer(device, at_once, vocabulary).await?,
            likelihood: buffer(device, tokens, 4).await?,
            likelihood_weights: buffer(device, tokens, 2).await?,
            by_id: Segments::new(device, tokens, d).await?,
            device: device.clone(),
            config: config.clone(),
            vocabulary,
            shape,
            gradient_scale: gradient_scale(options.half_products, tokens),
            options,
            parameters,
            ws,
            step: 0,
            calls: Calls::default(),
        })
    }

    /// Embeds subwords and runs them through the blocks. Calls `each` before the first block and after every block.
    fn forward(&mut self, ids: &[u32], each: &mut dyn FnMut(&mut Context<'_>) -> Result<()>) -> Result<()> {
        let tokens = self.shape.all_patches();
        if ids.len() != tokens || ids.iter().any(|&id| id as usize >= self.vocabulary) {
            return Err(Error::invalid(format!(
                "a batch must have {tokens} subwords with ids below {}, found {} subwords with ids up to {}",
                self.vocabulary,
                ids.len(),
                ids.iter().max().copied().unwrap_or(0)
            )));
        }
        self.device.write(&self.ids, 0, bytemuck::cast_slice(ids))?;
        let weights = &self.parameters.weights;
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        cx.gather(
            &weights.embedding,
            Gather { index: &self.ids, y: &cx.workspace.patches, y_row: 0, count: tokens, add: false },
        )?;
        each(cx)?;
        for (i, (layer, saved)) in weights.global.iter().zip(&self.blocks).enumerate() {
            global::forward(cx, layer, saved, i, self.shape)?;
            each(cx)?;
        }
        let (ws, d) = (cx.workspace, cx.config.hidden_size);
        copy_rows(cx, &ws.patches, &self.last, tokens)?;
        let (x, y) = (stream(cx.config, &self.last), stream(cx.config, &ws.final_hidden));
        cx.norm(NormRows::new(Norm { scale: &weights.final_norm, eps: cx.config.rms_norm_eps }, x, y, tokens, d))
    }

    /// Hidden states and logits of a batch of subwords.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown subwords or a wrong number of them, and errors of the device.
    pub async fn hidden_states(&mut self, ids: &[u32]) -> Result<HiddenStates> {
        let tokens = self.shape.all_patches();
        let d = self.config.hidden_size;
        let mut slices = Vec::new();
        for _ in 0..=self.config.num_hidden_layers {
            slices.push(buffer(&self.device, tokens, d).await?);
        }
        let mut next = slices.iter();
        self.forward(ids, &mut |cx| match next.next() {
            Some(slice) => copy_rows(cx, &cx.workspace.patches, slice, tokens),
            None => Ok(()),
        })?;
        let bytes = 4 * (tokens * d) as u64;
        let mut states = Vec::new();
        for slice in &slices {
            states.push(self.recorder.read_f32(&[slice.part(0, bytes)?]).await?);
        }
        let final_hidden = self.recorder.read_f32(&[self.ws.final_hidden.part(0, bytes)?]).await?;
        let mut logits = Vec::new();
        let at_once = rows_at_once(self.vocabulary, tokens);
        for first in (0..tokens).step_by(at_once) {
            let rows = at_once.min(tokens - first);
            self.logits(first, rows)?;
            let part = self.logits.part(0, 4 * (rows * self.vocabulary) as u64)?;
            logits.extend(self.recorder.read_f32(&[part]).await?);
        }
        let mut states = states.into_iter();
        let embeddings = states.next().unwrap_or_default();
        Ok(HiddenStates { embeddings, hidden: states.collect(), final_hidden, logits })
    }

    /// Records the logits of some rows.
    fn logits(&mut self, first: usize, rows: usize) -> Result<()> {
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let hidden = Rows::new(&cx.workspace.final_hidden, cx.config.hidden_size, first);
        let head = head_of(&self.parameters.weights);
        cx.linear(Product::new(head, hidden, Rows::new(&self.logits, self.vocabulary, 0), rows))
    }

    /// Logits after one position of each example, `[vocabulary]` each.
    ///
    /// # Errors
    /// `InvalidArgument` for unknown subwords or positions outside the examples, and errors of the device.
    pub async fn logits_at(&mut self, ids: &[u32], positions: &[usize]) -> Result<Vec<Vec<f32>>> {
        let Shape { rows, patches, .. } = self.shape;
        if positions.len() != rows || positions.iter().any(|&position| position >= patches) {
            return Err(Error::invalid(format!(
                "expected a position below {patches} for each of the {rows} examples, found {positions:?}"
            )));
        }
        self.forward(ids, &mut |_| Ok(()))?;
        let mut all = Vec::new();
        for (row, &position) in positions.iter().enumerate() {
            self.logits(row * patches + position, 1)?;
            let part = self.logits.part(0, 4 * self.vocabulary as u64)?;
            all.push(self.recorder.read_f32(&[part]).await?);
        }
        Ok(all)
    }

    /// Log-probability of each label, `[rows, tokens]`. With `train`, accumulates the gradients of their negative mean.
    /// Writes the entropy of each distribution to `entropies`, `[rows, tokens]`, if given.
    async fn log_likelihoods(
        &mut self,
        ids: &[u32],
        labels: &[u32],
        entropies: Option<&Slice>,
        train: bool,
    ) -> Result<Vec<f32>> {
        let tokens = self.shape.all_patches();
        if labels.len() != tokens {
            return Err(Error::invalid(format!("a batch must have {tokens} labels, found {}", labels.len())));
        }
        let count = labels.iter().filter(|&&label| label != NO_LABEL).count().max(1);
        let weights: Vec<[f32; 2]> = labels
            .iter()
            .map(|&label| [if label == NO_LABEL { 0.0 } else { -self.gradient_scale / count as f32 }, 0.0])
            .collect();
        self.device.write(&self.labels, 0, bytemuck::cast_slice(labels))?;
        self.device.write(&self.likelihood_weights, 0, bytemuck::cast_slice(&weights))?;
        if train {
            self.by_id.set(&self.device, ids, self.vocabulary)?;
        }
        self.forward(ids, &mut |_| Ok(()))?;
        let n = self.vocabulary;
        let at_once = rows_at_once(n, tokens);
        let plain = WeightFormat::F32;
        for first in (0..tokens).step_by(at_once) {
            let rows = at_once.min(tokens - first);
            self.logits(first, rows)?;
            let labels = self.labels.part(4 * first as u64, 4 * rows as u64)?;
            let likelihood = self.likelihood.part(16 * first as u64, 16 * rows as u64)?;
            let params = LogSoftmax { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
            let slices = [&self.logits, &labels, &self.members, &likelihood];
            self.recorder.dispatch(KernelId::LogSoftmax, plain, &params, &slices, [rows, 1, 1])?;
            if let Some(entropies) = entropies {
                let own = entropies.part(4 * first as u64, 4 * rows as u64)?;
                let params = Entropy { rows: rows as u32, n: n as u32 };
                let slices = [&self.logits, &likelihood, &own];
                self.recorder.dispatch(KernelId::Entropy, plain, &params, &slices, [rows, 1, 1])?;
            }
            if train {
                self.head_backward(first, rows, &labels, &likelihood)?;
            }
        }
        if train {
            self.backward()?;
        }
        let values = self.recorder.read_f32(&[self.likelihood.part(0, 16 * tokens as u64)?]).await?;
        Ok(values.chunks(4).map(|row| row[2]).collect())
    }

    /// Backward pass of the softmax and the head for some rows, whose logits are in memory.
    fn head_backward(&mut self, first: usize, rows: usize, labels: &Slice, likelihood: &Slice) -> Result<()> {
        let (n, d) = (self.vocabulary, self.config.hidden_size);
        let weights = self.likelihood_weights.part(8 * first as u64, 8 * rows as u64)?;
        let params = LogSoftmaxGrad { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
        let slices = [&self.logits, labels, &self.members, likelihood, &weights];
        let grid = [n.div_ceil(WORKGROUP as usize), rows, 1];
        self.recorder.dispatch(KernelId::LogSoftmaxGrad, WeightFormat::F32, &params, &slices, grid)?;
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let x = Rows::new(&cx.workspace.final_hidden, d, first);
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        b.linear(LinearGrad {
            w: head_of(&self.parameters.weights),
            dw: Some(head_of(&self.parameters.grads)),
            biased_from: 0,
            x,
            dy: Rows::new(&self.logits, n, 0),
            dx: Output::replace(Rows::new(&self.scratch.du, d, first)),
            rows,
        })
    }

    /// Backward pass from the gradient of the final norm's output down to the embeddings.
    fn backward(&mut self) -> Result<()> {
        let tokens = self.shape.all_patches();
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        let config = b.cx.config;
        b.norm(NormGrad {
            norm: Norm { scale: &weights.final_norm, eps: config.rms_norm_eps },
            d_scale: Some(&grads.final_norm),
            x: stream(config, &self.last),
            dy: stream(config, &self.scratch.du),
            dx: Output::replace(stream(config, &self.dx)),
            rows: tokens,
            dim: config.hidden_size,
        })?;
        for (i, saved) in self.blocks.iter().enumerate().rev() {
            let (w, dw) = (&weights.global[i], Some(&grads.global[i]));
            global::backward(b, global::BlockGrad { w, dw, saved, i, dx: &self.dx, shape: self.shape })?;
        }
        self.by_id.add_to_table(b.cx, &grads.embedding, &self.dx)
    }

    /// Makes one step with the mean gradient of all `batches`. A batch is the subwords and their labels, `[rows,
    /// tokens]` each, with [`NO_LABEL`] for a missing label.
    ///
    /// # Errors
    /// `InvalidArgument` for batches of another shape, and errors of the device.
    pub async fn step(&mut self, batches: &[(&[u32], &[u32])]) -> Result<SubwordReport> {
        if batches.is_empty() {
            return Err(Error::invalid("a step needs at least one batch, found none"));
        }
        let _call = self.calls.begin(&self.device)?;
        for arena in &self.parameters.arenas {
            if let Some(trained) = &arena.trained {
                self.recorder.clear(&trained.grads);
            }
        }
        let (mut loss, mut count) = (0.0, 0);
        for (ids, labels) in batches {
            let (sum, labels) = self.evaluate_with(ids, labels, true).await?;
            loss += sum / labels.max(1) as f64 / batches.len() as f64;
            count += labels;
        }
        let _permit = self.permit().await?;
        self.step += 1;
        let rate = self.options.rate * self.options.schedule.factor(self.step);
        let scale = 1.0 / batches.len() as f64 / f64::from(self.gradient_scale);
        let step = OptimizerStep { options: &self.options.adam, step: self.step, scale };
        let squares = self.optimizer.record(&mut self.recorder, &self.parameters.arenas, |_| rate, step)?.part(0, 4)?;
        let squares = self.recorder.read_f32(&[squares]).await?.first().copied().unwrap_or(f32::NAN);
        Ok(SubwordReport {
            step: self.step,
            loss,
            labels: count,
            gradient_norm: scale * f64::from(squares).sqrt(),
            rate,
            skipped: !squares.is_finite(),
        })
    }

    /// Sum of the cross-entropies of a batch in nats, and the number of labels.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn evaluate(&mut self, ids: &[u32], labels: &[u32]) -> Result<(f64, u64)> {
        self.evaluate_with(ids, labels, false).await
    }

    async fn evaluate_with(&mut self, ids: &[u32], labels: &[u32], train: bool) -> Result<(f64, u64)> {
        let _permit = self.permit().await?;
        let likelihood = self.log_likelihoods(ids, labels, None, train).await?;
        let real = likelihood.iter().zip(labels).filter(|&(_, &label)| label != NO_LABEL);
        Ok(real.fold((0.0, 0), |(sum, count), (&likelihood, _)| (sum - f64::from(likelihood), count + 1)))
    }

    /// Entropy of the distribution at each position and its cross-entropy with the label, in nats; `[rows, tokens]`
    /// each.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn uncertainty(&mut self, ids: &[u32], labels: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let tokens = self.shape.all_patches();
        let entropies = buffer(&self.device, tokens, 1).await?;
        let likelihood = self.log_likelihoods(ids, labels, Some(&entropies), false).await?;
        let entropies = self.recorder.read_f32(&[entropies.part(0, 4 * tokens as u64)?]).await?;
        Ok((entropies, likelihood.into_iter().map(|likelihood| -likelihood).collect()))
    }

    /// The calls in progress.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// A permit to submit work. Waits in a call if the engine is suspended.
    async fn permit(&self) -> Result<Permit> {
        self.calls.permit(&self.device, &CancelToken::default()).await
    }

    /// Configuration of a byte-level model with the same blocks.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Writes a snapshot of parameters, moments and `progress` below `dir`, and deletes all but the last `keep`
    /// snapshots.
    ///
    /// # Errors
    /// `Io`, and errors of the device.
    pub async fn save(&mut self, dir: &Path, step: u64, progress: &Value, keep: usize) -> Result<PathBuf> {
        let _permit = self.permit().await?;
        snapshot::write(dir, step, progress, (&mut self.recorder, &self.parameters.arenas), keep).await
    }

    /// Restores a snapshot.
    ///
    /// # Errors
    /// `Io`, and `BadCheckpoint` for a snapshot that is damaged or belongs to another model.
    pub async fn restore(&mut self, path: &Path, step: u64) -> Result<()> {
        let _permit = self.permit().await?;
        snapshot::restore(path, &self.device, &self.parameters.arenas).await?;
        self.step = step;
        Ok(())
    }

    /// Calls `each` with every tensor, named as in the source model's folder. `each` must not suspend the engine.
    ///
    /// # Errors
    /// Errors of the device and of `each`.
    pub async fn each_weight(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let _permit = self.permit().await?;
        self.parameters.each_tensor(&mut self.recorder, TensorKind::Weights, each).await
    }

    /// Calls `each` with the gradient of every tensor after the last step. `each` must not suspend the engine.
    ///
    /// # Errors
    /// Errors of the device and of `each`.
    pub async fn each_gradient(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let factor = 1.0 / self.gradient_scale;
        let mut unscaled = |name: &str, mut values: Vec<f32>| {
            values.iter_mut().for_each(|value| *value *= factor);
            each(name, values)
        };
        let _permit = self.permit().await?;
        self.parameters.each_tensor(&mut self.recorder, TensorKind::Gradients, &mut unscaled).await
    }
}

fn head_of(weights: &SubwordWeights) -> &Matrix {
    weights.head.as_ref().unwrap_or(&weights.embedding)
}

/// Rows whose logits are in memory at a time. A multiple of 64, so that parts of buffers are aligned for bindings.
fn rows_at_once(vocabulary: usize, tokens: usize) -> usize {
    (LOGITS / vocabulary / 64 * 64).clamp(64, tokens.next_multiple_of(64))
}

fn check(shape: Shape, vocabulary: usize, trained: bool) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid(what));
    if shape.rows == 0 || shape.patches < 2 || shape.all_patches() > usize::from(u16::MAX) {
        return refuse(format!(
            "a batch must have at least one example of 2 subwords, and at most 65535 subwords in all; found {} \
             examples of \
             {} subwords",
            shape.rows, shape.patches
        ));
    }
    if trained && (!vocabulary.is_multiple_of(4) || !shape.all_patches().is_multiple_of(4)) {
        return refuse(format!(
            "training needs a vocabulary and a batch that are multiples of 4, found {vocabulary} vocabulary rows and \
             {} \
             subwords",
            shape.all_patches()
        ));
    }
    Ok(())
}
