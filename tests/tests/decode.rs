//! Decoding on the device against decoding step by step, which sends the logits of every byte to the host: the same
//! ids, and the same state after them.

use std::ops::ControlFlow;
use std::sync::OnceLock;

use bolmo_runtime::{
    Constraint, Engine, GenerateOptions, Generation, GenerationBatch, Model, SamplingOptions, ScoreOptions, Session,
    StopReason, WeightFormat, block_on, generate_batch,
};
use bolmo_tests::{engine, engine_options, fixtures, load, load_on, session_with};

const KINDS: [(&str, &str); 6] = [
    ("infer", "nano_trained"),
    ("infer", "nano"),
    ("infer", "swa"),
    ("infer", "noexp"),
    ("prenorm", "bwen"),
    ("prenorm", "blama"),
];

/// A device that decodes at most `steps` bytes per submission.
fn engine_with(steps: usize) -> Engine {
    let mut options = engine_options();
    options.decode_steps = Some(steps);
    block_on(Engine::open(&options)).expect("an adapter")
}

/// A bias with which no text ends.
const NO_END: f32 = -1e30;

fn step_by_step() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| engine_with(0))
}

fn model_on(engine: &Engine, (family, name): (&str, &str), format: WeightFormat) -> Model {
    load_on(engine, &fixtures().join(family).join("models").join(name), format)
}

fn prompt(n: usize) -> Vec<u32> {
    let text = b"def read(self, n):\n    return self.buffer[:n] + b'\xff\x00'\nclass Reader:\n";
    let mut ids = vec![1];
    ids.extend(text.iter().cycle().take(n).map(|&byte| u32::from(byte) + 4));
    ids
}

fn generate(session: &mut Session, options: &GenerateOptions) -> (Generation, Vec<u8>) {
    let mut handed_out = Vec::new();
    let generation = block_on(session.generate(options, &mut |piece| {
        assert_eq!(piece.bytes.len(), piece.ids.len());
        handed_out.extend_from_slice(piece.bytes);
        ControlFlow::Continue(())
    }));
    (generation.expect("a generation"), handed_out)
}

/// Generates twice in a row on both, and compares all results.
fn compare(what: &str, device: &Model, host: &Model, prompt: &[u32], options: &GenerateOptions) {
    let (mut a, mut b) = (session_with(device, prompt), session_with(host, prompt));
    for round in 0..2 {
        let ((found, handed_out), (expected, _)) = (generate(&mut a, options), generate(&mut b, options));
        assert_eq!(found, expected, "{what}, generation {round}");
        assert_eq!(handed_out, found.bytes, "{what}, generation {round}: the pieces handed out");
        assert_eq!(a.ids(), b.ids(), "{what}, generation {round}: ids of the session");
        assert_eq!(a.patches(), b.patches(), "{what}, generation {round}: patches");
    }
    let logits = [&mut a, &mut b].map(|session| block_on(session.logits(0.0)).expect("logits"));
    assert_eq!(logits[0], logits[1], "{what}: logits after the text");
}

/// Greedy decoding of exactly `max_bytes`: a model of another seed might end its text earlier.
fn greedy(max_bytes: usize) -> GenerateOptions {
    let mut options = GenerateOptions::default();
    options.max_bytes = max_bytes;
    options.sampling.end_bias = NO_END;
    options
}

#[test]
fn device_and_host_decode_the_same_greedy_ids() {
    for kind in KINDS {
        let (device, host) = (load(kind.0, kind.1), model_on(step_by_step(), kind, WeightFormat::F32));
        for length in [0, 30] {
            for end_bias in [NO_END, 0.0] {
                let mut options = greedy(40);
                options.sampling.end_bias = end_bias;
                let what = format!("{} after {length} bytes, end bias {end_bias}", kind.1);
                compare(&what, &device, &host, &prompt(length), &options);
            }
        }
    }
}

#[test]
fn every_number_of_steps_per_submission_decodes_the_same_ids() {
    let host = model_on(step_by_step(), KINDS[0], WeightFormat::F32);
    for steps in [1, 2, 5, 100] {
        let engine = engine_with(steps);
        let device = model_on(&engine, KINDS[0], WeightFormat::F32);
        compare(&format!("{steps} steps"), &device, &host, &prompt(30), &greedy(100));
    }
}

#[test]
fn device_and_host_decode_the_same_ids_in_every_format() {
    for format in WeightFormat::ALL {
        let path = fixtures().join("infer/models/nano_trained");
        let (device, host) = (load_on(engine(), &path, format), load_on(step_by_step(), &path, format));
        compare(format.name(), &device, &host, &prompt(30), &greedy(60));
    }
}

