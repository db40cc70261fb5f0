//! Common options: accepted everywhere, hidden and warned about where they do nothing. Completions and manual pages.

use std::fs;

use crate::common::{bolmo, fail, run, succeed};

/// Options that the help of a command has, of the common ones.
fn shown(command: &[&str]) -> Vec<&'static str> {
    let help = String::from_utf8(succeed(&[command, &["--help"]].concat())).unwrap();
    let all = [
        "--model",
        "--subwords",
        "--adapter",
        "--threads",
        "--quantize",
        "--products",
        "--rope-theta",
        "--json",
        "--quiet",
    ];
    let has = |option: &str| help.lines().any(|line| line.trim_start().trim_start_matches("-q, ").starts_with(option));
    all.into_iter().filter(|option| has(option)).collect()
}

#[test]
fn help_shows_the_common_options_that_a_command_uses() {
    let all = shown(&[]);
    assert_eq!(all.len(), 9);
    for command in ["generate", "score", "eval", "bench"] {
        assert_eq!(shown(&[command]), all, "{command}");
    }
    assert_eq!(shown(&["info"]), ["--model", "--subwords", "--rope-theta", "--json", "--quiet"]);
    assert_eq!(shown(&["devices"]), ["--adapter", "--json", "--quiet"]);
    assert_eq!(shown(&["init"]), ["--json", "--quiet"]);
    assert_eq!(shown(&["quantize"]), ["--model", "--subwords", "--quantize", "--json", "--quiet"]);
    assert_eq!(shown(&["merge"]), ["--json", "--quiet"]);
    assert_eq!(shown(&["train"]), ["--adapter", "--threads", "--json", "--quiet"]);
    assert_eq!(shown(&["train", "stage2"]), ["--adapter", "--threads", "--json", "--quiet"]);
    assert_eq!(shown(&["train", "corpus"]), ["--json", "--quiet"]);
    assert_eq!(shown(&["completions"]), ["--quiet"]);
    // `bolmo help COMMAND` shows the same.
    let help = String::from_utf8(succeed(&["help", "merge"])).unwrap();
    assert!(!help.contains("--threads") && help.contains("--json"), "{help}");
}

#[test]
fn common_options_that_do_nothing_are_accepted_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let out = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let warned = |args: &[&str], expected: &[&str]| {
        let output = run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().collect::<Vec<_>>(), expected, "{args:?}");
    };
    warned(
        &["--threads", "2", "init", "--preset", "nano", "--out", &out("one"), "--model", "nowhere"],
        &["warning: --model has no effect on `bolmo init`", "warning: --threads has no effect on `bolmo init`"],
    );
    warned(&["init", "--preset", "nano", "--out", &out("two"), "--threads", "2", "--quiet"], &[]);
    let instead = "it is not stored; pass it when you load the new folder";
    warned(
        &["quantize", "--quantize", "q8", "--rope-theta", "5", "--out", &out("three")],
        &[&format!("warning: --rope-theta has no effect on `bolmo quantize`: {instead}")],
    );
    let merge = ["merge", "--bolmo", "a", "--base", "b", "--post-trained", "c", "--out", "d"];
    for (option, value, instead) in [
        ("--model", "x", ": give the Bolmo model with --bolmo"),
        ("--subwords", "x", ": the new folder gets the tokenizer of --bolmo"),
        ("--quantize", "q8", ": quantize the new folder afterwards"),
        ("--rope-theta", "1e6", ": it is not stored; pass it when you load the new folder"),
        ("--adapter", "cpu", ""),
    ] {
        let stderr = String::from_utf8(run(&[&merge[..], &[option, value]].concat()).stderr).unwrap();
        assert!(
            stderr.starts_with(&format!("warning: {option} has no effect on `bolmo merge`{instead}\n")),
            "{stderr}"
        );
    }
    warned(&["info", "--adapter", "none"], &["warning: --adapter has no effect on `bolmo info`"]);
    // A wrong value is an error even where the option does nothing.
    fail(&["info", "--threads", "0"], 2, "--threads");
    // The command continues after the warning.
    let args = ["train", "subword", "--config", "missing.toml", "--model", "x"];
    let stderr = String::from_utf8(run(&args).stderr).unwrap();
    let lines: Vec<&str> = stderr.lines().collect();
    assert!(lines[0].starts_with("warning: --model has no effect on `bolmo train subword`: the file of"), "{stderr}");
    assert!(lines[1].starts_with("error: missing.toml"), "{stderr}");
}

