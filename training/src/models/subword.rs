//! A subword model: forwards for its hidden states and logits, and in training. Its blocks are those of a byte-level model (SPEC 6).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bolmo_runtime::config::RopeScaling;
use bolmo_runtime::internals::{Context, Gpu, Matrix, Norm, Recorder, Rows, Slice, Workspace, gpu};
use bolmo_runtime::rope::{cos_sin, inverse_frequencies};
use bolmo_runtime::{Config, Engine, Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{Entropy, LogSoftmax, LogSoftmaxGrad};
use bolmo_shaders::table::WORKGROUP;
use serde_json::Value;

use crate::layers::backward::{Backward, Into, Scratch, Segments};
use crate::layers::{self, Room, Shape, buffer, copy_rows, global, stream};
use crate::loss::NO_LABEL;
use crate::parameters::optimizer::{AdamOptions, Optimiser, Schedule, Step, gradient_scale};
use crate::parameters::snapshot;
use crate::parameters::weights::{self, SubwordWeights};
use crate::parameters::{Parameters, TensorSource, Which};

/// Floats of logits that are in memory at a time.
const LOGITS: usize = 8 << 20;

/// How a subword model is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubwordOptions {
    /// Examples of a batch.
    pub rows: usize,
    /// Subwords of an example.
    pub tokens: usize,
    /// How parameters follow their gradients.
    pub adam: AdamOptions,
    /// How the learning rate changes over the run.
    pub schedule: Schedule,
    /// Whether products are made of f16, with sums in f32. Weights are f32 in any case.
    pub half_products: bool,
    /// Whether blocks keep no more than their inputs, and are run again on the way back.
    pub recompute: bool,
    /// The highest learning rate.
    pub rate: f64,
}

/// What a model says on the way to its logits. `D` is the hidden size.
#[derive(Debug, Clone, Default)]
pub struct HiddenStates {
    /// `[tokens, D]`
    pub embeddings: Vec<f32>,
    /// Behind each block, `[tokens, D]` each.
    pub hidden: Vec<Vec<f32>>,
    /// Behind the final norm, `[tokens, D]`.
    pub final_hidden: Vec<f32>,
    /// `[tokens, vocabulary]`
    pub logits: Vec<f32>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SubwordReport {
    /// Which step it was, counted from 1.
    pub step: u64,
    /// Mean cross-entropy of a subword, in nats.
    pub loss: f64,
    /// Subwords that were learnt from.
    pub labels: u64,
    /// Norm of all gradients together before it was bounded.
    pub gradient_norm: f64,
    /// Learning rate.
    pub rate: f64,
    /// Whether the parameters were left as they are, since a gradient was no finite number.
    pub skipped: bool,
}

/// A subword model, its parameters, and the buffers for batches of one shape.
#[derive(Debug)]
pub struct SubwordModel {
    gpu: Arc<Gpu>,
    config: Config,
    vocabulary: usize,
    shape: Shape,
    gradient_scale: f32,
    options: SubwordOptions,
    parameters: Parameters<SubwordWeights>,
    optimiser: Optimiser,
    recorder: Recorder,
    ws: Workspace,
    scratch: Scratch,
    blocks: Vec<global::Kept>,
    /// The stream behind the blocks, `[tokens, D]`, and its gradient.
    last: Slice,
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
}

impl SubwordModel {
    /// Loads a model of `vocabulary` subwords from `source`. `config` is that of a byte-level model with the same blocks. Gradients and
    /// moments are only there if it is to be `trained`.
    ///
    /// # Errors
    /// `InvalidArgument` for options that cannot be meant, `OutOfMemory`, `Unsupported`, and whatever `source` reports.
    pub async fn new(
        engine: &Engine,
        config: &Config,
        (vocabulary, tied): (usize, bool),
        options: SubwordOptions,
        source: &dyn TensorSource,
        trained: bool,
    ) -> Result<Self> {
        options.adam.check()?;
        let gpu = gpu(engine);
        let shape = Shape { rows: options.rows, bytes: 0, patches: options.tokens };
        let tokens = shape.all_patches();
        check(shape, vocabulary, trained)?;
        let parameters =
            Parameters::new(gpu, |_| trained, |memory| weights::subword(config, vocabulary, tied, memory)).await?;
        parameters.load(source).await?;
        let optimiser = Optimiser::new(gpu, &parameters.arenas).await?;
        let mut ws = Workspace::new(gpu, config, tokens).await?;
        ws.keep = true;
        let room = Room { gpu, config, shape, shared: &ws };
        let blocks = layers::kept(config.num_hidden_layers, options.recompute, async |lender, again| {
            global::Kept::new(room, lender, again).await
        })
        .await?;
        let d = config.hidden_size;
        let at_once = rows_at_once(vocabulary, tokens);
        let largest =
            d * vocabulary.max(2 * config.intermediate_size).max(config.query_width() + 2 * config.key_value_width());
        let scratch = Scratch::new(gpu, config, (0, tokens), (at_once, vocabulary), largest).await?;
        if options.half_products {
            ws.halves = Some(scratch.room_for_halves(gpu).await?);
        }
        for (scaling, table) in [RopeScaling::None, config.rope_scaling].iter().zip(&ws.cos_sin) {
            let (inverse, factor) =
                inverse_frequencies(config.head_dim, config.rope_theta, scaling, config.max_position_embeddings);
            let one = cos_sin(0..shape.patches, &inverse, factor);
            gpu.write(table, 0, bytemuck::cast_slice(&one.repeat(shape.rows)))?;
        }
        Ok(Self {
            optimiser,
            recorder: layers::recorder(gpu).await?,
            scratch,
            blocks,
            last: buffer(gpu, tokens, d).await?,
            dx: buffer(gpu, tokens, d).await?,
            ids: buffer(gpu, tokens, 1).await?,
            labels: buffer(gpu, tokens, 1).await?,
            members: buffer(gpu, vocabulary, 1).await?,
            logits: buffer(gpu, at_once, vocabulary).await?,
            likelihood: buffer(gpu, tokens, 4).await?,
            likelihood_weights: buffer(gpu, tokens, 2).await?,
            by_id: Segments::new(gpu, tokens, d).await?,
            gpu: gpu.clone(),
            config: config.clone(),
            vocabulary,
            shape,
            gradient_scale: gradient_scale(options.half_products, tokens),
            options,
            parameters,
            ws,
            step: 0,
        })
    }

