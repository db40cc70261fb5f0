//! Whole training runs on a few documents: their results, and resumption bit for bit.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bolmo_runtime::ids::FUSED_OFFSET;
use bolmo_runtime::unstable::SuffixTrie;
use bolmo_runtime::unstable::output::with_free_bytes;
use bolmo_runtime::{
    AdapterChoice, Checkpoint, Engine, EngineOptions, ErrorKind, GenerateOptions, LoadOptions, Model, Piece, Session,
    Vocabulary, block_on,
};
use bolmo_tests::{Roundings, engine, engine_options};
use bolmo_training::data::{Subwords, train_tokenizer};
use bolmo_training::loss::{IGNORED, LossOptions, Targets};
use bolmo_training::run::{Event, Kind, Outcome, RunConfig, Start, Texts, TrainingRun};
use bolmo_training::{AdamOptions, Examples, LocalSizes, Schedule, Shape, SourceModel, Trainer, TrainerOptions};

/// A folder with a text and a tokenizer, and configurations of small runs.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut text = String::new();
        for i in 0..400 {
            let (a, b) = (["cat", "dog", "owl", "hen"][i % 4], ["red", "old", "shy"][i % 3]);
            text += &format!("The {b} {a} has {} apples and {} pears.\nIt likes them.\n<|endoftext|>\n", i % 7, i % 5);
        }
        std::fs::write(dir.path().join("text.txt"), text).expect("a text");
        train_tokenizer(&[dir.path().join("text.txt")], 320, Subwords::Pairs, &dir.path().join("tokenizer"))
            .expect("a tokenizer");
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, out: &str, rest: &str) -> RunConfig {
        let dir = self.dir.path().display();
        let text = format!(
            "out = '{dir}/{out}'\nseed = 3\n{}\n[data]\ntrain = ['{dir}/text.txt']\nheld_out_share = 0.1\n\
             tokenizer = '{dir}/tokenizer'\n[batch]\nrows = 2\nsubwords = 32\nbytes_per_subword = 4\n\
             [optimiser]\nsteps = 6\nrate = 0.003\n\
             [every]\nsnapshot = 2\nkeep = 2\nevaluate = 3\nevaluate_batches = 1\n",
            rest.replace("DIR", &dir.to_string())
        );
        RunConfig::parse(&text, &[]).expect("a configuration")
    }

    fn subword(&self, out: &str) -> RunConfig {
        self.config(out, "[model.new]\nhidden_size = 32\nlayers = 2\nheads = 2\nintermediate_size = 64")
    }

    fn stage1(&self, out: &str) -> RunConfig {
        let local = "encoder_layers = 1\ndecoder_layers = 1\nheads = 2\nintermediate_size = 32";
        self.config(out, &format!("[model]\nsource = 'DIR/subword/model'\n[model.local]\n{local}"))
    }

    fn stage2(&self, out: &str, rest: &str) -> RunConfig {
        self.config(out, &format!("[model]\nstudent = 'DIR/stage1/model'\nexport = 'f16'\n{rest}"))
    }
}

/// Runs up to the step `last`, or all steps, and returns the loss of each.
fn go(kind: Kind, config: RunConfig, resume: bool, last: Option<u64>) -> (Vec<(u64, u64)>, Outcome) {
    go_on(engine(), kind, config, resume, last)
}

