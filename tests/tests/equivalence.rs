//! Different ways to the same result: pieces and one shot, chunkwise and recurrent, batches and single runs, copies and
//! originals.
//!
//! Where kernels group their sums differently, logits may differ by rounding ([`Roundings`]), and choices that rounding
//! decides may differ too; where they do not, results are equal to the bit.

use std::ops::ControlFlow;

use bolmo_runtime::{
    Engine, GenerateOptions, Generation, Model, Reduce, ScoreOptions, Session, Tiles, WeightFormat, block_on,
    generate_batch,
};
use bolmo_tests::{Roundings, engine, engine_options, fixtures, load, load_on, session_with};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Models of every kind of block, with and without a suffix table.
const KINDS: [(&str, &str); 5] =
    [("infer", "nano_trained"), ("infer", "swa"), ("infer", "noexp"), ("prenorm", "bwen"), ("prenorm", "blama")];

/// A text of `n` bytes: Python source for `variation` 0, and its bytes in another order for others.
fn text_of(variation: usize, n: usize) -> Vec<u32> {
    let mut pattern =
        "def read(self, n):\n    \"\"\"Grüße, 你好\"\"\"\n    return self.buffer[:n] + b'".as_bytes().to_vec();
    pattern.extend(b"\xff\x00'\n");
    let byte = |i: usize| pattern[(i * (2 * variation + 1) + variation) % pattern.len()];
    let mut ids = vec![1];
    ids.extend((0..n).map(|i| u32::from(byte(i)) + 4));
    ids
}

fn text(n: usize) -> Vec<u32> {
    text_of(0, n)
}

/// A text of `n` bytes no boundary of which is so close to the threshold that rounding decides it.
fn decided_text(model: &Model, n: usize) -> Vec<u32> {
    let mut options = ScoreOptions::default();
    options.dump = true;
    let close = Roundings::of(model.config(), n).boundary();
    let decided = |ids: &Vec<u32>| {
        let score = block_on(model.score_ids(ids, &options, &mut |_, _| {})).expect("a score");
        let logs = score.dump.expect("tensors").boundary_logprobs;
        logs[1..n].iter().all(|&log| (f64::from(log).exp() - 0.5).abs() > close)
    };
    (0..40).map(|variation| text_of(variation, n)).find(decided).expect("a text whose boundaries are decided")
}

fn greedy(session: &mut Session, n: usize) -> Generation {
    let mut options = GenerateOptions::default();
    options.max_bytes = n;
    block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation")
}

fn logits(session: &mut Session) -> Vec<f32> {
    block_on(session.logits(0.0)).expect("logits").to_vec()
}

/// What another grouping of sums may change in logits, relative to the largest.
fn tolerance(model: &Model, logits: &[f32]) -> f32 {
    let largest = logits.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    Roundings::of(model.config(), 64).logits() as f32 * largest
}

fn assert_close(what: &str, model: &Model, found: &[f32], expected: &[f32]) {
    let tolerance = tolerance(model, expected);
    let worst = found.iter().zip(expected).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "{what}: logits differ by {worst:e}, at most {tolerance:e}");
}

/// What another way of computing has to come to: logits, and the greedy ids up to the first that rounding may decide.
struct Expected<'a> {
    model: &'a Model,
    logits: Vec<f32>,
    ids: Vec<u16>,
}

impl<'a> Expected<'a> {
    /// From a session that goes on by up to `n` ids.
    fn new(model: &'a Model, session: &mut Session, n: usize) -> Self {
        let first = logits(session);
        let mut ids = Vec::new();
        let mut behind = first.clone();
        while ids.len() < n {
            let allowed = |&id: &usize| !matches!(id % 260, 0 | 2 | 3);
            let mut order: Vec<usize> = (0..behind.len()).filter(allowed).collect();
            order.sort_by(|&a, &b| behind[b].total_cmp(&behind[a]));
            let end = order[0] % 260 == 1;
            // Both logits may be off.
            if behind[order[0]] - behind[order[1]] <= 2.0 * tolerance(model, &behind) {
                break;
            }
            ids.push(order[0] as u16);
            if end {
                break;
            }
            block_on(session.push(order[0] as u16)).expect("an id");
            behind = logits(session);
        }
        Self { model, logits: first, ids }
    }

