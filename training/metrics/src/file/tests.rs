//! Tests of the file of metrics.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{EVAL, Error, MetricsFile, Record, TRAIN, read};

/// A run of `steps` steps with an evaluation after every second one, in a folder that goes with the test.
fn run(steps: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut file = MetricsFile::create(&path).unwrap();
    for step in 1..=steps {
        file.append(&json!({"step": step, "kind": TRAIN, "total": 4.0 / step as f64})).unwrap();
        if step % 2 == 0 {
            file.append(&json!({"step": step, "kind": EVAL, "bits_per_byte": 1.5})).unwrap();
        }
    }
    (folder, path)
}

fn steps(path: &Path) -> Vec<(u64, String)> {
    read(path).unwrap().into_iter().map(|record| (record.step, record.kind)).collect()
}

fn add(path: &Path, bytes: &[u8]) {
    File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn what_was_appended_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let values = [("learning_rate", 1e-300), ("total", 0.1 + 0.2), ("windows", 3.0)];
    let written = Record {
        step: u64::MAX,
        kind: "warm-up".into(),
        values: values.iter().map(|&(name, value)| (name.into(), value)).collect(),
    };
    let mut file = MetricsFile::create(&path).unwrap();
    file.append(&written).unwrap();
    // Each record is there before the file is closed.
    assert_eq!(read(&path).unwrap(), [written]);
    file.append(&json!({"step": 2, "kind": TRAIN, "total": f64::NAN, "encoder": f64::INFINITY, "windows": 4})).unwrap();
    let records = read(&path).unwrap();
    assert!(records[1].values["total"].is_nan() && records[1].values["encoder"].is_nan());
    assert_eq!(records[1].values["windows"], 4.0);
}

#[test]
fn a_run_is_not_overwritten() {
    let (_folder, path) = run(3);
    let before = fs::read(&path).unwrap();
    assert!(matches!(MetricsFile::create(&path), Err(Error::Exists { path: named }) if named == path));
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn only_records_are_appended() {
    let (_folder, path) = run(2);
    let before = fs::read(&path).unwrap();
    let mut file = MetricsFile::resume(&path, 2).unwrap();
    for wrong in [
        json!(1),
        json!({"kind": TRAIN}),
        json!({"step": -1, "kind": TRAIN}),
        json!({"step": 1.5, "kind": TRAIN}),
        json!({"step": 1}),
        json!({"step": 1, "kind": 2}),
        json!({"step": 1, "kind": TRAIN, "total": "low"}),
        json!({"step": 1, "kind": TRAIN, "total": [1.0]}),
    ] {
        assert!(matches!(file.append(&wrong), Err(Error::NotARecord { .. })), "{wrong}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_resumed_run_drops_the_steps_it_makes_again() {
    let (folder, path) = run(6);
    let all = steps(&path);
    let mut file = MetricsFile::resume(&path, 4).unwrap();
    let kept: Vec<_> = all.into_iter().filter(|(step, _)| *step <= 4).collect();
    assert_eq!(steps(&path), kept);
    file.append(&json!({"step": 5, "kind": TRAIN})).unwrap();
    assert_eq!(steps(&path), [kept, vec![(5, TRAIN.into())]].concat());
    // The temporary file is gone.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_missing_file_is_resumed_as_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    MetricsFile::resume(&path, 4).unwrap().append(&json!({"step": 5, "kind": TRAIN})).unwrap();
    assert_eq!(steps(&path), [(5, TRAIN.into())]);
}

/// Wherever the last line was torn, all lines before it are there, and a resumed run goes on from them.
#[test]
fn a_torn_last_line_is_skipped() {
    let (_folder, path) = run(3);
    let whole = fs::read(&path).unwrap();
    let before = steps(&path);
    let line = "{\"step\":4,\"kind\":\"train\",\"größe\":-1.5e3}\n".as_bytes();
    for torn in 1..line.len() - 1 {
        fs::write(&path, &whole).unwrap();
        add(&path, &line[..torn]);
        assert_eq!(steps(&path), before, "torn after {torn} bytes");
        MetricsFile::resume(&path, 9).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "torn after {torn} bytes");
    }
    // Only the line's end is missing: the record is whole and kept.
    add(&path, &line[..line.len() - 1]);
    MetricsFile::resume(&path, 9).unwrap().append(&json!({"step": 5, "kind": TRAIN})).unwrap();
    assert_eq!(steps(&path), [before, vec![(4, TRAIN.into()), (5, TRAIN.into())]].concat());
}

#[test]
fn other_damage_is_named_with_its_line() {
    let (_folder, path) = run(2);
    let whole = fs::read(&path).unwrap();
    let damages: [&[u8]; 4] = [
        b"{\"step\":3,\"ki\n{\"step\":4,\"kind\":\"train\"}\n",
        b"\xff\xfe\n",
        b"{\"step\":3,\"kind\":\"train\",\"total\":true}\n",
        // Without its end, but whole: it was not torn.
        b"{\"step\":3}",
    ];
    for damage in damages {
        fs::write(&path, &whole).unwrap();
        add(&path, damage);
        let before = fs::read(&path).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(error, Error::Damaged { line: 4, .. }), "{error}");
        let sentence = error.to_string();
        assert!(sentence.contains("line 4") && sentence.contains("metrics.jsonl"), "{sentence}");
        assert!(matches!(MetricsFile::resume(&path, 1), Err(Error::Damaged { line: 4, .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = read(folder.path().join("none.jsonl")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("none.jsonl"), "{error}");
}
