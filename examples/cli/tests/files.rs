//! Files and folders that commands write: links, devices, pipes, other ways to write a path, and runs that are killed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use crate::common::{bolmo, fail, succeed, succeed_json};

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

fn is_dump(bytes: &[u8]) {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    assert_eq!(file.tensor("ids").unwrap().shape(), [3]);
    assert_eq!(file.tensor("logits").unwrap().shape(), [3, 520]);
}

#[test]
fn a_dump_goes_where_its_path_leads() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let dump = |path: &str| ["score", "--text", "abc", "--json", "--dump", path].map(str::to_owned);
    let put = |path: &Path| {
        let args = dump(path.to_str().unwrap());
        succeed(&args.each_ref().map(String::as_str));
    };

    // A new file has the mode that the mask leaves, an earlier one keeps its own.
    fs::write(at("plain"), "as other programs do").unwrap();
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
    put(&at("new"));
    assert_eq!(mode("new"), mode("plain"));
    is_dump(&fs::read(at("new")).unwrap());
    fs::set_permissions(at("plain"), fs::Permissions::from_mode(0o640)).unwrap();
    put(&at("plain"));
    assert_eq!(mode("plain"), 0o640);

    symlink("plain", at("link")).unwrap();
    symlink("made", at("dangling")).unwrap();
    put(&at("link"));
    put(&at("dangling"));
    assert!(at("link").is_symlink() && at("dangling").is_symlink());
    is_dump(&fs::read(at("made")).unwrap());

    assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
    let reader = {
        let pipe = at("pipe");
        std::thread::spawn(move || fs::read(pipe).unwrap())
    };
    put(&at("pipe"));
    is_dump(&reader.join().unwrap());
    assert!(fs::symlink_metadata(at("pipe")).unwrap().file_type().is_fifo());
    put(Path::new("/dev/null"));
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(names(dir.path()), ["dangling", "link", "made", "new", "pipe", "plain"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_device_stays_one() {
    for args in [
        &["score", "--text", "abc", "--dump"][..],
        &["bench", "--prompt-bytes", "8", "--decode-bytes", "4", "--runs", "1", "--save"],
    ] {
        let output = bolmo(&[args, &["/dev/full"]].concat()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("error: /dev/full: cannot be written: "), "{stderr}");
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
    }
}

/// A pipe and a file: what was written to the file before and after the dump stays.
#[cfg(target_os = "linux")]
#[test]
fn standard_output_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["score", "--text", "abc", "--dump", "/dev/stdout", "--quiet"];
    let piped = bolmo(&args).output().unwrap().stdout;
    let end = piped.windows(13).position(|bytes| bytes == b"bits per byte").unwrap();
    is_dump(&piped[..end]);
    let out = dir.path().join("out");
    let mut file = fs::File::create(&out).unwrap();
    std::io::Write::write_all(&mut file, b"before\n").unwrap();
    assert!(bolmo(&args).stdout(file).status().unwrap().success());
    assert!(fs::read(&out).unwrap() == [b"before\n", &piped[..]].concat());
    assert_eq!(names(dir.path()), ["out"]);
}

#[test]
fn a_new_folder_can_be_named_in_any_way() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("here")).unwrap();
    fs::create_dir(at("deep")).unwrap();
    symlink("empty", at("link")).unwrap();
    symlink("deep/made", at("dangling")).unwrap();
    for (path, folder) in [
        ("slash/", "slash"),
        ("new/.", "new"),
        ("deep/../up", "up"),
        ("link", "empty"),
        ("dangling", "deep/made"),
        // An earlier output, by the link.
        ("link/", "empty"),
    ] {
        let path = format!("{}/{path}", dir.path().display());
        succeed(&["quantize", "--quantize", "q8", "--out", &path]);
        let folder = at(folder);
        assert_eq!(succeed_json(&["info", "--json", "--model", folder.to_str().unwrap()])["quantized"], "q8", "{path}");
    }
    assert!(at("link").is_symlink() && at("dangling").is_symlink());
    // The current folder stays the one that a shell is in.
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before = inode(&at("here"));
    for formats in ["q8", "q4"] {
        let output =
            bolmo(&["quantize", "--quantize", formats, "--out", "."]).current_dir(at("here")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let info = succeed_json(&["info", "--json", "--model", at("here").to_str().unwrap()]);
        assert_eq!((info["quantized"].as_str(), inode(&at("here"))), (Some(formats), before));
    }
    assert_eq!(names(&at("here")).len(), 5);
    let output = bolmo(&["init", "--preset", "nano", "--out", ".."]).current_dir(at("here")).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("files in it"));
    assert_eq!(names(dir.path()), ["dangling", "deep", "empty", "here", "link", "new", "slash", "up"]);
}

