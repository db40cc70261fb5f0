//! Suspended engines: calls in progress pause and go on with the same results, new ones are refused, and nothing is
//! submitted meanwhile. Memory that is released comes back with the same results.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use bolmo_runtime::{
    AdapterChoice, Checkpoint, Constraint, Engine, EngineOptions, ErrorKind, GenerateOptions, Generation, LoadOptions,
    Model, Result, ScoreOptions, Session, StopReason, WeightFormat, block_on, generate_batch,
};
use bolmo_tests::{engine_options, fixtures, load_on, session_with, vocabulary};

/// Chunks of prompts are this long, so that texts have many.
const CHUNK: usize = 256;

fn options() -> EngineOptions {
    engine_options().prefill_bytes(CHUNK)
}

fn model_with(options: &EngineOptions) -> Model {
    let engine = block_on(Engine::open(options)).expect("an engine");
    load_on(&engine, &fixtures().join("infer/models/nano_trained"), WeightFormat::F32)
}

fn model() -> Model {
    model_with(&options())
}

/// A text with many patches.
fn text(bytes: usize) -> Vec<u8> {
    "for line in self.lines: yield line.rstrip() # 12345\n".bytes().cycle().take(bytes).collect()
}

fn prompted(model: &Model, prompt: &[u8]) -> Session {
    let mut session = session_with(model, &[1]);
    block_on(session.append(prompt)).expect("a prompt");
    session
}

fn greedy(bytes: usize) -> GenerateOptions {
    GenerateOptions::default().max_bytes(bytes)
}

fn generated(session: &mut Session, options: &GenerateOptions) -> Generation {
    block_on(session.generate(options, &mut |_| ControlFlow::Continue(()))).expect("a text")
}

fn logits(session: &mut Session) -> Vec<u32> {
    block_on(session.logits(0.0)).expect("logits").iter().map(|logit| logit.to_bits()).collect()
}

fn suspend(model: &Model) {
    block_on(model.engine().suspend()).expect("a suspended engine");
    assert!(model.engine().is_suspended());
}

fn resume(model: &Model) {
    model.engine().resume().expect("a resumed engine");
    assert!(!model.engine().is_suspended());
}

/// Nothing is submitted for a while, and `thread` waits.
fn assert_paused<T>(model: &Model, thread: &ScopedJoinHandle<'_, T>) {
    let before = model.engine().counters();
    thread::sleep(Duration::from_millis(200));
    assert_eq!(model.engine().counters(), before);
    assert!(!thread.is_finished(), "the call has not paused");
}

fn assert_suspended<T>(result: Result<T>) {
    let kind = result.map(|_| ()).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::Suspended));
}

/// Runs `call` on a thread. When it has told of `at` bytes or more, the engine is suspended, `meanwhile` runs, and the
/// engine is resumed unless `meanwhile` has ended the call. Returns what the call returns.
fn interrupted<T: Send>(
    model: &Model,
    at: usize,
    call: impl FnOnce(Sender<usize>) -> T + Send,
    meanwhile: impl FnOnce(),
) -> T {
    let (sender, told): (_, Receiver<usize>) = channel();
    thread::scope(|scope| {
        let thread = scope.spawn(move || call(sender));
        assert!(told.iter().any(|bytes| bytes >= at), "the call has ended too early");
        suspend(model);
        assert_paused(model, &thread);
        meanwhile();
        // Twice is the same as once, and so is resuming.
        suspend(model);
        resume(model);
        resume(model);
        thread.join().expect("the call")
    })
}

/// A generation that tells of its bytes.
fn tell_pieces(session: &mut Session, options: &GenerateOptions, sender: &Sender<usize>) -> Result<Generation> {
    let mut bytes = 0;
    block_on(session.generate(options, &mut |piece| {
        bytes += piece.bytes.len();
        // Nobody listens any more once the engine is suspended.
        let _ = sender.send(bytes);
        ControlFlow::Continue(())
    }))
}

