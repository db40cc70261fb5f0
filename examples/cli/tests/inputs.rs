//! Files that are not what they should be: each gives one message that says what to do, at once and in little memory.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{bolmo, fail, message, succeed, trained_folder};

/// Longest time in which a file must be refused, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// A copy of a golden model.
fn copy() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(trained_folder().join(name), dir.path().join(name)).unwrap();
    }
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn ids_of_repositories_and_cache_folders_are_explained() {
    for command in [&["info"][..], &["generate", "a"], &["score", "--text", "a"]] {
        let with = |option: &'static str, value: &'static str, word: &str| {
            fail(&[command, &[option, value]].concat(), 1, word);
        };
        with(
            "--model",
            "allenai/Bolmo-1B",
            "hf download allenai/Bolmo-1B --exclude \"olmo_core/*\" --local-dir Bolmo-1B",
        );
        with("--subwords", "allenai/dolma2-tokenizer", "hf download allenai/dolma2-tokenizer");
    }
    let dir = copy();
    let cache = dir.path().join("models--allenai--Bolmo-1B");
    let snapshot = cache.join("snapshots/0a1b2c");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(cache.join("refs")).unwrap();
    fs::write(cache.join("refs/main"), "0a1b2c").unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::rename(dir.path().join(name), snapshot.join(name)).unwrap();
    }
    fail(&["info", "--model", text(&cache)], 1, &format!("use its snapshot {}", snapshot.display()));
    let tokenizer = format!("use its snapshot {}", snapshot.join("tokenizer.json").display());
    fail(&["info", "--subwords", text(&cache)], 1, &tokenizer);
    succeed(&["info", "--model", text(&snapshot)]);
    fail(
        &["quantize", "--model", text(&cache), "--quantize", "q8", "--out", text(&dir.path().join("out"))],
        1,
        "snapshot",
    );
}

#[test]
fn pointers_pages_and_numbers_that_json_lacks_are_explained() {
    let dir = copy();
    let model = text(dir.path());
    let with = |name: &str, contents: &[u8], word: &str| {
        let before = fs::read(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name), contents).unwrap();
        fail(&["generate", "a", "--model", model], 1, word);
        fail(&["generate", "a", "--model", model], 1, name);
        fs::write(dir.path().join(name), before).unwrap();
    };
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        with(name, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull");
        with(name, b"<!doctype html><html></html>", "web page");
    }
    let ids = dir.path().join("ids.json");
    fs::write(&ids, "\u{feff}[1, 69, 70]").unwrap();
    succeed(&["score", "--ids", text(&ids), "--quiet"]);
    fs::write(&ids, "[1,\n 69, NaN]").unwrap();
    fail(&["score", "--ids", text(&ids)], 1, "NaN at line 2 column 6");
    fs::write(&ids, "<html>").unwrap();
    fail(&["score", "--ids", text(&ids)], 1, "web page");
}

#[cfg(unix)]
fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Output of a command that must end by itself.
#[cfg(unix)]
fn finished(mut command: Command) -> Output {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} waits");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[cfg(unix)]
#[test]
fn fifos_and_devices_in_place_of_files_are_refused() {
    use std::os::unix::fs::symlink;

    let refused = |args: &[&str], words: &[&str]| {
        let stderr = message(args, &finished(bolmo(args)), 1);
        assert!(words.iter().all(|word| stderr.contains(word)), "{args:?}: {stderr}");
    };
    for (kind, words) in [("fifo", "found a FIFO"), ("device", "found a device")] {
        let make = |path: &Path| {
            fs::remove_file(path).ok();
            if kind == "fifo" { fifo(path) } else { symlink("/dev/zero", path).unwrap() }
        };
        for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
            let dir = copy();
            make(&dir.path().join(name));
            refused(&["generate", "a", "--model", text(dir.path())], &[name, words]);
        }
        let dir = copy();
        let path = dir.path().join(kind);
        make(&path);
        let path = text(&path);
        let out = dir.path().join("out");
        refused(&["info", "--subwords", path], &[path, words]);
        refused(&["train", "stage1", "--config", path], &[path, words]);
        refused(&["train", "tokenizer", path, "--vocabulary", "300", "--out", text(&out)], &[path, words]);
        make(&dir.path().join("generation_config.json"));
        let quantize = ["quantize", "--model", text(dir.path()), "--quantize", "q8", "--out", text(&out)];
        refused(&quantize, &["generation_config.json", words]);
    }
    // A folder of the cache whose blob was deleted.
    let dir = copy();
    fs::remove_file(dir.path().join("tokenizer.json")).unwrap();
    symlink("../../blobs/0a1b", dir.path().join("tokenizer.json")).unwrap();
    refused(&["generate", "a", "--model", text(dir.path())], &["is a link to ../../blobs/0a1b, which does not exist"]);
    // Texts may come from a FIFO.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    fifo(&path);
    let writer = std::thread::spawn({
        let path = path.clone();
        move || fs::write(path, "some text").unwrap()
    });
    let output = finished(bolmo(&["score", "--file", text(&path), "--quiet"]));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().unwrap();
}

