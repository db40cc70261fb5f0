//! Runs the built command and checks its output.

use std::path::PathBuf;
use std::process::{Command, Output};

/// The command, on the adapter that `BOLMO_ADAPTER` names, if it is set. What the CPU device cannot do is left to the
/// adapter that the command chooses by itself.
pub fn bolmo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bolmo"));
    command.args(args);
    if let Ok(adapter) = std::env::var("BOLMO_ADAPTER")
        && !args.contains(&"--adapter")
        && uses_adapter(args)
        && !(adapter == "cpu" && needs_gradients(args))
    {
        command.args(["--adapter", &adapter]);
    }
    command
}

/// Whether a command uses --adapter. The others warn about it.
fn uses_adapter(args: &[&str]) -> bool {
    match args {
        ["generate" | "score" | "eval" | "devices", ..] | ["train", "subword" | "stage1" | "stage2", ..] => true,
        ["bench", ..] => !args.contains(&"--table"),
        _ => false,
    }
}

/// Whether a command trains or runs a subword model.
fn needs_gradients(args: &[&str]) -> bool {
    args.first() == Some(&"train") || args.contains(&"--train") || args.contains(&"--teacher")
}

/// Runs the command to its end.
pub fn run(args: &[&str]) -> Output {
    bolmo(args).output().expect("the command runs")
}

/// Standard output of a run that must succeed with an empty standard error.
pub fn succeed(args: &[&str]) -> Vec<u8> {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    assert_eq!(stderr, "", "{args:?}");
    output.stdout
}

/// The JSON object of a run that must succeed.
pub fn succeed_json(args: &[&str]) -> serde_json::Value {
    let stdout = succeed(args);
    serde_json::from_slice(&stdout).unwrap_or_else(|e| panic!("{args:?}: {e}: {}", String::from_utf8_lossy(&stdout)))
}

/// Checks that a run failed with `status` and one clean message, which is returned.
pub fn message(args: &[&str], output: &Output, status: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().filter(|line| line.starts_with("error:")).count(), 1, "{args:?}: {stderr}");
    assert!(stderr.starts_with("error: "), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("RUST_BACKTRACE"), "{args:?}: {stderr}");
    if status == 1 {
        assert_eq!(stderr.trim_end().lines().count(), 1, "{args:?}: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{args:?}: {:?}", String::from_utf8_lossy(&output.stdout));
    stderr
}

/// Checks that `args` fail with `status` and a message that contains `word`.
pub fn fail(args: &[&str], status: i32, word: &str) {
    let stderr = message(args, &run(args), status);
    assert!(stderr.contains(word), "{args:?}: expected {word:?} in {stderr}");
}

/// The folder of a golden model in f32, with its tokenizer.
pub fn trained_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/infer/models/nano_trained")
}

/// The folder of the demo model.
pub fn demo_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../demo-model")
}

/// The number of parameters of the demo model.
pub fn demo_parameters() -> usize {
    let bytes = std::fs::read(demo_folder().join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensors().iter().map(|(_, tensor)| tensor.shape().iter().product::<usize>()).sum()
}
