//! `bolmo train` as a program: runs that are killed, and mistakes.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::common::{bolmo, fail, run, succeed, succeed_json};
use serde_json::Value;

/// Writes texts, a tokenizer and the configuration of a small run to `dir`. Returns the configuration's path.
pub fn prepare(dir: &Path) -> String {
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let texts = path("texts");
    succeed(&["train", "corpus", "--out", &texts, "--bytes", "60000", "--held-out-bytes", "8000"]);
    succeed(&["train", "tokenizer", &format!("{texts}/train.txt"), "--vocabulary", "320", "--out", &path("tokenizer")]);
    let config = format!(
        "out = '{}'\n[model.new]\nhidden_size = 32\nlayers = 1\nheads = 2\nintermediate_size = 64\n\
         [data]\ntrain = ['{texts}/train.txt']\nheld_out = ['{texts}/held_out.txt']\ntokenizer = '{}'\n\
         [batch]\nrows = 2\nsubwords = 32\n[optimiser]\nsteps = 40\nrate = 0.003\n\
         [every]\nsnapshot = 3\nkeep = 2\nevaluate = 20\nevaluate_batches = 1\n",
        path("whole"),
        path("tokenizer"),
    );
    fs::write(dir.join("run.toml"), config).unwrap();
    path("run.toml")
}

/// The result of each step in the metrics file, without times.
fn curve(run: &Path) -> Vec<(u64, String, Value)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let of = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let kind = record["kind"].as_str().unwrap().to_owned();
        (record["step"].as_u64().unwrap(), kind, record["loss"].clone())
    };
    text.lines().map(of).collect()
}

