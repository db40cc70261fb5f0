//! Every mistake of a user gives one clean message and the right exit status.

use std::fs;

use crate::common::{bolmo, fail, message, run, succeed, trained_folder};

#[test]
fn help_and_version_are_printed() {
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let text = String::from_utf8(succeed(args)).unwrap();
        for word in [
            "generate",
            "score",
            "info",
            "devices",
            "init",
            "quantize",
            "merge",
            "eval",
            "train",
            "bench",
            "--model",
            "--json",
            "Examples:",
        ] {
            assert!(text.contains(word), "{args:?}: no {word} in {text}");
        }
    }
    for command in ["generate", "score", "info", "devices", "init", "quantize", "merge", "eval", "train", "bench"] {
        assert!(String::from_utf8(run(&[command, "--help"]).stdout).unwrap().contains("Usage: bolmo"), "{command}");
    }
    assert_eq!(String::from_utf8(succeed(&["--version"])).unwrap(), concat!("bolmo ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_options_are_usage_errors() {
    fail(&["generate", "a", "--wrong"], 2, "--wrong");
    fail(&["wrong"], 2, "wrong");
    fail(&["generate"], 2, "--prompt-file");
    fail(&["generate", "a", "--prompt-file", "b"], 2, "--prompt-file");
    fail(&["generate", "", "--no-bos"], 2, "empty");
    fail(&["generate", "--prompt-file", empty().path().to_str().unwrap(), "--no-bos"], 2, "empty");
    for (option, values) in [
        ("--max-bytes", &["0", "-1", "1.5", "x", ""][..]),
        ("--temperature", &["-1", "nan", "inf", "x"]),
        ("--top-k", &["-1", "x"]),
        ("--top-p", &["0", "1.1", "-1"]),
        ("--min-p", &["-0.1", "1.1"]),
        ("--repetition-penalty", &["0", "-1", "inf"]),
        ("--repetition-window", &["-1"]),
        ("--seed", &["-1", "1.5", "18446744073709551616"]),
        ("--boundary-bias", &["nan", "x"]),
        ("--logit-bias", &["x", "xy=1", "x=y", "0x100=1"]),
        ("--quantize", &["f8", "F8", "", "q8,", "q8,head=q4", "local=q8", "q4,local"]),
        ("--rope-theta", &["0", "-5", "x"]),
        ("--rope-scaling", &["", "yarn", "yarn:factor=0", "yarn:factor=1e300", "ntk:factor=2", "{}"]),
        ("--threads", &["0", "-1", "257", "x", ""]),
        ("--adapter", &["", " "]),
        ("--color", &["red"]),
    ] {
        for value in values {
            fail(&["generate", "a", option, value], 2, option);
        }
    }
    fail(&["generate", "a", "--stop", ""], 2, "stop string");
    fail(&["score"], 2, "--text");
    fail(&["score", "--text", "a", "--file", "b"], 2, "cannot be used with");
    fail(&["init", "--preset", "giant", "--out", "x"], 2, "giant");
    fail(&["init", "--preset", "nano"], 2, "--out");
    fail(&["init", "--preset", "nano", "--out", "x", "--dtype", "f64"], 2, "--dtype");
    // Without a command the help goes to standard error.
    let nothing = run(&[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("Usage: bolmo"));
}

#[test]
fn invalid_constraints_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.json");
    let name = file.to_str().unwrap();
    // Detected before anything is loaded: the model does not exist.
    let start = ["generate", "a", "--model", "nowhere"];
    for (pattern, word) in
        [("(", "byte 0"), ("a{1000}{1000}", "too large"), (r"\bx", "(?-u:"), ("a^", "matches no text")]
    {
        fail(&[&start[..], &["--regex", pattern]].concat(), 2, word);
    }
    for (schema, word) in [
        ("{", "not JSON"),
        ("7", "schema at #"),
        (r#"{"items": {"not": {}}}"#, "schema at #/items: `not`"),
        ("false", "matches no text"),
    ] {
        fs::write(&file, schema).unwrap();
        fail(&[&start[..], &["--json-schema", name]].concat(), 2, word);
        fail(&[&start[..], &["--json-schema", name]].concat(), 2, name);
    }
    fs::write(&file, " ".repeat((1 << 20) + 1)).unwrap();
    fail(&[&start[..], &["--json-schema", name]].concat(), 2, "1048576");
    fail(&[&start[..], &["--json-schema", "no-such-file"]].concat(), 1, "no-such-file");
    fail(&[&start[..], &["--json-schema", name, "--regex", "a"]].concat(), 2, "cannot be used with");
    fail(&["generate", "--prompt-file", "-", "--json-schema", "-"], 2, "standard input");
}

fn empty() -> tempfile::NamedTempFile {
    tempfile::NamedTempFile::new().unwrap()
}

#[test]
fn missing_and_invalid_files_are_reported_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("file"), "not JSON").unwrap();
    fs::create_dir(path("folder")).unwrap();
    let whole = trained_folder();
    fs::create_dir(path("bare")).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(whole.join(name), dir.path().join("bare").join(name)).unwrap();
    }

    for command in [&["generate", "a"][..], &["score", "--text", "a"], &["info"]] {
        let with = |more: &[&'static str], value: &str, word: &str| {
            let mut args = [command, more].concat();
            let value = path(value);
            args.push(&value);
            fail(&args, 1, word);
        };
        with(&["--model"], "nowhere", "nowhere");
        with(&["--model"], "file", "is a file");
        with(&["--model"], "folder", "config.json");
        with(&["--subwords"], "nowhere", "nowhere");
        with(&["--subwords"], "file", "JSON");
        with(&["--subwords"], "folder", "tokenizer.json");
    }
    fail(&["generate", "a", "--model", &path("bare")], 1, "allenai/dolma2-tokenizer");
    fail(&["generate", "--prompt-file", &path("nowhere")], 1, "nowhere");
    fail(&["generate", "--prompt-file", &path("folder")], 1, "folder");
    fail(&["score", "--file", &path("nowhere")], 1, "nowhere");
    fail(&["score", "--file", empty().path().to_str().unwrap()], 1, "nothing to score");
    fail(&["score", "--text", ""], 1, "nothing to score");

    // Names are quoted on one line, whatever they contain.
    fail(&["generate", "--prompt-file", "no\nsuch\u{1b}[31m\nfile"], 1, "no; such\u{fffd}[31m; file");
}

