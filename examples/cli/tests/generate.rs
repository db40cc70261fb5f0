//! `bolmo generate` as a program.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use crate::common::{bolmo, demo_folder, message, run, succeed, succeed_json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const PROMPT: &str = "This is a story about Mia,";
/// The ids that a reference in NumPy float64 chose after [`PROMPT`], greedily and with the demo model's weights.
const CHOSEN: [u16; 83] = [
    36, 361, 36, 103, 108, 105, 105, 118, 106, 121, 372, 36, 107, 109, 118, 372, 310, 36, 83, 114, 365, 36, 104, 101,
    385, 308, 36, 119, 108, 365, 36, 123, 105, 114, 380, 36, 120, 375, 36, 120, 108, 365, 36, 102, 109, 367, 36, 115,
    101, 371, 36, 120, 118, 105, 365, 36, 123, 109, 120, 368, 36, 361, 36, 102, 112, 101, 103, 371, 36, 102, 101, 119,
    111, 105, 380, 308, 36, 101, 114, 364, 36, 120, 108,
];

fn chosen_bytes() -> Vec<u8> {
    CHOSEN.iter().map(|&id| u8::try_from(id % 260 - 4).expect("a byte")).collect()
}

fn golden_args() -> Vec<&'static str> {
    vec!["generate", PROMPT, "--max-bytes", "83"]
}

#[test]
fn demo_model_generates_what_the_reference_generated() {
    assert_eq!(String::from_utf8_lossy(&succeed(&golden_args())), String::from_utf8_lossy(&chosen_bytes()));

    let made = succeed_json(&[&golden_args()[..], &["--json"]].concat());
    let patches = CHOSEN.iter().filter(|&&id| id >= 260).count();
    let prompt_ids: Vec<u16> = std::iter::once(1).chain(PROMPT.bytes().map(|b| u16::from(b) + 4)).collect();
    assert_eq!(made["ids"], json!(&CHOSEN[..]));
    assert_eq!(made["text"], json!(String::from_utf8(chosen_bytes()).unwrap()));
    assert_eq!(STANDARD.decode(made["bytes_base64"].as_str().unwrap()).unwrap(), chosen_bytes());
    assert_eq!(made["prompt_ids"], json!(prompt_ids));
    assert_eq!((&made["patches"], &made["stop"]), (&json!(patches), &json!("budget")));
    assert!(made["prefill_seconds"].is_f64() && made["decode_seconds"].is_f64());
    assert!(made["adapter"].as_str().is_some_and(|name| !name.is_empty()));
}

#[test]
fn demo_folder_equals_the_built_in_model() {
    let folder = demo_folder();
    let folder = folder.to_str().unwrap();
    let tokenizer = format!("{folder}/tokenizer.json");
    for more in [vec!["--model", folder], vec!["--model", folder, "--subwords", &tokenizer], vec!["--subwords", folder]]
    {
        assert_eq!(succeed(&[&golden_args()[..], &more].concat()), chosen_bytes(), "{more:?}");
    }
}

#[test]
fn prompts_are_read_from_files_and_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompt");
    // Not UTF-8, and bytes that a line-wise reader would lose.
    fs::write(&file, b"\xff\xfe\0\r\n").unwrap();
    let from_file = succeed_json(&["generate", "--prompt-file", file.to_str().unwrap(), "--max-bytes", "3", "--json"]);
    assert_eq!(from_file["prompt_ids"], json!([1, 259, 258, 4, 17, 14]));

    let mut child = bolmo(&["generate", "--prompt-file", "-", "--max-bytes", "83"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(PROMPT.as_bytes()).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, chosen_bytes());
}

/// Standard output of a run with this standard input.
fn with_stdin(args: &[&str], stdin: impl Into<Stdio>, text: Option<&[u8]>) -> Vec<u8> {
    let mut child = bolmo(args).stdin(stdin).stdout(Stdio::piped()).spawn().unwrap();
    if let Some(text) = text {
        child.stdin.take().unwrap().write_all(text).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}");
    output.stdout
}

#[test]
fn a_pipe_or_a_file_as_standard_input_is_the_prompt_if_there_is_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("prompt");
    fs::write(&file, PROMPT).unwrap();
    for args in [&["generate", "--max-bytes", "83"][..], &["generate", "-", "--max-bytes", "83"]] {
        assert_eq!(with_stdin(args, Stdio::piped(), Some(PROMPT.as_bytes())), chosen_bytes(), "{args:?}");
        assert_eq!(with_stdin(args, fs::File::open(&file).unwrap(), None), chosen_bytes(), "{args:?}");
    }
    #[cfg(unix)]
    {
        let fifo = dir.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let writer = std::thread::spawn({
            let fifo = fifo.clone();
            move || fs::write(fifo, PROMPT)
        });
        let args = ["generate", "--max-bytes", "83"];
        assert_eq!(with_stdin(&args, fs::File::open(&fifo).unwrap(), None), chosen_bytes());
        writer.join().unwrap().unwrap();
    }
    // A prompt on the command line takes precedence.
    assert_eq!(with_stdin(&golden_args(), Stdio::piped(), Some(b"")), chosen_bytes());
    // With `-`, the prompt may be empty.
    let made = with_stdin(&["generate", "-", "--max-bytes", "2", "--json"], Stdio::null(), None);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&made).unwrap()["prompt_ids"], json!([1]));
}