/// Number of times that a run is killed: `BOLMO_KILLS`, or a few.
fn kills() -> u64 {
    std::env::var("BOLMO_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

#[test]
fn a_run_killed_at_any_moment_resumes_to_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = prepare(dir.path());
    let report = succeed_json(&["train", "subword", "--config", &config, "--json", "--quiet"]);
    assert_eq!((report["complete"].as_bool(), report["steps"].as_u64()), (Some(true), Some(40)));
    let killed = dir.path().join("killed");
    let out = format!("out={}", killed.display());
    let resume = ["train", "subword", "--config", &config, "--set", &out, "--resume", "--json", "--quiet"];
    for attempt in 0..kills() {
        let mut child = bolmo(&resume).stdout(std::process::Stdio::null()).spawn().unwrap();
        // Each attempt is killed at a different moment: during the start, a step or a write.
        sleep(Duration::from_millis(300 + attempt * 397 % 2900));
        // The run may have finished.
        let _ = child.kill();
        child.wait().unwrap();
    }
    let report = succeed_json(&resume);
    assert_eq!(report["complete"].as_bool(), Some(true));
    assert_eq!(curve(&killed), curve(&dir.path().join("whole")));
    let model = |run: &str| fs::read(dir.path().join(run).join("model/model.safetensors")).unwrap();
    assert!(model("killed") == model("whole"), "the models differ");
    assert!(killed.join("curves.svg").exists() && killed.join("summary.json").exists());
    let svg = fs::metadata(killed.join("curves.svg")).unwrap().len();
    fs::remove_file(killed.join("curves.svg")).unwrap();
    succeed(&["train", "plot", killed.to_str().unwrap()]);
    assert!(svg > 1000 && killed.join("curves.svg").exists());
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let config = prepare(dir.path());
    let out = dir.path().join("whole");
    let endless = ["train", "subword", "--config", &config, "--set", "optimiser.steps=1000000", "--quiet"];
    let mut first = bolmo(&endless).stdout(std::process::Stdio::null()).spawn().unwrap();
    let metrics = out.join("metrics.jsonl");
    let has_steps = || fs::read_to_string(&metrics).is_ok_and(|text| text.lines().count() > 2);
    for _ in 0..600 {
        if has_steps() || first.try_wait().unwrap().is_some() {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    assert!(has_steps());
    let named = format!("in use by process {}", first.id());
    fail(&endless, 1, &named);
    let resumed = [&endless[..], &["--resume"]].concat();
    fail(&resumed, 1, &named);
    // Readers are not kept out.
    succeed(&["train", "plot", out.to_str().unwrap()]);
    assert!(first.try_wait().unwrap().is_none(), "the first run goes on");
    let before = fs::read_to_string(&metrics).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    // No line of the first run is lost, and its end frees the folder.
    assert!(fs::read_to_string(&metrics).unwrap().starts_with(&before));
    let short = ["train", "subword", "--config", &config, "--set", "optimiser.steps=1", "--quiet", "--json"];
    fail(&short, 1, "holds a run already");
}

#[test]
fn a_finished_run_is_extended_with_more_steps() {
    let dir = tempfile::tempdir().unwrap();
    let config = prepare(dir.path());
    let run = ["train", "subword", "--config", &config, "--quiet", "--json", "--set", "optimiser.steps=2"];
    assert_eq!(succeed_json(&run)["steps"].as_u64(), Some(2));
    fail(&run, 1, "optimiser.steps");
    let more = |set: &'static str| {
        let mut args = vec!["train", "subword", "--config", &config, "--json", "--resume", "--set", set];
        args.push("--quiet");
        args
    };
    let report = succeed_json(&more("optimiser.steps=3"));
    assert_eq!((report["complete"].as_bool(), report["steps"].as_u64()), (Some(true), Some(3)));
    fail(&more("optimiser.steps=2"), 1, "set it to at least 3");
    fail(&more("optimiser.rate=0.5"), 1, "`optimiser.rate` was 0.003 and is 0.5");
    // Who watches is told what changes.
    let told = bolmo(&["train", "subword", "--config", &config, "--resume", "--set", "optimiser.steps=4"]);
    let output = { told }.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("from the snapshot of step 3, changed from 3 to 4 steps"), "{stderr}");
}

#[test]
fn init_writes_a_configuration_that_trains() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for stage in ["subword", "stage1", "stage2"] {
        let text = succeed(&["train", "init", stage]);
        let file = path(&format!("{stage}.toml"));
        succeed(&["train", "init", stage, "--out", &file]);
        assert_eq!(fs::read(&file).unwrap(), text);
        // A file is not overwritten.
        fail(&["train", "init", stage, "--out", &file], 1, "exists already");
    }
    fail(&["train", "init"], 2, "STAGE");
    fail(&["train", "init", "stage3"], 2, "stage3");
    fail(&["train", "init", "subword", "--out", &path("nowhere/x.toml")], 1, "the folder does not exist");
    // As it is, the first thing that is missing has its key in the message.
    fail(&["train", "stage1", "--config", &path("stage1.toml")], 1, "`model.source`: runs/subword/model: there is no");
    fail(&["train", "stage2", "--config", &path("stage2.toml")], 1, "`model.student`: runs/stage1/model: there is no");

    // The paths are filled in, and the sizes lowered, so that the test takes seconds.
    let small: Vec<String> = ["batch.rows=2", "batch.subwords=32", "optimiser.steps=2", "every.evaluate_batches=1"]
        .map(str::to_owned)
        .into_iter()
        .chain([
            format!("data.train=['{}']", path("texts/train.txt")),
            format!("data.held_out=['{}']", path("texts/held_out.txt")),
            format!("data.tokenizer={}", path("tokenizer")),
        ])
        .collect();
    let local = ["encoder_layers=1", "decoder_layers=1", "heads=2", "intermediate_size=32"];
    let local = local.map(|key| format!("model.local.{key}"));
    let new = ["hidden_size=32", "layers=1", "heads=2", "intermediate_size=64"].map(|key| format!("model.new.{key}"));
    for (stage, own) in [
        ("subword", new.to_vec()),
        ("stage1", [&local[..], &[format!("model.source={}", path("runs/subword/model"))]].concat()),
        ("stage2", vec![format!("model.student={}", path("runs/stage1/model"))]),
    ] {
        let (file, out) = (path(&format!("{stage}.toml")), format!("out={}", path(&format!("runs/{stage}"))));
        let mut args = vec!["train", stage, "--config", &file, "--quiet", "--json", "--set", &out];
        small.iter().chain(&own).for_each(|key| args.extend(["--set", key.as_str()]));
        let report = succeed_json(&args);
        assert_eq!((report["complete"].as_bool(), report["steps"].as_u64()), (Some(true), Some(2)), "{stage}");
    }
}

