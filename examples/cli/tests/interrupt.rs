//! Signals end a command with 128 plus their number, once what there is has been kept.
#![cfg(unix)]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::{bolmo, message, succeed};
use crate::train::prepare;
use serde_json::Value;

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command runs")
}

/// Runs a command that takes long and interrupts it. Repeats that with a later interrupt until `kept` says that the
/// output has a result.
fn interrupted(args: &[&str], kept: impl Fn(&Output) -> bool) -> Output {
    for seconds in [1, 2, 4, 8, 16] {
        let child = start(&mut bolmo(args));
        sleep(Duration::from_secs(seconds));
        send(&child, "INT");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        if kept(&output) {
            return output;
        }
    }
    panic!("{args:?}: there was never anything to keep");
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether children ignore SIGHUP, as below `nohup`.
fn ignores_hangup() -> bool {
    let output = Command::new("sh").args(["-c", "kill -HUP $$; echo alive"]).output().unwrap();
    output.stdout.starts_with(b"alive")
}

#[test]
fn the_generated_text_is_kept() {
    let endless = ["generate", "This is a story about Mia,", "--max-bytes", "10000000", "--logit-bias", "a=1000"];
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        if signal == "HUP" && ignores_hangup() {
            println!("skipped: SIGHUP is ignored");
            continue;
        }
        let mut child = start(&mut bolmo(&endless));
        let mut text = vec![0; 20];
        child.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{signal}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{signal}");
        text.extend(output.stdout);
        assert!(text.iter().all(|&byte| byte == b'a'), "{signal}");
    }
    let output = interrupted(&[&endless[..], &["--json"]].concat(), |output| !output.stdout.is_empty());
    assert_eq!(json(&output)["stop"], "cancelled");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // A text that the user cut off does not match its constraint. Nothing is said about that.
    let constrained =
        ["generate", "a", "--regex", "a*b", "--max-bytes", "10000000", "--logit-bias", "a=1000", "--json"];
    let output = interrupted(&constrained, |output| !output.stdout.is_empty());
    assert_eq!((&json(&output)["stop"], &json(&output)["matched"]), (&"cancelled".into(), &false.into()));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// `nohup bolmo …` continues when the terminal is closed.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let script = "trap '' HUP; exec \"$0\" generate a --max-bytes 10000000 --logit-bias a=1000";
    let mut child = start(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_bolmo")]));
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 20]).unwrap();
    send(&child, "HUP");
    send(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
}

#[test]
fn work_without_a_result_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "Mia and the cat. ".repeat(200_000)).unwrap();
    let text = text.to_str().unwrap();
    for args in [
        &["score", "--file", text][..],
        &["score", "--file", text, "--against", "f16"],
        &["generate", "--prompt-file", text],
        &["bench", "--prompt-bytes", "20", "--decode-bytes", "100000000"],
    ] {
        let child = start(&mut bolmo(args));
        sleep(Duration::from_secs(2));
        send(&child, "INT");
        let stderr = message(args, &child.wait_with_output().unwrap(), 130);
        assert!(["stopped", "cancelled"].iter().any(|word| stderr.contains(word)), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    }
}

#[test]
fn unfinished_folders_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mid = path("mid");
    let left = || fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let stop = |args: &[&str]| {
        let before = left();
        let child = start(&mut bolmo(args));
        for _ in 0..600 {
            if left() != before {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        send(&child, "INT");
        let stderr = message(args, &child.wait_with_output().unwrap(), 130);
        assert!(stderr.contains("cancelled"), "{args:?}: {stderr}");
        assert_eq!(left(), before, "{args:?}");
    };
    stop(&["init", "--preset", "mid", "--out", &mid]);
}

#[test]
fn the_measured_part_of_an_evaluation_is_printed() {
    let args = ["eval", "--suite", "--examples", "2000", "--json"];
    let output = interrupted(&args, |output| !output.stdout.is_empty());
    assert_eq!(json(&output)["complete"], false);
    // One long document is left in the middle, and does not count.
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "Mia and the cat. ".repeat(200_000)).unwrap();
    let args = ["eval", "--text-file", text.to_str().unwrap(), "--json"];
    let output = interrupted(&args, |output| !output.stdout.is_empty());
    assert_eq!((&json(&output)["complete"], &json(&output)["text"]["documents"]), (&false.into(), &0.into()));
}

#[test]
fn a_training_run_is_saved_and_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let config = prepare(dir.path());
    let run = dir.path().join("whole");
    let train = ["train", "subword", "--config", &config, "--json", "--quiet"];
    let endless = [&train[..], &["--set", "optimiser.steps=1000000", "--set", "every.snapshot=1000000"]].concat();
    let child = start(&mut bolmo(&endless));
    // Once a step is in the metrics, there is something to keep.
    let steps = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default().lines().count();
    for _ in 0..600 {
        if steps(&run) > 2 {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    send(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    let report = json(&output);
    assert_eq!(report["complete"], false);
    let done = report["steps"].as_u64().unwrap();
    assert!(done > 0, "{report}");
    let text = String::from_utf8(succeed(&["train", "plot", run.to_str().unwrap()])).unwrap();
    assert!(text.contains("curves.svg"), "{text}");
    // It resumes from there, and can be stopped again. Evaluations have lines too.
    let before = steps(&run);
    let child = start(&mut bolmo(&[&endless[..], &["--resume"]].concat()));
    for _ in 0..600 {
        if steps(&run) > before + 2 {
            break;
        }
        sleep(Duration::from_millis(100));
    }
    send(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(json(&output)["steps"].as_u64().unwrap() > done);
}
