//! A byte-level model in training: the forward pass of a batch, and the backward pass from the derivatives of the
//! losses.

use std::sync::Arc;

use bolmo_runtime::LayerType;
use bolmo_runtime::unstable::cos_sin;
use bolmo_runtime::unstable::{
    Context, Device, Gather, LayerState, Norm, NormRows, Recorder, Rows, Slice, Weights, Workspace, boundary, depool,
    embed, head, normalize, pooling,
};
use bolmo_runtime::{Config, Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{BoundaryGrad, LogSoftmax, LogSoftmaxGrad};
use bolmo_shaders::sizes::WORKGROUP;

use crate::layers::Shape;
use crate::layers::activations::{
    ActivationSpec, buffer, copy_rows, recorder, saved_activations, stream, with_workspace,
};
use crate::layers::backward::{Backward, LinearGrad, NormGrad, Output, Scratch, ScratchSizes};
use crate::layers::segments::{SegmentSum, Segments};
use crate::layers::{global, local};
use crate::loss::byte_distillation::ByteDistillation;
use crate::loss::{Likelihood, LikelihoodGradient};
use crate::parameters::optimizer::gradient_scale;
use crate::parameters::{Group, Parameters, weights};

/// Space-like bytes, which may follow a patch.
const SPACES: [u8; 3] = *b" \t\n";

/// How a byte-level model is allocated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModelOptions {
    /// Shape of a batch.
    pub(crate) shape: Shape,
    /// Whether products read f16 factors.
    pub(crate) half_products: bool,
    /// Whether layers save only their inputs and run forward again before their backward pass.
    pub(crate) recompute: bool,
}

/// A byte-level model with its parameters and the buffers for batches of one shape.
#[derive(Debug)]
pub(crate) struct ByteLevel {
    pub(crate) device: Arc<Device>,
    pub(crate) config: Config,
    pub(crate) shape: Shape,
    /// Factor of all gradients ([`gradient_scale`]).
    pub(crate) gradient_scale: f32,
    pub(crate) parameters: Parameters<Weights>,
    pub(crate) recorder: Recorder,
    pub(crate) ws: Workspace,
    pub(crate) scratch: Scratch,
    encoder: Vec<local::SavedActivations>,
    decoder: Vec<local::SavedActivations>,
    blocks: Vec<global::SavedActivations>,
    state: LayerState,
    /// The stream after the encoder's layers, before its norm, `[bytes, D]`.
    encoded: Slice,
    /// q and k of the boundary predictor, `[bytes, 2, D]`.
    predictor: Slice,
    /// Pooled states before their projection, `[patches, D]`.
    pooled: Slice,
    /// Global outputs before the decoder's first norm, `[patches, D]`.
    pub(crate) outputs: Slice,
    /// The stream after the decoder's layers, `[bytes, D]`.
    decoded: Slice,
    /// Gradient of the byte stream.
    pub(crate) dx: Slice,
    /// Gradient of the patch stream.
    pub(crate) d_patches: Slice,
    /// Gradient of the encoder's output.
    dh: Slice,
    /// Gradient of the normalized global outputs.
    dg: Slice,
    labels: Slice,
    /// Whether each id is space-like.
    members: Slice,
    likelihood: Slice,
    likelihood_weights: Slice,
    d_cosine: Slice,
    /// Patch slot that each byte is pooled into, `u32::MAX` for none, `[bytes]`.
    pooled_into: Slice,
    /// Rows of another stream in the order of the patch slots, `[patches, D]`.
    pub(crate) gathered: Slice,
    /// The numbers of those rows, `[patches]`.
    gathered_from: Slice,
    /// Distance of each patch from the teacher's, `[patches]`.
    pub(crate) distances: Slice,
    /// Derivative of the total by each distance, `[patches]`.
    pub(crate) patch_weights: Slice,
    by_id: Segments,
    by_suffix: Segments,
    by_patch: Segments,
}

/// Input of the encoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderInput<'a> {
    /// Plain ids, `[B, L]`.
    pub(crate) ids: &'a [u32],
    /// Longest subword that ends at each byte, `[B, L]`.
    pub(crate) suffixes: &'a [u32],
}