/// `docs/training.md` has the reference of keys. BOLMO_UPDATE=1 writes it.
#[test]
fn the_documented_keys_are_those_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/training.md");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("<!-- keys: begin -->\n").expect("the beginning of the reference");
    let (_, after) = rest.split_once("<!-- keys: end -->\n").expect("the end of the reference");
    let reference = bolmo_training::run::reference();
    let current = format!("{before}<!-- keys: begin -->\n{reference}<!-- keys: end -->\n{after}");
    if std::env::var("BOLMO_UPDATE").is_ok_and(|update| update == "1") {
        fs::write(&file, &current).unwrap();
    } else {
        assert!(text == current, "docs/training.md differs from the code; run this test with BOLMO_UPDATE=1");
    }
}

#[test]
fn mistakes_give_one_clean_message() {
    let dir = tempfile::tempdir().unwrap();
    let config = prepare(dir.path());
    assert_eq!(run(&["train"]).status.code(), Some(2));
    fail(&["train", "subword"], 2, "--config");
    fail(&["train", "subword", "--config", "missing.toml"], 1, "missing.toml");
    fail(&["train", "subword", "--config", &config, "--set", "optimiser.stpes=3"], 1, "stpes");
    fail(&["train", "subword", "--config", &config, "--set", "nothing"], 1, "key=value");
    fail(&["train", "stage1", "--config", &config], 1, "model.source");
    fail(&["train", "stage2", "--config", &config], 1, "model.student");
    fail(&["train", "subword", "--config", &config, "--target-compression", "4"], 1, "stage 2");
    fail(&["train", "stage2", "--config", &config, "--target-compression", "0.5"], 1, "found 0.5");
    fail(&["train", "tokenizer", "missing.txt", "--out", "x"], 1, "missing.txt");
    let wrong = |set: &str, says: &str| fail(&["train", "subword", "--config", &config, "--set", set], 1, says);
    wrong("batch.subwords=1", "`batch.subwords` must be a whole number from 2 to 65535 (subwords), found 1");
    wrong("data.train=[]", "nothing to train on; name files with `data.train`");
    wrong("data.train=text.txt", "`data.train` must be a list of paths in quotes, found the string \"text.txt\"");
    wrong("optimizer.steps=1", "`optimizer` is not a key; the top level has `out`, ");
    let nowhere = dir.path().join("nowhere").display().to_string();
    let stage1 = ["train", "stage1", "--config", &config, "--set", &format!("model.source={nowhere}")];
    fail(&stage1, 1, &format!("`model.source`: {nowhere}: there is no such folder"));
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "\n\n").unwrap();
    let out = dir.path().join("none");
    let (empty, out) = (empty.to_str().unwrap(), out.to_str().unwrap());
    fail(&["train", "tokenizer", empty, "--out", out], 1, "no text to learn subwords from");
    assert!(!std::path::Path::new(out).exists());
    std::fs::write(empty, "").unwrap();
    let held_out = format!("data.held_out=['{empty}']");
    wrong(&held_out, &format!("`data.held_out`: {empty}: there is no text"));
    let short = ["train", "subword", "--config", &config, "--set", "optimiser.steps=1", "--quiet", "--json"];
    succeed_json(&short);
    fail(&short, 1, "resume");
    assert_eq!(run(&["train", "plot", "nowhere"]).status.code(), Some(1));
}
