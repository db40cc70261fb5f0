//! A byte-level model in training: one batch forwards with what is kept, and backwards from the derivatives of the losses.

use std::sync::Arc;

use bolmo_runtime::config::RopeScaling;
use bolmo_runtime::internals::{
    Context, Gpu, LayerState, Norm, Recorder, Rows, Slice, Weights, Workspace, boundary, depool, embed, head,
    normalise, pool,
};
use bolmo_runtime::rope::{cos_sin, inverse_frequencies};
use bolmo_runtime::{Config, Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{BoundaryGrad, LogSoftmax, LogSoftmaxGrad};
use bolmo_shaders::table::WORKGROUP;

use crate::layers::backward::{Backward, Into, Scratch, Segments};
use crate::layers::{self, Room, Shape, buffer, copy_rows, global, local, stream};
use crate::loss::byte_distillation::Spelling;
use crate::loss::{Likelihood, LikelihoodGradient};
use crate::parameters::optimizer::gradient_scale;
use crate::parameters::weights;
use crate::parameters::{Group, Parameters};

/// Space-like bytes that may follow a patch.
const SPACES: [u8; 3] = *b" \t\n";

/// A byte-level model, its parameters, and the buffers for batches of one shape.
#[derive(Debug)]
pub(crate) struct ByteLevel {
    pub(crate) gpu: Arc<Gpu>,
    pub(crate) config: Config,
    pub(crate) shape: Shape,
    /// What gradients are multiplied with ([`gradient_scale`]).
    pub(crate) gradient_scale: f32,
    pub(crate) parameters: Parameters<Weights>,
    pub(crate) recorder: Recorder,
    pub(crate) ws: Workspace,
    pub(crate) scratch: Scratch,
    encoder: Vec<local::Kept>,
    decoder: Vec<local::Kept>,
    blocks: Vec<global::Kept>,
    state: LayerState,
    /// The stream behind the encoder's layers, in front of its norm, `[bytes, D]`.
    encoded: Slice,
    /// q and k of the boundary predictor, `[bytes, 2, D]`.
    predictor: Slice,
    /// What is pooled, `[patches, D]`.
    pooled: Slice,
    /// Global outputs in front of the decoder's first norm, `[patches, D]`.
    pub(crate) outputs: Slice,
    /// The stream behind the decoder's layers, `[bytes, D]`.
    decoded: Slice,
    /// Gradients: of the byte stream, of the patch stream, of the encoder's output, of the normalised global outputs.
    pub(crate) dx: Slice,
    pub(crate) d_patches: Slice,
    dh: Slice,
    dg: Slice,
    /// Logits and then their gradient are in the workspace; these are about them.
    labels: Slice,
    members: Slice,
    likelihood: Slice,
    likelihood_weights: Slice,
    d_cosine: Slice,
    /// Patch slot that each byte is pooled into, or none, `[bytes]`.
    pooled_into: Slice,
    /// Rows of another stream in the order of the patch slots, `[patches, D]`, and which ones, `[patches]`.
    pub(crate) gathered: Slice,
    gathered_from: Slice,
    /// Distances of patches from others, and the derivative by each, `[patches]`.
    pub(crate) distances: Slice,
    pub(crate) patch_weights: Slice,
    by_id: Segments,
    by_suffix: Segments,
    by_patch: Segments,
}

/// What goes in front of the boundaries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytes<'a> {
    /// Plain ids, `[B, L]`.
    pub(crate) ids: &'a [u32],
    /// Longest subword that ends at each byte, `[B, L]`.
    pub(crate) suffixes: &'a [u32],
}

