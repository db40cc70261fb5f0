//! The losses of SPEC section 10, computed on the host in f64 from a few numbers per byte and patch that the device hands out, together
//! with their derivatives by those numbers, which go back to it.
//!
//! `B` examples of `L` bytes and `P` patch slots; bytes are `[B, L]`, patches `[B, P]`, one example behind the other.

pub(crate) mod byte_distillation;

use bolmo_runtime::internals::{by_shares, log_probability};
use bolmo_runtime::stages::bytes::FUSED_OFFSET;

use crate::layers::Shape;

/// No label: padding, or the last byte.
pub const IGNORED: i32 = -100;
/// What a label that is not there is on the device: more than any id.
pub const NO_LABEL: u32 = u32::MAX;
/// Log-probabilities of a boundary are held at most here, so that that of its absence is finite.
const HIGHEST_BOUNDARY: f64 = -1e-3;
/// Cosines of the boundary predictor count at most as this.
const HIGHEST_COSINE: f32 = 0.999;

/// How the losses are added up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Factor of the distance between student's and teacher's patches behind the first global blocks.
    pub encoder: f64,
    /// Factor of the cross-entropy.
    pub cross_entropy: f64,
    /// Factor of the distillation of patches' probabilities.
    pub distill: f64,
    /// Factor of the boundary predictor's cross-entropy.
    pub boundary: f64,
    /// Factor of the divergence of each next id's probabilities from the teacher's; not of the paper, and 0 there.
    pub spelling: f64,
    /// What log-probabilities are divided by before they are compared in distillation.
    pub temperature: f64,
    /// What they are lowered by then.
    pub epsilon: f64,
    /// Whether cross-entropy and distillation are divided once more by the share of bytes that are real, as the reference does.
    pub divide_twice: bool,
}

impl LossOptions {
    /// Stage 1 as the paper has it; `divide_twice` as the reference has it.
    pub fn stage1() -> Self {
        Self {
            encoder: 4.0,
            cross_entropy: 1.0,
            distill: 1.0,
            boundary: 4.0,
            spelling: 0.0,
            temperature: 5.0,
            epsilon: 1e-6,
            divide_twice: true,
        }
    }

    /// Stage 2.
    pub fn stage2() -> Self {
        Self { encoder: 0.0, distill: 0.0, ..Self::stage1() }
    }
}

/// The values of the terms, each with its factor of [`LossOptions`] but for the boundary's and the cross-entropy's, and what they come to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Losses {
    /// Everything, with all factors.
    pub total: f64,
    /// Cross-entropy of the logits with fused labels, in nats.
    pub cross_entropy: f64,
    /// Cross-entropy of the boundary predictor, in nats.
    pub boundary: f64,
    /// Distance of patches, with its factor; stage 1.
    pub encoder: f64,
    /// Binary divergence of patches' probabilities; stage 1, and 0 where its factor is.
    pub distill: f64,
    /// Divergence of next ids' probabilities from the teacher's, in nats, with its factor; stage 1.
    pub spelling: f64,
    /// Mean of -log2 p of a byte with its flag over the real bytes.
    pub bits_per_byte: f64,
    /// How well the predictor finds the true boundaries.
    pub predictor: Predictor,
    /// Real bytes, and those of them that are labels.
    pub labels: u64,
}

impl Losses {
    /// Adds `factor` times the losses of another batch, and its counts.
    pub fn add(&mut self, other: &Self, factor: f64) {
        self.total += factor * other.total;
        self.cross_entropy += factor * other.cross_entropy;
        self.boundary += factor * other.boundary;
        self.encoder += factor * other.encoder;
        self.distill += factor * other.distill;
        self.spelling += factor * other.spelling;
        self.bits_per_byte += factor * other.bits_per_byte;
        self.predictor.add(&other.predictor);
        self.labels += other.labels;
    }
}

/// Counts of the boundary predictor's decisions over real bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Predictor {
    /// Boundaries that were found.
    pub found: u64,
    /// Boundaries that were missed.
    pub missed: u64,
    /// Decisions for a boundary where there is none.
    pub wrong: u64,
    /// Decisions against a boundary where there is none.
    pub left: u64,
}

