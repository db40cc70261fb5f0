//! Losses, gradients and optimizer steps of stage 1 and stage 2 against the reference's, and on models drawn from several seeds.

use bolmo_runtime::block_on;
use bolmo_tests::{engine, fixtures, in_tree};
use bolmo_training::losses::LossOptions;
use bolmo_training::{AdamOptions, Schedule, StepReport, TeacherSource, Trainer, TrainerOptions};
use serde_json::Value;

use case::{Batch, Case, Tensors, checkpoint, json, subwords};

#[path = "training/case.rs"]
mod case;
#[path = "training/drawn.rs"]
mod drawn;

/// What rounding in f32 makes of a gradient, relative to the norm of its tensor: the golden gradients in f32 are up to 1.3e-4
/// off those in f64, in golden files of several seeds up to four times as much.
const GRADIENT_ERROR: f64 = 1e-3;

fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let difference = (found - expected).abs() / expected.abs();
    eprintln!("{what}: {found} against {expected}, relative difference {difference:.1e}");
    assert!(difference <= tolerance, "{what}: found {found}, expected {expected}");
}

/// Runs the three recorded steps of one of the reference's runs.
fn run(name: &str) {
    if !in_tree(&format!("train/{name}/init.safetensors")) {
        return;
    }
    let case = Case::new();
    let dir = case.dir.join(name);
    let report = json(&dir.join("report.json"));
    let (student, teacher) = checkpoint(&Tensors::read(&dir.join("init.safetensors")));
    let stage1 = !teacher.floats.is_empty();
    let (spaces, eos) = subwords();
    let config = case.config();
    let options = TrainerOptions {
        shape: case.shape(),
        losses: if stage1 { LossOptions::stage1() } else { LossOptions::stage2() },
        adam: AdamOptions { beta2: if stage1 { 0.999 } else { 0.95 }, ..AdamOptions::default() },
        schedule: Schedule { steps: 20, warmup: 0.1 },
        half_products: false,
        recompute: false,
        local_rate: if stage1 { 7e-4 } else { 5.2e-5 },
        encoder_rate: if stage1 { 7e-4 } else { 5.2e-5 },
        global_rate: 2.6e-5,
    };
    let source = TeacherSource {
        tensors: &teacher,
        vocabulary: case.size("teacher_vocab"),
        tied: false,
        spaces: &spaces,
        sequences: &[],
    };
    let mut trainer =
        block_on(Trainer::new(engine(), &config, options, &student, stage1.then_some(source))).expect("a trainer");
    for step in 0..3 {
        let batch = Batch::read(&case, step, eos);
        let found: StepReport = block_on(trainer.step(&[batch.examples()])).expect("a step");
        let expected = &report["steps"][step];
        let number = |value: &Value| value.as_f64().expect("a number");
        close(&format!("{name} step {step} loss"), found.losses.total, number(&expected["loss"]), 1e-4);
        close(&format!("{name} step {step} cross-entropy"), found.losses.cross_entropy, number(&expected["ce"]), 1e-4);
        close(&format!("{name} step {step} rate"), found.rate, number(&expected["lrs"][0]), 1e-6);
        if step == 0 {
            let losses = &report["finalized_losses"];
            close("boundary", found.losses.boundary, number(&losses["loss_boundary"]), 1e-4);
            if stage1 {
                close("encoder", found.losses.encoder, number(&losses["loss_local_encoder"]), 1e-4);
                close("distill", found.losses.distill, number(&losses["loss_local_decoder"]), 1e-4);
            }
            let accuracy = number(&expected["metrics"]["bolmo/boundary_acc"]);
            eprintln!("{name}: boundary accuracy {} against {accuracy}", found.losses.predictor.accuracy());
            gradients(name, &mut trainer, &dir);
        }
        close(&format!("{name} step {step} norm"), found.gradient_norm, number(&expected["grad_norm"]), 1e-3);
    }
    parameters(name, &mut trainer, &dir);
}

/// Every gradient after the first step, against the reference's and against its own in f64.
fn gradients(name: &str, trainer: &mut Trainer, dir: &std::path::Path) {
    let (expected, _) = checkpoint(&Tensors::read(&dir.join("grads.safetensors")));
    let exact = fixtures().join("train_grads64").join(format!("{name}.safetensors"));
    let exact = exact.exists().then(|| checkpoint(&Tensors::read(&exact)).0);
    let mut left: Vec<String> = expected.floats.keys().cloned().collect();
    let mut worst = (0.0, String::new());
    let mut worst_exact = (0.0, String::new());
    let mut failures = Vec::new();
    let mut each = |tensor: &str, found: Vec<f32>| {
        let Some(expected) = expected.floats.get(tensor) else {
            assert!(found.iter().all(|&v| v == 0.0), "{tensor} has a gradient, the reference has none");
            return Ok(());
        };
        left.retain(|name| name != tensor);
        let (difference, cosine) = compare(&found, expected);
        if difference > worst.0 {
            worst = (difference, tensor.to_owned());
        }
        if difference > 1e-3 || cosine < 0.99999 {
            failures.push(format!("{tensor}: difference {difference:.1e} of the norm, cosine {cosine}"));
        }
        if let Some(exact) = exact.as_ref().and_then(|exact| exact.floats.get(tensor)) {
            let (difference, _) = compare(&found, exact);
            if difference > worst_exact.0 {
                worst_exact = (difference, tensor.to_owned());
            }
        }
        Ok(())
    };
    block_on(trainer.each_gradient(&mut each)).expect("gradients");
    eprintln!(
        "{name}: largest difference of a gradient {:.1e} of its norm ({}), of f64's {:.1e} ({})",
        worst.0, worst.1, worst_exact.0, worst_exact.1
    );
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
    assert!(left.is_empty(), "{name}: no gradient of {left:?}");
}

/// The Euclidean norm.
fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// The norm of the difference.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let squares = found.iter().zip(expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
    squares.sum::<f64>().sqrt()
}

/// The norm of the difference relative to the expected norm, and the cosine.
fn compare(found: &[f32], expected: &[f32]) -> (f64, f64) {
    assert_eq!(found.len(), expected.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let difference: Vec<f32> = found.iter().zip(expected).map(|(a, b)| a - b).collect();
    let norm = dot(expected, expected).sqrt();
    if norm == 0.0 {
        return (dot(found, found).sqrt(), 1.0);
    }
    (dot(&difference, &difference).sqrt() / norm, dot(found, expected) / norm / dot(found, found).sqrt())
}

/// The parameters after three steps.
fn parameters(name: &str, trainer: &mut Trainer, dir: &std::path::Path) {
    let (expected, _) = checkpoint(&Tensors::read(&dir.join("after3.safetensors")));
    let (mut all, mut off, mut largest) = (0usize, 0usize, 0.0f32);
    let mut each = |tensor: &str, found: Vec<f32>| {
        if let Some(expected) = expected.floats.get(tensor) {
            for (found, expected) in found.iter().zip(expected) {
                let difference = (found - expected).abs();
                all += 1;
                off += usize::from(difference > 1e-5);
                largest = largest.max(difference);
            }
        }
        Ok(())
    };
    block_on(trainer.each_weight(&mut each)).expect("weights");
    eprintln!("{name}: {off} of {all} parameters off by more than 1e-5, at most {largest:.1e}");
    assert!(all > 10_000 && off * 1000 <= all, "{name}: {off} of {all} parameters off by more than 1e-5");
}

#[test]
fn stage1() {
    run("stage1");
}

#[test]
fn stage1_as_it_begins() {
    run("stage1_fixinit");
}

#[test]
fn stage2() {
    run("stage2");
}