impl ByteLevel {
    /// Allocates everything for batches of `shape`. `trained` says which groups have gradients, `half_products` whether products are made of
    /// f16, `recompute` whether layers keep no more than their inputs.
    pub(crate) async fn new(
        gpu: &Arc<Gpu>,
        config: &Config,
        shape: Shape,
        half_products: bool,
        recompute: bool,
        trained: impl Fn(Group) -> bool,
    ) -> Result<Self> {
        check_shape(config, shape)?;
        let parameters = Parameters::new(gpu, trained, |memory| weights::byte_level(config, memory)).await?;
        let (bytes, patches) = (shape.all_bytes(), shape.all_patches());
        let mut ws = Workspace::new(gpu, config, bytes).await?;
        ws.keep = true;
        let (encoders, decoders) = (config.num_local_encoder_layers, config.num_local_decoder_layers);
        let room = Room { gpu, config, shape, shared: &ws };
        let mut encoder = layers::kept(encoders + decoders, recompute, async |lender, again| {
            local::Kept::new(room, lender, again).await
        })
        .await?;
        let decoder = encoder.split_off(encoders);
        let blocks = layers::kept(config.num_hidden_layers, recompute, async |lender, again| {
            global::Kept::new(room, lender, again).await
        })
        .await?;
        let d = config.hidden_size;
        let heads = config.num_local_heads;
        let size = config.mlstm_key_dim() * (config.mlstm_value_dim() + 1);
        let state =
            LayerState { c: buffer(gpu, shape.rows * heads, size).await?, m: buffer(gpu, shape.rows, heads).await? };
        let largest = d
            * (3 * d + 2 * heads)
                .max(2 * config.local_intermediate_size)
                .max(2 * config.intermediate_size)
                .max(config.query_width() + 2 * config.key_value_width())
                .max(config.vocab_size);
        let scratch = Scratch::new(gpu, config, (bytes, patches), (bytes, config.vocab_size), largest).await?;
        if half_products {
            ws.halves = Some(scratch.room_for_halves(gpu).await?);
        }
        let recorder = layers::recorder(gpu).await?;
        let mut this = Self {
            encoder,
            decoder,
            blocks,
            state,
            encoded: buffer(gpu, bytes, d).await?,
            predictor: buffer(gpu, bytes, 2 * d).await?,
            pooled: buffer(gpu, patches, d).await?,
            outputs: buffer(gpu, patches, d).await?,
            decoded: buffer(gpu, bytes, d).await?,
            dx: buffer(gpu, bytes.max(patches), d).await?,
            d_patches: buffer(gpu, patches, d).await?,
            dh: buffer(gpu, bytes + 1, d).await?,
            dg: buffer(gpu, patches, d).await?,
            labels: buffer(gpu, bytes, 1).await?,
            members: buffer(gpu, config.vocab_size, 1).await?,
            likelihood: buffer(gpu, bytes, 4).await?,
            likelihood_weights: buffer(gpu, bytes, 2).await?,
            d_cosine: buffer(gpu, bytes, 1).await?,
            pooled_into: buffer(gpu, bytes, 1).await?,
            gathered: buffer(gpu, patches, d).await?,
            gathered_from: buffer(gpu, patches, 1).await?,
            distances: buffer(gpu, patches, 1).await?,
            patch_weights: buffer(gpu, patches, 1).await?,
            by_id: Segments::new(gpu, bytes, d).await?,
            by_suffix: Segments::new(gpu, bytes, d).await?,
            by_patch: Segments::new(gpu, bytes, d).await?,
            gpu: gpu.clone(),
            config: config.clone(),
            shape,
            gradient_scale: gradient_scale(half_products, bytes),
            parameters,
            recorder,
            ws,
            scratch,
        };
        this.write_constants()?;
        Ok(this)
    }

    /// What is the same for every batch: angles of positions, and which ids are space-like.
    fn write_constants(&mut self) -> Result<()> {
        let config = &self.config;
        let rotations = [RopeScaling::None, config.rope_scaling];
        for (scaling, table) in rotations.iter().zip(&self.ws.cos_sin) {
            let (inverse, factor) =
                inverse_frequencies(config.head_dim, config.rope_theta, scaling, config.max_position_embeddings);
            let one = cos_sin(0..self.shape.patches, &inverse, factor);
            self.gpu.write(table, 0, bytemuck::cast_slice(&one.repeat(self.shape.rows)))?;
        }
        let mut members = vec![0u32; config.vocab_size];
        for byte in SPACES {
            members[usize::from(config.byte_offset) + usize::from(byte)] = 1;
        }
        self.gpu.write(&self.members, 0, bytemuck::cast_slice(&members))
    }

