//! Weights that the CPU device uses where the checkpoint has them: the results of copies, damage and changes of files.

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bolmo_runtime::convert::quantize::{QuantizeOptions, write_quantized};
use bolmo_runtime::{
    AdapterChoice, Checkpoint, Engine, EngineOptions, ErrorKind, GenerateOptions, LoadOptions, Model, Result,
    ScoreOptions, Session, block_on, device_bytes,
};
use bolmo_tests::{engine, fixtures, load_on, load_with, session_with, vocabulary};

const FORMATS: [&str; 5] = ["f32", "f16", "q8", "q4", "q4,local=q8,embeddings=f32"];
const MODELS: [(&str, &str); 3] = [("infer", "swa"), ("infer", "nano_trained"), ("prenorm", "bwen")];

/// The CPU device, which uses tensors of at least `bytes` in place.
fn cpu(bytes: u64) -> Engine {
    let options = EngineOptions::default().adapter(AdapterChoice::Cpu).in_place_bytes(bytes);
    block_on(Engine::open(&options)).expect("the CPU device")
}

fn source((family, name): (&str, &str)) -> PathBuf {
    fixtures().join(family).join("models").join(name)
}

/// A golden model as a folder in `formats`, in shards of at most `most` bytes if it is quantized.
fn folder(parent: &Path, model: (&str, &str), formats: &str, most: u64) -> PathBuf {
    let dir = parent.join(format!("{}-{formats}", model.1).replace(['=', ','], "-"));
    if formats == "f32" {
        shifted(&source(model), &dir, 0);
        return dir;
    }
    let mut options = QuantizeOptions::default();
    options.max_shard_bytes = most;
    let checkpoint = Checkpoint::open(source(model)).expect("a checkpoint");
    write_quantized(&checkpoint, &dir, formats.parse().expect("formats"), &options, &mut |_, _| true)
        .expect("a folder");
    dir
}

fn text() -> Vec<u32> {
    let ids = b"The owl has 3 apples and 12 pears. ".iter().cycle().take(150).map(|&byte| 4 + u32::from(byte));
    std::iter::once(1).chain(ids).collect()
}

/// The bits of the logits after a prompt, and what is generated after it.
fn outcome(model: &Model) -> (Vec<u32>, Vec<u8>) {
    let mut session = session_with(model, &text());
    let logits = block_on(session.logits(0.0)).expect("logits").iter().map(|logit| logit.to_bits()).collect();
    (logits, generate(&mut session).expect("bytes"))
}

fn generate(session: &mut Session) -> Result<Vec<u8>> {
    let mut options = GenerateOptions::default();
    options.max_bytes = 24;
    block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).map(|generation| generation.bytes)
}

#[test]
fn weights_in_place_give_the_bits_of_copies() {
    let parent = tempfile::tempdir().expect("a folder");
    for model in MODELS {
        for formats in FORMATS {
            let dir = folder(parent.path(), model, formats, 100_000);
            let (all, large, none) = (cpu(1), cpu(1 << 13), cpu(u64::MAX));
            let [in_place, some, copied] = [&all, &large, &none].map(|engine| load_with(engine, &dir, None));
            let expected = outcome(&copied);
            for model in [&in_place, &some] {
                assert_eq!(model.fingerprint(), copied.fingerprint(), "{formats}");
                assert!(outcome(model) == expected, "{}: {formats}", dir.display());
            }
            // What is used in place is not allocated.
            let bytes = device_bytes(copied.config(), copied.formats());
            let used = [&in_place, &some, &copied].map(Model::mapped_bytes);
            assert!(
                used[0] > bytes * 9 / 10 && used[1] < used[0] && used[1] > 0 && used[2] == 0,
                "{used:?} of {bytes}"
            );
            let loaded = |engine: &Engine, model: &Path| {
                let before = engine.memory().current_bytes;
                let model = load_with(engine, model, None);
                (engine.memory().current_bytes - before, model)
            };
            let (copies, _copied) = loaded(&none, &dir);
            let (rest, _in_place) = loaded(&all, &dir);
            // Buffers are filled up to whole vectors, and gates without biases have none.
            assert!(
                rest + used[0] <= copies && copies - rest - used[0] < copies / 20,
                "{rest} + {} of {copies}",
                used[0]
            );
        }
    }
}