/// As [`go`], on a device.
fn go_on(
    engine: &Engine,
    kind: Kind,
    config: RunConfig,
    resume: bool,
    last: Option<u64>,
) -> (Vec<(u64, u64)>, Outcome) {
    let mut losses = Vec::new();
    let mut run = block_on(TrainingRun::open(engine, kind, config, &Texts::default(), resume)).expect("a run");
    let outcome = block_on(run.go(&mut |event| {
        if let Event::Step(record) = event {
            let loss = record["total"].as_f64().or(record["loss"].as_f64()).expect("a loss");
            let step = record["step"].as_u64().expect("a step");
            losses.push((step, loss.to_bits()));
            if Some(step) == last {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }))
    .expect("steps");
    (losses, outcome)
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).expect("metrics").lines().count()
}

/// Trains a subword model in one go, and again in pieces: stopped twice, once at a step without a scheduled snapshot,
/// and resumed from the last snapshot but one.
fn train_subword_model(place: &Place) {
    let (whole, outcome) = go(Kind::Subword, place.subword("subword"), false, None);
    assert!(outcome.complete && whole.len() == 6);
    let first = f64::from_bits(whole[0].1);
    let last = f64::from_bits(whole[5].1);
    assert!(last < first, "the loss went from {first} to {last}");
    let mut pieces = Vec::new();
    for last in [3, 5] {
        let (part, outcome) = go(Kind::Subword, place.subword("pieces"), !pieces.is_empty(), Some(last));
        assert!(!outcome.complete && outcome.steps == last);
        pieces.extend(part);
    }
    // A run that is killed loses the steps after its last snapshot: they have been reported and must be repeated.
    let snapshots = place.path("pieces/snapshots");
    std::fs::remove_dir_all(snapshots.join("step-00000005")).expect("a snapshot");
    pieces.truncate(4);
    let (rest, outcome) = go(Kind::Subword, place.subword("pieces"), true, None);
    pieces.extend(rest);
    assert!(outcome.complete);
    assert_eq!(pieces, whole);
    assert_eq!(lines(&place.path("pieces/metrics.jsonl")), lines(&place.path("subword/metrics.jsonl")));
    let model = |run: &str| std::fs::read(place.path(run).join("model/model.safetensors")).expect("a model");
    assert!(model("pieces") == model("subword"), "the models differ");

    // A run's folder is not overwritten by accident.
    let again =
        block_on(TrainingRun::open(engine(), Kind::Subword, place.subword("subword"), &Texts::default(), false));
    assert_eq!(again.err().map(|e| e.kind()), Some(ErrorKind::InvalidArgument));
}

/// Trains stage 1 from the subword model.
fn train_stage1(place: &Place) {
    let local = LocalSizes { encoder_layers: 1, decoder_layers: 1, heads: 2, intermediate_size: 32 };
    let source = SourceModel::open(&place.path("subword/model"), local, None).expect("a source");
    assert_eq!((source.config().hidden_size, source.tied()), (32, false));

    let (stage1, outcome) = go(Kind::Stage1, place.stage1("stage1"), false, None);
    assert!(outcome.complete && stage1.len() == 6);
    let evaluation = outcome.evaluation.expect("an evaluation");
    for key in ["bits_per_byte", "teacher_bits_per_byte", "boundary_accuracy", "bytes_per_patch"] {
        assert!(evaluation[key].as_f64().is_some_and(|value| value > 0.0), "{key}: {evaluation}");
    }
    // Stage 1 leaves the source's blocks as they are.
    let checkpoint = Checkpoint::open(place.path("stage1/model")).expect("a checkpoint");
    let blocks =
        |values: &dyn bolmo_training::TensorSource| values.read("model.layers.1.mlp.up_proj.weight").expect("a block");
    assert_eq!(blocks(&checkpoint), blocks(&source));

    // A fitted start represents the subwords from the first step on.
    let distance = |out: &str| {
        let text = std::fs::read_to_string(place.path(out).join("metrics.jsonl")).expect("metrics");
        let first: serde_json::Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        first["encoder"].as_f64().expect("a distance")
    };
    let mut config = place.stage1("fitted");
    config.model.start = Start::Fitted;
    go(Kind::Stage1, config, false, Some(1));
    let (fitted, moments) = (distance("fitted"), distance("stage1"));
    assert!(fitted < 0.5 * moments, "{fitted} from a fitted start, {moments} without");

    // Stage 1 continues from a model of its own source, and from no other.
    let mut config = place.stage1("further");
    config.model.student = Some(place.path("stage1/model"));
    assert_eq!(go(Kind::Stage1, config.clone(), false, Some(1)).1.steps, 1);
    let mut other = place.subword("other");
    other.seed = 4;
    go(Kind::Subword, other, false, None);
    config.model.source = Some(place.path("other/model"));
    config.out = place.path("refused");
    let refused = block_on(TrainingRun::open(engine(), Kind::Stage1, config, &Texts::default(), false)).err();
    assert!(refused.is_some_and(|e| e.message().contains("blocks")));
}

/// Trains stage 2 from stage 1, with every kind of compression.
fn train_stage2(place: &Place) {
    let (stage2, outcome) = go(Kind::Stage2, place.stage2("stage2", ""), false, None);
    assert!(outcome.complete && stage2.len() == 6);
    let compressed = "[compression]\nkind = 'bpe'\ntarget = 8.0\nsteps = 2";
    let (_, outcome) = go(Kind::Stage2, place.stage2("wide", compressed), false, None);
    assert!(outcome.complete);
    for kind in ["entropy", "cross_entropy", "space", "words"] {
        let compressed = format!("[compression]\nkind = '{kind}'\ntarget = 8.0\nentropies = 'DIR/subword/model'");
        let (_, outcome) = go(Kind::Stage2, place.stage2(kind, &compressed), false, Some(1));
        assert_eq!(outcome.steps, 1, "{kind}");
    }
}

#[test]
fn training_from_nothing_gives_a_model_that_the_runtime_runs() {
    let place = Place::new();
    train_subword_model(&place);
    train_stage1(&place);
    train_stage2(&place);

    let dir = place.path("stage2/model");
    let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
    let mut options = LoadOptions::default();
    options.vocabulary = Some(Vocabulary::open(dir.join("tokenizer.json")).expect("a vocabulary"));
    let model = block_on(Model::load(engine(), &checkpoint, options)).expect("a model");
    let mut session = block_on(Session::new(&model)).expect("a session");
    block_on(session.append_bos()).expect("a beginning");
    block_on(session.append(b"The old owl has")).expect("a prompt");
    let logits = block_on(session.logits(0.0)).expect("logits");
    assert!(logits.iter().all(|logit| logit.is_finite()));
}

/// Runs on the CPU device give the same bits on any number of threads, and so do runs that are resumed on another.
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let place = Place::new();
    let engine = |threads| {
        let options = EngineOptions::default().adapter(AdapterChoice::Cpu).threads(threads);
        block_on(Engine::open(&options)).expect("the CPU device")
    };
    let model = |run: &str| std::fs::read(place.path(run).join("model/model.safetensors")).expect("a model");
    let compare = |kind: Kind, config: &dyn Fn(&str) -> RunConfig, name: &str| {
        let (whole, outcome) = go_on(&engine(1), kind, config(name), false, None);
        assert!(outcome.complete);
        let pieces = format!("{name}-pieces");
        let mut found = go_on(&engine(3), kind, config(&pieces), false, Some(4)).0;
        found.extend(go_on(&engine(2), kind, config(&pieces), true, None).0);
        assert_eq!(found, whole, "{name}");
        assert!(model(&pieces) == model(name), "{name}: the models differ");
    };
    compare(Kind::Subword, &|out| place.subword(out), "subword");
    compare(Kind::Stage1, &|out| place.stage1(out), "stage1");
    compare(Kind::Stage2, &|out| place.stage2(out, ""), "stage2");
}

