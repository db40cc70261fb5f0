//! Terms of the loss. Each function adds its term to [`Losses`] and returns or accumulates the derivatives.

use bolmo_runtime::unstable::{log_probability, map_chunks};

use super::options::{LossOptions, Losses};
use super::targets::{IGNORED, Likelihood, LikelihoodGradient, Targets};
use crate::layers::Shape;

/// Upper bound on the log-probability of a boundary, which keeps that of its absence finite.
const MAX_BOUNDARY_LOG_PROBABILITY: f64 = -1e-3;
/// Cosines of the boundary predictor have no gradient from this value on.
const MAX_COSINE: f32 = 0.999;

/// The factor that turns a sum over labels into the mean of a batch.
fn per_label(options: &LossOptions, targets: &Targets<'_>) -> f64 {
    let count = targets.label_count().max(1) as f64;
    let share = if options.divide_twice { count / targets.labels.len() as f64 } else { 1.0 };
    1.0 / (count * share)
}

/// Adds the cross-entropy, and accumulates its derivatives.
pub fn cross_entropy(
    options: &LossOptions,
    targets: &Targets<'_>,
    likelihood: &[Likelihood],
    gradient: &mut LikelihoodGradient,
    losses: &mut Losses,
) {
    let per_label = per_label(options, targets);
    let mut sum = 0.0;
    for ((likelihood, gradient), &label) in likelihood.iter().zip(gradient).zip(targets.labels) {
        if label != IGNORED {
            sum -= f64::from(likelihood.label);
            gradient[0] -= (options.cross_entropy * per_label) as f32;
        }
    }
    losses.labels = targets.label_count() as u64;
    losses.bits_per_byte = sum / losses.labels.max(1) as f64 / std::f64::consts::LN_2;
    losses.cross_entropy = sum * per_label;
    losses.total += options.cross_entropy * losses.cross_entropy;
}

/// Adds the cross-entropy of the boundary predictor, from the cosine of each byte with the next one.
///
/// Returns the derivative of the total by the cosines, `[B, L]`.
pub fn boundary(options: &LossOptions, targets: &Targets<'_>, cosines: &[f32], losses: &mut Losses) -> Vec<f32> {
    let length = targets.shape.bytes;
    let count = targets.label_count().max(1) as f64;
    let mut sum = 0.0;
    let mut gradient = vec![0.0; cosines.len()];
    for (at, &cosine) in cosines.iter().enumerate() {
        let t = at % length;
        // The last byte has no next one.
        if t + 1 == length || targets.labels[at] == IGNORED {
            continue;
        }
        let truth = targets.truth[at];
        // The first byte is always a boundary.
        let predicted = t == 0 || cosine < 0.0;
        let counter = match (truth, predicted) {
            (true, true) => &mut losses.predictor.true_positives,
            (true, false) => &mut losses.predictor.false_negatives,
            (false, true) => &mut losses.predictor.false_positives,
            (false, false) => &mut losses.predictor.true_negatives,
        };
        *counter += 1;
        let logp = if t == 0 { 0.0 } else { f64::from(log_probability(cosine)) };
        let clipped = logp.min(MAX_BOUNDARY_LOG_PROBABILITY);
        sum -= if truth { clipped } else { log_one_minus_exp(clipped) };
        if t > 0 && logp < MAX_BOUNDARY_LOG_PROBABILITY && cosine < MAX_COSINE {
            let p = clipped.exp();
            let by_logp = if truth { -1.0 } else { p / (1.0 - p) };
            let by_cosine = -by_logp / (1.0 - f64::from(cosine));
            gradient[at] = (options.boundary * by_cosine / count) as f32;
        }
    }
    losses.boundary = sum / count;
    losses.total += options.boundary * losses.boundary;
    gradient
}

/// Derivative of the total by the distance of each patch slot, `[B, P]`; 0 for a slot without a true patch.
pub fn encoder_weights(options: &LossOptions, targets: &Targets<'_>, used: &[bool], width: usize) -> Vec<f32> {
    let weight = options.encoder / (targets.patch_count().max(1) as f64 * (width as f64).sqrt());
    used.iter().map(|&used| if used { weight as f32 } else { 0.0 }).collect()
}