    /// Embeds and encodes a batch, up to the cosines of the predictor, which the future has: `[B, L]`, the last of each example without
    /// meaning. The device can be given more to do before it is awaited.
    pub(crate) async fn encode(&mut self, batch: Bytes<'_>) -> Result<impl Future<Output = Result<Vec<f32>>> + use<>> {
        let rows = self.shape.all_bytes();
        let gpu = &self.gpu;
        gpu.write(&self.ws.ids, 0, bytemuck::cast_slice(batch.ids))?;
        self.by_id.set(gpu, batch.ids, self.config.vocab_size)?;
        if self.config.add_expanded_embeddings {
            gpu.write(&self.ws.suffix_ids, 0, bytemuck::cast_slice(batch.suffixes))?;
            self.by_suffix.set(gpu, batch.suffixes, self.config.subword_vocab_size)?;
        }
        let weights = &self.parameters.weights;
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let ws = cx.workspace;
        let d = cx.config.hidden_size;
        embed(cx, weights, &ws.ids, &ws.suffix_ids, 0, rows)?;
        for (layer, kept) in weights.encoder.iter().zip(&self.encoder) {
            local::forward(cx, layer, kept, &self.state, self.shape)?;
        }
        copy_rows(cx, &ws.x, &self.encoded, rows)?;
        let (x, h) = (stream(cx.config, &ws.x), Rows::new(&ws.h, d, 1));
        cx.norm(&weights.post_encoder_norm, cx.config.local_rms_norm_eps, x, h, rows, 1, d, false)?;
        let own = Workspace { projections: self.predictor.clone(), ..ws.clone() };
        boundary(&mut crate::layers::over(cx, &own), weights, 1, rows - 1)?;
        let cosines = cx.recorder.begin_read_f32(&[ws.cosine.part(0, 4 * (rows - 1) as u64)?]).await?;
        Ok(async {
            let mut cosines = cosines.await?;
            cosines.push(0.0);
            Ok(cosines)
        })
    }