#[test]
fn device_and_host_sample_the_same_ids() {
    let (device, host) = (load(KINDS[0].0, KINDS[0].1), model_on(step_by_step(), KINDS[0], WeightFormat::F32));
    let mut cases = Vec::new();
    let mut add = |name: &str, set: &dyn Fn(&mut SamplingOptions)| {
        let mut options = greedy(70);
        set(&mut options.sampling);
        cases.push((name.to_owned(), options));
    };
    add("a greedy penalty", &|s| s.repetition_penalty = 1.3);
    add("patches made short", &|s| s.boundary_bias = 3.0);
    add("patches made long", &|s| s.boundary_bias = -3.0);
    add("a byte biased", &|s| s.byte_bias = vec![(b'x', 4.0), (b' ', -4.0)]);
    add("the end biased", &|s| s.end_bias = 6.0);
    for bias in [1e3, 1e8, f32::MAX] {
        add(&format!("every byte a patch, by {bias:e}"), &|s| s.boundary_bias = bias);
        add(&format!("one patch, by {bias:e}"), &|s| s.boundary_bias = -bias);
        add(&format!("bytes biased by {bias:e}"), &|s| s.byte_bias = (b'a'..=b'z').map(|byte| (byte, bias)).collect());
        add(&format!("a penalty of {bias:e}"), &|s| s.repetition_penalty = bias);
    }
    add("a temperature that a device may flush to zero", &|s| (s.temperature, s.boundary_bias) = (1e-40, 1e30));
    for seed in 0..2 {
        add(&format!("seed {seed}"), &|s| (s.temperature, s.seed) = (0.8, seed));
        add(&format!("top-k, top-p, seed {seed}"), &|s| {
            (s.temperature, s.seed, s.top_k, s.top_p, s.repetition_penalty) = (1.2, seed, 20, 0.9, 1.1);
        });
        add(&format!("min-p, seed {seed}"), &|s| (s.temperature, s.seed, s.min_p) = (1.0, seed, 0.05));
    }
    // Longer than the device's ring: the host chooses.
    add("a penalty that looks far back", &|s| (s.repetition_penalty, s.repetition_window) = (1.2, usize::MAX));
    for (name, options) in cases {
        compare(&name, &device, &host, &prompt(30), &options);
    }
    // What is beyond the largest bias counts as the largest.
    let made = |bias: f32| {
        let mut options = greedy(40);
        options.sampling.boundary_bias = bias;
        generate(&mut session_with(&device, &prompt(30)), &options).0
    };
    let most = made(1e3);
    assert!(most.ids.iter().all(|id| *id >= 260), "{:?}", most.ids);
    assert!([1e8, f32::MAX].iter().all(|&bias| made(bias) == most));
    let least = made(-1e3);
    assert!(least.ids.iter().all(|id| *id < 260), "{:?}", least.ids);
    assert!([-1e8, f32::MIN].iter().all(|&bias| made(bias) == least));
}

#[test]
fn stop_strings_and_budgets_end_at_the_same_byte() {
    let (device, host) = (load(KINDS[0].0, KINDS[0].1), model_on(step_by_step(), KINDS[0], WeightFormat::F32));
    let (text, _) = generate(&mut session_with(&host, &prompt(30)), &greedy(60));
    assert_eq!(text.stop, StopReason::Budget);
    for max_bytes in 1..14 {
        compare(&format!("{max_bytes} bytes"), &device, &host, &prompt(30), &greedy(max_bytes));
    }
    for (at, length) in [(3, 1), (7, 2), (11, 5), (20, 9)] {
        let mut options = greedy(60);
        options.stops = vec![b"never in there".to_vec(), text.bytes[at..at + length].to_vec()];
        let (found, _) = generate(&mut session_with(&device, &prompt(30)), &options);
        assert_eq!(found.stop, StopReason::StopString);
        compare(&format!("a stop string of {length} bytes"), &device, &host, &prompt(30), &options);
    }
}

#[test]
fn bytes_per_patch_decides_where_patches_end() {
    let (device, host) = (load(KINDS[0].0, KINDS[0].1), model_on(step_by_step(), KINDS[0], WeightFormat::F32));
    let mut options = greedy(53);
    for bytes_per_patch in [1.0, 4.4, 20.0] {
        options.bytes_per_patch = Some(bytes_per_patch);
        let (found, _) = generate(&mut session_with(&device, &prompt(30)), &options);
        assert_eq!(found.patches(), (53.0 / bytes_per_patch) as usize);
        compare(&format!("{bytes_per_patch} bytes a patch"), &device, &host, &prompt(30), &options);
    }
    options.bytes_per_patch = Some(0.5);
    let mut session = session_with(&device, &prompt(3));
    let error = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect_err("no such schedule");
    assert!(error.to_string().contains("bytes_per_patch"), "{error}");
}

