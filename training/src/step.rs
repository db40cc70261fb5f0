//! One step of stage 1 or stage 2: which boundaries are used, what the decoder sees, and which losses apply
//! (docs/model.md, "Training losses").

use bolmo_runtime::unstable::{Context, Slice, ends_patch};
use bolmo_runtime::{Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{RowDistance, RowDistanceGrad};
use bolmo_shaders::sizes::WORKGROUP;

use crate::layers::Shape;
use crate::layers::activations::copy_rows;
use crate::loss::{self, IGNORED, Likelihood, LikelihoodGradient, LossOptions, Losses, NO_LABEL, Targets};
use crate::models::byte_level::{ByteLevel, DecoderInput, EncoderInput};
use crate::models::teacher::Teacher;

/// Number of blocks after which stage 1 compares student and teacher.
pub(crate) const COMPARED_BLOCKS: usize = 4;

/// A batch of `B` examples of `L` bytes and `P` patch slots, one example after the other.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    /// Plain ids, `[B, L]`.
    pub ids: &'a [u32],
    /// Longest subword that ends at each byte, `[B, L]`.
    pub suffixes: &'a [u32],
    /// The teacher's input, `[B, P]`: the end of text, then all subwords but the last.
    pub subwords: &'a [u32],
    /// Targets of the losses.
    pub targets: Targets<'a>,
}

impl Examples<'_> {
    /// Checks that the examples have the shape `shape`.
    pub(crate) fn check(&self, shape: Shape) -> Result<()> {
        let Targets { labels, truth, patch_lens, patch_of, .. } = self.targets;
        let (bytes, patches) = (shape.all_bytes(), shape.all_patches());
        let of_bytes = [self.ids.len(), self.suffixes.len(), labels.len(), truth.len(), patch_of.len()];
        let fits = of_bytes.iter().all(|&len| len == bytes)
            && [self.subwords.len(), patch_lens.len()].iter().all(|&len| len == patches);
        if self.targets.shape == shape && fits {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a batch must have the trainer's shape, {shape:?}; found {:?} with {of_bytes:?} values per byte and {:?} \
             per \
             patch",
            self.targets.shape,
            [self.subwords.len(), patch_lens.len()]
        )))
    }
}

/// Assignment of bytes to patch slots.
struct Slots {
    /// Byte of the batch that each slot is pooled from, `u32::MAX` for an empty slot, `[B, P]`.
    ends: Vec<u32>,
    /// Slot of the batch that each byte sees, `[B, L]`.
    seen: Vec<u32>,
}

impl Slots {
    /// Assigns the first P boundaries of each example to slots. Later bytes see the last slot.
    fn new(shape: Shape, mask: &[bool]) -> Self {
        let (mut ends, mut seen) = (vec![u32::MAX; shape.all_patches()], Vec::with_capacity(mask.len()));
        for (row, mask) in mask.chunks(shape.bytes).enumerate() {
            let mut count = 0;
            for (t, &end) in mask.iter().enumerate() {
                if end {
                    if count < shape.patches {
                        ends[row * shape.patches + count] = (row * shape.bytes + t) as u32;
                    }
                    count += 1;
                }
                seen.push((row * shape.patches + count.clamp(1, shape.patches) - 1) as u32);
            }
        }
        Self { ends, seen }
    }
}

/// The true patch of each slot.
struct TruePatches {
    /// Row of the batch's patches, `[B, P]`; the first of the example for a slot without a patch.
    rows: Vec<u32>,
    /// Whether each slot has a true patch, `[B, P]`.
    used: Vec<bool>,
}

impl TruePatches {
    fn new(shape: Shape, targets: &Targets<'_>, slots: &Slots) -> Self {
        let mut this = Self { rows: Vec::new(), used: Vec::new() };
        for (slot, &end) in slots.ends.iter().enumerate() {
            let first = (slot / shape.patches * shape.patches) as u32;
            let patch = if end == u32::MAX { shape.patches as u32 } else { targets.patch_of[end as usize] };
            let used = (patch as usize) < shape.patches;
            this.used.push(used);
            this.rows.push(first + if used { patch } else { 0 });
        }
        this
    }
}

/// The boundaries that the predictor chooses: the first byte of an example, never the last, and each byte whose cosine
/// says so.
fn predicted(shape: Shape, cosines: &[f32]) -> Vec<bool> {
    let of = |(at, &cosine): (usize, &f32)| match at % shape.bytes {
        0 => true,
        t => t + 1 < shape.bytes && ends_patch(cosine),
    };
    cosines.iter().enumerate().map(of).collect()
}

/// Result of a step besides gradients.
#[derive(Debug, Clone)]
pub struct StepOutput {
    /// Losses of the batch.
    pub losses: Losses,
    /// The boundaries in use, `[B, L]`.
    pub mask: Vec<bool>,
    /// Number of boundaries in use on real bytes.
    pub patches: u64,
}