#[test]
fn invalid_runs_are_rejected_in_one_sentence() {
    let place = Place::new();
    let refused = |kind: Kind, config: RunConfig| {
        let error =
            block_on(TrainingRun::open(engine(), kind, config, &Texts::default(), false)).err().expect("a refusal");
        eprintln!("{error}");
        assert!(!error.message().contains('\n'));
        error.kind()
    };
    assert_eq!(refused(Kind::Stage1, place.subword("a")), ErrorKind::InvalidArgument);
    assert_eq!(refused(Kind::Stage2, place.subword("a")), ErrorKind::InvalidArgument);
    assert_eq!(refused(Kind::Stage1, place.stage1("a")), ErrorKind::NotFound);
    let mut config = place.subword("a");
    config.data.train = vec![place.path("missing.txt")];
    assert_eq!(refused(Kind::Subword, config), ErrorKind::NotFound);
    let mut config = place.subword("a");
    config.data.tokenizer = Some(place.path("nowhere"));
    assert_eq!(refused(Kind::Subword, config), ErrorKind::NotFound);
    let mut config = place.subword("a");
    std::fs::write(place.path("binary.txt"), [0xff, 0xfe, 0x00]).expect("a file");
    config.data.train = vec![place.path("binary.txt")];
    assert_eq!(refused(Kind::Subword, config), ErrorKind::InvalidArgument);
    let mut config = place.subword("a");
    config.data.train = Vec::new();
    assert_eq!(refused(Kind::Subword, config), ErrorKind::InvalidArgument);
    let mut config = place.subword("a");
    (config.batch.rows, config.batch.subwords) = (1, 30);
    assert_eq!(refused(Kind::Subword, config), ErrorKind::InvalidArgument);
    // An unreadable source is no matter of the batch size.
    let mut config = place.stage1("a");
    std::fs::create_dir(place.path("odd")).expect("a folder");
    std::fs::write(place.path("odd/config.json"), r#"{"model_type": "odd", "vocab_size": 320}"#).expect("a file");
    std::fs::write(place.path("odd/model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").expect("a file");
    config.model.source = Some(place.path("odd"));
    let error =
        block_on(TrainingRun::open(engine(), Kind::Stage1, config, &Texts::default(), false)).err().expect("a refusal");
    eprintln!("{error}");
    assert!(error.kind() == ErrorKind::Unsupported && !error.message().contains("batch"), "{error}");
    // A rate at which training diverges.
    let mut config = place.subword("diverging");
    config.optimizer.rate = 1e30;
    config.optimizer.warmup = 0.0;
    let mut run =
        block_on(TrainingRun::open(engine(), Kind::Subword, config, &Texts::default(), false)).expect("a run");
    let error = block_on(run.go(&mut |_| ControlFlow::Continue(()))).expect_err("a divergence");
    eprintln!("{error}");
    assert!(error.message().contains("diverged") && error.message().starts_with("step "), "{error}");
    // A configuration that differs from the snapshot's.
    let (_, _) = go(Kind::Subword, place.subword("changed"), false, Some(2));
    let mut config = place.subword("changed");
    config.optimizer.rate = 0.5;
    config.every.evaluate = 1;
    let error =
        block_on(TrainingRun::open(engine(), Kind::Subword, config, &Texts::default(), true)).err().expect("a refusal");
    eprintln!("{error}");
    assert!(error.message().contains("`optimiser.rate` was 0.003 and is 0.5"), "{error}");
    assert!(!error.message().contains("every"), "{error}");
    // A snapshot without a newer key resumes; one without a configuration does not.
    let state = place.path("changed/snapshots/step-00000002/state.json");
    let rewrite = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::from_slice(&std::fs::read(&state).expect("a state")).expect("JSON");
        change(&mut value);
        std::fs::write(&state, value.to_string()).expect("a state");
        block_on(TrainingRun::open(engine(), Kind::Subword, place.subword("changed"), &Texts::default(), true))
            .map(|run| run.steps())
    };
    let older = rewrite(&|state| {
        state["config"]["model"].as_object_mut().expect("a table").remove("start").expect("a key");
        for newer in ["kind", "tensors", "checksum"] {
            state.as_object_mut().expect("a table").shift_remove(newer).expect("a key");
        }
    });
    assert_eq!(older.expect("a run that goes on"), 2);
    let error = rewrite(&|state| {
        state.as_object_mut().expect("a table").remove("config").expect("a key");
    });
    let error = error.expect_err("a refusal");
    eprintln!("{error}");
    assert!(error.kind() == ErrorKind::Unsupported && error.message().contains("another version"), "{error}");
}

#[test]
fn damage_to_a_snapshot_is_found() {
    let place = Place::new();
    let (_, _) = go(Kind::Subword, place.subword("b"), false, Some(2));
    let file = |name: &str| place.path("b/snapshots/step-00000002").join(name);
    let resume = || {
        block_on(TrainingRun::open(engine(), Kind::Subword, place.subword("b"), &Texts::default(), true))
            .map(|run| run.steps())
    };
    let refused = |says: &str| {
        let error = resume().expect_err("a refusal");
        eprintln!("{error}");
        assert!(error.message().contains(says) && error.message().contains("delete this snapshot's folder"), "{error}");
        assert!(!error.message().contains('\n'), "{error}");
        error.kind()
    };
    let (state, tensors) = (file("state.json"), file("state.safetensors"));
    let (text, bytes) = (std::fs::read(&state).expect("a state"), std::fs::read(&tensors).expect("tensors"));
    assert_eq!(resume().expect("a run"), 2);
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
    // In the header: a name, and the blanks at its end. In the values: the lowest bit of the first and of the last one.
    for at in [header / 3, header - 1, header, bytes.len() - 4] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        std::fs::write(&tensors, &flipped).expect("tensors");
        assert_eq!(refused("don't match the checksum"), ErrorKind::BadCheckpoint, "byte {at}");
    }
    std::fs::write(&tensors, &bytes[..bytes.len() / 2]).expect("tensors");
    let lengths = format!("expected {} bytes, found {}", bytes.len(), bytes.len() / 2);
    assert_eq!(refused(&lengths), ErrorKind::BadCheckpoint);
    std::fs::write(&tensors, []).expect("tensors");
    assert_eq!(refused("found 0;"), ErrorKind::BadCheckpoint);
    std::fs::remove_file(&tensors).expect("a file");
    assert_eq!(refused("state.safetensors"), ErrorKind::NotFound);
    // The position in the data.
    std::fs::write(&tensors, &bytes).expect("tensors");
    let moved = String::from_utf8(text.clone()).expect("a text").replace("\"row\": 4", "\"row\": 5");
    assert_ne!(moved.as_bytes(), text);
    std::fs::write(&state, moved).expect("a state");
    assert_eq!(refused("don't match the checksum"), ErrorKind::BadCheckpoint);

    // A snapshot of an older version, which has no checksums, is accepted unless it is visibly damaged.
    let mut older: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    for newer in ["tensors", "checksum"] {
        older.as_object_mut().expect("a table").shift_remove(newer).expect("a key");
    }
    std::fs::write(&state, older.to_string()).expect("a state");
    assert_eq!(resume().expect("a run"), 2);
    let mut infinite = bytes.clone();
    infinite[bytes.len() - 4..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    std::fs::write(&tensors, &infinite).expect("tensors");
    assert_eq!(refused("not finite"), ErrorKind::BadCheckpoint);
    std::fs::write(&tensors, &bytes[..bytes.len() / 2]).expect("tensors");
    assert_eq!(refused("not a valid safetensors file"), ErrorKind::BadCheckpoint);
    std::fs::write(&tensors, &bytes).expect("tensors");
    assert_eq!(resume().expect("a run"), 2);
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let place = Place::new();
    let open =
        |resume| block_on(TrainingRun::open(engine(), Kind::Subword, place.subword("o"), &Texts::default(), resume));
    let first = open(false).expect("a run");
    for resume in [false, true] {
        let error = open(resume).err().expect("a refusal");
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.message().contains(&format!("in use by process {}", std::process::id())), "{error}");
    }
    drop(first);
    assert!(!place.path("o").exists(), "a run without a step leaves nothing");
    open(false).expect("a run");
}