    fn assert_equal(&self, what: &str, session: &mut Session) {
        assert_close(what, self.model, &logits(session), &self.logits);
        let found = greedy(session, self.ids.len().max(1));
        assert_eq!(found.ids[..self.ids.len()], self.ids, "{what}");
    }
}

#[test]
fn prefill_in_pieces_equals_one_shot() {
    for (family, name) in KINDS {
        let model = load(family, name);
        let ids = decided_text(&model, 700);
        let mut whole = session_with(&model, &ids);
        let expected = Expected::new(&model, &mut whole, 24);
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut runner =
            TestRunner::new_with_rng(Config { cases: 6, failure_persistence: None, ..Config::default() }, rng);
        let cuts = proptest::collection::vec(1usize..300, 1..8);
        let result = runner.run(&cuts, |lengths| {
            let mut session = block_on(Session::new(&model)).expect("a session");
            let mut rest = ids.as_slice();
            for n in lengths.into_iter().chain([ids.len()]) {
                let (piece, behind) = rest.split_at(n.min(rest.len()));
                block_on(session.append_ids(piece)).expect("a piece");
                rest = behind;
            }
            // The last byte's flag is decided with the logits.
            logits(&mut session);
            assert_eq!(session.ids(), &whole.ids()[..ids.len()], "{name}: boundaries");
            expected.assert_equal(name, &mut session);
            Ok(())
        });
        result.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

#[test]
fn given_patch_ends_equal_predicted_ones() {
    for (family, name) in KINDS {
        let model = load(family, name);
        let ids = decided_text(&model, 400);
        let mut predicted = session_with(&model, &ids);
        let expected = logits(&mut predicted);
        let ends: Vec<bool> = predicted.ids().iter().map(|&id| id >= 260).collect();

        let mut whole = block_on(Session::new(&model)).expect("a session");
        block_on(whole.append_ids_with_ends(&ids, &ends)).expect("ids");
        assert_eq!((whole.ids(), whole.patches()), (predicted.ids(), predicted.patches()), "{name}");
        assert_close(name, &model, &logits(&mut whole), &expected);
        // In pieces that follow bytes whose ends are given.
        let mut pieces = block_on(Session::new(&model)).expect("a session");
        for (ids, ends) in [(&ids[..1], &ends[..1]), (&ids[1..301], &ends[1..301]), (&ids[301..], &ends[301..])] {
            block_on(pieces.append_ids_with_ends(ids, ends)).expect("a piece");
        }
        assert_eq!(pieces.ids(), predicted.ids(), "{name}");
        assert_close(name, &model, &logits(&mut pieces), &expected);
        // Different ends give different patches and logits.
        let other: Vec<bool> = (0..ids.len()).map(|i| i % 4 == 0).collect();
        let mut session = block_on(Session::new(&model)).expect("a session");
        block_on(session.append_ids_with_ends(&ids, &other)).expect("ids");
        assert_eq!(session.patches(), ids.len().div_ceil(4), "{name}");
        assert!(logits(&mut session) != expected, "{name}");
    }
}

#[test]
fn patch_ends_must_match_ids_in_number() {
    let model = load("infer", "nano_trained");
    let mut session = block_on(Session::new(&model)).expect("a session");
    let error = block_on(session.append_ids_with_ends(&[1, 50], &[true])).expect_err("too few ends");
    assert!(error.message().contains("1 patch ends for 2 ids"), "{error}");
    assert!(session.ids().is_empty());
    // The session is unchanged.
    block_on(session.append_ids_with_ends(&[1, 50], &[true, false])).expect("ids");
    assert_eq!(session.ids(), [261, 50]);
}

#[test]
fn memory_and_work_are_counted() {
    // A separate device: other tests use the shared one at the same time.
    let engine = block_on(Engine::open(&engine_options())).expect("an adapter");
    let empty = engine.memory().current_bytes;
    let model = load_on(&engine, &fixtures().join("infer/models/nano_trained"), WeightFormat::F32);
    let loaded = engine.memory().current_bytes - empty;
    let weights = bolmo_runtime::device_bytes(model.config(), WeightFormat::F32);
    assert!(loaded >= weights && loaded < weights + weights / 20, "{loaded} bytes for {weights} of weights");

    let mut session = session_with(&model, &text(50));
    logits(&mut session);
    let before = (engine.counters(), session.counters());
    block_on(session.push(101)).expect("a byte");
    logits(&mut session);
    let (all, own) = (engine.counters() - before.0, session.counters() - before.1);
    assert_eq!(all, own);
    assert_eq!((own.submits, own.readbacks), (1, 1));
    assert!(own.dispatches > 10, "{own:?}");
    assert!(engine.memory().current_bytes > empty + loaded);
    let peak = engine.memory().peak_bytes;
    drop((session, model));
    assert_eq!((engine.memory().current_bytes, engine.memory().peak_bytes), (empty, peak));
}

#[test]
fn byte_by_byte_equals_one_shot() {
    let model = load("infer", "nano_trained");
    let ids = decided_text(&model, 90);
    let mut session = block_on(Session::new(&model)).expect("a session");
    for &id in &ids {
        block_on(session.append_ids(&[id])).expect("a byte");
        // Asking for logits decides the last byte's flag; the next byte reopens the decision.
        logits(&mut session);
    }
    let mut whole = session_with(&model, &ids);
    logits(&mut whole);
    assert_eq!(session.ids(), whole.ids());
    Expected::new(&model, &mut whole, 24).assert_equal("byte by byte", &mut session);
}

/// A model on an engine with other options.
fn reopened(family: &str, name: &str, change: impl FnOnce(&mut bolmo_runtime::EngineOptions)) -> Model {
    let mut options = engine_options();
    change(&mut options);
    let engine = block_on(Engine::open(&options)).expect("an engine");
    load_on(&engine, &fixtures().join(family).join("models").join(name), WeightFormat::F32)
}

#[test]
fn every_kernel_variant_computes_the_same() {
    for (family, name) in KINDS {
        let usual_model = load(family, name);
        let ids = decided_text(&usual_model, 400);
        let mut usual = session_with(&usual_model, &ids);
        let expected = Expected::new(&usual_model, &mut usual, 24);
        let ways: [(&str, Model); 7] = [
            ("recurrent", reopened(family, name, |o| o.matvec_max_rows = Some(usize::MAX))),
            ("chunkwise", reopened(family, name, |o| o.matvec_max_rows = Some(1))),
            ("workgroups of several subgroups", reopened(family, name, |o| o.reduce = Some(Reduce::Subgroup))),
            ("without subgroups", reopened(family, name, |o| o.reduce = Some(Reduce::Workgroup))),
            ("single-lane workgroups", reopened(family, name, |o| o.reduce = Some(Reduce::SingleLane))),
            ("workgroup tiles", reopened(family, name, |o| o.tiles = Some(Tiles::Workgroup))),
            ("short prefill chunks", reopened(family, name, |o| o.prefill_bytes = Some(37))),
        ];
        for (way, model) in ways {
            let mut session = session_with(&model, &ids);
            logits(&mut session);
            assert_eq!(session.ids(), &usual.ids()[..ids.len()], "{name} {way}: boundaries");
            expected.assert_equal(&format!("{name} {way}"), &mut session);
        }
    }
}

#[test]
fn tables_in_pieces_compute_the_same() {
    for (family, name) in KINDS {
        let usual_model = load(family, name);
        let ids = decided_text(&usual_model, 400);
        let expected = Expected::new(&usual_model, &mut session_with(&usual_model, &ids), 24);
        let model = reopened(family, name, |o| o.max_binding_bytes = Some(1 << 16));
        assert_eq!(model.engine().capabilities().max_binding_bytes, 1 << 16);
        let mut session = session_with(&model, &ids);
        expected.assert_equal(name, &mut session);
    }
}

#[test]
fn batch_rows_equal_single_runs() {
    for (family, name) in KINDS {
        let model = load(family, name);
        let prompts: Vec<Vec<u32>> = [1, 2, 40, 17, 300].map(|n| text(n)[..n].to_vec()).to_vec();
        let mut options = vec![GenerateOptions::default(); prompts.len()];
        for (i, o) in options.iter_mut().enumerate() {
            o.max_bytes = 10 + 5 * i;
            // Some of them sample.
            o.sampling.temperature = [0.0, 0.8][i % 2];
            o.sampling.seed = i as u64;
        }
        let mut sessions: Vec<Session> = prompts.iter().map(|p| session_with(&model, p)).collect();
        let together = block_on(generate_batch(&mut sessions, &options)).expect("a batch");
        for ((prompt, options), row) in prompts.iter().zip(&options).zip(together) {
            let mut alone = session_with(&model, prompt);
            let alone = block_on(alone.generate(options, &mut |_| ControlFlow::Continue(()))).expect("a run");
            assert_eq!(alone, row.expect("a row"), "{name}");
        }
    }
}

#[test]
fn snapshots_checkpoints_and_clones_continue_as_the_original() {
    for (family, name) in KINDS {
        let model = load(family, name);
        let mut session = session_with(&model, &text(333));
        // First after a prompt, with the last byte undecided, then during a generation.
        for stage in 0..2 {
            let snapshot = block_on(session.snapshot()).expect("a snapshot");
            let checkpoint = block_on(session.checkpoint()).expect("a checkpoint");
            let mut copy = block_on(session.try_clone()).expect("a clone");
            let mut restored = block_on(Session::restore(&model, &snapshot)).expect("a session");
            assert_eq!(block_on(restored.snapshot()).expect("a snapshot"), snapshot, "{name} {stage}");

            let first = logits(&mut session);
            let went_on = greedy(&mut session, 40);
            for other in [&mut copy, &mut restored] {
                assert_eq!(logits(other), first, "{name} {stage}: not bit-identical");
                assert_eq!(greedy(other, 40), went_on, "{name} {stage}");
                assert_eq!(other.ids(), session.ids());
            }
            // Rewinding undoes whatever came in between.
            block_on(session.rewind(&checkpoint)).expect("back");
            block_on(session.append(b" something else altogether")).expect("text");
            greedy(&mut session, 30);
            block_on(session.rewind(&checkpoint)).expect("back");
            assert_eq!(logits(&mut session), first, "{name} {stage}: not bit-identical after going back");
            assert_eq!(greedy(&mut session, 40), went_on, "{name} {stage}");
        }
    }
}

#[test]
fn repeated_runs_are_bit_identical() {
    let model = load("infer", "swa");
    let runs: Vec<(Vec<f32>, Generation)> = (0..3)
        .map(|_| {
            let mut session = session_with(&model, &text(500));
            (logits(&mut session), greedy(&mut session, 30))
        })
        .collect();
    assert!(runs.iter().all(|r| r == &runs[0]));
}

#[test]
fn sessions_on_many_threads_generate_as_one_alone() {
    let model = load("infer", "nano_trained");
    let expected: Vec<Generation> = (0..4).map(|i| greedy(&mut session_with(&model, &text(20 + 31 * i)), 20)).collect();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let (model, expected) = (&model, &expected);
            scope.spawn(move || {
                for round in 0..2 {
                    let k = (i + round) % 4;
                    assert_eq!(greedy(&mut session_with(model, &text(20 + 31 * k)), 20), expected[k]);
                }
            });
        }
    });
}

/// The checkpoint's own weights are f16, so that nothing is lost in that format.
#[test]
fn f16_weights_of_an_f16_checkpoint_compute_the_same() {
    let dir = fixtures().join("infer/models/nano_f16");
    let exact = load_on(engine(), &dir, WeightFormat::F32);
    let halves = load_on(engine(), &dir, WeightFormat::F16);
    let ids = decided_text(&exact, 200);
    let (mut a, mut b) = (session_with(&exact, &ids), session_with(&halves, &ids));
    if engine().capabilities().tiles.cooperative_side().is_none() {
        // Products add up in another order.
        return Expected::new(&exact, &mut a, 24).assert_equal("f16", &mut b);
    }
    // Cooperative matrices round what is multiplied with the weights too: 2^-11 for each of the products in sequence.
    let config = exact.config();
    let layers = config.num_local_encoder_layers + config.num_local_decoder_layers + config.num_hidden_layers;
    let (exact, halves) = (logits(&mut a), logits(&mut b));
    let largest = exact.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
    let worst = exact.iter().zip(&halves).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= (4 * layers + 3) as f32 / 2048.0 * largest, "logits up to {largest} differ by {worst:e}");
}