impl Predictor {
    /// Share of decisions that are right.
    pub fn accuracy(&self) -> f64 {
        ratio(self.found + self.left, self.found + self.left + self.missed + self.wrong)
    }

    /// Share of found boundaries that are true.
    pub fn precision(&self) -> f64 {
        ratio(self.found, self.found + self.wrong)
    }

    /// Share of true boundaries that are found.
    pub fn recall(&self) -> f64 {
        ratio(self.found, self.found + self.missed)
    }

    /// Adds the counts of another batch.
    pub fn add(&mut self, other: &Self) {
        self.found += other.found;
        self.missed += other.missed;
        self.wrong += other.wrong;
        self.left += other.left;
    }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The targets of a batch, whatever the model says.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// Sizes.
    pub shape: Shape,
    /// The next plain id of each byte, or [`IGNORED`]; `[B, L]`.
    pub labels: &'a [i32],
    /// Where a patch truly ends, `[B, L]`.
    pub truth: &'a [bool],
    /// Bytes of each true patch, 0 for none, `[B, P]`.
    pub patch_lens: &'a [u32],
    /// True patch of each byte, P behind the last one, `[B, L]`.
    pub patch_of: &'a [u32],
}

impl Targets<'_> {
    /// Bytes that have a label.
    pub fn label_count(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }

    /// Patches behind the first of each example.
    pub fn patch_count(&self) -> usize {
        self.patch_lens.chunks(self.shape.patches).map(|lens| lens[1..].iter().filter(|&&len| len != 0).count()).sum()
    }

    /// Labels with the flag of `mask`: fused where the next byte is real and ends a patch; [`NO_LABEL`] where there is none.
    pub fn fused_labels(&self, mask: &[bool]) -> Vec<u32> {
        let length = self.shape.bytes;
        let of = |(at, &label): (usize, &i32)| {
            let next = (at % length + 1 < length).then_some(at + 1);
            let ends = next.is_some_and(|next| mask[next] && self.labels[next] != IGNORED);
            match label {
                IGNORED => NO_LABEL,
                label => label as u32 + if ends { u32::from(FUSED_OFFSET) } else { 0 },
            }
        };
        self.labels.iter().enumerate().map(of).collect()
    }

    /// 1 over the mean of a batch in the cross-entropy: the labels, and once more their share.
    fn per_label(&self, options: &LossOptions) -> f64 {
        let count = self.label_count().max(1) as f64;
        let share = if options.divide_twice { count / self.labels.len() as f64 } else { 1.0 };
        1.0 / (count * share)
    }
}

/// What the device says about the logits behind each byte.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Log-probability of the label.
    pub label: f32,
    /// Log-probability that the next id is plain and space-like.
    pub space: f32,
}

/// Derivatives of the total by both parts of a [`Likelihood`], `[B, L, 2]`.
pub type LikelihoodGradient = Vec<[f32; 2]>;