/// A finished run gets more steps. The learning rates of those are the new schedule's, and an extension that is
/// interrupted gives the same model as one that is not.
#[test]
fn a_finished_run_is_extended() {
    let place = Place::new();
    let extended = |out: &str| {
        let mut config = place.subword(out);
        (config.optimizer.steps, config.every.snapshot) = (10, 3);
        config
    };
    for out in ["whole", "pieces"] {
        assert!(go(Kind::Subword, place.subword(out), false, None).1.complete);
    }
    let model = |run: &str| std::fs::read(place.path(run).join("model/model.safetensors")).expect("a model");
    let finished = model("whole");
    // Resumed without a change the run is finished, and stays what it is.
    let (steps, outcome) = go(Kind::Subword, place.subword("whole"), true, None);
    assert!(steps.is_empty() && outcome.complete && outcome.steps == 6 && outcome.evaluation.is_some());
    assert!(model("whole") == finished);

    let (whole, outcome) = go(Kind::Subword, extended("whole"), true, None);
    assert!(outcome.complete && outcome.steps == 10 && whole.len() == 4);
    assert!(model("whole") != finished);
    let (mut pieces, outcome) = go(Kind::Subword, extended("pieces"), true, Some(8));
    assert!(!outcome.complete);
    pieces.extend(go(Kind::Subword, extended("pieces"), true, None).0);
    assert_eq!(pieces, whole);
    assert!(model("pieces") == model("whole"), "the models differ");
    let text = std::fs::read_to_string(place.path("whole/metrics.jsonl")).expect("metrics");
    let records: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let steps = records.iter().filter(|record| record["kind"] == "train");
    let rates: Vec<f64> = steps.map(|record| record["learning_rate"].as_f64().expect("a rate")).collect();
    let schedule = |steps| Schedule { steps, warmup: 0.1 };
    let expected = (1..=6).map(|step| schedule(6).factor(step)).chain((7..=10).map(|step| schedule(10).factor(step)));
    assert_eq!(rates, expected.map(|factor| 0.003 * factor).collect::<Vec<_>>());

    // Fewer steps than were made.
    let mut config = extended("whole");
    config.optimizer.steps = 9;
    let error =
        block_on(TrainingRun::open(engine(), Kind::Subword, config, &Texts::default(), true)).err().expect("a refusal");
    assert!(error.message().contains("`optimiser.steps` is 9") && error.message().contains("of step 10"), "{error}");
}