#[test]
fn a_missing_adapter_is_reported_by_name() {
    fail(&["generate", "a", "--adapter", "no such adapter"], 1, "no such adapter");
    fail(&["generate", "a", "--adapter", "4096"], 1, "4096");
}

#[test]
fn a_wrong_number_of_threads_in_the_environment_is_reported() {
    let args = ["generate", "a", "--max-bytes", "1", "--adapter", "cpu"];
    for threads in ["0", "-1", "257", "x"] {
        let output = bolmo(&args).env("BOLMO_THREADS", threads).output().unwrap();
        let stderr = message(&args, &output, 1);
        assert!(stderr.contains("BOLMO_THREADS") && stderr.contains(&format!("{threads:?}")), "{stderr}");
    }
    // The option takes precedence.
    let output = bolmo(&[&args[..], &["--threads", "1"]].concat()).env("BOLMO_THREADS", "0").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_folder_with_files_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mine"), "mine").unwrap();
    fail(&["init", "--preset", "nano", "--out", dir.path().to_str().unwrap()], 1, "files in it");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn invalid_id_lists_are_reported_with_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ids.json");
    let file_name = file.to_str().unwrap();
    for (text, word) in [
        ("", "line 1"),
        ("[1, 5", "line 1"),
        ("{\"ids\": [1, 5]}", "JSON array"),
        ("[1, \"a\"]", "column"),
        ("[1, 5.5]", "5.5"),
        ("[1, -5]", "-5"),
        ("[1, 2]", "id 2 at position 1"),
        ("[3, 5]", "id 3 at position 0"),
        ("[1, 5, 300]", "id 300 at position 2"),
        ("[1, 5, 4294967296]", "column"),
        ("[]", "at least 2"),
        ("[1]", "at least 2"),
    ] {
        fs::write(&file, text).unwrap();
        fail(&["score", "--ids", file_name], 1, word);
        fail(&["score", "--ids", file_name], 1, file_name);
    }
}

#[test]
fn invalid_boundary_lists_are_reported_with_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let (ids, ends) = (dir.path().join("ids.json"), dir.path().join("ends.json"));
    fs::write(&ids, "[1, 69, 70]").unwrap();
    let (ids, ends_name) = (ids.to_str().unwrap(), ends.to_str().unwrap());
    for (text, word) in [
        ("[1, 0", "line 1"),
        ("[1, true, 0]", "JSON array"),
        ("[1, 2, 0]", "position 1"),
        ("[1, 0]", "found 2"),
        ("[0, 0, 0]", "position 0"),
    ] {
        fs::write(&ends, text).unwrap();
        fail(&["score", "--ids", ids, "--boundaries", ends_name], 1, word);
    }
    fs::write(&ends, "[1, 0, 0]").unwrap();
    fail(&["score", "--text", "ab", "--boundaries", ends_name], 1, "2 bytes");
    fail(&["score", "--ids", ids, "--boundaries", "nowhere.json"], 1, "nowhere.json");
}

#[test]
fn an_unwritable_dump_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    fail(&["score", "--text", "a", "--dump", dir.path().to_str().unwrap()], 1, "is a folder");
    let nowhere = dir.path().join("nowhere/out.safetensors");
    fail(&["score", "--text", "a", "--dump", nowhere.to_str().unwrap()], 1, "does not exist");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let args = ["info"];
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = bolmo(&args).stdout(full).output().unwrap();
    assert!(message(&args, &output, 1).contains("standard output"));
}
