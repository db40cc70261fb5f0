//! Bad input and failures: each is a typed error that says what is wrong, and leaves the rest usable.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use bolmo_runtime::{
    Checkpoint, Engine, ErrorKind, GenerateOptions, Hint, LoadOptions, Model, Result, ScoreOptions, Session,
    StopReason, Vocabulary, WeightFormat, block_on,
};
use bolmo_tests::{engine, engine_options, fixtures, load, load_on, session_with, vocabulary};

fn trained_dir() -> std::path::PathBuf {
    fixtures().join("infer/models/nano_trained")
}

fn try_load(dir: &Path, vocabulary: Option<Vocabulary>) -> Result<Model> {
    let mut options = LoadOptions::default();
    options.vocabulary = vocabulary;
    block_on(Model::load(engine(), &Checkpoint::open(dir)?, options))
}

/// A copy of the trained golden model with the bytes of tensor `name` changed.
fn damaged(name: &str, change: impl FnOnce(&mut [u8])) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::copy(trained_dir().join("config.json"), dir.path().join("config.json")).expect("config.json");
    let mut bytes = std::fs::read(trained_dir().join("model.safetensors")).expect("the weights");
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let range: Vec<usize> =
        json[name]["data_offsets"].as_array().expect("a tensor").iter().map(|x| x.as_u64().unwrap() as usize).collect();
    change(&mut bytes[8 + header + range[0]..8 + header + range[1]]);
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("the weights");
    dir
}

fn assert_error<T>(result: Result<T>, kind: ErrorKind, words: &[&str]) {
    match result {
        Ok(_) => panic!("no error, expected {kind} with {words:?}"),
        Err(e) => {
            assert_eq!(e.kind(), kind, "{e}");
            for word in words {
                assert!(e.message().contains(word), "{e:?} does not say {word:?}");
            }
        }
    }
}

