//! Models whose weights are drawn from several seeds, one of them with steeper weights: properties that hold for every
//! model.

use std::collections::HashMap;

use bolmo_runtime::layout::expected_tensors;
use bolmo_runtime::{Config, Engine, Result, Vocabulary, block_on};
use bolmo_tests::{engine, engine_options, fixtures, slope};
use bolmo_training::loss::LossOptions;
use bolmo_training::{AdamOptions, Schedule, StepReport, TeacherSource, TensorSource, Trainer, TrainerOptions};

use super::case::{Batch, Case, subwords};
use super::{distance, norm};

/// The unit roundoff of f16: half the distance from 1 to the next number.
const F16_UNIT: f64 = 1.0 / 2048.0;
/// The distance from 1 to the next f32.
const EPS: f64 = f32::EPSILON as f64;

/// Where a model's weights come from, and which golden batch it sees.
#[derive(Debug, Clone, Copy)]
struct Draw {
    seed: u32,
    /// The factor of all weights but those of norms.
    steepness: f32,
    batch: usize,
}

const DRAWS: [Draw; 3] = [
    Draw { seed: 17, steepness: 1.0, batch: 0 },
    Draw { seed: 18, steepness: 1.0, batch: 1 },
    Draw { seed: 19, steepness: 1.5, batch: 2 },
];

/// The weights of a byte-level model, or with a `vocabulary` the embeddings, norm and head of its teacher.
#[derive(Clone, Copy)]
struct Weights<'a> {
    config: &'a Config,
    vocabulary: Option<usize>,
    draw: Draw,
    /// The seed of a relative error of up to the unit of f16 in every weight.
    probe: Option<u32>,
    /// A tensor that is moved by these values.
    moved: Option<(&'a str, &'a [f32])>,
}

/// Values between -1 and 1.
fn uniform(seed: u32, name: &str) -> impl FnMut() -> f32 + use<> {
    let mut state = name.bytes().fold(seed, |state, byte| state.wrapping_mul(31).wrapping_add(byte.into()));
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    }
}

impl TensorSource for Weights<'_> {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let count = match (self.vocabulary, name) {
            (Some(rows), "model.embed_tokens.weight" | "lm_head.weight") => rows * self.config.hidden_size,
            _ => {
                let all = expected_tensors(self.config).into_iter();
                let mut named = all.filter(|spec| spec.name == name);
                named.next().map(|spec| spec.element_count() as usize).expect("a tensor")
            }
        };
        let mut draw = uniform(self.draw.seed, name);
        let size = 0.2 * self.draw.steepness;
        let is_norm = name.ends_with("norm.weight");
        let mut values: Vec<f32> =
            (0..count).map(|_| if is_norm { 1.0 + 0.1 * draw() } else { size * draw() }).collect();
        if let Some(probe) = self.probe {
            let mut error = uniform(probe, name);
            values.iter_mut().for_each(|value| *value *= 1.0 + F16_UNIT as f32 * error());
        }
        if let Some((_, by)) = self.moved.filter(|(moved, _)| *moved == name) {
            values.iter_mut().zip(by).for_each(|(value, by)| *value += by);
        }
        Ok(values)
    }
}

/// One step of training.
#[derive(Clone, Copy)]
struct Setup {
    draw: Draw,
    /// Stage 1 with a teacher, else stage 2.
    teach: bool,
    half_products: bool,
    recompute: bool,
    probe: Option<u32>,
}

impl Setup {
    fn stage1(draw: Draw) -> Self {
        Self { draw, teach: true, half_products: false, recompute: false, probe: None }
    }
}

/// The report and the gradients of a step.
type Outcome = (StepReport, Vec<(String, Vec<f32>)>);

fn gradients(trainer: &mut Trainer) -> Vec<(String, Vec<f32>)> {
    let mut gradients = Vec::new();
    let mut keep = |name: &str, values: Vec<f32>| {
        gradients.push((name.to_owned(), values));
        Ok(())
    };
    block_on(trainer.each_gradient(&mut keep)).expect("gradients");
    gradients
}

fn step(engine: &Engine, setup: Setup) -> Outcome {
    let Setup { draw, teach, half_products, recompute, probe } = setup;
    let case = Case::new();
    let config = case.config();
    let (spaces, eos) = subwords();
    let batch = Batch::read(&case, draw.batch, eos);
    let vocabulary = case.size("teacher_vocab");
    let options = TrainerOptions {
        shape: case.shape(),
        losses: LossOptions::stage1(),
        adam: AdamOptions::default(),
        schedule: Schedule { steps: 20, warmup: 0.1 },
        half_products,
        recompute,
        local_rate: 1e-3,
        encoder_rate: 1e-3,
        global_rate: 0.0,
    };
    let student = Weights { config: &config, vocabulary: None, draw, probe, moved: None };
    let teacher = Weights { vocabulary: Some(vocabulary), ..student };
    let source = TeacherSource { tensors: &teacher, vocabulary, tied: false, spaces: &spaces, sequences: &[] };
    let mut trainer =
        block_on(Trainer::new(engine, &config, options, &student, teach.then_some(source))).expect("a trainer");
    let report = block_on(trainer.step(&[batch.examples()])).expect("a step");
    assert!(!report.skipped, "{draw:?}");
    (report, gradients(&mut trainer))
}