/// Input of the decoder, and the targets of its logits.
#[derive(Clone, Copy)]
pub(crate) struct DecoderInput<'a> {
    /// Row of the global outputs that each byte sees, `[B, L]`.
    pub(crate) patch_of: &'a [u32],
    /// Label of each byte, larger than any id for none, `[B, L]`.
    pub(crate) labels: &'a [u32],
    /// Byte distillation and the factor of its gradient.
    pub(crate) byte_distillation: Option<(&'a ByteDistillation, f32)>,
}

impl ByteLevel {
    /// Allocates everything for batches of one shape. `trained` tells which groups have gradients.
    pub(crate) async fn new(
        device: &Arc<Device>,
        config: &Config,
        options: ModelOptions,
        trained: impl Fn(Group) -> bool,
    ) -> Result<Self> {
        let ModelOptions { shape, half_products, recompute } = options;
        check_shape(config, shape)?;
        let parameters = Parameters::new(device, trained, |allocator| weights::byte_level(config, allocator)).await?;
        let (bytes, patches, d) = (shape.all_bytes(), shape.all_patches(), config.hidden_size);
        let mut ws = Workspace::new(device, config, bytes).await?;
        ws.saves_activations = true;
        let (encoders, decoders) = (config.num_local_encoder_layers, config.num_local_decoder_layers);
        let spec = ActivationSpec { device, config, shape, workspace: &ws };
        let mut encoder = saved_activations(encoders + decoders, recompute, async |shared, recompute| {
            local::SavedActivations::new(spec, shared, recompute).await
        })
        .await?;
        let decoder = encoder.split_off(encoders);
        let blocks = saved_activations(config.num_hidden_layers, recompute, async |shared, recompute| {
            global::SavedActivations::new(spec, shared, recompute).await
        })
        .await?;
        let state = state(device, config, shape).await?;
        let scratch = Scratch::new(device, config, scratch_sizes(config, shape)).await?;
        if half_products {
            ws.f16_scratch = Some(scratch.allocate_f16(device).await?);
        }
        let mut this = Self {
            recorder: recorder(device).await?,
            encoder,
            decoder,
            blocks,
            state,
            encoded: buffer(device, bytes, d).await?,
            predictor: buffer(device, bytes, 2 * d).await?,
            pooled: buffer(device, patches, d).await?,
            outputs: buffer(device, patches, d).await?,
            decoded: buffer(device, bytes, d).await?,
            dx: buffer(device, bytes.max(patches), d).await?,
            d_patches: buffer(device, patches, d).await?,
            dh: buffer(device, bytes + 1, d).await?,
            dg: buffer(device, patches, d).await?,
            labels: buffer(device, bytes, 1).await?,
            members: buffer(device, config.vocab_size, 1).await?,
            likelihood: buffer(device, bytes, 4).await?,
            likelihood_weights: buffer(device, bytes, 2).await?,
            d_cosine: buffer(device, bytes, 1).await?,
            pooled_into: buffer(device, bytes, 1).await?,
            gathered: buffer(device, patches, d).await?,
            gathered_from: buffer(device, patches, 1).await?,
            distances: buffer(device, patches, 1).await?,
            patch_weights: buffer(device, patches, 1).await?,
            by_id: Segments::new(device, bytes, d).await?,
            by_suffix: Segments::new(device, bytes, d).await?,
            by_patch: Segments::new(device, bytes, d).await?,
            device: device.clone(),
            config: config.clone(),
            shape,
            gradient_scale: gradient_scale(half_products, bytes),
            parameters,
            ws,
            scratch,
        };
        this.write_constants()?;
        Ok(this)
    }