/// Number of times that a run is killed: `BOLMO_KILLS`, or a few.
fn kills() -> u64 {
    std::env::var("BOLMO_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

#[test]
fn a_killed_run_leaves_the_old_or_the_new_folder() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (init, quantized) = (at("init"), at("quantized"));
    succeed(&["quantize", "--quantize", "q8", "--out", &quantized]);
    let mut format = "q4";
    for attempt in 0..kills() {
        // The moments are spread over runs of less than a second, and differ from run to run.
        let moment = Duration::from_millis(attempt * 37 % 400);
        let made = Path::new(&init).exists();
        if made {
            fs::remove_dir_all(&init).unwrap();
        }
        for args in [
            &["init", "--preset", "demo", "--seed", "5", "--out", &init][..],
            &["quantize", "--quantize", format, "--out", &quantized],
        ] {
            let mut child = bolmo(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // Every second run is killed while it writes.
            let writes = || names(dir.path()).iter().any(|name| name.contains(".partial-"));
            match attempt % 2 {
                0 => sleep(moment),
                _ => while child.try_wait().unwrap().is_none() && !writes() {},
            }
            // The run may have finished.
            let _ = child.kill();
            child.wait().unwrap();
        }
        let info = succeed_json(&["info", "--json", "--model", &quantized]);
        assert!(["q8", "q4"].contains(&info["quantized"].as_str().unwrap()), "{info}");
        if Path::new(&init).exists() {
            succeed(&["info", "--model", &init]);
        }
        format = if format == "q4" { "q8" } else { "q4" };
    }
    // What was left is removed by the next run.
    let _ = fs::remove_dir_all(&init);
    succeed(&["init", "--preset", "nano", "--out", &init]);
    succeed(&["quantize", "--quantize", "q8", "--out", &quantized]);
    assert_eq!(names(dir.path()), ["init", "quantized"]);
}

#[test]
fn an_interrupted_write_in_place_is_recognized() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let path = out.to_str().unwrap();
    succeed(&["init", "--preset", "nano", "--out", path]);
    let list = r#"{"written_by": "", "files": {"config.json": 1, "generation_config.json": 1, "model.safetensors": 1,
        "tokenizer.json": 1, "tokenizer_config.json": 1}}"#;
    fs::write(out.join("bolmo-incomplete.json"), list).unwrap();
    fail(&["info", "--model", path], 1, "is incomplete");
    fail(&["score", "--text", "a", "--model", path], 1, "is incomplete");
    fs::write(out.join("mine"), "mine").unwrap();
    fail(&["quantize", "--quantize", "q8", "--out", path], 1, "(mine)");
    fs::remove_file(out.join("mine")).unwrap();
    succeed(&["init", "--preset", "nano", "--out", path]);
    succeed(&["info", "--model", path]);
    assert!(!out.join("bolmo-incomplete.json").exists());
}

/// A limit of file sizes is an error, and nothing is left. Bash counts in KiB.
#[test]
fn a_file_that_may_not_grow_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = "ulimit -f 500; exec \"$0\" init --preset nano --out \"$1\"";
    let args = ["-c", script, env!("CARGO_BIN_EXE_bolmo"), out.to_str().unwrap()];
    let output = std::process::Command::new("bash").args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("File too large"), "{output:?}");
    assert_eq!(names(dir.path()), [""; 0]);
}