/// Adds the distances of patches, weighted by the derivatives from [`encoder_weights`].
pub fn encoder(weights: &[f32], distances: &[f32], losses: &mut Losses) {
    losses.encoder = weights.iter().zip(distances).map(|(&w, &d)| f64::from(w) * f64::from(d)).sum();
    losses.total += losses.encoder;
}

/// Adds the distillation of patches, and accumulates its derivatives.
///
/// For each true patch, the student's probability of its bytes followed by a space is compared with the teacher's
/// probability of the subword followed by a space. `teacher` holds, for each patch slot, the log-probability of the
/// next subword and the log-probability that the next subword is space-like, `[B, P]`.
pub fn distill(
    options: &LossOptions,
    targets: &Targets<'_>,
    likelihood: &[Likelihood],
    teacher: &[Likelihood],
    gradient: &mut LikelihoodGradient,
    losses: &mut Losses,
) {
    let Shape { rows, bytes, patches } = targets.shape;
    let count = (rows * (patches - 1)) as f64;
    let share = targets.label_count().max(1) as f64 / targets.labels.len() as f64;
    let weight = 1.0 / (count * if options.divide_twice { share } else { 1.0 });
    let of_row = |row: usize| {
        let lens = &targets.patch_lens[row * patches..(row + 1) * patches];
        let patch_of = &targets.patch_of[row * bytes..(row + 1) * bytes];
        let likelihood = &likelihood[row * bytes..(row + 1) * bytes];
        let labels = &targets.labels[row * bytes..(row + 1) * bytes];
        let teacher = &teacher[row * patches..(row + 1) * patches];
        let (mut sum, mut gradient) = (0.0, vec![[0.0; 2]; bytes]);
        let mut student = vec![0.0; patches + 1];
        for t in 0..bytes - 1 {
            // The logits at t predict the byte at t + 1.
            if likelihood[t].label.is_finite() && labels[t] != IGNORED {
                student[(patch_of[t + 1] as usize).min(patches)] += f64::from(likelihood[t].label);
            }
        }
        let mut by_patch = vec![0.0; patches + 1];
        let mut end = 0;
        for (patch, &len) in lens.iter().enumerate() {
            end += len as usize;
            if patch == 0 || len == 0 {
                continue;
            }
            let last = (end - 1).min(bytes - 1);
            let own = student[patch] + f64::from(likelihood[last].space);
            let theirs = f64::from(teacher[patch - 1].label) + f64::from(teacher[patch].space);
            let a = theirs / options.temperature - options.epsilon;
            let b = own / options.temperature - options.epsilon;
            sum += a.exp() * (a - b) - a.exp_m1() * (log_one_minus_exp(a) - log_one_minus_exp(b));
            let by_b = -a.exp() - a.exp_m1() * (b.exp() / -b.exp_m1());
            by_patch[patch] = options.distill * weight * by_b / options.temperature;
            gradient[last][1] = by_patch[patch] as f32;
        }
        for t in 0..bytes - 1 {
            if labels[t] != IGNORED {
                gradient[t][0] = by_patch[(patch_of[t + 1] as usize).min(patches)] as f32;
            }
        }
        (sum, gradient)
    };
    // Rows are added up in order, so that the number of threads does not change the sum.
    let computed = map_chunks(rows, 1, 1, |range| range.map(of_row).collect::<Vec<_>>());
    let mut sum = 0.0;
    for (own, all) in computed.into_iter().flat_map(|(_, rows)| rows).zip(gradient.chunks_mut(bytes)) {
        sum += own.0;
        for (from, to) in own.1.iter().zip(all) {
            to[0] += from[0];
            to[1] += from[1];
        }
    }
    losses.distill = sum * weight;
    losses.total += options.distill * losses.distill;
}

/// Derivative of the total by the divergence of each byte.
pub fn byte_distillation_weight(options: &LossOptions, targets: &Targets<'_>) -> f64 {
    options.byte_distillation * per_label(options, targets)
}

/// Adds byte distillation, from the divergence of each byte, `[B, L]`; 0 for a byte that the teacher says nothing
/// about.
pub fn byte_distillation(options: &LossOptions, targets: &Targets<'_>, divergences: &[f32], losses: &mut Losses) {
    let sum: f64 = divergences.iter().map(|&divergence| f64::from(divergence)).sum();
    losses.byte_distillation = byte_distillation_weight(options, targets) * sum;
    losses.total += losses.byte_distillation;
}

/// `log(1 - e^x)` for x < 0.
fn log_one_minus_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}