#[test]
fn no_prompt_at_all_is_a_usage_error() {
    let missing = |args: &[&str], stdin: Stdio, word: &str| {
        let output = bolmo(args).stdin(stdin).output().unwrap();
        let stderr = message(args, &output, 2);
        assert!(stderr.contains("--prompt-file") && stderr.contains(word), "{args:?}: {stderr}");
        assert!(stderr.contains("Usage: bolmo generate"), "{stderr}");
    };
    missing(&["generate"], Stdio::null(), "the prompt is missing");
    // A pipe that is closed without a byte.
    missing(&["generate"], Stdio::piped(), "standard input is empty");
    missing(&["generate"], tempfile::tempfile().unwrap().into(), "standard input is empty");
    missing(&["generate", "--json-schema", "-"], Stdio::piped(), "cannot both be standard input");
    missing(&["generate", "-", "--json-schema", "-"], Stdio::piped(), "cannot both be standard input");
    #[cfg(target_os = "linux")]
    {
        missing(&["generate"], fs::File::open("/dev/zero").unwrap().into(), "neither a pipe nor a file");
        let closed = std::process::Command::new("sh")
            .args(["-c", "exec \"$0\" generate <&-", env!("CARGO_BIN_EXE_bolmo")])
            .output()
            .unwrap();
        assert!(message(&["generate <&-"], &closed, 2).contains("the prompt is missing"));
    }
}

#[test]
fn the_prompt_can_be_printed_before_the_text() {
    let whole = [PROMPT.as_bytes(), &chosen_bytes()].concat();
    let echo = [&golden_args()[..], &["--echo"]].concat();
    assert_eq!(succeed(&echo), whole);
    let colored = [&echo[..], &["--show-patches", "--color", "always"]].concat();
    let colored = String::from_utf8(succeed(&colored)).unwrap();
    assert!(colored.starts_with(&format!("\u{1b}[2m{PROMPT}\u{1b}[0m\u{1b}[36m")), "{colored}");
    // The object has the prompt's ids already.
    let made = succeed_json(&[&echo[..], &["--json"]].concat());
    assert_eq!(made["text"], json!(String::from_utf8(chosen_bytes()).unwrap()));
}

#[test]
fn bos_can_be_left_out_and_can_be_the_whole_prompt() {
    let without = succeed_json(&["generate", "ab", "--no-bos", "--max-bytes", "2", "--json"]);
    assert_eq!(without["prompt_ids"], json!([101, 102]));
    let only = succeed_json(&["generate", "", "--max-bytes", "2", "--json"]);
    assert_eq!(only["prompt_ids"], json!([1]));
}

#[test]
fn stop_strings_end_the_text() {
    let text = String::from_utf8(chosen_bytes()).unwrap();
    // Any part of what the model writes.
    let stop = &text[40..46];
    let before = &text[..text.find(stop).unwrap()];
    let args = [&golden_args()[..], &["--stop", "never", "--stop", stop]].concat();
    assert_eq!(succeed(&args), before.as_bytes());
    let made = succeed_json(&[&args[..], &["--json"]].concat());
    assert_eq!((&made["text"], &made["stop"]), (&json!(before), &json!("stop-string")));
    // The ids include those of the stop string.
    assert_eq!(made["ids"].as_array().unwrap().len(), before.len() + stop.len());
}

#[test]
fn texts_match_a_regular_expression() {
    let args = ["generate", "On ", "--regex", "[0-9]{4}-[0-9]{2}", "--max-bytes", "20"];
    let text = String::from_utf8(succeed(&args)).unwrap();
    let (year, month) = text.split_once('-').unwrap();
    assert!(
        year.len() == 4 && month.len() == 2 && year.parse::<u32>().is_ok() && month.parse::<u32>().is_ok(),
        "{text}"
    );

    let made = succeed_json(&[&args[..], &["--json"]].concat());
    assert_eq!((&made["text"], &made["stop"], &made["matched"]), (&json!(text), &json!("complete"), &json!(true)));
    // A pattern may look like an option. Without a pattern, `matched` is null.
    assert_eq!(succeed(&["generate", "a", "--regex", "--x"]), b"--x");
    assert_eq!(succeed_json(&["generate", "a", "--max-bytes", "1", "--json"])["matched"], json!(null));
}