/// The shaders' device hashes matrices as it stacks them; the CPU device tensor by tensor.
#[test]
fn fingerprints_are_the_same_on_every_device() {
    let parent = tempfile::tempdir().expect("a folder");
    for formats in FORMATS {
        let dir = folder(parent.path(), MODELS[0], formats, 100_000);
        assert_eq!(load_with(&cpu(1), &dir, None).fingerprint(), load_with(engine(), &dir, None).fingerprint());
    }
}

#[test]
fn weights_in_another_format_are_converted() {
    let all = cpu(1);
    for (model, formats) in [(("infer", "nano_bf16"), "f32"), (("infer", "swa"), "f16"), (("infer", "swa"), "q8")] {
        let formats: bolmo_runtime::Formats = formats.parse().expect("formats");
        let model = load_on(&all, &source(model), formats);
        assert_eq!(model.mapped_bytes(), 0);
    }
}

/// A copy of a folder with `bytes` more bytes in front of the data of its only file.
fn shifted(from: &Path, to: &Path, bytes: usize) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("files").map(|entry| entry.expect("a file").path()) {
        let mut contents = fs::read(&entry).expect("a file");
        if entry.extension().is_some_and(|name| name == "safetensors") {
            let length = u64::from_le_bytes(contents[..8].try_into().expect("a length")) as usize;
            contents.splice(8 + length..8 + length, std::iter::repeat_n(b' ', bytes));
            contents[..8].copy_from_slice(&((length + bytes) as u64).to_le_bytes());
        }
        fs::write(to.join(entry.file_name().expect("a name")), contents).expect("a copy");
    }
}

#[test]
fn tensors_that_begin_at_no_word_are_copied() {
    let parent = tempfile::tempdir().expect("a folder");
    let all = cpu(1);
    for formats in ["f32", "q8"] {
        let dir = folder(parent.path(), MODELS[0], formats, u64::MAX);
        let expected = outcome(&load_with(&all, &dir, None));
        for bytes in [1, 2, 3, 4, 5] {
            let moved = parent.path().join(format!("{formats}-{bytes}"));
            shifted(&dir, &moved, bytes);
            let model = load_with(&all, &moved, None);
            assert_eq!(model.mapped_bytes() > 0, bytes == 4, "{bytes} bytes");
            assert!(outcome(&model) == expected, "{formats}: {bytes} bytes");
        }
    }
}

#[test]
fn values_that_are_not_finite_are_found_in_place() {
    let parent = tempfile::tempdir().expect("a folder");
    for (formats, name, value, word) in [
        ("f32", "model.layers.0.mlp.up_proj.weight", &f32::NAN.to_le_bytes()[..], "element [3, 2] is NaN"),
        ("f16", "lm_head.weight", &[0, 0xfc], "element [3, 2] is -inf"),
        ("q8", "model.layers.1.self_attn.q_proj.weight.scales", &[0, 0x7c], "scales must be finite"),
        ("q4", "model.layers.0.mlp.gate_proj.weight.scales", &[1, 0x7e], "scales must be finite"),
    ] {
        let dir = folder(parent.path(), MODELS[0], formats, u64::MAX);
        let file = dir.join("model.safetensors");
        let mut contents = fs::read(&file).expect("a file");
        let length = 8 + u64::from_le_bytes(contents[..8].try_into().expect("a length")) as usize;
        let header: serde_json::Value = serde_json::from_slice(&contents[8..length]).expect("a header");
        let entry = &header[name];
        let columns = entry["shape"][1].as_u64().expect("columns") as usize;
        let at = length + entry["data_offsets"][0].as_u64().expect("an offset") as usize;
        let at = at + (3 * columns + 2.min(columns - 1)) * value.len();
        contents[at..at + value.len()].copy_from_slice(value);
        fs::write(&file, contents).expect("a file");
        let mut load = LoadOptions::default();
        load.vocabulary = Some(vocabulary());
        let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
        let error = block_on(Model::load(&cpu(1), &checkpoint, load)).expect_err("a value that is not finite");
        assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
        assert!(error.message().contains(name) && error.message().contains(word), "{error}");
    }
}