    /// Writes what is the same for every batch: the rotation angles of all positions, and which ids are space-like.
    fn write_constants(&mut self) -> Result<()> {
        let config = &self.config;
        for (layers, table) in [LayerType::Sliding, LayerType::Full].into_iter().zip(&self.ws.cos_sin) {
            let (inverse, factor) = config.rotary_frequencies(layers);
            let one = cos_sin(0..self.shape.patches, &inverse, factor);
            self.device.write(table, 0, bytemuck::cast_slice(&one.repeat(self.shape.rows)))?;
        }
        let mut members = vec![0u32; config.vocab_size];
        for byte in SPACES {
            members[usize::from(config.byte_offset) + usize::from(byte)] = 1;
        }
        self.device.write(&self.members, 0, bytemuck::cast_slice(&members))
    }

    /// Embeds and encodes a batch. The future resolves to the cosines of the boundary predictor, `[B, L]`; the last of
    /// each example has no meaning. More work can be recorded before the future is awaited.
    pub(crate) async fn encode(
        &mut self,
        batch: EncoderInput<'_>,
    ) -> Result<impl Future<Output = Result<Vec<f32>>> + use<>> {
        let rows = self.shape.all_bytes();
        let device = &self.device;
        device.write(&self.ws.ids, 0, bytemuck::cast_slice(batch.ids))?;
        self.by_id.set(device, batch.ids, self.config.vocab_size)?;
        if self.config.add_expanded_embeddings {
            device.write(&self.ws.suffix_ids, 0, bytemuck::cast_slice(batch.suffixes))?;
            self.by_suffix.set(device, batch.suffixes, self.config.subword_vocab_size)?;
        }
        let weights = &self.parameters.weights;
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let ws = cx.workspace;
        let d = cx.config.hidden_size;
        embed(cx, weights, &ws.ids, &ws.suffix_ids, 0, rows)?;
        for (layer, saved) in weights.encoder.iter().zip(&self.encoder) {
            local::forward(cx, layer, saved, &self.state, self.shape)?;
        }
        copy_rows(cx, &ws.x, &self.encoded, rows)?;
        let (x, h) = (stream(cx.config, &ws.x), Rows::new(&ws.h, d, 1));
        cx.norm(NormRows::new(
            Norm { scale: &weights.post_encoder_norm, eps: cx.config.local_rms_norm_eps },
            x,
            h,
            rows,
            d,
        ))?;
        let own = Workspace { projections: self.predictor.clone(), ..ws.clone() };
        boundary(&mut with_workspace(cx, &own), weights, 1, rows - 1)?;
        let cosines = cx.recorder.begin_read_f32(&[ws.cosine.part(0, 4 * (rows - 1) as u64)?]).await?;
        Ok(async {
            let mut cosines = cosines.await?;
            cosines.push(0.0);
            Ok(cosines)
        })
    }