#[test]
fn generation_continues_from_clones_snapshots_and_checkpoints() {
    let device = load(KINDS[0].0, KINDS[0].1);
    let mut session = session_with(&device, &prompt(30));
    let (first, _) = generate(&mut session, &greedy(23));
    let checkpoint = block_on(session.checkpoint()).expect("a checkpoint");
    let snapshot = block_on(session.snapshot()).expect("a snapshot");
    let mut copy = block_on(session.try_clone()).expect("a clone");
    let mut restored = block_on(Session::restore(&device, &snapshot)).expect("a session");
    let (expected, _) = generate(&mut session, &greedy(40));
    assert_eq!(generate(&mut copy, &greedy(40)).0, expected);
    assert_eq!(generate(&mut restored, &greedy(40)).0, expected);
    // The text in between has the same length.
    block_on(session.rewind(&checkpoint)).expect("the old state");
    assert_eq!(generate(&mut session, &greedy(40)).0, expected);
    assert_eq!(first.ids.len(), 23);
}

#[test]
fn device_and_host_consume_random_numbers_alike() {
    // Only numbers that were used are skipped: draws of one generation do not shift those of the next.
    let (device, host) = (load(KINDS[0].0, KINDS[0].1), model_on(step_by_step(), KINDS[0], WeightFormat::F32));
    let mut options = greedy(1);
    options.sampling.temperature = 1.0;
    for max_bytes in [1, 2, 3, 9] {
        options.max_bytes = max_bytes;
        compare(&format!("{max_bytes} draws"), &device, &host, &prompt(12), &options);
    }
}

#[test]
fn one_submission_decodes_a_patch() {
    let device = load(KINDS[0].0, KINDS[0].1);
    let mut session = session_with(&device, &prompt(30));
    let mut options = greedy(105);
    options.bytes_per_patch = Some(5.0);
    generate(&mut session, &options);
    let before = session.counters();
    options.max_bytes = 200;
    generate(&mut session, &options);
    let after = session.counters();
    let (submissions, dispatches) = (after.submits - before.submits, after.dispatches - before.dispatches);
    // The logits of the first byte go to the host.
    assert!((40..=42).contains(&submissions), "{submissions} submissions for 40 patches");
    let layers = device.config().num_local_encoder_layers + device.config().num_local_decoder_layers;
    // Embeddings 2, layers, norm 1, depooling 2, head 1, choice 1. A block takes 8, and one more once the cache has a
    // second segment.
    let (a_byte, a_patch) = (5 * layers as u64 + 7, 2 + 9 * device.config().num_hidden_layers as u64);
    // Where norms are not part of products, a local layer takes two more, a block up to two, and the head one.
    let separate = device.engine().capabilities().fused_norm_width < device.config().hidden_size;
    let more =
        if separate { 200 * (2 * layers as u64 + 1) + 40 * 2 * device.config().num_hidden_layers as u64 } else { 0 };
    let most = 200 * a_byte + 40 * a_patch + more;
    assert!(dispatches <= most, "{dispatches} dispatches, expected at most {most}");
}

#[test]
fn batched_sessions_equal_single_sessions() {
    for kind in [("infer", "nano_trained"), ("infer", "swa"), ("prenorm", "blama")] {
        let model = load(kind.0, kind.1);
        let mut all = Vec::new();
        for (i, length) in [0, 7, 30, 31, 64].into_iter().enumerate() {
            let mut options = greedy(25 + 9 * i);
            if i % 2 == 1 {
                (options.sampling.temperature, options.sampling.seed) = (0.9, i as u64);
            }
            options.bytes_per_patch = (i == 3).then_some(3.5);
            all.push((prompt(length), options));
        }
        let mut wrong = greedy(1);
        wrong.sampling.top_p = 2.0;
        all.push((prompt(3), wrong));
        let (text, _) = generate(&mut session_with(&model, &prompt(40)), &greedy(30));
        let mut stopped = greedy(60);
        stopped.stops = vec![text.bytes[12..15].to_vec()];
        all.push((prompt(40), stopped));

        let mut sessions: Vec<Session> = all.iter().map(|(prompt, _)| session_with(&model, prompt)).collect();
        let options: Vec<GenerateOptions> = all.iter().map(|(_, options)| options.clone()).collect();
        for round in 0..2 {
            let together = block_on(generate_batch(&mut sessions, &options)).expect("as many options as sessions");
            for (i, (found, options)) in together.iter().zip(&options).enumerate() {
                if i == 5 {
                    assert!(found.as_ref().expect_err("top_p of 2").to_string().contains("top_p"));
                    continue;
                }
                let mut alone = session_with(&model, &all[i].0);
                let mut expected = generate(&mut alone, options).0;
                if round == 1 {
                    expected = generate(&mut alone, options).0;
                }
                assert_eq!(found.as_ref().expect("a generation"), &expected, "{}, session {i}", kind.1);
                assert_eq!(sessions[i].ids(), alone.ids(), "{}, ids of session {i}", kind.1);
                let logits = [&mut sessions[i], &mut alone].map(|s| block_on(s.logits(0.0)).expect("logits"));
                assert_eq!(logits[0], logits[1], "{}, logits of session {i}", kind.1);
            }
        }
    }
}

