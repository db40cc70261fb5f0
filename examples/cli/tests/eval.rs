//! `bolmo eval` as a program.

use std::fs;

use crate::common::{fail, succeed, succeed_json};

#[test]
fn bits_per_byte_equal_those_of_score() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    fs::write(&file, "Some text to measure.\n").unwrap();
    let file = file.to_str().unwrap();
    let score = succeed_json(&["score", "--file", file, "--json"]);
    let eval = succeed_json(&["eval", "--text-file", file, "--json"]);
    for key in ["bits_per_byte_joint", "bits_per_byte_folded", "bytes", "patches"] {
        let (found, expected) = (eval["text"][key].as_f64().unwrap(), score[key].as_f64().unwrap());
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{key}: {found} {expected}");
    }
    // Two documents are measured one by one.
    let both = dir.path().join("both.txt");
    fs::write(&both, "Some text to measure.\n<|endoftext|>\nSome text to measure.\n").unwrap();
    let both = succeed_json(&["eval", "--text-file", both.to_str().unwrap(), "--json"]);
    assert_eq!(both["text"]["documents"].as_u64(), Some(2));
    // Line ends of other systems, a file that ends with the separator, and empty documents make no difference.
    let line = "Some text to measure.";
    for text in [
        format!("{line}\n<|endoftext|>\r\n{line}\n<|endoftext|>"),
        format!("\u{feff}<|endoftext|>\n{line}\n<|endoftext|>\n<|endoftext|>\r\n{line}\n"),
    ] {
        let file = dir.path().join("same.txt");
        fs::write(&file, text).unwrap();
        let same = succeed_json(&["eval", "--text-file", file.to_str().unwrap(), "--json"]);
        assert_eq!(same["text"], both["text"]);
    }
    let crlf = dir.path().join("crlf.txt");
    fs::write(&crlf, format!("{line}\r\n<|endoftext|>\r\n{line}\r\n")).unwrap();
    let crlf = succeed_json(&["eval", "--text-file", crlf.to_str().unwrap(), "--json"]);
    assert_eq!((crlf["text"]["documents"].as_u64(), crlf["text"]["bytes"].as_u64()), (Some(2), Some(46)));
    let per_byte = |value: &serde_json::Value| value["text"]["bits_per_byte_joint"].as_f64().unwrap();
    assert!((per_byte(&both) - per_byte(&eval)).abs() < 0.05 * per_byte(&eval));
}

#[test]
fn suite_reports_every_kind_of_question() {
    let dir = tempfile::tempdir().unwrap();
    let plot = dir.path().join("suite.svg");
    let plot_path = plot.to_str().unwrap();
    let args = ["eval", "--suite", "--examples", "2", "--shots", "1", "--plot", plot_path, "--json"];
    let report = succeed_json(&args);
    let lines = report["suite"].as_array().unwrap();
    // Five tasks about characters and words, two about characters only, and the total.
    assert_eq!(lines.len(), 13);
    for line in lines {
        assert!((0.0..=1.0).contains(&line["accuracy"].as_f64().unwrap()), "{line}");
        assert!(line["answer_bits_per_byte"].as_f64().unwrap() > 0.0, "{line}");
    }
    assert_eq!(lines[12]["examples"].as_u64(), Some(24));
    assert!(fs::read_to_string(&plot).unwrap().contains("<svg"));
    let text = String::from_utf8(succeed(&["eval", "--suite", "--examples", "1", "--shots", "0"])).unwrap();
    assert!(text.contains("spell-inverse"), "{text}");
}

#[test]
fn mistakes_give_one_clean_message() {
    let dir = tempfile::tempdir().unwrap();
    fail(&["eval"], 2, "--text-file");
    fail(&["eval", "--text-file", "missing.txt"], 1, "missing.txt");
    let file = dir.path().join("binary");
    fs::write(&file, [0xff, 0xfe]).unwrap();
    fail(&["eval", "--text-file", file.to_str().unwrap()], 1, "UTF-8");
    fs::write(&file, "").unwrap();
    fail(&["eval", "--text-file", file.to_str().unwrap()], 1, "nothing");
    fs::write(&file, "<|endoftext|>\r\n<|endoftext|>").unwrap();
    fail(&["eval", "--text-file", file.to_str().unwrap()], 1, "nothing");
    fail(&["eval", "--suite", "--teacher", "nowhere"], 1, "nowhere");
}