    /// Pools one byte into each patch slot. `ends` holds the byte of each slot as a row of the batch, `u32::MAX` for an
    /// empty slot, `[B, P]`.
    pub(crate) fn pool(&mut self, ends: &[u32]) -> Result<()> {
        let patches = self.shape.all_patches();
        let mut into = vec![u32::MAX; self.shape.all_bytes()];
        let mut rows = Vec::with_capacity(patches);
        for (slot, &end) in ends.iter().enumerate() {
            // Empty slots follow all others of an example, and attention is causal: their contents don't matter.
            let example = slot / self.shape.patches * self.shape.bytes;
            let row = if end == u32::MAX { example as u32 } else { end };
            rows.push(row + 1);
            if end != u32::MAX {
                into[end as usize] = slot as u32;
            }
        }
        self.device.write(&self.ws.ends, 0, bytemuck::cast_slice(&rows))?;
        self.device.write(&self.pooled_into, 0, bytemuck::cast_slice(&into))?;
        let own = Workspace { branch: self.pooled.clone(), ..self.ws.clone() };
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &own };
        pooling(cx, &self.parameters.weights, patches)
    }

    /// Runs the patches through the first `count` blocks.
    pub(crate) fn global(&mut self, count: usize) -> Result<()> {
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let layers = self.parameters.weights.global.iter().zip(&self.blocks);
        for (i, (layer, saved)) in layers.take(count).enumerate() {
            global::forward(cx, layer, saved, i, self.shape)?;
        }
        Ok(())
    }

    /// Computes the logits from the global outputs in [`Self::outputs`]. Reads back their likelihoods, `[B, L]`, and
    /// the slices in `others`.
    pub(crate) async fn decode(
        &mut self,
        input: DecoderInput<'_>,
        others: &[Slice],
    ) -> Result<(Vec<Likelihood>, Vec<f32>)> {
        let (rows, patches) = (self.shape.all_bytes(), self.shape.all_patches());
        // Row 0 of the runtime's normalized outputs belongs to the patch before the batch.
        let seen: Vec<u32> = input.patch_of.iter().map(|&row| row + 1).collect();
        self.device.write(&self.ws.patch_of, 0, bytemuck::cast_slice(&seen))?;
        self.device.write(&self.labels, 0, bytemuck::cast_slice(input.labels))?;
        self.by_patch.set(&self.device, input.patch_of, patches)?;
        let weights = &self.parameters.weights;
        let own = Workspace { patches: self.outputs.clone(), ..self.ws.clone() };
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &own };
        let ws = cx.workspace;
        normalize(cx, weights, 0, patches, (&ws.g, 1))?;
        depool(cx, weights, 1, rows)?;
        for (layer, saved) in weights.decoder.iter().zip(&self.decoder) {
            local::forward(cx, layer, saved, &self.state, self.shape)?;
        }
        copy_rows(cx, &ws.x, &self.decoded, rows)?;
        head(cx, weights, 0, rows, &ws.logits)?;
        let n = weights.head.n;
        let params = LogSoftmax { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
        let slices = [&ws.logits, &self.labels, &self.members, &self.likelihood];
        cx.recorder.dispatch(KernelId::LogSoftmax, WeightFormat::F32, &params, &slices, [rows, 1, 1])?;
        if let Some((byte_distillation, scale)) = input.byte_distillation {
            byte_distillation.compare(cx.recorder, &ws.logits, &self.likelihood, scale)?;
        }
        let mut read = vec![self.likelihood.part(0, 16 * rows as u64)?];
        read.extend_from_slice(others);
        let values = cx.recorder.read_f32(&read).await?;
        let (likelihood, others) = values.split_at(4 * rows);
        let of = |row: &[f32]| Likelihood { label: row[2], space: row[3] };
        Ok((likelihood.chunks(4).map(of).collect(), others.to_vec()))
    }

    /// Backward pass of [`Self::decode`], from the derivatives by the likelihoods.
    ///
    /// Leaves the gradient of the decoder's input in [`Self::dx`], starts that of the encoder's output, and, if
    /// `global`, leaves that of the global outputs in [`Self::d_patches`].
    pub(crate) fn decode_backward(
        &mut self,
        gradient: &LikelihoodGradient,
        global: bool,
        byte_distillation: Option<&ByteDistillation>,
    ) -> Result<()> {
        let (rows, patches) = (self.shape.all_bytes(), self.shape.all_patches());
        self.device.write(&self.likelihood_weights, 0, bytemuck::cast_slice(gradient))?;
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let ws = cx.workspace;
        let n = weights.head.n;
        let params = LogSoftmaxGrad { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
        let slices = [&ws.logits, &self.labels, &self.members, &self.likelihood, &self.likelihood_weights];
        let grid = [n.div_ceil(WORKGROUP as usize), rows, 1];
        cx.recorder.dispatch(KernelId::LogSoftmaxGrad, WeightFormat::F32, &params, &slices, grid)?;
        if let Some(byte_distillation) = byte_distillation {
            byte_distillation.add_gradient(cx.recorder, &ws.logits)?;
        }
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        let config = b.cx.config;
        let dim = config.hidden_size;
        let (du, dx) = (stream(config, &self.scratch.du), stream(config, &self.dx));
        b.linear(LinearGrad {
            w: &weights.head,
            dw: Some(&grads.head),
            biased_from: 0,
            x: stream(config, &ws.final_hidden),
            dy: Rows::new(&ws.logits, n, 0),
            dx: Output::replace(du),
            rows,
        })?;
        b.norm(NormGrad {
            norm: Norm { scale: &weights.final_norm, eps: config.rms_norm_eps },
            d_scale: Some(&grads.final_norm),
            x: stream(config, &self.decoded),
            dy: du,
            dx: Output::replace(dx),
            rows,
            dim,
        })?;
        let (state, shape) = (&self.state, self.shape);
        for (i, saved) in self.decoder.iter().enumerate().rev() {
            let (w, dw) = (&weights.decoder[i], &grads.decoder[i]);
            local::backward(b, local::LayerGrad { w, dw, saved, state, dx: &self.dx, shape })?;
        }
        b.linear(LinearGrad {
            w: &weights.depool_projection,
            dw: Some(&grads.depool_projection),
            biased_from: 0,
            x: Rows::new(&ws.h, dim, 1),
            dy: dx,
            dx: Output::replace(Rows::new(&self.dh, dim, 1)),
            rows,
        })?;
        // A slot that no byte sees has no segment, so its gradient is cleared here.
        b.cx.recorder.clear(&self.dg);
        let sum = SegmentSum { y: &self.dg, first_row: 0, rows: patches, dim, dy: &self.dx, add: false };
        self.by_patch.sum(b.cx, sum)?;
        b.norm(NormGrad {
            norm: Norm { scale: &weights.initial_norm, eps: config.local_rms_norm_eps },
            d_scale: Some(&grads.initial_norm),
            x: stream(config, &self.outputs),
            dy: stream(config, &self.dg),
            dx: Output::replace(stream(config, if global { &self.d_patches } else { &self.scratch.du })),
            rows: patches,
            dim,
        })
    }

    /// Backward pass of the first `count` blocks: turns [`Self::d_patches`] from the gradient of their output into that
    /// of their input. Gradients of the weights are accumulated if `trained`.
    pub(crate) fn global_backward(&mut self, count: usize, trained: bool) -> Result<()> {
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        for (i, saved) in self.blocks.iter().enumerate().take(count).rev() {
            let (w, dw) = (&weights.global[i], trained.then(|| &grads.global[i]));
            global::backward(b, global::BlockGrad { w, dw, saved, i, dx: &self.d_patches, shape: self.shape })?;
        }
        Ok(())
    }

    /// Backward pass of the encoder, from the gradient of the patches in [`Self::d_patches`] and that of the cosines
    /// down to the embeddings. Follows [`Self::decode_backward`].
    pub(crate) fn encode_backward(&mut self, d_cosine: &[f32]) -> Result<()> {
        let (rows, patches) = (self.shape.all_bytes(), self.shape.all_patches());
        self.device.write(&self.d_cosine, 0, bytemuck::cast_slice(d_cosine))?;
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let ws = cx.workspace;
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        let config = b.cx.config;
        let dim = config.hidden_size;
        let dh = Rows::new(&self.dh, dim, 1);
        b.linear(LinearGrad {
            w: &weights.pool_projection,
            dw: Some(&grads.pool_projection),
            biased_from: 0,
            x: stream(config, &self.pooled),
            dy: stream(config, &self.d_patches),
            dx: Output::replace(stream(config, &self.dg)),
            rows: patches,
        })?;
        // The gradient of each slot goes to the byte that was pooled into it. Other bytes name a slot that doesn't
        // exist.
        let d_pooled = self.dg.part(0, 4 * (patches * dim) as u64)?;
        b.cx.gather_rows(
            &d_pooled,
            Gather { index: &self.pooled_into, y: &self.dh, y_row: 1, count: rows, add: true },
        )?;

        let params = BoundaryGrad { rows: rows as u32 - 1, dim4: (dim / 4) as u32 };
        let d_predictor = &self.scratch.d_projections;
        let slices = [&self.predictor, &self.d_cosine, d_predictor];
        b.cx.recorder.dispatch(KernelId::BoundaryGrad, WeightFormat::F32, &params, &slices, [rows, 1, 1])?;
        b.linear(LinearGrad {
            w: &weights.boundary,
            dw: Some(&grads.boundary),
            biased_from: 0,
            x: Rows::new(&ws.h, dim, 1),
            dy: Rows::new(d_predictor, 2 * dim, 0),
            dx: Output::accumulate(dh),
            rows,
        })?;

        b.norm(NormGrad {
            norm: Norm { scale: &weights.post_encoder_norm, eps: config.local_rms_norm_eps },
            d_scale: Some(&grads.post_encoder_norm),
            x: stream(config, &self.encoded),
            dy: dh,
            dx: Output::replace(stream(config, &self.dx)),
            rows,
            dim,
        })?;
        let (state, shape) = (&self.state, self.shape);
        for (i, saved) in self.encoder.iter().enumerate().rev() {
            let (w, dw) = (&weights.encoder[i], &grads.encoder[i]);
            local::backward(b, local::LayerGrad { w, dw, saved, state, dx: &self.dx, shape })?;
        }
        self.by_id.add_to_table(b.cx, &grads.byte_embedding, &self.dx)?;
        match &grads.suffix_embedding {
            Some(grad) => self.by_suffix.add_to_table(b.cx, grad, &self.dx),
            None => Ok(()),
        }
    }

    /// Gathers rows of a patch stream into [`Self::gathered`], in the order of `rows`.
    pub(crate) fn gather_patches(&mut self, from: &Slice, rows: &[u32]) -> Result<()> {
        self.device.write(&self.gathered_from, 0, bytemuck::cast_slice(rows))?;
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        cx.gather_rows(
            from,
            Gather { index: &self.gathered_from, y: &self.gathered, y_row: 0, count: rows.len(), add: false },
        )
    }

    /// Sets the derivative of the total by the distance of each patch.
    pub(crate) fn write_patch_weights(&mut self, weights: &[f32]) -> Result<()> {
        self.device.write(&self.patch_weights, 0, bytemuck::cast_slice(weights))
    }

    /// Sets all gradients to 0.
    pub(crate) fn clear_gradients(&mut self) {
        for arena in &self.parameters.arenas {
            if let Some(trained) = &arena.trained {
                self.recorder.clear(&trained.grads);
            }
        }
    }
}

