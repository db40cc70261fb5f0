//! Losses, gradients and optimizer steps of stage 1 and stage 2 against the reference's, and on models drawn from
//! several seeds.

use std::collections::BTreeMap;

use bolmo_runtime::block_on;
use bolmo_tests::{engine, fixtures, in_tree};
use bolmo_training::loss::LossOptions;
use bolmo_training::{AdamOptions, Schedule, StepReport, TeacherSource, Trainer, TrainerOptions};
use serde_json::Value;

use case::{Batch, Case, Tensors, checkpoint, json, subwords};

mod case;
mod drawn;

fn close(what: &str, found: f64, expected: f64, tolerance: f64) {
    let difference = (found - expected).abs() / expected.abs();
    eprintln!("{what}: {found} against {expected}, relative difference {difference:.1e}");
    assert!(difference <= tolerance, "{what}: found {found}, expected {expected}");
}

/// Runs the three recorded steps of a run of the reference.
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
    let recorded = Gradients::read(name, &dir);
    let mut seen = Seen::default();
    for step in 0..3 {
        let batch = Batch::read(&case, step, eos);
        let found: StepReport = block_on(trainer.step(&[batch.examples()])).expect("a step");
        seen.rates += found.rate;
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
            seen.errors = gradients(name, &mut trainer, &recorded);
        }
        close(&format!("{name} step {step} norm"), found.gradient_norm, number(&expected["grad_norm"]), 1e-3);
    }
    parameters(name, &mut trainer, &dir, &recorded, &seen);
}

/// What the parameters after a run are judged by.
#[derive(Default)]
struct Seen {
    /// How far the first gradients are from the recorded ones, by tensor.
    errors: BTreeMap<String, f64>,
    /// The sum of the rates of all steps.
    rates: f64,
}

/// The reference's gradients of a run.
struct Gradients {
    /// As it computed them, in f32.
    recorded: Tensors,
    /// The same in f64, where the golden files have them.
    exact: Option<Tensors>,
}

impl Gradients {
    fn read(name: &str, dir: &std::path::Path) -> Self {
        let exact = fixtures().join("train_grads64").join(format!("{name}.safetensors"));
        Self {
            recorded: checkpoint(&Tensors::read(&dir.join("grads.safetensors"))).0,
            exact: exact.exists().then(|| checkpoint(&Tensors::read(&exact)).0),
        }
    }

    /// What to compare a tensor's gradient with, and how far it may be off relative to its norm. The reference's own
    /// error in f32, where it is known, shows how much rounding matters to this tensor of this model; a computation in
    /// another order may be unluckier, and has the `rounding` of all its sums at least.
    fn expected(&self, tensor: &str, rounding: f64) -> Option<(&[f32], f64)> {
        let recorded = self.recorded.floats.get(tensor)?;
        match self.exact.as_ref().and_then(|exact| exact.floats.get(tensor)) {
            Some(exact) => Some((exact, rounding + 4.0 * compare(recorded, exact).0)),
            // Both are off.
            None => Some((recorded, 2.0 * rounding)),
        }
    }
}

/// Compares every gradient after the first step, and returns how far each is from the recorded one.
fn gradients(name: &str, trainer: &mut Trainer, expected: &Gradients) -> BTreeMap<String, f64> {
    let mut errors = BTreeMap::new();
    let recorded = &expected.recorded;
    let rounding = Case::new().gradient_rounding();
    let mut left: Vec<String> = expected.recorded.floats.keys().cloned().collect();
    let mut worst = (0.0, String::new());
    let mut failures = Vec::new();
    let mut each = |tensor: &str, found: Vec<f32>| {
        let Some((expected, bound)) = expected.expected(tensor, rounding) else {
            assert!(found.iter().all(|&v| v == 0.0), "{tensor} has a gradient, the reference has none");
            return Ok(());
        };
        left.retain(|name| name != tensor);
        errors.insert(tensor.to_owned(), distance(&found, &recorded.floats[tensor]));
        let (difference, cosine) = compare(&found, expected);
        if difference / bound > worst.0 {
            worst = (difference / bound, format!("{tensor}, {difference:.1e} of its norm"));
        }
        if difference > bound {
            failures
                .push(format!("{tensor}: off by {difference:.1e} of its norm, at most {bound:.1e}, cosine {cosine}"));
        }
        Ok(())
    };
    block_on(trainer.each_gradient(&mut each)).expect("gradients");
    eprintln!("{name}: a gradient is off by at most {:.2} of its bound ({})", worst.0, worst.1);
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
    assert!(left.is_empty(), "{name}: no gradient of {left:?}");
    errors
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

/// Compares the parameters after three steps.
///
/// Adam moves a parameter by the rate times a ratio of gradients. An error of the gradient changes that ratio by its
/// share of the gradient, so that a parameter may end up elsewhere only where its gradient is lost in rounding.
fn parameters(name: &str, trainer: &mut Trainer, dir: &std::path::Path, recorded: &Gradients, seen: &Seen) {
    const OFF: f64 = 1e-5;
    let Seen { errors, rates } = seen;
    let (expected, _) = checkpoint(&Tensors::read(&dir.join("after3.safetensors")));
    let (mut all, mut off, mut undetermined, mut largest) = (0usize, 0usize, 0usize, 0.0f64);
    let mut each = |tensor: &str, found: Vec<f32>| {
        let Some(expected) = expected.floats.get(tensor) else { return Ok(()) };
        let gradient = &recorded.recorded.floats[tensor];
        // Of the size of the first step's, with room for the later ones and for elements that are off by more than
        // most.
        let error = 4.0 * errors[tensor] / (gradient.len() as f64).sqrt();
        for ((&found, &expected), &gradient) in found.iter().zip(expected).zip(gradient) {
            let difference = (f64::from(found) - f64::from(expected)).abs();
            all += 1;
            off += usize::from(difference > OFF);
            undetermined += usize::from(gradient != 0.0 && rates * error > OFF * f64::from(gradient.abs()));
            largest = largest.max(difference - 4.0 * f64::from(f32::EPSILON * expected.abs()));
        }
        Ok(())
    };
    block_on(trainer.each_weight(&mut each)).expect("weights");
    eprintln!(
        "{name}: {off} of {all} parameters off by more than {OFF:.0e}, at most {largest:.1e}; \
         rounding may move {undetermined}"
    );
    assert!(all > 10_000, "{name}: only {all} parameters");
    assert!(off <= undetermined, "{name}: {off} of {all} parameters are off, rounding may move {undetermined}");
    assert!(undetermined * 10 <= all, "{name}: rounding may move {undetermined} of {all} parameters");
    assert!(largest <= 2.0 * rates, "{name}: a parameter is off by {largest:.1e} after steps of {rates:.1e} in all");
}

#[test]
fn stage1_steps_equal_the_reference() {
    run("stage1");
}

#[test]
fn stage1_steps_after_initialization_equal_the_reference() {
    run("stage1_fixinit");
}

#[test]
fn stage2_steps_equal_the_reference() {
    run("stage2");
}