#[test]
fn a_run_deletes_its_own_files_only() {
    let place = Place::new();
    let (_, outcome) = go(Kind::Subword, place.subword("mine"), false, Some(2));
    assert_eq!(outcome.steps, 2);
    let snapshots = place.path("mine/snapshots");
    std::fs::write(snapshots.join("step-00000002/notes.txt"), "mine").expect("a file");
    // As a run leaves it that is killed while it writes a snapshot.
    std::fs::create_dir(snapshots.join(".step-00000003.partial-00ff")).expect("a folder");
    std::fs::write(snapshots.join(".step-00000003.partial-00ff/state.safetensors"), "gigabytes").expect("a file");
    let (_, outcome) = go(Kind::Subword, place.subword("mine"), true, None);
    assert!(outcome.complete);
    let list = |dir: &Path| {
        let entries = std::fs::read_dir(dir).expect("a folder");
        let mut all: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        all.sort();
        all
    };
    assert_eq!(list(&snapshots), ["step-00000002", "step-00000004", "step-00000006"]);
    assert_eq!(list(&snapshots.join("step-00000002")), ["notes.txt"]);

    // Snapshots and models are not begun without space.
    let texts = Texts::default();
    let opened = block_on(TrainingRun::open(engine(), Kind::Subword, place.subword("mine"), &texts, true));
    let mut run = opened.expect("a run");
    let errors = with_free_bytes(999, || [block_on(run.save()).err(), block_on(run.export(&place.path("new"))).err()]);
    for error in errors {
        let error = error.expect("too little space");
        assert!(error.kind() == ErrorKind::Io && error.message().contains("999 bytes free"), "{error}");
    }
    assert_eq!(list(&snapshots).len(), 3);
    // An earlier model is replaced, but no other file.
    let model = place.path("mine/model");
    block_on(run.export(&model)).expect("a model");
    std::fs::write(model.join("README.md"), "mine").expect("a file");
    let error = block_on(run.export(&model)).expect_err("a folder with another file");
    assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains("(README.md)"), "{error}");
    assert!(model.join("README.md").exists());
}