#[test]
fn a_generation_pauses_and_goes_on() {
    let on_device = options();
    let on_host = options().decode_steps(0);
    for options in [on_device, on_host] {
        let model = model_with(&options);
        let wanted = generated(&mut prompted(&model, b"class "), &greedy(400));
        for at in [1, 40, 150] {
            let mut session = prompted(&model, b"class ");
            let mut other = prompted(&model, b"def ");
            let before = other.ids().to_vec();
            let call = |sender| tell_pieces(&mut session, &greedy(400), &sender).expect("a text");
            let found = interrupted(&model, at, call, || {
                assert_suspended(block_on(other.append(b"more")));
                assert_suspended(block_on(other.logits(0.0)));
                assert_suspended(block_on(other.push(70)));
                assert_suspended(block_on(other.append_ids_with_ends(&[70], &[true])));
                assert_suspended(block_on(other.generate(&greedy(4), &mut |_| ControlFlow::Continue(()))));
                assert_suspended(block_on(other.snapshot()));
                assert_suspended(block_on(other.checkpoint()));
                assert_suspended(block_on(other.try_clone()));
                assert_suspended(block_on(Session::new(&model)));
                assert_suspended(block_on(model.score_text(b"text", &ScoreOptions::default(), &mut |_, _| {})));
                assert_suspended(load(&model, &mut |_, _| true));
                assert_eq!(other.ids(), before);
            });
            assert_eq!((found.bytes, found.ids), (wanted.bytes.clone(), wanted.ids.clone()), "after {at} bytes");
            // What was refused can be repeated.
            block_on(other.append(b"more")).expect("more text");
            let mut same = prompted(&model, b"def ");
            block_on(same.append(b"more")).expect("more text");
            assert!(logits(&mut other) == logits(&mut same));
        }
    }
}

#[test]
fn a_generation_with_forced_bytes_pauses_and_goes_on() {
    let model = model();
    let constraint =
        Constraint::regex("(a very long text that is forced on the model [0-9]{3})+").expect("a constraint");
    let options = greedy(500).constraint(constraint);
    let wanted = generated(&mut prompted(&model, b"class "), &options);
    for at in [1, 120] {
        let mut session = prompted(&model, b"class ");
        let call = |sender| tell_pieces(&mut session, &options, &sender).expect("a text");
        let found = interrupted(&model, at, call, || {});
        assert_eq!((found.bytes, found.ids), (wanted.bytes.clone(), wanted.ids.clone()), "after {at} bytes");
    }
}

#[test]
fn a_prompt_pauses_and_goes_on() {
    let model = model();
    let text = text(20 * CHUNK);
    let mut wanted = prompted(&model, &text);
    let mut session = session_with(&model, &[1]);
    let call = |sender: Sender<usize>| {
        block_on(session.append_with_progress(&text, &mut |done, _| sender.send(done).unwrap_or(())))
            .expect("a prompt");
    };
    interrupted(&model, 5 * CHUNK, call, || {});
    assert_eq!(session.ids(), wanted.ids());
    assert!(logits(&mut session) == logits(&mut wanted));
}

#[test]
fn scoring_pauses_and_goes_on() {
    let model = model();
    let text = text(20 * CHUNK);
    let score = |progress: &mut (dyn FnMut(usize, usize) + Send)| {
        block_on(model.score_text(&text, &ScoreOptions::default(), progress)).expect("a score")
    };
    let wanted = score(&mut |_, _| {});
    let found = interrupted(&model, 5 * CHUNK, |sender| score(&mut |done, _| sender.send(done).unwrap_or(())), || {});
    assert_eq!((found.log_likelihoods, found.boundaries), (wanted.log_likelihoods, wanted.boundaries));
}