#[test]
fn names_may_be_in_upper_case_and_the_tokenizer_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("nano");
    succeed(&["init", "--preset", "NANO", "--dtype", "F16", "--out", out.to_str().unwrap()]);
    let tokenizer = crate::common::demo_folder();
    let text = ["score", "--text", "abc", "--tokenizer", tokenizer.to_str().unwrap()];
    let lower = succeed(&[&text[..], &["--quantize", "q8,local=f16", "--against", "f32"]].concat());
    assert_eq!(succeed(&[&text[..], &["--quantize", "Q8,Local=F16", "--against", "F32"]].concat()), lower);
    assert_eq!(succeed(&["generate", "a", "--max-bytes", "1", "--adapter", "CPU"]).len(), 1);
}

#[test]
fn completions_offer_what_the_help_shows() {
    for (shell, command) in [
        ("bash", "complete -F _bolmo"),
        ("zsh", "#compdef bolmo"),
        ("fish", "complete -c bolmo"),
        ("elvish", "edit:completion:arg-completer[bolmo]"),
        ("powershell", "Register-ArgumentCompleter -Native -CommandName 'bolmo'"),
    ] {
        let script = String::from_utf8(succeed(&["completions", shell])).unwrap();
        for word in [command, "generate", "show-patches", "stage1", "rope-theta"] {
            assert!(script.contains(word), "{shell}: no {word}");
        }
    }
    fail(&["completions", "tcsh"], 2, "powershell");
    fail(&["completions"], 2, "<SHELL>");
    // Options that a command does not use are not offered: one line for `bolmo`, and one for each of the four commands
    // that run a model.
    let fish = String::from_utf8(succeed(&["completions", "fish"])).unwrap();
    assert_eq!(fish.lines().filter(|line| line.contains(" -l products ")).count(), 5, "{fish}");
    assert!(!fish.lines().any(|line| line.contains("-a \"man\"")), "{fish}");
}

#[cfg(unix)]
#[test]
fn bash_completes_commands_and_options() {
    let script = String::from_utf8(succeed(&["completions", "bash"])).unwrap();
    let completed = |words: &[&str]| {
        let last = words.len() - 1;
        let line = format!(
            "COMP_WORDS=({}); COMP_CWORD={last}; _bolmo bolmo \"{}\" \"{}\"",
            words.join(" "),
            words[last],
            words[last - 1]
        );
        let program = format!("{script}\n{line}\nprintf '%s ' \"${{COMPREPLY[@]}}\"");
        let output = std::process::Command::new("bash").args(["-c", &program]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(completed(&["bolmo", "gen"]), "generate");
    assert_eq!(completed(&["bolmo", "train", "stage"]), "stage1 stage2");
    assert_eq!(completed(&["bolmo", "generate", "--top"]), "--top-k --top-p");
    assert_eq!(completed(&["bolmo", "generate", "--thr"]), "--threads");
    assert_eq!(completed(&["bolmo", "merge", "--thr"]), "");
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("new/folder");
    assert_eq!(succeed(&["man", folder.to_str().unwrap()]), b"");
    let page = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for name in ["generate", "score", "info", "devices", "init", "quantize", "merge", "eval", "bench", "completions"] {
        let page = page(&format!("bolmo-{name}.1"));
        assert!(page.contains(&format!("bolmo\\-{name} \\- ")) && page.contains(".SH SYNOPSIS"), "{page}");
    }
    let main = page("bolmo.1");
    assert!(main.contains("bolmo\\-generate(1)") && main.contains("Exit status: 0 success"), "{main}");
    let merge = page("bolmo-merge.1");
    // Examples keep their lines, and options that do nothing are left out.
    assert!(merge.contains(".SH EXAMPLES\n.nf\nbolmo merge \\-\\-bolmo bolmo\\-7b"), "{merge}");
    assert!(!merge.contains("threads"), "{merge}");
    assert!(page("bolmo-train-stage1.1").contains(concat!("\"bolmo ", env!("CARGO_PKG_VERSION"), "\"")));
    assert!(!folder.join("bolmo-man.1").exists() && !folder.join("bolmo-help.1").exists());
    // A folder that cannot be written.
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    fail(&["man", file.to_str().unwrap()], 1, "manual pages");
    let help = String::from_utf8(bolmo(&["--help"]).output().unwrap().stdout).unwrap();
    assert!(!help.contains("manual pages"), "{help}");
}