/// What another program does to the file of a model.
type Change<'a> = &'a dyn Fn(&Path);

/// Opens a copy of a golden model in place, and calls `change` with its file.
fn changed(change: impl FnOnce(&Path)) -> (Session, Vec<u8>) {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("model");
    shifted(&source(MODELS[0]), &dir, 0);
    let model = load_with(&cpu(1), &dir, None);
    let (_, expected) = outcome(&model);
    let session = session_with(&model, &text());
    change(&dir.join("model.safetensors"));
    (session, expected)
}

#[test]
fn work_after_a_change_of_the_file_fails() {
    let write = |path: &Path| fs::OpenOptions::new().write(true).open(path).expect("the file");
    let changes: [(Change<'_>, &str); 3] = [
        (&|path| write(path).set_len(5000).expect("a shorter file"), "5000 now"),
        (&|path| fs::OpenOptions::new().append(true).open(path).expect("the file").write_all(b"x").expect("x"), " now"),
        (&|path| write(path).write_all(b"x").expect("x"), "written to"),
    ];
    for (change, words) in changes {
        let (mut session, _) = changed(change);
        for _ in 0..2 {
            let error = generate(&mut session).expect_err("a changed file");
            assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
            for word in ["model.safetensors", words, "load the model again"] {
                assert!(error.message().contains(word), "{error} lacks {word}");
            }
        }
        assert_eq!(block_on(session.append(b"more")).expect_err("a changed file").kind(), ErrorKind::BadCheckpoint);
    }
}

/// A prompt or a score is many chunks in one operation, and nothing may follow it.
#[test]
fn a_change_during_a_prompt_or_a_score_is_found() {
    let parent = tempfile::tempdir().expect("a folder");
    for scored in [true, false] {
        let dir = parent.path().join(format!("scored-{scored}"));
        shifted(&source(MODELS[0]), &dir, 0);
        let model = load_with(&cpu(1), &dir, None);
        let mut first = true;
        let mut progress = |_, _| {
            if std::mem::take(&mut first) {
                let mut file = fs::OpenOptions::new().append(true).open(dir.join("model.safetensors")).expect("a file");
                file.write_all(b"x").expect("a byte");
            }
        };
        let error = if scored {
            block_on(model.score_ids(&text(), &ScoreOptions::default(), &mut progress)).map(|_| ())
        } else {
            let mut session = block_on(Session::new(&model)).expect("a session");
            block_on(session.append_ids_with_progress(&text(), &mut progress))
        };
        assert_eq!(error.expect_err("a changed file").kind(), ErrorKind::BadCheckpoint);
    }
}

/// Also where weights are copied: a part that was cut off must not be read.
#[test]
fn a_change_between_opening_and_loading_is_found() {
    for bytes in [1, u64::MAX] {
        let parent = tempfile::tempdir().expect("a folder");
        let dir = folder(parent.path(), MODELS[0], "f32", u64::MAX);
        let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
        let file = fs::OpenOptions::new().write(true).open(dir.join("model.safetensors")).expect("the file");
        file.set_len(5000).expect("a shorter file");
        let mut options = LoadOptions::default();
        options.vocabulary = Some(vocabulary());
        let error = block_on(Model::load(&cpu(bytes), &checkpoint, options)).expect_err("a changed file");
        assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
        assert!(error.message().contains("changed after it was opened"), "{error}");
    }
}

#[test]
fn a_file_may_be_deleted_or_replaced() {
    let changes: [Change<'_>; 2] = [&|path| fs::remove_file(path).expect("deleted"), &|path| {
        let other = path.with_extension("other");
        fs::write(&other, b"something else").expect("a file");
        fs::rename(&other, path).expect("replaced");
    }];
    for change in changes {
        let (mut session, expected) = changed(change);
        assert_eq!(generate(&mut session).expect("bytes"), expected);
    }
}
