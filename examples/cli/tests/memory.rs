//! Little address space, as under `ulimit -v`: the command succeeds, or ends with one clean message. Nothing panics,
//! and no signal ends it.

#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use crate::common::{demo_folder, message};

/// MiB above what the command needs to begin. The demo model takes about 25 on one thread; with more, threads reserve
/// up to 72 each.
const LADDER: [u64; 18] = [2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 64, 96, 150, 220, 300, 500, 1000];

/// Runs the command with at most `mib` MiB of address space.
fn run_within(mib: u64, args: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c 0; ulimit -v \"$0\"; exec \"$@\"", &(mib << 10).to_string()]);
    command.arg(env!("CARGO_BIN_EXE_bolmo")).args(args);
    // Whoever has asked for more threads needs more memory.
    command.env("BOLMO_THREADS", "2").env("BOLMO_KERNEL_CACHE", "").env_remove("RUST_LOG");
    command.output().expect("a shell")
}

/// Address space in MiB with which the command begins and reads the files of the demo model.
fn least(args: &[&str]) -> u64 {
    let begins = |mib: &u64| run_within(*mib, args).status.success();
    (16..2000).step_by(4).find(begins).expect("the command begins")
}

/// Whether Rust itself gave up on a small allocation: nothing is left then that could make a message.
fn is_used_up(output: &Output) -> bool {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let bytes = stderr.strip_prefix("memory allocation of ").and_then(|text| text.split(' ').next()?.parse().ok());
    output.status.signal().is_some() && bytes.is_some_and(|bytes: u64| bytes < 64 << 10)
}

/// Runs the command up the ladder, and checks that it succeeds at its end.
fn climb(args: &[&str]) {
    let least = least(&["info"]);
    let mut used_up = 0;
    for more in LADDER {
        let output = run_within(least + more, args);
        match output.status.code() {
            Some(0) => {}
            None if is_used_up(&output) => used_up += 1,
            code => {
                // Text may have been written before.
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!((code, said.trim_end().lines().count()), (Some(1), 1), "{more} MiB more: {said}");
                let reasons = ["memory", "Resource temporarily unavailable"];
                let is_clear = reasons.iter().any(|reason| said.contains(reason)) && said.starts_with("error: ");
                assert!(is_clear, "{more} MiB more: {said}");
            }
        }
    }
    // Which limits these are differs from run to run, with the addresses that the system chooses.
    assert!(used_up * 3 <= LADDER.len(), "{used_up} runs of {} had no memory for a message", LADDER.len());
    let output = run_within(least + 1000, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn little_memory_is_an_error_on_the_cpu() {
    let demo = demo_folder();
    let demo = demo.to_str().expect("UTF-8");
    climb(&["generate", "Once", "--model", demo, "--adapter", "cpu", "--max-bytes", "8", "--quiet"]);
    climb(&[
        "generate",
        "Once",
        "--model",
        demo,
        "--adapter",
        "cpu",
        "--max-bytes",
        "8",
        "--quiet",
        "--quantize",
        "q8",
    ]);
    climb(&["score", "--model", demo, "--adapter", "cpu", "--text", "Once upon a time"]);
}

/// Graphics drivers crash with little address space, so none is loaded.
#[test]
fn little_memory_leaves_graphics_drivers_alone() {
    let demo = demo_folder();
    let demo = demo.to_str().expect("UTF-8");
    // The best adapter is the CPU then.
    for args in [&["devices"][..], &["generate", "Once", "--model", demo, "--max-bytes", "8", "--quiet"]] {
        climb(args);
    }
    let least = least(&["info"]);
    for more in [150, 300, 400, 500, 600, 800, 1000] {
        let args = ["generate", "Once", "--model", demo, "--adapter", "software", "--max-bytes", "8"];
        let said = message(&args, &run_within(least + more, &args), 1);
        assert!(said.contains("no graphics driver is loaded") && said.contains("ulimit -v"), "{said}");
    }
    let listed = run_within(least + 500, &["devices"]);
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("no graphics driver is loaded"), "{listed}");
}