/// The text is written, a line on standard error says that it does not match, and the status is 3. In these tests
/// standard error is a pipe.
#[test]
fn a_text_that_does_not_match_is_reported_with_a_status_of_its_own() {
    let unfinished = |more: &[&str], why: &str| {
        let args = [&["generate", "On ", "--regex", "a{9}"], more].concat();
        let output = run(&args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
        assert!(stderr.contains("does not match its constraint") && stderr.contains(why), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(unfinished(&["--max-bytes", "4"], "--max-bytes"), "aaaa");
    assert_eq!(unfinished(&["--max-bytes", "4", "--quiet"], "--max-bytes"), "aaaa");
    let made: serde_json::Value =
        serde_json::from_str(&unfinished(&["--max-bytes", "4", "--json"], "--max-bytes")).unwrap();
    assert_eq!((&made["text"], &made["stop"], &made["matched"]), (&json!("aaaa"), &json!("budget"), &json!(false)));
    assert_eq!(unfinished(&["--stop", "aa"], "stop string"), "");
}

#[test]
fn texts_are_valid_against_a_json_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "size": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["name", "size"],
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.json");
    fs::write(&file, schema.to_string()).unwrap();
    for temperature in ["0", "1", "5"] {
        let args = ["generate", "A file: ", "--json-schema", file.to_str().unwrap(), "--temperature", temperature];
        let made: serde_json::Value = serde_json::from_slice(&succeed(&args)).unwrap();
        assert!(made["name"].as_str().is_some_and(|name| name.chars().count() <= 20), "{made}");
        assert!(made["size"].as_u64().is_some_and(|size| (1..=99).contains(&size)), "{made}");
    }

    let mut child = bolmo(&["generate", "It is ", "--json-schema", "-", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"const\": [true]}").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"[true]");
}

#[test]
fn texts_do_not_depend_on_the_number_of_threads() {
    let on_cpu = ["--temperature", "0", "--adapter", "cpu"];
    for threads in ["1", "3"] {
        let args = [&golden_args()[..], &on_cpu, &["--threads", threads]].concat();
        assert_eq!(succeed(&args), chosen_bytes(), "{threads} threads");
    }
    let output = bolmo(&[&golden_args()[..], &on_cpu].concat()).env("BOLMO_THREADS", "2").output().unwrap();
    assert_eq!(output.stdout, chosen_bytes());
}

#[test]
fn equal_seeds_draw_equal_bytes() {
    let draw = |seed: &str| {
        let sampling = ["--temperature", "1.5", "--top-k", "200", "--top-p", "0.99", "--min-p", "0.0001"];
        succeed(&[&["generate", "import", "--max-bytes", "40", "--seed", seed], &sampling[..]].concat())
    };
    let first = draw("7");
    assert_eq!(first, draw("7"));
    assert_ne!(first, draw("8"));
}

#[test]
fn biases_change_bytes_and_patches() {
    let args = ["generate", "a", "--max-bytes", "5", "--logit-bias", "z=1000", "--boundary-bias", "-1000", "--json"];
    let made = succeed_json(&args);
    assert_eq!((&made["text"], &made["patches"]), (&json!("zzzzz"), &json!(0)));
    let made = succeed_json(&["generate", "a", "--max-bytes", "3", "--logit-bias", "0xff=1000", "--json"]);
    assert_eq!((&made["text"], &made["bytes_base64"]), (&json!("\u{fffd}\u{fffd}\u{fffd}"), &json!("////")));
    // The end of the text is chosen once every byte is ruled out.
    let none: Vec<String> = (0..=255).map(|byte| format!("--logit-bias=0x{byte:02x}=-100000")).collect();
    let mut args = vec!["generate", "a", "--json"];
    args.extend(none.iter().map(String::as_str));
    let made = succeed_json(&args);
    assert_eq!((&made["text"], &made["stop"]), (&json!(""), &json!("end")));
    assert!(made["ids"] == json!([1]) || made["ids"] == json!([261]), "{made}");
}

#[test]
fn patches_are_marked_and_colored() {
    let mut marked = String::new();
    for (i, (byte, id)) in chosen_bytes().into_iter().zip(CHOSEN).enumerate() {
        marked.push(char::from(byte));
        if id >= 260 && i + 1 < CHOSEN.len() {
            marked.push('|');
        }
    }
    let args = [&golden_args()[..], &["--show-patches"]].concat();
    assert_eq!(String::from_utf8(succeed(&args)).unwrap(), marked);
    assert_eq!(String::from_utf8(succeed(&[&args[..], &["--color", "never"]].concat())).unwrap(), marked);

    let colored = String::from_utf8(succeed(&[&args[..], &["--color", "always"]].concat())).unwrap();
    assert!(colored.contains("\u{1b}[36m") && colored.contains("\u{1b}[33m"), "{colored}");
    let forced = bolmo(&args).env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR").output().unwrap();
    assert_eq!(String::from_utf8(forced.stdout).unwrap(), colored);
}

#[test]
fn f16_weights_generate() {
    assert_eq!(succeed(&["generate", PROMPT, "--max-bytes", "10", "--quantize", "f16"]).len(), 10);
}

#[test]
fn a_closed_standard_output_is_not_an_error() {
    for more in [&[][..], &["--show-patches"], &["--json"]] {
        let args = [&["generate", "import os", "--max-bytes", "2000"], more].concat();
        let mut child = bolmo(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        if more != ["--json"] {
            stdout.read_exact(&mut [0; 5]).unwrap();
        }
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}
