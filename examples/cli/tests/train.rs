//! `bolmo train` as a program: runs that are killed, and mistakes.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::common::{bolmo, fail, message, run, succeed, succeed_json};
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
    fail(&["train", "stage2", "--config", &config, "--target-compression", "0.5"], 1, "0.5 bytes a patch");
    fail(&["train", "tokenizer", "missing.txt", "--out", "x"], 1, "missing.txt");
    let empty = dir.path().join("empty.txt");
    std::fs::write(&empty, "\n\n").unwrap();
    let out = dir.path().join("none");
    let (empty, out) = (empty.to_str().unwrap(), out.to_str().unwrap());
    fail(&["train", "tokenizer", empty, "--out", out], 1, "no text to learn subwords from");
    assert!(!std::path::Path::new(out).exists());
    let short = ["train", "subword", "--config", &config, "--set", "optimiser.steps=1", "--quiet", "--json"];
    // The refusal names what trains, and leaves nothing that the next run would have to resume.
    let on_cpu = [&short[..], &["--adapter", "cpu"]].concat();
    let refused = message(&on_cpu, &run(&on_cpu), 1);
    assert!(refused.contains("CPU device") && refused.contains("`software`"), "{refused}");
    succeed_json(&short);
    fail(&short, 1, "resume");
    assert_eq!(run(&["train", "plot", "nowhere"]).status.code(), Some(1));
}