#[test]
fn memory_is_checked_before_it_is_allocated() {
    let place = Place::new();
    // A separate device: the memory of other tests would be counted too.
    let engine = block_on(Engine::open(&engine_options())).expect("an adapter");
    let open = |rows: usize, subwords: usize, memory_mib: Option<u64>| {
        let mut config = place.subword("memory");
        config.batch.rows = rows;
        config.batch.subwords = subwords;
        config.device.memory_mib = memory_mib;
        block_on(TrainingRun::open(&engine, Kind::Subword, config, &Texts::default(), false))
    };
    let bytes = |rows| {
        let before = engine.memory().current_bytes;
        let run = open(rows, 32, None).expect("a run");
        assert_eq!(run.memory_bytes(), engine.memory().current_bytes - before, "{rows} rows");
        run.memory_bytes()
    };
    let (one, all) = (bytes(1), bytes(64));
    assert!(all > 4 * one, "{one} bytes for one row, {all} for 64");

    let fits_again = |mib: u64| {
        let mut config = place.subword("memory");
        (config.batch.rows, config.batch.subwords, config.batch.recompute) = (64, 32, true);
        config.device.memory_mib = Some(mib);
        block_on(TrainingRun::open(&engine, Kind::Subword, config, &Texts::default(), false)).is_ok()
    };
    // The error names a number of rows that fits, and one more does not fit.
    let before = engine.memory().peak_bytes;
    let mib = (all / 2) >> 20;
    let error = open(64, 32, Some(mib)).err().expect("a refusal");
    eprintln!("{error}");
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert_eq!(engine.memory().peak_bytes, before, "memory was taken");
    let number = |message: &str, key: &str| -> usize {
        let (_, rest) = message.split_once(&format!("`{key}` = ")).unwrap_or_else(|| panic!("no {key}: {message}"));
        rest.split(|c: char| !c.is_ascii_digit()).next().expect("a number").parse().expect("a number")
    };
    assert!(error.message().contains("`batch.recompute` = true") == fits_again(mib), "{error}");
    let rows = number(error.message(), "batch.rows");
    assert!(open(rows, 32, Some(mib)).is_ok() && open(rows + 1, 32, Some(mib)).is_err(), "{rows} rows");

    // A single row that is too long.
    let mib = one.div_ceil(1 << 20);
    let error = open(1, 640, Some(mib)).err().expect("a refusal");
    eprintln!("{error}");
    let subwords = number(error.message(), "batch.subwords");
    assert!(open(1, subwords, Some(mib)).is_ok() && open(1, subwords + 4, Some(mib)).is_err(), "{subwords} subwords");
}