#[test]
fn a_batch_pauses_and_goes_on() {
    let model = model();
    let prompts: [&[u8]; 3] = [b"class ", b"def ", b"import "];
    let sessions = || prompts.map(|prompt| prompted(&model, prompt));
    let generate = |sessions: &mut [Session]| -> Vec<Vec<u8>> {
        let made = block_on(generate_batch(sessions, &vec![greedy(600); sessions.len()])).expect("generations");
        made.into_iter().map(|generation| generation.expect("a text").bytes).collect()
    };
    let wanted = generate(&mut sessions());
    let mut sessions = sessions();
    thread::scope(|scope| {
        let before = model.engine().counters().submits;
        let thread = scope.spawn(|| generate(&mut sessions));
        while model.engine().counters().submits < before + 20 {
            assert!(!thread.is_finished(), "the call has ended too early");
            thread::yield_now();
        }
        suspend(&model);
        assert_paused(&model, &thread);
        resume(&model);
        assert_eq!(thread.join().expect("the batch"), wanted);
    });
}

fn load(model: &Model, progress: &mut (dyn FnMut(u64, u64) -> bool + Send)) -> Result<Model> {
    let checkpoint = Checkpoint::open(fixtures().join("infer/models/nano_trained")).expect("a checkpoint");
    let options = LoadOptions::default().vocabulary(vocabulary());
    block_on(Model::load_with_progress(model.engine(), &checkpoint, options, progress))
}

#[test]
fn a_load_pauses_and_goes_on() {
    let model = model();
    let call = |sender: Sender<usize>| {
        load(&model, &mut |done, _| {
            // The test suspends the engine while this waits.
            let _ = sender.send(done as usize);
            thread::sleep(Duration::from_millis(5));
            true
        })
    };
    let loaded = interrupted(&model, 20_000, call, || {}).expect("a model");
    assert_eq!(loaded.fingerprint(), model.fingerprint());
    assert!(logits(&mut prompted(&loaded, b"class ")) == logits(&mut prompted(&model, b"class ")));
}

#[test]
fn a_paused_call_can_be_cancelled() {
    let model = model();
    // A generation keeps its bytes, and the rest follows later.
    let wanted = generated(&mut prompted(&model, b"class "), &greedy(400));
    let mut session = prompted(&model, b"class ");
    let token = session.cancel_token();
    let (sender, told) = channel();
    let found = thread::scope(|scope| {
        let thread = scope.spawn(|| tell_pieces(&mut session, &greedy(400), &sender).expect("a text"));
        assert!(told.iter().any(|bytes| bytes > 50));
        suspend(&model);
        assert_paused(&model, &thread);
        token.cancel();
        thread.join().expect("the call")
    });
    assert_eq!(found.stop, StopReason::Cancelled);
    assert!(model.engine().is_suspended());
    assert_suspended(block_on(session.logits(0.0)));
    resume(&model);
    let rest = generated(&mut session, &greedy(400 - found.bytes.len()));
    assert_eq!([found.bytes, rest.bytes].concat(), wanted.bytes);

    // A prompt keeps the chunks that are done.
    let text = text(20 * CHUNK);
    let mut session = session_with(&model, &[1]);
    let token = session.cancel_token();
    let (sender, told) = channel();
    let result = thread::scope(|scope| {
        let thread = scope
            .spawn(|| block_on(session.append_with_progress(&text, &mut |done, _| sender.send(done).unwrap_or(()))));
        assert!(told.iter().any(|bytes| bytes > 3 * CHUNK));
        suspend(&model);
        assert_paused(&model, &thread);
        token.cancel();
        thread.join().expect("the call")
    });
    assert_eq!(result.map_err(|error| error.kind()), Err(ErrorKind::Cancelled));
    let held = session.ids().len();
    assert!((3 * CHUNK..text.len()).contains(&held), "{held} ids");
    assert_suspended(block_on(session.logits(0.0)));
    resume(&model);
    assert!(logits(&mut session) == logits(&mut prompted(&model, &text[..held - 1])));
    block_on(session.append(&text[held - 1..])).expect("the rest");
    assert!(logits(&mut session) == logits(&mut prompted(&model, &text)));
}