#[test]
fn non_finite_weights_are_named() {
    let name = "model.layers.1.mlp.up_proj.weight";
    let dir = damaged(name, |bytes| bytes[4 * (64 * 5 + 7)..][..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    assert_error(try_load(dir.path(), Some(vocabulary())), ErrorKind::BadCheckpoint, &[name, "5", "7"]);
    let name = "model.norm.weight";
    let dir = damaged(name, |bytes| bytes[..4].copy_from_slice(&f32::INFINITY.to_le_bytes()));
    assert_error(try_load(dir.path(), Some(vocabulary())), ErrorKind::BadCheckpoint, &[name]);
}

#[test]
fn weights_beyond_f16_are_named() {
    let name = "lm_head.weight";
    let dir = damaged(name, |bytes| bytes[4 * 65..][..4].copy_from_slice(&1e6f32.to_le_bytes()));
    let mut options = LoadOptions::default();
    options.formats = Some(WeightFormat::F16.into());
    options.vocabulary = Some(vocabulary());
    let checkpoint = Checkpoint::open(dir.path()).expect("a checkpoint");
    let result = block_on(Model::load(engine(), &checkpoint, options));
    assert_error(result, ErrorKind::Unsupported, &[name, "row 1, column 1", "f32"]);
}

#[test]
fn missing_or_mismatched_vocabularies_are_rejected() {
    let bare = tempfile::tempdir().expect("a folder");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(trained_dir().join(name), bare.path().join(name)).expect("a copy");
    }
    let missing = try_load(bare.path(), None);
    assert!(matches!(missing.as_ref().err().and_then(|e| e.hint()), Some(Hint::VocabularyMissing { source: Some(_) })));
    assert_error(missing, ErrorKind::InvalidArgument, &["tokenizer.json"]);
    let text = std::fs::read(fixtures().join("infer/subword_tokenizer/tokenizer.json")).expect("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    json["added_tokens"].as_array_mut().expect("added tokens").pop();
    let other = Vocabulary::from_json(json.to_string().as_bytes(), None, "other/tokenizer.json").expect("a vocabulary");
    assert_error(try_load(&trained_dir(), Some(other)), ErrorKind::BadCheckpoint, &["811", "810"]);
    json["model"]["vocab"].as_object_mut().expect("a vocabulary").remove("A");
    let lacking = Vocabulary::from_json(json.to_string().as_bytes(), None, "other/tokenizer.json");
    assert_error(lacking, ErrorKind::BadCheckpoint, &["41"]);
}

/// The trie is uploaded when the device samples for the first time; a device that cannot hold it must say so before.
#[test]
fn a_vocabulary_too_large_for_the_device_is_rejected_on_load() {
    let text = std::fs::read(fixtures().join("infer/subword_tokenizer/tokenizer.json")).expect("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    // As many tokens as before, but some of them with thousands of bytes.
    let tokens = json["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let long: Vec<String> = tokens.keys().filter(|token| token.chars().count() > 1).take(8).cloned().collect();
    for token in long {
        let id = tokens.remove(&token).expect("an id");
        tokens.insert(format!("{}{id}", "a".repeat(4000)), id);
    }
    let read =
        || Vocabulary::from_json(json.to_string().as_bytes(), None, "long/tokenizer.json").expect("a vocabulary");
    let mut options = engine_options();
    options.max_binding_bytes = Some(1 << 16);
    let low = block_on(Engine::open(&options)).expect("an engine");
    let checkpoint = Checkpoint::open(trained_dir()).expect("a checkpoint");
    let load =
        |engine, vocabulary| block_on(Model::load(engine, &checkpoint, LoadOptions::default().vocabulary(vocabulary)));
    let words = ["the suffix trie of the vocabulary", "allows at most 65536"];
    assert_error(load(&low, read()), ErrorKind::Unsupported, &words);
    load(engine(), read()).expect("a model where the device has larger bindings");
    load(&low, vocabulary()).expect("a model with a smaller vocabulary");
}

#[test]
fn special_ids_missing_from_the_vocabulary_are_rejected() {
    // With an unusual padding token and no tokenizer_config.json, the vocabulary has no entry for padding.
    let path = fixtures().join("infer/subword_tokenizer/tokenizer.json");
    let text = std::fs::read_to_string(path).expect("tokenizer.json").replace("<|pad|>", "<|filler|>");
    let nameless = Vocabulary::from_json(text.as_bytes(), None, "a tokenizer.json alone").expect("a vocabulary");
    let model = try_load(&trained_dir(), Some(nameless)).expect("a model");
    assert!(model.warnings().iter().any(|w| w.contains("<|endoftext|>")), "{:?}", model.warnings());
    let mut session = block_on(Session::new(&model)).expect("a session");
    let result = block_on(session.append_ids(&[1, 80, 0, 81]));
    assert_error(result, ErrorKind::InvalidArgument, &["id 0 at position 2"]);
    assert!(session.ids().is_empty());
    block_on(session.append_ids(&[1, 80, 81])).expect("the session continues");
}

#[test]
fn loading_can_be_cancelled_and_reports_progress() {
    let checkpoint = Checkpoint::open(trained_dir()).expect("a checkpoint");
    let mut options = LoadOptions::default();
    options.vocabulary = Some(vocabulary());
    let mut last = (0, 0);
    let result = block_on(Model::load_with_progress(engine(), &checkpoint, options, &mut |done, total| {
        assert!(done >= last.0 && done <= total);
        last = (done, total);
        done < total / 2
    }));
    assert_error(result, ErrorKind::Cancelled, &[]);
    assert!(last.0 >= last.1 / 2 && last.0 < last.1, "{last:?}");
}

#[test]
fn invalid_ids_and_empty_sessions_are_rejected() {
    let model = load("infer", "nano_trained");
    let mut session = block_on(Session::new(&model)).expect("a session");
    assert_error(block_on(session.logits(0.0)), ErrorKind::InvalidArgument, &["empty"]);
    for (ids, position) in [(vec![1, 2], "1"), (vec![3], "0"), (vec![1, 80, 260], "2"), (vec![4_000_000_000], "0")] {
        let result = block_on(session.append_ids(&ids));
        assert_error(result, ErrorKind::InvalidArgument, &[position, &ids.last().unwrap().to_string()]);
    }
    // No id was appended.
    assert!(session.ids().is_empty());
    block_on(session.append_ids(&[1, 80])).expect("ids");
    for id in [0, 2, 3, 260, 262, 263, 520, u16::MAX] {
        assert_error(block_on(session.push(id)), ErrorKind::InvalidArgument, &[&id.to_string()]);
    }
    let mut options = GenerateOptions::default();
    options.max_bytes = 0;
    let none = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(())));
    assert_error(none, ErrorKind::InvalidArgument, &["max_bytes"]);
    let score = |ids: &[u32], options: &ScoreOptions| block_on(model.score_ids(ids, options, &mut |_, _| {}));
    assert_error(score(&[1], &ScoreOptions::default()), ErrorKind::InvalidArgument, &["at least 2"]);
    let mut options = ScoreOptions::default();
    options.boundaries = Some(vec![true; 2]);
    assert_error(score(&[1, 80, 81], &options), ErrorKind::InvalidArgument, &["2 boundaries for 3"]);
    options.boundaries = Some(vec![false; 3]);
    assert_error(score(&[1, 80, 81], &options), ErrorKind::InvalidArgument, &["first position"]);
    let nothing = block_on(model.score_text(b"", &ScoreOptions::default(), &mut |_, _| {}));
    assert_error(nothing, ErrorKind::InvalidArgument, &["empty"]);
}

#[test]
fn any_bytes_are_a_valid_prompt() {
    let model = load("infer", "nano_trained");
    let mut options = GenerateOptions::default();
    options.max_bytes = 4;
    let prompts: [&[u8]; 6] =
        [b"x", b"\xff\xfe\x80\x00\xc3", "你好，世界🎉".as_bytes(), b"\0\0\0", b"<bos><pad>", &[b' '; 500]];
    for (prompt, with_bos) in prompts.iter().flat_map(|p| [(p, true), (p, false)]) {
        let mut session = block_on(Session::new(&model)).expect("a session");
        if with_bos {
            block_on(session.append_bos()).expect("bos");
        }
        block_on(session.append(prompt)).expect("a prompt");
        let made = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
        assert!(made.stop == StopReason::End || made.bytes.len() == 4, "{made:?}");
    }
}

/// The byte that the model cuts into the longest patches when it is repeated.
fn byte_of_long_patches(model: &Model) -> u8 {
    let patches = |byte: &u8| {
        let mut session = block_on(Session::new(model)).expect("a session");
        block_on(session.append_bos()).expect("bos");
        block_on(session.append(&[*byte; 256])).expect("a prompt");
        session.patches()
    };
    (b' '..=b'~').find(|byte| patches(byte) <= 16).expect("long patches of some byte")
}

#[test]
fn megabyte_prompt_fits_in_bounded_memory() {
    // Long patches keep the quadratic part small: this test is about memory and bookkeeping, not speed.
    let model = load("infer", "nano_trained");
    let mut session = block_on(Session::new(&model)).expect("a session");
    block_on(session.append_bos()).expect("bos");
    let prompt = vec![byte_of_long_patches(&model); 1 << 20];
    let mut calls = 0;
    block_on(session.append_with_progress(&prompt, &mut |_, _| calls += 1)).expect("a prompt");
    assert!(calls > 1000);
    assert_eq!(session.ids().len(), prompt.len() + 1);
    let made = block_on(session.generate(&GenerateOptions::default(), &mut |_| ControlFlow::Continue(())));
    assert!(!made.expect("a generation").ids.is_empty());
    assert!(session.device_bytes() < 1 << 30, "{} bytes", session.device_bytes());
}

#[test]
fn cancel_stops_prefill_and_decode() {
    let model = load("infer", "nano_trained");
    let mut session = block_on(Session::new(&model)).expect("a session");
    let token = session.cancel_token();
    let text = b"for line in self.lines: yield line\n".repeat(20_000);
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        token.cancel();
        Instant::now()
    });
    let result = block_on(session.append(&text));
    let stopped = Instant::now();
    let asked = canceller.join().expect("the other thread");
    assert_error(result, ErrorKind::Cancelled, &["stopped after"]);
    assert!(stopped.saturating_duration_since(asked) < Duration::from_secs(2));
    // The session keeps what was done and continues from there.
    let held = session.ids().len();
    assert!(held > 0 && held < text.len());
    block_on(session.append(&text[held..held + 10])).expect("more text");
    let mut same = session_with(&model, &text[..held + 10].iter().map(|&b| u32::from(b) + 4).collect::<Vec<_>>());
    let mut options = GenerateOptions::default();
    options.max_bytes = 12;
    let made = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    let expected = block_on(same.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    assert_eq!(made, expected);

    session.cancel_token().cancel();
    options.max_bytes = 100;
    let made = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    assert_eq!((made.stop, made.bytes.len()), (StopReason::Cancelled, 0));
    // Short patches, and no end: whatever the model would like to write, five bytes come well before the budget.
    options.bytes_per_patch = Some(4.0);
    options.sampling.end_bias = -1e30;
    let mut seen = 0;
    let made = block_on(session.generate(&options, &mut |piece| {
        seen += piece.bytes.len();
        if seen >= 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    // Pieces are patches; the one that breaks is the last.
    let made = made.expect("a generation");
    assert_eq!((made.stop, made.bytes.len()), (StopReason::Cancelled, seen));
    assert!((5..100).contains(&seen), "{seen} bytes");
}

/// A session whose prefill was cancelled continues at once.
#[test]
fn cancelled_prefill_equals_a_shorter_prompt() {
    let model = load("infer", "nano_trained");
    let text = b"for line in self.lines: yield line\n".repeat(100);
    let mut options = GenerateOptions::default();
    options.max_bytes = 12;
    for begun in [false, true] {
        let begin = |until: Option<usize>| {
            let mut session = session_with(&model, &[1, 80, 81, 82]);
            if begun {
                block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
            }
            let before = session.ids().len();
            let token = session.cancel_token();
            let text = &text[..until.unwrap_or(text.len())];
            let result = block_on(session.append_with_progress(text, &mut |done, _| {
                if done > 0 && until.is_none() {
                    token.cancel();
                }
            }));
            (result, session.ids().len() - before, session)
        };
        let (result, done, mut cancelled) = begin(None);
        assert_error(result, ErrorKind::Cancelled, &["stopped after"]);
        assert!(done > 0 && done < text.len());
        let (result, _, mut shorter) = begin(Some(done));
        result.expect("the shorter text");
        let generate = |session: &mut Session| {
            block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation")
        };
        assert_eq!(generate(&mut cancelled), generate(&mut shorter), "begun: {begun}");
    }
}

#[test]
fn abandoned_operation_is_an_error_until_rewound() {
    let model = load("infer", "nano_trained");
    let mut session = session_with(&model, &[1, 80, 81, 82]);
    let checkpoint = block_on(session.checkpoint()).expect("a checkpoint");
    let before = block_on(session.logits(0.0)).expect("logits");
    block_on(session.rewind(&checkpoint)).expect("back");
    {
        let text = b"some more text".repeat(200);
        let mut on = |_, _| {};
        let mut future = std::pin::pin!(session.append_with_progress(&text, &mut on));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
    }
    assert_error(block_on(session.append(b"x")), ErrorKind::InvalidArgument, &["abandoned"]);
    assert_error(block_on(session.push(70)), ErrorKind::InvalidArgument, &["abandoned"]);
    block_on(session.rewind(&checkpoint)).expect("back");
    assert_eq!(block_on(session.logits(0.0)).expect("logits"), before);
}

#[test]
fn lost_device_is_reported_and_a_new_one_works() {
    let engine = block_on(Engine::open(&engine_options())).expect("an engine");
    let model = load_on(&engine, &trained_dir(), WeightFormat::F32);
    let mut session = session_with(&model, &[1, 80, 81, 82]);
    let mut options = GenerateOptions::default();
    // Every byte is a patch and so a piece of its own, and the text does not end.
    options.bytes_per_patch = Some(1.0);
    options.sampling.end_bias = -1e30;
    let mut made = 0;
    let result = block_on(session.generate(&options, &mut |piece| {
        made += piece.bytes.len();
        if made == 3 {
            engine.destroy();
        }
        ControlFlow::Continue(())
    }));
    assert_error(result, ErrorKind::DeviceLost, &["lost", "load the model again"]);
    assert_eq!(made, 3);
    let loss = block_on(engine.lost());
    assert_eq!(loss.kind(), ErrorKind::DeviceLost, "{loss}");
    assert_error(block_on(Session::new(&model)), ErrorKind::DeviceLost, &["lost"]);
    let checkpoint = Checkpoint::open(trained_dir()).expect("a checkpoint");
    let mut options = LoadOptions::default();
    options.vocabulary = Some(vocabulary());
    assert_error(block_on(Model::load(&engine, &checkpoint, options)), ErrorKind::DeviceLost, &["lost"]);

    let engine = block_on(Engine::open(&engine_options())).expect("another engine");
    let model = load_on(&engine, &trained_dir(), WeightFormat::F32);
    let mut options = GenerateOptions::default();
    options.max_bytes = 8;
    let mut session = session_with(&model, &[1, 80, 81, 82]);
    let made = block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    assert!(!made.ids.is_empty());
}

#[test]
fn futures_may_move_between_threads() {
    fn on_another_thread<T: Send>(future: impl Future<Output = T> + Send) -> T {
        std::thread::scope(|scope| scope.spawn(|| block_on(future)).join().expect("a thread"))
    }
    let model = load("infer", "nano_trained");
    let mut session = on_another_thread(Session::new(&model)).expect("a session");
    on_another_thread(session.append(b"def ")).expect("text");
    let mut options = GenerateOptions::default();
    options.max_bytes = 2;
    on_another_thread(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    on_another_thread(model.score_text(b"x = 1", &ScoreOptions::default(), &mut |_, _| {})).expect("a score");
}

#[test]
fn checkpoints_of_another_model_are_rejected() {
    let (a, b) = (load("infer", "nano_trained"), load("infer", "swa"));
    let mut session = session_with(&a, &[1, 80, 81]);
    let checkpoint = block_on(session.checkpoint()).expect("a checkpoint");
    let snapshot = block_on(session.snapshot()).expect("a snapshot");
    let mut other = session_with(&b, &[1, 80, 81]);
    assert_error(block_on(other.rewind(&checkpoint)), ErrorKind::InvalidArgument, &["another model"]);
    assert_error(block_on(Session::restore(&b, &snapshot)), ErrorKind::InvalidArgument, &["another model"]);
    // The same files loaded again are the same model; in another format they are another.
    assert_eq!(load("infer", "nano_trained").fingerprint(), a.fingerprint());
    block_on(Session::restore(&load("infer", "nano_trained"), &snapshot)).expect("a session");
    let halves = load_on(engine(), &trained_dir(), WeightFormat::F16);
    assert_error(block_on(Session::restore(&halves, &snapshot)), ErrorKind::InvalidArgument, &["another model"]);
}

#[test]
fn damaged_snapshots_are_rejected() {
    let model = load("infer", "swa");
    let mut session = session_with(&model, &(0..60).map(|i| 4 + i % 200).collect::<Vec<_>>());
    let good = block_on(session.snapshot()).expect("a snapshot");
    let refused = |bytes: &[u8]| match block_on(Session::restore(&model, bytes)) {
        Ok(_) => panic!("a damaged snapshot was accepted"),
        Err(e) => assert!(matches!(e.kind(), ErrorKind::BadCheckpoint | ErrorKind::InvalidArgument), "{e}"),
    };
    for len in (0..200).chain((200..good.len()).step_by(997)) {
        refused(&good[..len]);
    }
    for at in (0..200).chain((200..good.len()).step_by(613)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        refused(&bytes);
    }
    // Damage with a matching checksum: an error or not, but no panic.
    let body = good.len() - 8;
    for at in (28..160).chain((body - 40)..body) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            let sum = bolmo_tests::checksum(&bytes[..body]);
            bytes[body..].copy_from_slice(&sum.to_le_bytes());
            if let Err(e) = block_on(Session::restore(&model, &bytes)) {
                assert!(matches!(e.kind(), ErrorKind::BadCheckpoint | ErrorKind::InvalidArgument), "{e}");
            }
        }
    }
}
