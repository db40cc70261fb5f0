//! One step of stage 1 and of stage 2 (SPEC 10): which boundaries hold, what the decoder sees, which losses there are.

use bolmo_runtime::internals::{Context, ends_patch};
use bolmo_runtime::{Error, Result, WeightFormat};
use bolmo_shaders::KernelId;
use bolmo_shaders::params::{RowDistance, RowDistanceGrad};
use bolmo_shaders::table::WORKGROUP;

use crate::layers::{Shape, copy_rows};
use crate::loss::{self, Likelihood, LikelihoodGradient, LossOptions, Losses, NO_LABEL, Targets};
use crate::models::byte_level::{ByteLevel, Bytes};
use crate::models::teacher::Teacher;

/// A batch as the stages take it. `B` examples of `L` bytes and `P` patch slots, one behind the other.
#[derive(Debug, Clone, Copy)]
pub struct Examples<'a> {
    /// Plain ids, `[B, L]`.
    pub ids: &'a [u32],
    /// Longest subword that ends at each byte, `[B, L]`.
    pub suffixes: &'a [u32],
    /// The teacher's input, `[B, P]`: the end of text, then all subwords but the last.
    pub subwords: &'a [u32],
    /// What is to be learnt.
    pub targets: Targets<'a>,
}

impl Examples<'_> {
    /// Refuses examples that are not of `shape`.
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
            "a batch of another shape, {:?}, than the trainer's, {shape:?}",
            self.targets.shape
        )))
    }
}

/// Which byte each patch slot is pooled from, and which slot each byte sees.
struct Slots {
    /// `[B, P]` bytes of the batch; `u32::MAX` for an empty slot.
    ends: Vec<u32>,
    /// `[B, L]` slots of the batch.
    seen: Vec<u32>,
}