/// Adds the cross-entropy.
pub fn cross_entropy(
    options: &LossOptions,
    targets: &Targets<'_>,
    likelihood: &[Likelihood],
    gradient: &mut LikelihoodGradient,
    losses: &mut Losses,
) {
    let per_label = targets.per_label(options);
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

/// Adds the boundary predictor's cross-entropy, from the cosine of each byte with the next one. Returns the derivative of the total by the
/// cosines, `[B, L]`.
pub fn boundary(options: &LossOptions, targets: &Targets<'_>, cosines: &[f32], losses: &mut Losses) -> Vec<f32> {
    let length = targets.shape.bytes;
    let count = targets.label_count().max(1) as f64;
    let mut sum = 0.0;
    let mut gradient = vec![0.0; cosines.len()];
    for (at, &cosine) in cosines.iter().enumerate() {
        let t = at % length;
        // The last byte has no next one, and the first is always a boundary.
        if t + 1 == length || targets.labels[at] == IGNORED {
            continue;
        }
        let truth = targets.truth[at];
        let predicted = t == 0 || cosine < 0.0;
        let counter = match (truth, predicted) {
            (true, true) => &mut losses.predictor.found,
            (true, false) => &mut losses.predictor.missed,
            (false, true) => &mut losses.predictor.wrong,
            (false, false) => &mut losses.predictor.left,
        };
        *counter += 1;
        let logp = if t == 0 { 0.0 } else { f64::from(log_probability(cosine)) };
        let held = logp.min(HIGHEST_BOUNDARY);
        sum -= if truth { held } else { log_one_minus_exp(held) };
        if t > 0 && logp < HIGHEST_BOUNDARY && cosine < HIGHEST_COSINE {
            let p = held.exp();
            let by_logp = if truth { -1.0 } else { p / (1.0 - p) };
            let by_cosine = -by_logp / (1.0 - f64::from(cosine));
            gradient[at] = (options.boundary * by_cosine / count) as f32;
        }
    }
    losses.boundary = sum / count;
    losses.total += options.boundary * losses.boundary;
    gradient
}

/// The derivative of the total by the distance of each patch slot that has a true patch, `[B, P]`; 0 for the others.
pub fn encoder_weights(options: &LossOptions, targets: &Targets<'_>, used: &[bool], width: usize) -> Vec<f32> {
    let weight = options.encoder / (targets.patch_count().max(1) as f64 * (width as f64).sqrt());
    used.iter().map(|&used| if used { weight as f32 } else { 0.0 }).collect()
}

/// Adds the distance of patches, from the derivative by each.
pub fn encoder(weights: &[f32], distances: &[f32], losses: &mut Losses) {
    losses.encoder = weights.iter().zip(distances).map(|(&w, &d)| f64::from(w) * f64::from(d)).sum();
    losses.total += losses.encoder;
}

/// Adds the distillation of patches: what the student gives the bytes of each true patch and a space behind it, against what the teacher
/// gives the subword and a space behind it. `teacher` has, for each patch slot, the log-probability of the next subword, and that of a
/// space-like one as the next, `[B, P]`.
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
            // The logits at t are about the byte at t + 1.
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
    // Sums of rows are added up in order, whoever makes them.
    let made = by_shares(rows, 1, 1, |range| range.map(of_row).collect::<Vec<_>>());
    let mut sum = 0.0;
    for (own, all) in made.into_iter().flat_map(|(_, rows)| rows).zip(gradient.chunks_mut(bytes)) {
        sum += own.0;
        for (from, to) in own.1.iter().zip(all) {
            to[0] += from[0];
            to[1] += from[1];
        }
    }
    losses.distill = sum * weight;
    losses.total += options.distill * losses.distill;
}

/// The derivative of the total by the divergence of each byte.
pub fn spelling_weight(options: &LossOptions, targets: &Targets<'_>) -> f64 {
    options.spelling * targets.per_label(options)
}

/// Adds the divergence of each next id's probabilities from what the teacher says of them, `[B, L]`; 0 for bytes of which it says nothing.
pub fn spelling(options: &LossOptions, targets: &Targets<'_>, divergences: &[f32], losses: &mut Losses) {
    let sum: f64 = divergences.iter().map(|&divergence| f64::from(divergence)).sum();
    losses.spelling = spelling_weight(options, targets) * sum;
    losses.total += losses.spelling;
}