#[test]
fn a_paused_call_ends_with_the_device() {
    let model = model();
    let mut session = prompted(&model, b"class ");
    let (sender, told) = channel();
    thread::scope(|scope| {
        let thread = scope.spawn(|| tell_pieces(&mut session, &greedy(100_000), &sender));
        assert!(told.iter().any(|bytes| bytes > 20));
        suspend(&model);
        assert_paused(&model, &thread);
        model.engine().destroy();
        let result = thread.join().expect("the call");
        assert_eq!(result.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::DeviceLost));
    });
    let kind = |result: Result<()>| result.map_err(|error| error.kind());
    assert_eq!(kind(block_on(session.append(b"x"))), Err(ErrorKind::DeviceLost));
    assert_eq!(kind(block_on(model.engine().suspend())), Err(ErrorKind::DeviceLost));
    assert_eq!(kind(model.engine().resume()), Err(ErrorKind::DeviceLost));
}

#[test]
fn callbacks_may_suspend_their_own_engine() {
    let model = model();
    let wanted = generated(&mut prompted(&model, b"class "), &greedy(200));
    let text = text(8 * CHUNK);
    let wanted_logits = logits(&mut prompted(&model, &text));
    let engine = model.engine();
    // Suspends in a callback; another thread resumes later.
    let pause = |resumed_at: &mut Vec<Instant>| {
        block_on(engine.suspend()).expect("a suspended engine");
        let (engine, until) = (engine.clone(), Instant::now() + Duration::from_millis(60));
        resumed_at.push(until);
        thread::spawn(move || {
            thread::sleep(until - Instant::now());
            engine.resume().expect("a resumed engine");
        });
    };
    let mut resumed = Vec::new();
    let mut session = prompted(&model, b"class ");
    let mut bytes = 0;
    let found = block_on(session.generate(&greedy(200), &mut |piece| {
        assert!(resumed.last().is_none_or(|until| Instant::now() >= *until), "the call has not paused");
        bytes += piece.bytes.len();
        if bytes > 60 * (resumed.len() + 1) {
            pause(&mut resumed);
        }
        ControlFlow::Continue(())
    }));
    assert_eq!(found.expect("a text").bytes, wanted.bytes);
    assert!(resumed.len() > 1);
    while engine.is_suspended() {
        thread::yield_now();
    }

    let (mut resumed, mut session) = (Vec::new(), session_with(&model, &[1]));
    let appended = block_on(session.append_with_progress(&text, &mut |done, _| {
        assert!(resumed.last().is_none_or(|until| Instant::now() >= *until), "the call has not paused");
        if done >= CHUNK && resumed.len() < 2 {
            pause(&mut resumed);
        }
    }));
    appended.expect("a prompt");
    assert!(resumed.len() == 2 && logits(&mut session) == wanted_logits);

    let mut resumed = Vec::new();
    let loaded = load(&model, &mut |_, _| {
        if resumed.len() < 3 {
            pause(&mut resumed);
        }
        true
    });
    assert_eq!(loaded.expect("a model").fingerprint(), model.fingerprint());
    assert!(Instant::now() >= resumed[2], "the load has not paused");
}

/// Threads that suspend and resume at the same time as others generate: every text is as always, and none waits for
/// ever.
#[test]
fn threads_may_suspend_at_the_same_time() {
    let model = model();
    let wanted = generated(&mut prompted(&model, b"class "), &greedy(300)).bytes;
    thread::scope(|scope| {
        let writers: Vec<_> =
            (0..2).map(|_| scope.spawn(|| generated_unless_suspended(&model, &greedy(300)).bytes)).collect();
        let suspenders: Vec<_> = (0..2u64)
            .map(|number| {
                let model = &model;
                scope.spawn(move || {
                    for round in 0..40 {
                        block_on(model.engine().suspend()).expect("a suspended engine");
                        thread::sleep(Duration::from_micros(300 * (round % 3 + number)));
                        model.engine().resume().expect("a resumed engine");
                        thread::sleep(Duration::from_micros(500));
                    }
                })
            })
            .collect();
        suspenders.into_iter().for_each(|thread| thread.join().expect("a thread that suspends"));
        writers.into_iter().for_each(|thread| assert_eq!(thread.join().expect("a generation"), wanted));
    });
}

