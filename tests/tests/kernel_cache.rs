//! The kernel cache: models load and compute the same whatever its folder holds.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use bolmo_runtime::{Engine, GenerateOptions, WeightFormat, block_on};
use bolmo_tests::{engine_options, fixtures, load_on, session_with};

/// Opens a separate device with a kernel cache in `folder`, and generates a little.
fn generated(folder: Option<&Path>) -> Vec<u16> {
    let mut options = engine_options();
    options.kernel_cache = folder.map(Path::to_path_buf);
    let engine = block_on(Engine::open(&options)).expect("an adapter");
    let model = load_on(&engine, &fixtures().join("infer/models/nano"), WeightFormat::F32);
    let mut session = session_with(&model, &[1, 100, 101, 102, 103]);
    let mut options = GenerateOptions::default();
    options.max_bytes = 12;
    block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation").ids
}

#[test]
fn damaged_kernel_cache_never_fails_a_run() {
    let expected = generated(None);
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("kernels");
    assert_eq!(generated(Some(&folder)), expected, "the first run");
    assert_eq!(generated(Some(&folder)), expected, "the second run");
    // Not every driver returns compiled kernels.
    let files: Vec<_> =
        fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.expect("a file").path()).collect();
    for file in &files {
        let whole = fs::read(file).expect("the file");
        for (what, content) in [
            ("empty", Vec::new()),
            ("cut", whole[..whole.len() / 2].to_vec()),
            ("damaged", whole.iter().map(|byte| byte ^ 0x55).collect()),
            ("of something else", b"#!/bin/sh\necho kernels\n".to_vec()),
        ] {
            fs::write(file, content).expect("a file");
            assert_eq!(generated(Some(&folder)), expected, "a file that is {what}");
            assert_eq!(fs::read(file).expect("the file").len(), whole.len(), "rewritten after a file that was {what}");
        }
    }
    // A FIFO has no other end, and a device of zeros has no end.
    #[cfg(unix)]
    for file in &files {
        let length = fs::metadata(file).expect("the file").len();
        for what in ["FIFO", "device"] {
            fs::remove_file(file).expect("the file");
            match what {
                "FIFO" => assert!(std::process::Command::new("mkfifo").arg(file).status().expect("mkfifo").success()),
                _ => std::os::unix::fs::symlink("/dev/zero", file).expect("a link"),
            }
            assert_eq!(generated(Some(&folder)), expected, "a {what} in place of a file");
            assert_eq!(fs::symlink_metadata(file).expect("the file").len(), length, "rewritten in place of a {what}");
        }
    }
    println!("{} files of kernels", files.len());
    // A file in place of the folder.
    let occupied = dir.path().join("occupied");
    fs::write(&occupied, "x").expect("a file");
    assert_eq!(generated(Some(&occupied)), expected, "no folder");
}
