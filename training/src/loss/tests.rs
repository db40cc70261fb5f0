//! Tests of the losses and their derivatives.

use super::*;
use crate::layers::Shape;

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

/// Compares a gradient with a finite difference of the total.
fn check(found: f64, change: impl Fn(f32) -> f64, what: &str) {
    let step = 1e-2f32;
    let expected = (change(step) - change(-step)) / f64::from(2.0 * step);
    assert!(
        (found - expected).abs() <= 2e-4 * (1.0 + expected.abs()),
        "{what}: {found}, finite differences give {expected}"
    );
}

#[test]
fn fused_labels_follow_the_mask() {
    let case = Case::new();
    let labels = case.targets().fused_labels(&case.truth);
    // Byte 2 ends a patch. So does byte 5, but it has no label. The next row starts a new example.
    assert_eq!(labels[..6], [7, 8 + 260, 9, 10, 11, NO_LABEL]);
    assert_eq!(labels[8..14], [17 + 260, 18, 19 + 260, 20, 21, NO_LABEL]);
}

#[test]
fn gradients_are_derivatives() {
    let case = Case::new();
    let targets = case.targets();
    for options in [LossOptions::stage1(), LossOptions { divide_twice: false, distill: 0.7, ..LossOptions::stage1() }] {
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
fn decisions_of_the_predictor_are_counted_over_labels() {
    let case = Case::new();
    let mut losses = Losses::default();
    let cosines: Vec<f32> = case.truth.iter().map(|&truth| if truth { -0.5 } else { 0.5 }).collect();
    boundary(&LossOptions::stage1(), &case.targets(), &cosines, &mut losses);
    let counts = losses.predictor;
    let right = counts.true_positives + counts.true_negatives;
    assert_eq!((right, counts.false_negatives, counts.false_positives), (10, 0, 0));
    assert_eq!((losses.predictor.accuracy(), losses.predictor.recall()), (1.0, 1.0));
}