/// Sessions join a batch one by one and leave it when they have ended, so that rows and partners change all the time.
#[test]
fn sessions_that_join_and_leave_a_batch_equal_single_sessions() {
    let models = [load("infer", "nano_trained"), load("prenorm", "bwen")];
    let session = |i: usize| session_with(&models[i % 3 % 2], &prompt(3 * i));
    let options = |i: usize| {
        let mut options = greedy(6 + 9 * (i % 4));
        (options.sampling.temperature, options.sampling.seed) = ([0.0, 0.9][i % 2], i as u64);
        options.logprobs = i == 5;
        options
    };
    const COUNT: usize = 9;
    let mut batch = GenerationBatch::new();
    let (mut joined, mut ended) = (0, 0);
    while ended < COUNT {
        if joined < COUNT {
            batch.add(session(joined), options(joined));
            joined += 1;
        }
        for one in block_on(batch.round(&mut |_, _| ControlFlow::Continue(()))) {
            let (i, mut together) = (one.index, one.session);
            let mut alone = session(i);
            assert_eq!(one.generation.expect("a generation"), generate(&mut alone, &options(i)).0, "session {i}");
            // Afterwards each goes on alone.
            let again = [&mut together, &mut alone].map(|session| generate(session, &greedy(20)).0);
            assert_eq!(again[0], again[1], "session {i} afterwards");
            assert_eq!(together.ids(), alone.ids(), "ids of session {i}");
            ended += 1;
        }
    }
    assert!(batch.is_empty());
}

/// The log-probabilities of a generation equal those of scoring its text with its patches, also where a constraint
/// forces bytes, and the text is the same without them.
#[test]
fn logprobs_are_those_of_the_score_and_change_no_text() {
    for kind in [("infer", "nano_trained"), ("infer", "swa"), ("prenorm", "bwen")] {
        let model = load(kind.0, kind.1);
        let forced = Constraint::regex("[ab]{2}(forced bytes of some length){2}[xy]{3}").expect("a regex");
        let mut penalized = greedy(40);
        (penalized.sampling.repetition_penalty, penalized.sampling.boundary_bias) = (1.5, 1.0);
        for (i, options) in [greedy(70), penalized, greedy(200).constraint(forced)].into_iter().enumerate() {
            let what = format!("{}, options {i}", kind.1);
            let (mut session, mut plain) =
                (session_with(&model, &prompt(5 + 30 * i)), session_with(&model, &prompt(5 + 30 * i)));
            let (expected, _) = generate(&mut plain, &options);
            let (mut found, _) = generate(&mut session, &options.logprobs(true));
            let logprobs = found.logprobs.take().expect("log-probabilities");
            assert_eq!(found, expected, "{what}");
            assert_eq!([logprobs.joint.len(), logprobs.marginal.len()], [found.ids.len(); 2], "{what}");
            let ids: Vec<u32> = session.ids().iter().map(|&id| u32::from(id) % 260).collect();
            let ends = session.ids().iter().map(|&id| id >= 260).collect();
            let options = ScoreOptions::default().boundaries(ends);
            let score = block_on(model.score_ids(&ids, &options, &mut |_, _| {})).expect("a score");
            let first = ids.len() - found.ids.len();
            let pairs = logprobs.joint.iter().zip(&score.log_likelihoods[first..]);
            let folded = logprobs.marginal.iter().zip(&score.log_likelihoods_marginal[first..]);
            for (at, (&found, &scored)) in pairs.chain(folded).enumerate() {
                // Kernels for one row and for many round differently.
                assert!((f64::from(found) - scored).abs() < 2e-3 * (1.0 + scored.abs()), "{what}, {at}: {scored}");
            }
            let sum: f64 = score.log_likelihoods_marginal.iter().sum();
            assert!((sum - score.log_likelihood_marginal).abs() < 1e-9 * sum.abs(), "{what}");
        }
    }
}