/// Runs the command in at most `kib` KiB of memory.
#[cfg(target_os = "linux")]
fn limited(kib: usize, args: &[&str]) -> Output {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("ulimit -v {kib}; exec \"$@\""), "bash", env!("CARGO_BIN_EXE_bolmo")]).args(args);
    shell.output().unwrap()
}

/// Nested objects of a total length of about `bytes`, 100 in each element of a list.
#[cfg(target_os = "linux")]
fn nested(bytes: usize) -> String {
    let element = format!("{}1{}", r#"{"":"#.repeat(100), "}".repeat(100));
    let count = bytes / (element.len() + 1);
    format!("[{}]", vec![element; count].join(","))
}

/// Each of these files takes gigabytes if all of it is parsed into values.
#[cfg(target_os = "linux")]
#[test]
fn small_files_do_not_take_much_memory() {
    const KIB: usize = 400 << 10;
    const BYTES: usize = 16 << 20;
    let deep = nested(BYTES);
    let sound = copy();
    let sound = sound.path();
    let read = |name: &str| fs::read(sound.join(name)).unwrap();
    // The limit is enough for sound files.
    let args = ["info", "--model", text(sound)];
    let output = limited(KIB, &args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let refused = |name: &str, contents: &[u8], word: &str| {
        let dir = copy();
        fs::write(dir.path().join(name), contents).unwrap();
        let args = ["generate", "a", "--max-bytes", "1", "--adapter", "cpu", "--model", text(dir.path())];
        let stderr = message(&args, &limited(KIB, &args), 1);
        assert!(stderr.contains(name) && stderr.contains(word), "{stderr}");
    };
    let header = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    refused("model.safetensors", &header(&format!("{{\"a\":{deep}}}")), "tensor `a`");
    refused("model.safetensors", &header(&format!("{{\"__metadata__\":{deep},\"a\":1}}")), "tensor `a`");
    refused("config.json", format!("{{\"notes\":{}}}", &nested(BYTES / 8)).as_bytes(), "more than 65536 JSON values");
    refused("config.json", format!("{{\"notes\":{deep}}}").as_bytes(), "longer");
    refused("model.safetensors.index.json", format!("{{\"weight_map\":{deep}}}").as_bytes(), "found a list");
    let index = format!("{{\"weight_map\":{{\"a\":\"model.safetensors\"}},\"notes\":{}}}", &nested(BYTES / 8));
    refused("model.safetensors.index.json", index.as_bytes(), "tensor `a`");
    refused("tokenizer.json", format!("{{\"model\":{{\"vocab\":{deep}}}}}").as_bytes(), "expected an object of tokens");
    let many: String = (0..1 << 20).map(|i| format!("\"a{i}\":{{\"\":{i}}},")).collect();
    refused("tokenizer.json", format!("{{\"model\":{{\"vocab\":{{{many}\"\":0}}}}}}").as_bytes(), "expected an id");

    // What a sound tokenizer has besides its vocabulary takes no memory.
    let dir = copy();
    let tokenizer = String::from_utf8(read("tokenizer.json")).unwrap();
    let tokenizer = format!("{{\"notes\":{deep},{}", tokenizer.trim_start().strip_prefix('{').unwrap());
    fs::write(dir.path().join("tokenizer.json"), tokenizer).unwrap();
    let args = ["info", "--json", "--model", text(dir.path())];
    let output = limited(KIB, &args);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(0) && shown.contains("\"fits\""), "{shown}");
}

/// Lists and documents that a user names are bounded as well.
#[cfg(target_os = "linux")]
#[test]
fn large_lists_and_documents_are_refused() {
    const KIB: usize = 600 << 10;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let name = text(&path);
    let refused = |contents: &str, args: &[&str], status: i32, word: &str| {
        fs::write(&path, contents).unwrap();
        let stderr = message(args, &limited(KIB, args), status);
        assert!(stderr.contains(word), "{args:?}: {stderr}");
    };
    let zeros = "0,".repeat((1 << 24) + 1);
    refused(&format!("[{zeros}0]"), &["score", "--ids", name], 1, "more than 16777216 JSON values");
    let deep = nested(1 << 20);
    refused(&deep, &["generate", "a", "--json-schema", name], 2, "131072 JSON values");
    refused(&nested(2 << 20), &["bench", "--table", name], 1, "more than 262144 JSON values");
    refused(&"# a comment\n".repeat(100_000), &["train", "stage1", "--config", name], 1, "longer than 1048576 bytes");
}