/// Allocates the mLSTM states of all examples.
async fn state(device: &Arc<Device>, config: &Config, shape: Shape) -> Result<LayerState> {
    let heads = config.num_local_heads;
    let size = config.mlstm_key_dim() * (config.mlstm_value_dim() + 1);
    Ok(LayerState { c: buffer(device, shape.rows * heads, size).await?, m: buffer(device, shape.rows, heads).await? })
}

fn scratch_sizes(config: &Config, shape: Shape) -> ScratchSizes {
    let d = config.hidden_size;
    let largest = d
        * (3 * d + 2 * config.num_local_heads)
            .max(2 * config.local_intermediate_size)
            .max(2 * config.intermediate_size)
            .max(config.query_width() + 2 * config.key_value_width())
            .max(config.vocab_size);
    ScratchSizes {
        bytes: shape.all_bytes(),
        patches: shape.all_patches(),
        logit_rows: shape.all_bytes(),
        vocabulary: config.vocab_size,
        largest,
    }
}

fn check_shape(config: &Config, shape: Shape) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid(what));
    if shape.rows == 0 || shape.bytes == 0 || !shape.bytes.is_multiple_of(64) || shape.bytes > 60_000 {
        return refuse(format!(
            "a batch must have at least one example of a multiple of 64 bytes, at most 59968; found {} examples of {} \
             bytes",
            shape.rows, shape.bytes
        ));
    }
    if shape.patches < 2 || shape.patches > shape.bytes || !shape.all_patches().is_multiple_of(4) {
        return refuse(format!(
            "an example must have between 2 patches and one per byte, and a batch a multiple of 4; found {} examples \
             of \
             {} patches and {} bytes",
            shape.rows, shape.patches, shape.bytes
        ));
    }
    if shape.all_bytes() > usize::from(u16::MAX) {
        return refuse(format!(
            "a batch must have at most 65535 bytes, found {}; use fewer examples per batch and accumulate gradients",
            shape.all_bytes()
        ));
    }
    if !config.num_local_heads.is_multiple_of(2) {
        return refuse(format!(
            "`num_local_heads` is {}, but training needs an even number of local heads",
            config.num_local_heads
        ));
    }
    Ok(())
}