    /// Pools the bytes `ends` into the patch slots, `[B, P]` rows of all bytes; `u32::MAX` for a slot that stays empty.
    pub(crate) fn pool(&mut self, ends: &[u32]) -> Result<()> {
        let patches = self.shape.all_patches();
        let mut into = vec![u32::MAX; self.shape.all_bytes()];
        let mut rows = Vec::with_capacity(patches);
        for (slot, &end) in ends.iter().enumerate() {
            // An empty slot comes behind all others, which don't see it: anything may be in it.
            let example = slot / self.shape.patches * self.shape.bytes;
            let row = if end == u32::MAX { example as u32 } else { end };
            rows.push(row + 1);
            if end != u32::MAX {
                into[end as usize] = slot as u32;
            }
        }
        self.gpu.write(&self.ws.ends, 0, bytemuck::cast_slice(&rows))?;
        self.gpu.write(&self.pooled_into, 0, bytemuck::cast_slice(&into))?;
        let own = Workspace { branch: self.pooled.clone(), ..self.ws.clone() };
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &own };
        pool(cx, &self.parameters.weights, patches)
    }

    /// Runs the patches through the blocks from the first on, so many of them.
    pub(crate) fn global(&mut self, count: usize) -> Result<()> {
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let layers = self.parameters.weights.global.iter().zip(&self.blocks);
        for (i, (layer, kept)) in layers.take(count).enumerate() {
            global::forward(cx, layer, kept, i, self.shape)?;
        }
        Ok(())
    }

    /// From the global outputs in [`Self::outputs`] to the logits: each byte sees the output in the row `patch_of` says. Reads back what the
    /// logits say about `labels`, more than any id for none; `[B, L]` all. With `spelling` they are compared with what the teacher says of each
    /// id as well, with the scale of the gradient.
    pub(crate) async fn decode(
        &mut self,
        patch_of: &[u32],
        labels: &[u32],
        others: &[Slice],
        spelling: Option<(&Spelling, f32)>,
    ) -> Result<(Vec<Likelihood>, Vec<f32>)> {
        let (rows, patches) = (self.shape.all_bytes(), self.shape.all_patches());
        // The runtime's first row of normalised outputs is that of the patch before a stretch.
        let seen: Vec<u32> = patch_of.iter().map(|&row| row + 1).collect();
        self.gpu.write(&self.ws.patch_of, 0, bytemuck::cast_slice(&seen))?;
        self.gpu.write(&self.labels, 0, bytemuck::cast_slice(labels))?;
        self.by_patch.set(&self.gpu, patch_of, patches)?;
        let weights = &self.parameters.weights;
        let own = Workspace { patches: self.outputs.clone(), ..self.ws.clone() };
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &own };
        let ws = cx.workspace;
        normalise(cx, weights, 0, patches, (&ws.g, 1))?;
        depool(cx, weights, 1, rows)?;
        for (layer, kept) in weights.decoder.iter().zip(&self.decoder) {
            local::forward(cx, layer, kept, &self.state, self.shape)?;
        }
        copy_rows(cx, &ws.x, &self.decoded, rows)?;
        head(cx, weights, 0, rows, &ws.logits)?;
        let n = weights.head.n;
        let params = LogSoftmax { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
        let slices = [&ws.logits, &self.labels, &self.members, &self.likelihood];
        cx.recorder.dispatch(KernelId::LogSoftmax, WeightFormat::F32, &params, &slices, [rows, 1, 1])?;
        if let Some((spelling, scale)) = spelling {
            spelling.compare(cx.recorder, &ws.logits, &self.likelihood, scale)?;
        }
        let mut read = vec![self.likelihood.part(0, 16 * rows as u64)?];
        read.extend_from_slice(others);
        let values = cx.recorder.read_f32(&read).await?;
        let (likelihood, others) = values.split_at(4 * rows);
        let of = |row: &[f32]| Likelihood { label: row[2], space: row[3] };
        Ok((likelihood.chunks(4).map(of).collect(), others.to_vec()))
    }

    /// Goes back from the derivatives by the likelihoods to the stream in front of the decoder, and to the global outputs: their gradient
    /// is then in [`Self::d_patches`] if `global`, and those of the encoder's output have begun.
    pub(crate) fn decode_backward(
        &mut self,
        gradient: &LikelihoodGradient,
        global: bool,
        spelling: Option<&Spelling>,
    ) -> Result<()> {
        let (rows, patches) = (self.shape.all_bytes(), self.shape.all_patches());
        let d = self.config.hidden_size;
        self.gpu.write(&self.likelihood_weights, 0, bytemuck::cast_slice(gradient))?;
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let ws = cx.workspace;
        let n = weights.head.n;
        let params = LogSoftmaxGrad { rows: rows as u32, n: n as u32, stride: n as u32, offset: 0 };
        let slices = [&ws.logits, &self.labels, &self.members, &self.likelihood, &self.likelihood_weights];
        let grid = [n.div_ceil(WORKGROUP as usize), rows, 1];
        cx.recorder.dispatch(KernelId::LogSoftmaxGrad, WeightFormat::F32, &params, &slices, grid)?;
        if let Some(spelling) = spelling {
            spelling.add_gradient(cx.recorder, &ws.logits)?;
        }
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        let config = b.cx.config;
        let (du, dx) = (stream(config, &self.scratch.du), stream(config, &self.dx));
        let into = Into { rows: du, add: false };
        let d_logits = Rows::new(&ws.logits, n, 0);
        b.linear(&weights.head, Some(&grads.head), 0, stream(config, &ws.final_hidden), d_logits, Some(into), rows)?;
        let norm = Norm { scale: &weights.final_norm, eps: config.rms_norm_eps };
        let into = Into { rows: dx, add: false };
        b.norm(norm, Some(&grads.final_norm), stream(config, &self.decoded), du, into, rows, d)?;
        for (i, kept) in self.decoder.iter().enumerate().rev() {
            let (layer, grad) = (&weights.decoder[i], &grads.decoder[i]);
            local::backward(b, layer, grad, kept, &self.state, &self.dx, self.shape)?;
        }
        let (h, dh) = (Rows::new(&ws.h, d, 1), Rows::new(&self.dh, d, 1));
        let into = Into { rows: dh, add: false };
        b.linear(&weights.depool_projection, Some(&grads.depool_projection), 0, h, dx, Some(into), rows)?;
        // Outputs that no byte sees have no gradient.
        b.cx.recorder.clear(&self.dg);
        b.segments(&self.dg, (0, patches), d, &self.dx, &self.by_patch, false)?;
        let norm = Norm { scale: &weights.initial_norm, eps: config.local_rms_norm_eps };
        let into = Into { rows: stream(config, if global { &self.d_patches } else { &self.scratch.du }), add: false };
        let (x, dy) = (stream(config, &self.outputs), stream(config, &self.dg));
        b.norm(norm, Some(&grads.initial_norm), x, dy, into, patches, d)
    }

    /// Goes back through the first `count` blocks, from the gradient of their output in [`Self::d_patches`] to that of their input there.
    pub(crate) fn global_backward(&mut self, count: usize, trained: bool) -> Result<()> {
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        for (i, kept) in self.blocks.iter().enumerate().take(count).rev() {
            let grad = trained.then(|| &grads.global[i]);
            global::backward(b, &weights.global[i], grad, kept, i, &self.d_patches, self.shape)?;
        }
        Ok(())
    }

    /// Goes back from the gradient of the patches in [`Self::d_patches`] and of the cosines to the embeddings. Behind
    /// [`Self::decode_backward`].
    pub(crate) fn encode_backward(&mut self, d_cosine: &[f32]) -> Result<()> {
        let (rows, patches) = (self.shape.all_bytes(), self.shape.all_patches());
        self.gpu.write(&self.d_cosine, 0, bytemuck::cast_slice(d_cosine))?;
        let (weights, grads) = (&self.parameters.weights, &self.parameters.grads);
        let mut cx = Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        let ws = cx.workspace;
        let b = &mut Backward { cx: &mut cx, scratch: &self.scratch };
        let config = b.cx.config;
        let d = config.hidden_size;
        let (h, dh) = (Rows::new(&ws.h, d, 1), Rows::new(&self.dh, d, 1));
        let (pooled, d_patches) = (stream(config, &self.pooled), stream(config, &self.d_patches));
        let into = Into { rows: stream(config, &self.dg), add: false };
        b.linear(&weights.pool_projection, Some(&grads.pool_projection), 0, pooled, d_patches, Some(into), patches)?;
        // Each slot's gradient goes to the byte that was pooled into it: a byte without a slot names one that is not there.
        let d_pooled = self.dg.part(0, 4 * (patches * d) as u64)?;
        b.cx.gather_rows(&d_pooled, &self.pooled_into, &self.dh, 1, rows, true)?;

        let params = BoundaryGrad { rows: rows as u32 - 1, dim4: (d / 4) as u32 };
        let d_predictor = &self.scratch.d_projections;
        let slices = [&self.predictor, &self.d_cosine, d_predictor];
        b.cx.recorder.dispatch(KernelId::BoundaryGrad, WeightFormat::F32, &params, &slices, [rows, 1, 1])?;
        let (d_predictor, into) = (Rows::new(d_predictor, 2 * d, 0), Into { rows: dh, add: true });
        b.linear(&weights.boundary, Some(&grads.boundary), 0, h, d_predictor, Some(into), rows)?;

        let norm = Norm { scale: &weights.post_encoder_norm, eps: config.local_rms_norm_eps };
        let into = Into { rows: stream(config, &self.dx), add: false };
        b.norm(norm, Some(&grads.post_encoder_norm), stream(config, &self.encoded), dh, into, rows, d)?;
        for (i, kept) in self.encoder.iter().enumerate().rev() {
            let (layer, grad) = (&weights.encoder[i], &grads.encoder[i]);
            local::backward(b, layer, grad, kept, &self.state, &self.dx, self.shape)?;
        }
        b.gather(&grads.byte_embedding, &self.dx, &self.by_id)?;
        match &grads.suffix_embedding {
            Some(grad) => b.gather(grad, &self.dx, &self.by_suffix),
            None => Ok(()),
        }
    }

    /// Puts rows of a patch stream in the order that `rows` gives.
    pub(crate) fn gather_patches(&mut self, from: &Slice, rows: &[u32]) -> Result<()> {
        self.gpu.write(&self.gathered_from, 0, bytemuck::cast_slice(rows))?;
        let cx = &mut Context { recorder: &mut self.recorder, config: &self.config, workspace: &self.ws };
        cx.gather_rows(from, &self.gathered_from, &self.gathered, 0, rows.len(), false)
    }

    /// Sets the derivative of the total by the distance of each patch.
    pub(crate) fn write_patch_weights(&mut self, weights: &[f32]) -> Result<()> {
        self.gpu.write(&self.patch_weights, 0, bytemuck::cast_slice(weights))
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

fn check_shape(config: &Config, shape: Shape) -> Result<()> {
    let refuse = |what: String| Err(Error::invalid(what));
    if shape.rows == 0 || shape.bytes == 0 || !shape.bytes.is_multiple_of(64) || shape.bytes > 60_000 {
        return refuse(format!(
            "a batch of {} examples of {} bytes: there must be one at least, and bytes are a multiple of 64 up to 59968",
            shape.rows, shape.bytes
        ));
    }
    if shape.patches < 2 || shape.patches > shape.bytes || !shape.all_patches().is_multiple_of(4) {
        return refuse(format!(
            "{} patches of {} bytes: there must be 2 at least and no more than bytes, and over the batch a multiple of 4",
            shape.patches, shape.bytes
        ));
    }
    if shape.all_bytes() > usize::from(u16::MAX) {
        return refuse(format!(
            "a batch of {} bytes; at most 65535 go through at a time: lower the examples of a batch and accumulate gradients",
            shape.all_bytes()
        ));
    }
    if !config.num_local_heads.is_multiple_of(2) {
        return refuse(format!(
            "training takes an even number of local heads, `num_local_heads` is {}",
            config.num_local_heads
        ));
    }
    Ok(())
}