/// On GPUs the long sums of weight gradients are made in parts.
#[test]
fn gradient_sums_in_parts_equal_whole_sums() {
    let engines = [1, 64].map(|groups| {
        let mut options = engine_options();
        options.product_groups = Some(groups);
        block_on(Engine::open(&options)).expect("an adapter")
    });
    for draw in DRAWS {
        let [(report, whole), (in_parts, parts)] = [0, 1].map(|i| step(&engines[i], Setup::stage1(draw)));
        assert_eq!(in_parts.losses, report.losses, "{draw:?}: nothing but gradients is summed in parts");
        let shape = Case::new().shape();
        let terms = (shape.rows * shape.bytes) as f64;
        let mut differ = 0;
        for ((name, whole), (same, parts)) in whole.iter().zip(&parts) {
            assert_eq!(name, same);
            let (found, norm) = (distance(parts, whole), norm(whole));
            // A sum of n terms is off by at most n roundings of its partial sums. Where terms cancel, the partial sums
            // are larger than the sum, but not larger than the gradient as a whole, and their roundings do not line up.
            let bound = EPS * (terms * norm + terms.sqrt() * report.gradient_norm);
            assert!(found <= bound, "{draw:?} {name}: off by {found:.1e} of {norm:.1e}, at most {bound:.1e}");
            differ += usize::from(whole != parts);
        }
        assert!(differ > 10, "{draw:?}: only {differ} gradients were made in parts");
    }
}

#[test]
fn recomputed_layers_give_the_same_gradients_in_less_memory() {
    for draw in DRAWS {
        for teach in [true, false] {
            let [(kept, kept_bytes), (again, again_bytes)] = [false, true].map(|recompute| {
                let engine = block_on(Engine::open(&engine_options())).expect("an adapter");
                let outcome = step(&engine, Setup { teach, recompute, ..Setup::stage1(draw) });
                (outcome, engine.memory().peak_bytes)
            });
            assert!(again_bytes < kept_bytes, "{again_bytes} bytes, {kept_bytes} with everything kept");
            assert_eq!(again.0, kept.0, "{draw:?}");
            assert!(again.1 == kept.1, "{draw:?}: different gradients");
        }
    }
}

/// Times that f16 products may change something as much as a probe does. Products of f16 round both factors, and a
/// weight takes part in three: forward, backward, and in its own gradient. A probe rounds the weights alone, by as
/// much, and computes in f32. Five rounded operands in place of one make √5 as much of a difference; the rest is room
/// for chance.
const TIMES: f64 = 4.0;

/// A model in f32, and what errors of the size of f16's rounding in its weights make of a step: how much rounding
/// matters to this very model, so that a steeper one has wider bounds.
struct Probed {
    draw: Draw,
    exact: Outcome,
    probes: Vec<Outcome>,
}

impl Probed {
    fn new(draw: Draw) -> Self {
        let probe = |probe| step(engine(), Setup { probe: Some(probe), ..Setup::stage1(draw) });
        Self { draw, exact: step(engine(), Setup::stage1(draw)), probes: (1..=3).map(probe).collect() }
    }

    /// The first model from `draw` on that rounding leaves recognizable. A drawn model may have a denominator near zero
    /// somewhere: then rounding alone changes its gradients by a lot, and no bound tells right from wrong.
    fn decided(draw: Draw) -> Self {
        let all = (0..32).map(|i| Self::new(Draw { seed: draw.seed + 100 * i, ..draw }));
        all.into_iter()
            .find(Self::decides)
            .unwrap_or_else(|| panic!("{draw:?}: rounding matters too much to all models"))
    }

    fn decides(&self) -> bool {
        let norm = self.exact.0.gradient_norm;
        let bound = self.bound(&|outcome| outcome.0.gradient_norm);
        let all = |outcome: &Outcome| {
            let each = outcome.1.iter().zip(&self.exact.1).map(|((_, a), (_, b))| distance(a, b).powi(2));
            each.sum::<f64>().sqrt()
        };
        let furthest = self.probes.iter().map(all).fold(0.0, f64::max);
        eprintln!("{:?}: rounding changes gradients by {:.1e} of their norm", self.draw, furthest / norm);
        bound <= 0.01 * norm && furthest <= 0.05 * norm
    }

    /// How far a number may be off.
    fn bound(&self, number: &dyn Fn(&Outcome) -> f64) -> f64 {
        let exact = number(&self.exact);
        let furthest = self.probes.iter().map(|probe| (number(probe) - exact).abs()).fold(0.0, f64::max);
        TIMES * furthest + F16_UNIT * exact.abs()
    }
}