impl StepOutput {
    fn new(losses: Losses, examples: &Examples<'_>, mask: Vec<bool>) -> Self {
        let labels = examples.targets.labels;
        let patches = mask.iter().zip(labels).filter(|&(&end, &label)| end && label != IGNORED).count() as u64;
        Self { losses, mask, patches }
    }
}

/// Runs a batch of stage 2, and of every evaluation: predicted boundaries and the student's own global outputs.
/// Accumulates gradients if `train`.
pub(crate) async fn stage2(
    model: &mut ByteLevel,
    examples: &Examples<'_>,
    options: &LossOptions,
    train: bool,
) -> Result<StepOutput> {
    let shape = model.shape;
    let cosines = model.encode(EncoderInput { ids: examples.ids, suffixes: examples.suffixes }).await?.await?;
    let mask = predicted(shape, &cosines);
    let slots = Slots::new(shape, &mask);
    model.pool(&slots.ends)?;
    let blocks = model.config.num_hidden_layers;
    model.global(blocks)?;
    let cx = &mut Context { recorder: &mut model.recorder, config: &model.config, workspace: &model.ws };
    copy_rows(cx, &model.ws.patches, &model.outputs, shape.all_patches())?;
    // The device runs the blocks while the host computes the loss of the boundaries.
    model.recorder.submit()?;
    let mut losses = Losses::default();
    let d_cosine = loss::boundary(options, &examples.targets, &cosines, &mut losses);
    let labels = examples.targets.fused_labels(&mask);
    let input = DecoderInput { patch_of: &slots.seen, labels: &labels, byte_distillation: None };
    let (likelihood, _) = model.decode(input, &[]).await?;
    let mut gradient = vec![[0.0; 2]; shape.all_bytes()];
    loss::cross_entropy(options, &examples.targets, &likelihood, &mut gradient, &mut losses);
    if train {
        let (gradient, d_cosine) = scaled(model.gradient_scale, gradient, d_cosine);
        model.decode_backward(&gradient, true, None)?;
        model.global_backward(blocks, true)?;
        model.encode_backward(&d_cosine)?;
    }
    Ok(StepOutput::new(losses, examples, mask))
}

/// Multiplies the derivatives of the losses by the gradient scale.
fn scaled(scale: f32, mut gradient: LikelihoodGradient, mut d_cosine: Vec<f32>) -> (LikelihoodGradient, Vec<f32>) {
    for value in gradient.iter_mut().flatten().chain(&mut d_cosine) {
        *value *= scale;
    }
    (gradient, d_cosine)
}

/// Runs the teacher on a batch. The label of each subword is the next one.
fn run_teacher(model: &mut ByteLevel, teacher: &Teacher, examples: &Examples<'_>) -> Result<()> {
    let shape = model.shape;
    let label = |at: usize| match (at + 1) % shape.patches {
        0 => NO_LABEL,
        _ => examples.subwords[at + 1],
    };
    let labels: Vec<u32> = (0..shape.all_patches()).map(label).collect();
    let place = (&mut model.recorder, &model.config, &model.ws);
    teacher.run(place, &model.parameters.weights, shape, examples.subwords, &labels)
}

/// Sum of the teacher's -log p of all subwords that have bytes in the batch, without the first of each example.
pub(crate) async fn teacher_nats(model: &mut ByteLevel, teacher: &Teacher, examples: &Examples<'_>) -> Result<f64> {
    run_teacher(model, teacher, examples)?;
    let patches = model.shape.all_patches();
    let values = model.recorder.read_f32(&[teacher.likelihood.part(0, 16 * patches as u64)?]).await?;
    let lens = examples.targets.patch_lens;
    let real = |at: &usize| !(at + 1).is_multiple_of(model.shape.patches) && lens[at + 1] != 0;
    Ok((0..patches).filter(real).map(|at| -f64::from(values[4 * at + 2])).sum())
}