    /// Embeds subwords and runs them through the blocks. `each` is told before the first block and behind each.
    fn forward(&mut self, ids: &[u32], each: &mut dyn FnMut(&mut Context<'_>) -> Result<()>) -> Result<()> {
        let tokens = self.shape.all_patches();
        if ids.len() != tokens || ids.iter().any(|&id| id as usize >= self.vocabulary) {
            return Err(Error::invalid(format!(
                "{} subwords, expected {tokens}, each below {}",
                ids.len(),
                self.vocabulary
            )));
        }
        self.gpu.write(&self.ids, 0, bytemuck::cast_slice(ids))?;
        let weights = &self.parameters.weights;
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        cx.gather(&weights.embedding, &self.ids, &cx.workspace.patches, 0, tokens, false)?;
        each(cx)?;
        for (i, (layer, kept)) in weights.global.iter().zip(&self.blocks).enumerate() {
            global::forward(cx, layer, kept, i, self.shape)?;
            each(cx)?;
        }
        let (ws, d) = (cx.workspace, cx.config.hidden_size);
        copy_rows(cx, &ws.patches, &self.last, tokens)?;
        let (x, y) = (stream(cx.config, &self.last), stream(cx.config, &ws.final_hidden));
        cx.norm(&weights.final_norm, cx.config.rms_norm_eps, x, y, tokens, 1, d, false)
    }

    /// Everything on the way from a batch of subwords to its logits.
    ///
    /// # Errors
    /// `InvalidArgument` for subwords that are not there or too many or few, and whatever the device reports.
    pub async fn hidden_states(&mut self, ids: &[u32]) -> Result<HiddenStates> {
        let tokens = self.shape.all_patches();
        let d = self.config.hidden_size;
        let mut kept = Vec::new();
        for _ in 0..=self.config.num_hidden_layers {
            kept.push(buffer(&self.gpu, tokens, d).await?);
        }
        let mut at = kept.iter();
        self.forward(ids, &mut |cx| match at.next() {
            Some(slice) => copy_rows(cx, &cx.workspace.patches, slice, tokens),
            None => Ok(()),
        })?;
        let bytes = 4 * (tokens * d) as u64;
        let mut states = Vec::new();
        for slice in &kept {
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

    /// The logits of some rows.
    fn logits(&mut self, first: usize, rows: usize) -> Result<()> {
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let hidden = Rows::new(&cx.workspace.final_hidden, cx.config.hidden_size, first);
        let head = head_of(&self.parameters.weights);
        cx.linear(head, hidden, Rows::new(&self.logits, self.vocabulary, 0), rows, false)
    }

    /// The logits behind one place of each example, `[vocabulary]` each.
    ///
    /// # Errors
    /// `InvalidArgument` for subwords or places that are not there, and whatever the device reports.
    pub async fn logits_at(&mut self, ids: &[u32], places: &[usize]) -> Result<Vec<Vec<f32>>> {
        let Shape { rows, patches, .. } = self.shape;
        if places.len() != rows || places.iter().any(|&place| place >= patches) {
            return Err(Error::invalid(format!("{} places, expected {rows}, each below {patches}", places.len())));
        }
        self.forward(ids, &mut |_| Ok(()))?;
        let mut all = Vec::new();
        for (row, &place) in places.iter().enumerate() {
            self.logits(row * patches + place, 1)?;
            let part = self.logits.part(0, 4 * self.vocabulary as u64)?;
            all.push(self.recorder.read_f32(&[part]).await?);
        }
        Ok(all)
    }

    /// The log-probability of each label, `[rows, tokens]`, [`NO_LABEL`] for none; gradients of their mean's negative are added up if `train`.
    /// Where `entropies` are wanted, they are put there, `[rows, tokens]`.
    async fn run(&mut self, ids: &[u32], labels: &[u32], entropies: Option<&Slice>, train: bool) -> Result<Vec<f32>> {
        let tokens = self.shape.all_patches();
        let d = self.config.hidden_size;
        if labels.len() != tokens {
            return Err(Error::invalid(format!("{} labels, expected {tokens}", labels.len())));
        }
        let count = labels.iter().filter(|&&label| label != NO_LABEL).count().max(1);
        let weights: Vec<[f32; 2]> = labels
            .iter()
            .map(|&label| [if label == NO_LABEL { 0.0 } else { -self.gradient_scale / count as f32 }, 0.0])
            .collect();
        self.gpu.write(&self.labels, 0, bytemuck::cast_slice(labels))?;
        self.gpu.write(&self.likelihood_weights, 0, bytemuck::cast_slice(&weights))?;
        if train {
            self.by_id.set(&self.gpu, ids, self.vocabulary)?;
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
            if !train {
                continue;
            }
            let weights = self.likelihood_weights.part(8 * first as u64, 8 * rows as u64)?;
            let params = LogSoftmaxGrad { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
            let slices = [&self.logits, &labels, &self.members, &likelihood, &weights];
            let grid = [n.div_ceil(WORKGROUP as usize), rows, 1];
            self.recorder.dispatch(KernelId::LogSoftmaxGrad, plain, &params, &slices, grid)?;
            let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
            let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
            let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
            let hidden = Rows::new(&b.cx.workspace.final_hidden, d, first);
            let into = Into { rows: Rows::new(&self.scratch.du, d, first), add: false };
            let d_logits = Rows::new(&self.logits, n, 0);
            b.linear(head_of(weights), Some(head_of(grads)), 0, hidden, d_logits, Some(into), rows)?;
        }
        if train {
            self.backward()?;
        }
        let values = self.recorder.read_f32(&[self.likelihood.part(0, 16 * tokens as u64)?]).await?;
        Ok(values.chunks(4).map(|row| row[2]).collect())
    }

    /// From the gradient behind the final norm to the embeddings.
    fn backward(&mut self) -> Result<()> {
        let tokens = self.shape.all_patches();
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        let config = b.cx.config;
        let norm = Norm { scale: &weights.final_norm, eps: config.rms_norm_eps };
        let into = Into { rows: stream(config, &self.dx), add: false };
        let (x, du) = (stream(config, &self.last), stream(config, &self.scratch.du));
        b.norm(norm, Some(&grads.final_norm), x, du, into, tokens, config.hidden_size)?;
        for (i, kept) in self.blocks.iter().enumerate().rev() {
            global::backward(b, &weights.global[i], Some(&grads.global[i]), kept, i, &self.dx, self.shape)?;
        }
        b.gather(&grads.embedding, &self.dx, &self.by_id)
    }

    /// One step over all `batches` together: subwords and the label of each, [`NO_LABEL`] for none, `[rows, tokens]`.
    ///
    /// # Errors
    /// `InvalidArgument` for batches of another shape, and whatever the device reports.
    pub async fn step(&mut self, batches: &[(&[u32], &[u32])]) -> Result<SubwordReport> {
        if batches.is_empty() {
            return Err(Error::invalid("a step without batches"));
        }
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
        self.step += 1;
        let rate = self.options.rate * self.options.schedule.factor(self.step);
        let scale = 1.0 / batches.len() as f64 / f64::from(self.gradient_scale);
        let step = Step { options: &self.options.adam, step: self.step, scale };
        let squares = self.optimiser.record(&mut self.recorder, &self.parameters.arenas, |_| rate, step)?.part(0, 4)?;
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

    /// The sum of the cross-entropies of a batch in nats, and over how many labels.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn evaluate(&mut self, ids: &[u32], labels: &[u32]) -> Result<(f64, u64)> {
        self.evaluate_with(ids, labels, false).await
    }

    async fn evaluate_with(&mut self, ids: &[u32], labels: &[u32], train: bool) -> Result<(f64, u64)> {
        let likelihood = self.run(ids, labels, None, train).await?;
        let real = likelihood.iter().zip(labels).filter(|&(_, &label)| label != NO_LABEL);
        Ok(real.fold((0.0, 0), |(sum, count), (&likelihood, _)| (sum - f64::from(likelihood), count + 1)))
    }

    /// Entropy of what the model says at each place, and its cross-entropy with the label there, in nats; `[rows, tokens]` both.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub async fn uncertainty(&mut self, ids: &[u32], labels: &[u32]) -> Result<(Vec<f32>, Vec<f32>)> {
        let tokens = self.shape.all_patches();
        let entropies = buffer(&self.gpu, tokens, 1).await?;
        let likelihood = self.run(ids, labels, Some(&entropies), false).await?;
        let entropies = self.recorder.read_f32(&[entropies.part(0, 4 * tokens as u64)?]).await?;
        Ok((entropies, likelihood.into_iter().map(|likelihood| -likelihood).collect()))
    }

    /// The configuration of a byte-level model with the same blocks.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Writes a snapshot of parameters and moments below `dir`, together with `progress`, and deletes all but the last `keep`.
    ///
    /// # Errors
    /// `Io`, and whatever the device reports.
    pub async fn save(&mut self, dir: &Path, step: u64, progress: &Value, keep: usize) -> Result<PathBuf> {
        snapshot::write(dir, step, progress, (&mut self.recorder, &self.parameters.arenas), keep).await
    }

    /// Goes back to a snapshot.
    ///
    /// # Errors
    /// `Io`, `BadCheckpoint` for one that is damaged or of another model.
    pub async fn restore(&mut self, path: &Path, step: u64) -> Result<()> {
        snapshot::restore(path, &self.gpu, &self.parameters.arenas).await?;
        self.step = step;
        Ok(())
    }

    /// Gives every tensor, by the names of the source model's folder.
    ///
    /// # Errors
    /// Whatever the device and `each` report.
    pub async fn each_weight(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        self.parameters.each_tensor(&mut self.recorder, Which::Weights, each).await
    }

    /// Gives the gradient of every tensor as the last step left it.
    ///
    /// # Errors
    /// Whatever the device and `each` report.
    pub async fn each_gradient(&mut self, each: &mut dyn FnMut(&str, Vec<f32>) -> Result<()>) -> Result<()> {
        let factor = 1.0 / self.gradient_scale;
        let mut unscaled = |name: &str, mut values: Vec<f32>| {
            values.iter_mut().for_each(|value| *value *= factor);
            each(name, values)
        };
        self.parameters.each_tensor(&mut self.recorder, Which::Gradients, &mut unscaled).await
    }
}

fn head_of(weights: &SubwordWeights) -> &Matrix {
    weights.head.as_ref().unwrap_or(&weights.embedding)
}

/// Rows whose logits are in memory at a time: a multiple of 64, so that parts of buffers begin where bindings may.
fn rows_at_once(vocabulary: usize, tokens: usize) -> usize {
    (LOGITS / vocabulary / 64 * 64).clamp(64, tokens.next_multiple_of(64))
}

fn check(shape: Shape, vocabulary: usize, trained: bool) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid(what));
    if shape.rows == 0 || shape.patches < 2 || shape.all_patches() > usize::from(u16::MAX) {
        return refuse(format!(
            "a batch of {} examples of {} subwords: there must be one at least, and 65535 at most in all",
            shape.rows, shape.patches
        ));
    }
    if trained && (!vocabulary.is_multiple_of(4) || !shape.all_patches().is_multiple_of(4)) {
        return refuse(format!(
            "training takes a vocabulary and a batch that are multiples of 4: {vocabulary} rows, {} subwords",
            shape.all_patches()
        ));
    }
    Ok(())
}