#[test]
fn f16_products_change_gradients_no_more_than_rounding_does() {
    for draw in DRAWS {
        let probed = Probed::decided(draw);
        let Probed { draw, exact, probes } = &probed;
        let halves = step(engine(), Setup { half_products: true, ..Setup::stage1(*draw) });
        assert!(*exact != halves, "{draw:?}: both are in f32");
        type Number = (&'static str, fn(&Outcome) -> f64);
        let numbers: [Number; 4] = [
            ("loss", |(report, _)| report.losses.total),
            ("cross-entropy", |(report, _)| report.losses.cross_entropy),
            ("encoder", |(report, _)| report.losses.encoder),
            ("gradient norm", |(report, _)| report.gradient_norm),
        ];
        for (what, number) in numbers {
            let (found, expected, bound) = (number(&halves), number(exact), probed.bound(&number));
            eprintln!("{draw:?} {what}: {found}, {expected} in f32, at most {bound:.1e} apart");
            assert!((found - expected).abs() <= bound, "{draw:?} {what}: {found}, {expected} in f32");
        }
        // A gradient that is a small sum of large terms is off by the rounding of the terms, which are no larger than
        // the gradient as a whole.
        let floor = F16_UNIT * exact.0.gradient_norm;
        let mut worst = (0.0, "");
        for (i, (name, values)) in exact.1.iter().enumerate() {
            let change = |other: &Outcome| {
                assert_eq!(&other.1[i].0, name);
                distance(&other.1[i].1, values)
            };
            let bound = floor + TIMES * probes.iter().map(change).fold(0.0, f64::max);
            let found = change(&halves);
            assert!(found <= bound, "{draw:?} {name}: off by {found:.1e} of {:.1e}, at most {bound:.1e}", norm(values));
            if found / bound > worst.0 {
                worst = (found / bound, name);
            }
        }
        eprintln!("{draw:?}: a gradient's difference is at most {:.2} of its bound ({})", worst.0, worst.1);
    }
}

/// Byte distillation compares the probabilities of the next id with the teacher's.
#[test]
fn byte_distillation_gradients_match_finite_differences() {
    let case = Case::new();
    let config = case.config();
    let (spaces, eos) = subwords();
    let vocabulary = case.size("teacher_vocab");
    let known = Vocabulary::open(fixtures().join("infer/subword_tokenizer/tokenizer.json")).expect("a vocabulary");
    let sequences: Vec<Vec<u16>> =
        (0..vocabulary as u32).map(|id| known.sequence(id).unwrap_or_default().to_vec()).collect();
    let none = LossOptions { encoder: 0.0, cross_entropy: 0.0, distill: 0.0, boundary: 0.0, ..LossOptions::stage1() };
    let options = TrainerOptions {
        shape: case.shape(),
        losses: LossOptions { byte_distillation: 2.0, ..none },
        adam: AdamOptions { clip: 0.0, ..AdamOptions::default() },
        schedule: Schedule { steps: 20, warmup: 0.1 },
        half_products: false,
        recompute: false,
        local_rate: 0.0,
        encoder_rate: 0.0,
        global_rate: 0.0,
    };
    let mut decided = 0;
    for draw in DRAWS {
        let batch = Batch::read(&case, draw.batch, eos);
        let weights = Weights { config: &config, vocabulary: None, draw, probe: None, moved: None };
        let teacher = Weights { vocabulary: Some(vocabulary), ..weights };
        let step = |student: Weights<'_>| {
            let source =
                TeacherSource { tensors: &teacher, vocabulary, tied: false, spaces: &spaces, sequences: &sequences };
            let mut trainer =
                block_on(Trainer::new(engine(), &config, options, &student, Some(source))).expect("a trainer");
            let report = block_on(trainer.step(&[batch.examples()])).expect("a step");
            (report, trainer)
        };
        let (report, mut trainer) = step(weights);
        assert!(report.losses.byte_distillation > 0.1, "{:?}", report.losses);
        assert_eq!(report.losses.total, report.losses.byte_distillation);
        let gradients: HashMap<_, _> = gradients(&mut trainer).into_iter().collect();
        let names = [
            "lm_head.weight",
            "model.local_decoder.layers.0.xlstm.v.weight",
            "model.local_decoder.layers.0.xlstm.igate_preact.weight",
            "model.local_decoder.in_projection.bias",
        ];
        for name in names {
            let gradient = &gradients[name];
            let expected = norm(gradient);
            // Along the gradient the loss changes most, and its rounding matters least.
            let loss = |length: f64| {
                let by: Vec<f32> = gradient.iter().map(|&v| (f64::from(v) / expected * length) as f32).collect();
                step(Weights { moved: Some((name, &by)), ..weights }).0.losses.byte_distillation
            };
            let found = slope(loss, 1e-3 * expected);
            eprintln!("{draw:?} {name}: slope {:.6} ± {:.1e}, gradient {expected:.6}", found.value, found.error);
            // A model may have a denominator so close to zero that no step is small enough.
            if found.error > 4e-3 * expected {
                continue;
            }
            decided += 1;
            let bound = found.error + case.gradient_rounding() * expected;
            assert!((found.value - expected).abs() <= bound, "{draw:?} {name}: {found:?}, gradient {expected}");
        }
    }
    assert!(decided >= 9, "only {decided} of 12 slopes say anything");
}