/// Repeats a call until it is not refused.
fn repeated<T>(mut call: impl FnMut() -> Result<T>) -> T {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Suspended => thread::yield_now(),
            result => return result.expect("a call"),
        }
    }
}

/// A text, on an engine that others suspend.
fn generated_unless_suspended(model: &Model, options: &GenerateOptions) -> Generation {
    let mut session = repeated(|| block_on(Session::new(model)));
    repeated(|| block_on(session.append_bos()));
    repeated(|| block_on(session.append(b"class ")));
    repeated(|| block_on(session.generate(options, &mut |_| ControlFlow::Continue(()))))
}

#[test]
fn a_suspended_future_that_is_dropped_leaves_the_rest_to_others() {
    let model = model();
    let mut session = prompted(&model, b"class ");
    let (sender, told) = channel();
    thread::scope(|scope| {
        let thread = scope.spawn(|| tell_pieces(&mut session, &greedy(400), &sender).expect("a text"));
        assert!(told.iter().any(|bytes| bytes > 20));
        {
            let suspending = std::pin::pin!(model.engine().suspend());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = suspending.poll(&mut context);
        }
        suspend(&model);
        assert_paused(&model, &thread);
        resume(&model);
        thread.join().expect("the call");
    });
}

#[test]
fn trimmed_memory_comes_back_with_the_same_results() {
    let model = model();
    let engine = model.engine();
    let text = text(4 * CHUNK);
    let mut session = prompted(&model, &text);
    let wanted = generated(&mut session, &greedy(100)).bytes;
    drop(session);
    let mut session = prompted(&model, &text);
    let before = engine.memory().current_bytes;
    let released = engine.trim().expect("released memory");
    assert_eq!(released, before - engine.memory().current_bytes);
    // The buffers of a prompt alone have more than a hundred floats for each byte.
    assert!(released > 400 * CHUNK as u64, "{released} bytes");
    assert_eq!(engine.trim().expect("nothing"), 0);
    assert_eq!(generated(&mut session, &greedy(100)).bytes, wanted);
    drop(session);

    // Suspended, with a call that is paused.
    let mut session = prompted(&model, &text);
    let call = |sender| tell_pieces(&mut session, &greedy(100), &sender).expect("a text").bytes;
    let found = interrupted(&model, 10, call, || assert!(engine.trim().expect("released memory") > 400 * CHUNK as u64));
    assert_eq!(found, wanted);

    // Buffers in use are released when their call ends.
    let mut session = session_with(&model, &[1]);
    let call = |sender: Sender<usize>| {
        block_on(session.append_with_progress(&text, &mut |done, _| sender.send(done).unwrap_or(())))
            .expect("a prompt");
        session
    };
    let mut session = interrupted(&model, CHUNK, call, || assert!(engine.trim().expect("released memory") < 100_000));
    assert!(engine.trim().expect("nothing of a prompt") < 100_000);
    assert_eq!(generated(&mut session, &greedy(100)).bytes, wanted);
}

#[test]
fn an_engine_that_does_nothing_can_be_suspended() {
    let engine = block_on(Engine::open(&engine_options())).expect("an engine");
    engine.resume().expect("a resumed engine");
    block_on(engine.suspend()).expect("a suspended engine");
    block_on(engine.suspend()).expect("a suspended engine");
    engine.resume().expect("a resumed engine");
    // Another engine on the same adapter goes on.
    let other = block_on(Engine::open(&EngineOptions::default().adapter(AdapterChoice::Cpu))).expect("an engine");
    block_on(engine.suspend()).expect("a suspended engine");
    assert!(!other.is_suspended());
    let model = load_on(&other, &fixtures().join("infer/models/nano_trained"), WeightFormat::F32);
    assert!(!generated(&mut prompted(&model, b"class "), &greedy(10)).bytes.is_empty());
}