impl Slots {
    /// The first P boundaries of each example have a slot; bytes behind them see the last one.
    fn of(shape: Shape, mask: &[bool]) -> Self {
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

/// The predictor's boundaries: the first byte, and those whose cosine says so; never an example's last byte.
fn predicted(shape: Shape, cosines: &[f32]) -> Vec<bool> {
    let of = |(at, &cosine): (usize, &f32)| match at % shape.bytes {
        0 => true,
        t => t + 1 < shape.bytes && ends_patch(cosine),
    };
    cosines.iter().enumerate().map(of).collect()
}

/// What a step of a stage leaves behind beside gradients.
#[derive(Debug, Clone)]
pub struct StageOutput {
    /// The losses.
    pub losses: Losses,
    /// The boundaries in use, `[B, L]`.
    pub mask: Vec<bool>,
    /// Boundaries in use over real bytes.
    pub patches: u64,
}

impl StageOutput {
    fn new(losses: Losses, examples: &Examples<'_>, mask: Vec<bool>) -> Self {
        let labels = examples.targets.labels;
        let patches = mask.iter().zip(labels).filter(|&(&end, &label)| end && label != loss::IGNORED).count() as u64;
        Self { losses, mask, patches }
    }
}

/// Stage 2, and what evaluation uses: predicted boundaries, the student's own global outputs. Gradients are added up if `train`.
pub(crate) async fn stage2(
    model: &mut ByteLevel,
    examples: &Examples<'_>,
    options: &LossOptions,
    train: bool,
) -> Result<StageOutput> {
    let shape = model.shape;
    let cosines = model.encode(Bytes { ids: examples.ids, suffixes: examples.suffixes }).await?.await?;
    let mask = predicted(shape, &cosines);
    let slots = Slots::of(shape, &mask);
    model.pool(&slots.ends)?;
    let blocks = model.config.num_hidden_layers;
    model.global(blocks)?;
    let cx = &mut Context { recorder: &mut model.recorder, config: &model.config, workspace: &model.ws };
    copy_rows(cx, &model.ws.patches, &model.outputs, shape.all_patches())?;
    // While the device is at that.
    model.recorder.submit()?;
    let mut losses = Losses::default();
    let d_cosine = loss::boundary(options, &examples.targets, &cosines, &mut losses);
    let labels = examples.targets.fused_labels(&mask);
    let (likelihood, _) = model.decode(&slots.seen, &labels, &[], None).await?;
    let mut gradient = vec![[0.0; 2]; shape.all_bytes()];
    loss::cross_entropy(options, &examples.targets, &likelihood, &mut gradient, &mut losses);
    if train {
        let (gradient, d_cosine) = scaled(model.gradient_scale, gradient, d_cosine);
        model.decode_backward(&gradient, true, None)?;
        model.global_backward(blocks, true)?;
        model.encode_backward(&d_cosine)?;
    }
    Ok(StageOutput::new(losses, examples, mask))
}

/// Derivatives of the losses, as they go back through the model.
fn scaled(scale: f32, mut gradient: LikelihoodGradient, mut d_cosine: Vec<f32>) -> (LikelihoodGradient, Vec<f32>) {
    for value in gradient.iter_mut().flatten().chain(&mut d_cosine) {
        *value *= scale;
    }
    (gradient, d_cosine)
}

/// Blocks behind which stage 1 compares student and teacher.
pub(crate) const COMPARED_BLOCKS: usize = 4;

/// Runs the teacher over a batch; each subword's label is the next one.
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

/// The teacher's -log p of all subwords that have bytes in the batch, but for the first of each example.
pub(crate) async fn teacher_nats(model: &mut ByteLevel, teacher: &Teacher, examples: &Examples<'_>) -> Result<f64> {
    run_teacher(model, teacher, examples)?;
    let patches = model.shape.all_patches();
    let values = model.recorder.read_f32(&[teacher.likelihood.part(0, 16 * patches as u64)?]).await?;
    let lens = examples.targets.patch_lens;
    let real = |at: &usize| !(at + 1).is_multiple_of(model.shape.patches) && lens[at + 1] != 0;
    Ok((0..patches).filter(real).map(|at| -f64::from(values[4 * at + 2])).sum())
}

/// Stage 1: true boundaries, the teacher's last outputs for the decoder, and all four losses. Gradients are added up if `train`.
pub(crate) async fn stage1(
    model: &mut ByteLevel,
    teacher: &Teacher,
    examples: &Examples<'_>,
    options: &LossOptions,
    train: bool,
) -> Result<StageOutput> {
    let shape = model.shape;
    let d = model.config.hidden_size;
    let (patches, targets) = (shape.all_patches(), &examples.targets);
    let mask = targets.truth.to_vec();
    let slots = Slots::of(shape, &mask);
    // The true patch that each slot stands for; without one it stands for none.
    let mut used = vec![false; patches];
    let mut true_patch = vec![0u32; patches];
    for (slot, &end) in slots.ends.iter().enumerate() {
        let row = (slot / shape.patches * shape.patches) as u32;
        let patch = if end == u32::MAX { shape.patches as u32 } else { targets.patch_of[end as usize] };
        used[slot] = (patch as usize) < shape.patches;
        true_patch[slot] = row + if used[slot] { patch } else { 0 };
    }

    // The host gets ready for the teacher while the device encodes.
    let cosines = model.encode(Bytes { ids: examples.ids, suffixes: examples.suffixes }).await?;
    let spelling = teacher.spelling.as_ref();
    if let Some(spelling) = spelling {
        spelling.begin(&mut model.recorder, targets, examples.ids)?;
    }
    run_teacher(model, teacher, examples)?;
    model.pool(&slots.ends)?;
    let blocks = model.config.num_hidden_layers.min(COMPARED_BLOCKS);
    model.global(blocks)?;
    // While the device is at that.
    model.recorder.submit()?;
    let mut losses = Losses::default();
    let d_cosine = loss::boundary(options, targets, &cosines.await?, &mut losses);
    // The teacher's stream in the order of the slots is where the decoder's outputs will be: nothing is there yet.
    model.gather_patches(&teacher.early, &true_patch)?;
    let weights = loss::encoder_weights(options, targets, &used, d);
    let scale = if train { model.gradient_scale } else { 1.0 };
    model.write_patch_weights(&weights.iter().map(|weight| scale * weight).collect::<Vec<_>>())?;
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
    if train {
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
        model.recorder.dispatch(KernelId::RowDistanceGrad, plain, &params, &slices, grid)?;
    }

    let cx = &mut Context { recorder: &mut model.recorder, config: &model.config, workspace: &model.ws };
    copy_rows(cx, &teacher.last, &model.outputs, patches)?;
    let seen: Vec<u32> = slots.seen.iter().map(|&slot| true_patch[slot as usize]).collect();
    let labels = targets.fused_labels(&mask);
    let mut others =
        vec![model.distances.part(0, 4 * patches as u64)?, teacher.likelihood.part(0, 16 * patches as u64)?];
    others.extend(spelling.map(|spelling| spelling.divergence.clone()));
    let soft = spelling.map(|spelling| (spelling, scale * loss::spelling_weight(options, targets) as f32));
    let (likelihood, others) = model.decode(&seen, &labels, &others, soft).await?;
    let (distances, others) = others.split_at(patches);
    let (teachers, divergences) = others.split_at(4 * patches);
    let teachers: Vec<_> = teachers.chunks(4).map(|row| Likelihood { label: row[2], space: row[3] }).collect();

    let mut gradient = vec![[0.0; 2]; shape.all_bytes()];
    loss::encoder(&weights, distances, &mut losses);
    loss::cross_entropy(options, targets, &likelihood, &mut gradient, &mut losses);
    if options.distill != 0.0 {
        loss::distill(options, targets, &likelihood, &teachers, &mut gradient, &mut losses);
    }
    loss::spelling(options, targets, divergences, &mut losses);
    if train {
        // What the teacher made is not trained.
        let (gradient, d_cosine) = scaled(model.gradient_scale, gradient, d_cosine);
        model.decode_backward(&gradient, false, spelling)?;
        model.global_backward(blocks, false)?;
        model.encode_backward(&d_cosine)?;
    }
    Ok(StageOutput::new(losses, examples, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_run_out() {
        let shape = Shape { rows: 2, bytes: 6, patches: 2 };
        let mask = [1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0].map(|bit| bit == 1);
        let slots = Slots::of(shape, &mask);
        assert_eq!(slots.ends, [0, 2, 6, u32::MAX]);
        assert_eq!(slots.seen, [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn the_predictor_opens_and_never_closes() {
        let shape = Shape { rows: 1, bytes: 4, patches: 2 };
        assert_eq!(predicted(shape, &[0.5, -0.1, 0.0, -0.9]), [true, true, false, false]);
    }
}