/// Runs a batch of stage 1: true boundaries, the teacher's outputs for the decoder, and all losses. Accumulates
/// gradients if `train`.
pub(crate) async fn stage1(
    model: &mut ByteLevel,
    teacher: &Teacher,
    examples: &Examples<'_>,
    options: &LossOptions,
    train: bool,
) -> Result<StepOutput> {
    let shape = model.shape;
    let (patches, targets) = (shape.all_patches(), &examples.targets);
    let mask = targets.truth.to_vec();
    let slots = Slots::new(shape, &mask);
    let true_patches = TruePatches::new(shape, targets, &slots);

    // The host prepares the teacher's input while the device encodes.
    let cosines = model.encode(EncoderInput { ids: examples.ids, suffixes: examples.suffixes }).await?;
    let byte_distillation = teacher.byte_distillation.as_ref();
    if let Some(byte_distillation) = byte_distillation {
        byte_distillation.set_batch(&mut model.recorder, targets, examples.ids)?;
    }
    run_teacher(model, teacher, examples)?;
    model.pool(&slots.ends)?;
    let blocks = model.config.num_hidden_layers.min(COMPARED_BLOCKS);
    model.global(blocks)?;
    // The device runs the blocks while the host computes the loss of the boundaries.
    model.recorder.submit()?;
    let mut losses = Losses::default();
    let d_cosine = loss::boundary(options, targets, &cosines.await?, &mut losses);
    let scale = if train { model.gradient_scale } else { 1.0 };
    let weights = loss::encoder_weights(options, targets, &true_patches.used, model.config.hidden_size);
    let scaled_weights: Vec<f32> = weights.iter().map(|weight| scale * weight).collect();
    compare_patches(model, &teacher.early, &true_patches.rows, &scaled_weights, train)?;

    let cx = &mut Context { recorder: &mut model.recorder, config: &model.config, workspace: &model.ws };
    copy_rows(cx, &teacher.last, &model.outputs, patches)?;
    let seen: Vec<u32> = slots.seen.iter().map(|&slot| true_patches.rows[slot as usize]).collect();
    let labels = targets.fused_labels(&mask);
    let factor = scale * loss::byte_distillation_weight(options, targets) as f32;
    let input = DecoderInput {
        patch_of: &seen,
        labels: &labels,
        byte_distillation: byte_distillation.map(|byte_distillation| (byte_distillation, factor)),
    };
    let mut others =
        vec![model.distances.part(0, 4 * patches as u64)?, teacher.likelihood.part(0, 16 * patches as u64)?];
    others.extend(byte_distillation.map(|byte_distillation| byte_distillation.divergence.clone()));
    let (likelihood, others) = model.decode(input, &others).await?;
    let (distances, others) = others.split_at(patches);
    let (teachers, divergences) = others.split_at(4 * patches);
    let teachers: Vec<_> = teachers.chunks(4).map(|row| Likelihood { label: row[2], space: row[3] }).collect();

    let mut gradient = vec![[0.0; 2]; shape.all_bytes()];
    loss::encoder(&weights, distances, &mut losses);
    loss::cross_entropy(options, targets, &likelihood, &mut gradient, &mut losses);
    if options.distill != 0.0 {
        loss::distill(options, targets, &likelihood, &teachers, &mut gradient, &mut losses);
    }
    loss::byte_distillation(options, targets, divergences, &mut losses);
    if train {
        // The decoder's input comes from the teacher, which is frozen.
        let (gradient, d_cosine) = scaled(model.gradient_scale, gradient, d_cosine);
        model.decode_backward(&gradient, false, byte_distillation)?;
        model.global_backward(blocks, false)?;
        model.encode_backward(&d_cosine)?;
    }
    Ok(StepOutput::new(losses, examples, mask))
}

/// Records the distances of the student's patches from the teacher's, and, if `train`, the gradient of the student's
/// patches. `rows` holds the teacher's row of each slot, and `weights` the derivative of the total by each distance.
fn compare_patches(model: &mut ByteLevel, teacher: &Slice, rows: &[u32], weights: &[f32], train: bool) -> Result<()> {
    let (patches, d) = (model.shape.all_patches(), model.config.hidden_size);
    model.gather_patches(teacher, rows)?;
    model.write_patch_weights(weights)?;
    let width4 = (d / 4) as u32;
    let params = RowDistance {
        rows: patches as u32,
        dim4: width4,
        x_offset4: 0,
        x_stride4: width4,
        y_offset4: 0,
        y_stride4: width4,
    };
    let plain = WeightFormat::F32;
    let slices = [&model.ws.patches, &model.gathered, &model.distances];
    model.recorder.dispatch(KernelId::RowDistance, plain, &params, &slices, [patches, 1, 1])?;
    if !train {
        return Ok(());
    }
    let params = RowDistanceGrad {
        rows: patches as u32,
        dim4: width4,
        x_offset4: 0,
        x_stride4: width4,
        y_offset4: 0,
        y_stride4: width4,
        dx_offset4: 0,
        dx_stride4: width4,
        add: 0,
    };
    let slices = [&model.ws.patches, &model.gathered, &model.distances, &model.patch_weights, &model.d_patches];
    let grid = [(d / 4).div_ceil(WORKGROUP as usize), patches, 1];
    model.recorder.dispatch(KernelId::RowDistanceGrad, plain, &params, &slices, grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_last_slot_see_it() {
        let shape = Shape { rows: 2, bytes: 6, patches: 2 };
        let mask = [1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0].map(|bit| bit == 1);
        let slots = Slots::new(shape, &mask);
        assert_eq!(slots.ends, [0, 2, 6, u32::MAX]);
        assert_eq!(slots.seen, [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn a_prediction_starts_with_a_boundary_and_never_ends_with_one() {
        let shape = Shape { rows: 1, bytes: 4, patches: 2 };
        assert_eq!(predicted(shape, &[0.5, -0.1, 0.0, -0.9]), [true, true, false, false]);
    }
}