/// `log(1 - e^x)` for x < 0.
fn log_one_minus_exp(x: f64) -> f64 {
    if x > -std::f64::consts::LN_2 { (-x.exp_m1()).ln() } else { (-x.exp()).ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { rows: 2, bytes: 8, patches: 4 };

    struct Case {
        labels: Vec<i32>,
        truth: Vec<bool>,
        patch_lens: Vec<u32>,
        patch_of: Vec<u32>,
    }

    impl Case {
        fn new() -> Self {
            let patch_of = [0, 1, 1, 2, 2, 2, 4, 4].into_iter().chain([0, 1, 2, 2, 3, 3, 4, 4]).collect();
            Self {
                labels: vec![7, 8, 9, 10, 11, -100, -100, -100, 17, 18, 19, 20, 21, -100, -100, -100],
                truth: [1, 0, 1, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0].map(|bit| bit == 1).to_vec(),
                patch_lens: vec![1, 2, 3, 0, 1, 1, 2, 2],
                patch_of,
            }
        }

        fn targets(&self) -> Targets<'_> {
            Targets {
                shape: SHAPE,
                labels: &self.labels,
                truth: &self.truth,
                patch_lens: &self.patch_lens,
                patch_of: &self.patch_of,
            }
        }
    }

    fn noise(seed: u64, count: usize, low: f32, high: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..count).map(|_| low + (high - low) * next()).collect()
    }

    fn likelihoods(seed: u64, count: usize) -> Vec<Likelihood> {
        let values = noise(seed, 2 * count, -3.0, -0.1);
        values.chunks(2).map(|pair| Likelihood { label: pair[0], space: pair[1] }).collect()
    }

    /// Holds a gradient against differences of the total.
    fn check(found: f64, change: impl Fn(f32) -> f64, what: &str) {
        let step = 1e-2f32;
        let expected = (change(step) - change(-step)) / f64::from(2.0 * step);
        assert!(
            (found - expected).abs() <= 2e-4 * (1.0 + expected.abs()),
            "{what}: {found}, differences say {expected}"
        );
    }

    #[test]
    fn fused_labels_follow_the_mask() {
        let case = Case::new();
        let labels = case.targets().fused_labels(&case.truth);
        // Byte 2 ends a patch, byte 5 does too but has no label, and the next row is no neighbour.
        assert_eq!(labels[..6], [7, 8 + 260, 9, 10, 11, NO_LABEL]);
        assert_eq!(labels[8..14], [17 + 260, 18, 19 + 260, 20, 21, NO_LABEL]);
    }

    #[test]
    fn gradients_are_derivatives() {
        let case = Case::new();
        let targets = case.targets();
        for options in
            [LossOptions::stage1(), LossOptions { divide_twice: false, distill: 0.7, ..LossOptions::stage1() }]
        {
            let (student, teacher) = (likelihoods(1, 16), likelihoods(2, 8));
            let total = |student: &[Likelihood]| {
                let (mut losses, mut gradient) = (Losses::default(), vec![[0.0; 2]; 16]);
                cross_entropy(&options, &targets, student, &mut gradient, &mut losses);
                distill(&options, &targets, student, &teacher, &mut gradient, &mut losses);
                (losses.total, gradient)
            };
            let (_, gradient) = total(&student);
            for at in 0..16 {
                let label = |step: f32| {
                    let mut moved = student.clone();
                    moved[at].label += step;
                    total(&moved).0
                };
                check(f64::from(gradient[at][0]), label, "label");
                let space = |step: f32| {
                    let mut moved = student.clone();
                    moved[at].space += step;
                    total(&moved).0
                };
                check(f64::from(gradient[at][1]), space, "space");
            }
            let cosines = noise(3, 16, -0.9, 0.9);
            let total = |cosines: &[f32]| {
                let mut losses = Losses::default();
                let gradient = boundary(&options, &targets, cosines, &mut losses);
                (losses.total, gradient)
            };
            let (_, gradient) = total(&cosines);
            for at in 0..16 {
                let moved = |step: f32| {
                    let mut moved = cosines.clone();
                    moved[at] += step * 0.1;
                    total(&moved).0
                };
                check(f64::from(gradient[at]) * 0.1, moved, "cosine");
            }
        }
    }

    #[test]
    fn the_predictor_is_counted_over_labels() {
        let case = Case::new();
        let mut losses = Losses::default();
        let cosines: Vec<f32> = case.truth.iter().map(|&truth| if truth { -0.5 } else { 0.5 }).collect();
        boundary(&LossOptions::stage1(), &case.targets(), &cosines, &mut losses);
        let Predictor { found, missed, wrong, left } = losses.predictor;
        assert_eq!((found + left, missed, wrong), (10, 0, 0));
        assert_eq!((losses.predictor.accuracy(), losses.predictor.recall()), (1.0, 1.0));
    }
}