/// With the demo model, the ids that the runtime chooses greedily are the most probable ones of the trainer's forward
/// pass over the whole text, with the patch ends; where rounding decides between the two best, either of them.
#[test]
fn runtime_and_trainer_choose_the_same_ids() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo-model");
    let checkpoint = Checkpoint::open(&dir).expect("the demo model");
    let config = checkpoint.config();
    let vocabulary = Vocabulary::open(dir.join("tokenizer.json")).expect("a vocabulary");
    let suffixes = SuffixTrie::new(&vocabulary);
    let mut options = LoadOptions::default();
    options.vocabulary = Some(vocabulary);
    let model = block_on(Model::load(engine(), &checkpoint, options)).expect("a model");

    let shape = Shape { rows: 1, bytes: 192, patches: 96 };
    let options = TrainerOptions {
        shape,
        losses: LossOptions::stage2(),
        adam: AdamOptions::default(),
        schedule: Schedule { steps: 1, warmup: 0.0 },
        half_products: false,
        recompute: false,
        local_rate: 0.0,
        encoder_rate: 0.0,
        global_rate: 0.0,
    };
    let mut trainer = block_on(Trainer::new(engine(), config, options, &checkpoint, None)).expect("a trainer");

    for prompt in ["This is a story about Mia,", "One day, ", "Spell the word \"mole\"."] {
        let mut session = block_on(Session::new(&model)).expect("a session");
        block_on(session.append_bos()).expect("a beginning");
        block_on(session.append(prompt.as_bytes())).expect("a prompt");
        let mut chosen = Vec::new();
        let mut options = GenerateOptions::default();
        options.max_bytes = 120;
        // Whatever the demo model would write, it does not end.
        options.sampling.end_bias = -1e30;
        let mut keep = |piece: Piece<'_>| {
            chosen.extend_from_slice(piece.ids);
            ControlFlow::Continue(())
        };
        block_on(session.generate(&options, &mut keep)).expect("a text");
        assert_eq!(chosen.len(), 120, "{prompt}");

        // Plain ids.
        let plain = |&id: &u16| if id >= FUSED_OFFSET { id - FUSED_OFFSET } else { id };
        let offset = config.byte_offset;
        let begin = 1 + prompt.len();
        let mut ids = vec![config.special.bos];
        ids.extend(prompt.bytes().map(|byte| offset + u16::from(byte)));
        ids.extend(chosen.iter().map(plain));
        let suffixes = suffixes.suffixes(&[], &ids).expect("suffixes");
        let padded = |values: Vec<u32>| values.into_iter().chain(std::iter::repeat(0)).take(shape.bytes).collect();
        let (suffixes, real): (Vec<u32>, usize) = (padded(suffixes), ids.len());
        let ids: Vec<u32> = padded(ids.iter().map(|&id| u32::from(id)).collect());
        let none = vec![0; shape.patches];
        let targets = Targets {
            shape,
            labels: &[IGNORED; 192],
            truth: &[false; 192],
            patch_lens: &none,
            patch_of: &vec![0; shape.bytes],
        };
        let examples = Examples { ids: &ids, suffixes: &suffixes, subwords: &none, targets };
        let logits = block_on(trainer.logits(&examples)).expect("logits");
        // The predictor sees no byte after the last one, which decides about the one before.
        let rows = logits.chunks(config.vocab_size).take(real - 2).skip(begin - 1);
        let compared = rows.len();
        for (at, (row, &id)) in rows.zip(&chosen).enumerate() {
            let largest = row.iter().fold(0.0f32, |largest, logit| largest.max(logit.abs()));
            let close = 2.0 * Roundings::of(config, real).logits() as f32 * largest;
            let allowed = |id: u16| plain(&id) >= config.byte_offset;
            let best = (0..).zip(row).filter(|(id, _)| allowed(*id)).map(|(_, &logit)| logit).fold(f32::MIN, f32::max);
            let logit = row[usize::from(id)];
            assert!(best - logit <= close, "{prompt}: id {id} at {at} has a logit of {logit}, the best {best}");
        }
        assert!(chosen.iter().any(|&id| id >= FUSED_OFFSET) && compared + 1 >= chosen.len());
    }
}
