//! `bolmo bench` as a program: consistent figures, tables of saved runs, and mistakes.

use std::fs;

use crate::common::{self, fail, run, succeed, succeed_json};
use serde_json::Value;

/// Small sizes, for short runs.
const SMALL: [&str; 9] =
    ["bench", "--runs", "1", "--prompt-bytes", "50", "--decode-bytes", "14", "--bytes-per-patch", "3.5"];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.into_iter().chain(more.iter().copied()).collect()
}

fn number(run: &Value, path: &str) -> f64 {
    run.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path} in {run}"))
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

#[test]
fn figures_are_consistent_and_the_table_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("run.json");
    let run = succeed_json(&small(&["--json", "--quantize", "q8,local=f16", "--save", saved.to_str().unwrap()]));
    let at = |path: &str| number(&run, path);
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&saved).unwrap()).unwrap(), run);

    // <bos> is a patch, and then ⌊50 / 3.5⌋ and ⌊14 / 3.5⌋.
    assert_eq!((at("/prefill/patches"), at("/decode/patches"), at("/decode/patches_behind")), (15.0, 4.0, 19.0));
    assert_eq!(at("/decode/bytes"), 14.0);
    // At most one readback per submission, and fewer submissions than dispatches.
    for what in ["dispatches", "submits", "readbacks"] {
        let total = at(&format!("/decode/counts/{what}/total"));
        assert!(total > 0.0 && at(&format!("/prefill/{what}")) > 0.0, "{what}");
        assert!(near(at(&format!("/decode/counts/{what}/per_byte")), total / 14.0), "{what}");
        assert!(near(at(&format!("/decode/counts/{what}/per_patch")), total / 4.0), "{what}");
    }
    assert!(at("/decode/counts/readbacks/total") <= at("/decode/counts/submits/total"));
    assert!(at("/decode/counts/submits/total") < at("/decode/counts/dispatches/total"));

    for path in ["/decode/bytes_per_second", "/prefill/bytes_per_second", "/limits/copy_bytes_per_second"] {
        let [least, median, most] = ["least", "median", "most"].map(|name| at(&format!("{path}/{name}")));
        assert!(0.0 < least && least <= median && median <= most, "{path}");
    }
    assert!(near(at("/decode/bytes_per_second/median"), 14.0 / at("/decode/seconds/median")));
    let (speed, bound) = (at("/decode/bytes_per_second/median"), at("/decode/bandwidth_bound_bytes_per_second"));
    assert!(near(at("/decode/share_of_bandwidth_bound"), speed / bound));
    assert!(near(bound * at("/decode/bytes_moved_per_byte"), at("/limits/copy_bytes_per_second/median")));
    assert!(near(at("/decode/share_of_product_bound"), speed / at("/decode/product_bound_bytes_per_second")));
    let cold = at("/first_byte/load_seconds") + at("/first_byte/cold_prefill_seconds");
    assert!(near(at("/first_byte/cold_seconds"), cold));

    // Both formats of the model were measured, and the bound uses their rates.
    let products = run["limits"]["products"].as_array().unwrap();
    let formats: Vec<_> = products.iter().map(|product| product["format"].as_str().unwrap()).collect();
    assert_eq!(formats, ["q8", "f16"]);
    let rate = |i: usize| number(&products[i], "/matvec_weights_per_second/median");
    let seconds = at("/model/local_weights") / rate(1) + at("/model/global_weights") / 3.5 / rate(0);
    assert!(near(seconds * at("/decode/product_bound_bytes_per_second"), 1.0));

    let parts = ["weights", "prompts", "sessions"].map(|part| at(&format!("/memory/predicted_{part}_bytes")));
    let mapped = at("/memory/mapped_weight_bytes");
    assert_eq!(at("/memory/predicted_bytes"), parts.iter().sum::<f64>() - mapped);
    let weights = parts[0];
    assert!(at("/memory/device_peak_bytes") > weights, "weights are on the device");

    let table = String::from_utf8(succeed(&["bench", "--table", saved.to_str().unwrap()])).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).collect();
    // Two header rows with their rules, one run, and one row of limits for each format.
    assert_eq!(rows.len(), 7, "{table}");
    let adapter = run["adapter"]["name"].as_str().unwrap();
    assert!([2, 5, 6].iter().all(|&i| rows[i].contains(adapter)), "{table}");
    assert!(rows[2].contains("the built-in demo model | q8,local=f16 | 3.5 | 1 |"), "{table}");
}

#[test]
fn a_run_beside_burn_has_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("burn.json");
    let side = |seconds: f64| format!(r#"{{"wall_seconds": {seconds}, "thread_seconds": null}}"#);
    let case = format!(
        r#"{{"case": "a | b", "ratio": 1.5, "burn_form": "fused", "ours": {}, "burn": {}}}"#,
        side(0.002),
        side(0.003)
    );
    let adapter = r#"{"name": "Some GPU", "backend": "vulkan", "driver": "1.0"}"#;
    let text = format!(
        r#"{{"adapter": {adapter}, "burn": "0.0", "runs": 3, "ratio_by": "wall", "geometric_mean": 1.5,
            "cases": [{case}]}}"#
    );
    fs::write(&file, text).unwrap();
    let table = String::from_utf8(succeed(&["bench", "--table", file.to_str().unwrap()])).unwrap();
    assert!(table.contains("Some GPU (vulkan, 1.0), f32, medians of 3 samples"), "{table}");
    assert!(table.contains(r"| a \| b | 2.00 | - | 3.00 | - | 1.50 | fused |"), "{table}");
}

#[test]
fn a_run_beside_peers_has_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("peers.json");
    let side = r#""form": "F|32", "seconds": {"minimum": 0.002, "median": 0.004}, "rate": 50, "error": 1e-7"#;
    let case = format!(
        r#"{{"case": "matvec", "unit": "GB/s", "ours": {{{side}}},
            "peers": [{{"peer": "gemm", "ratio": 1.25, {side}}}]}}"#
    );
    let text = format!(
        r#"{{"peers": {{"gemm": "0.1", "candle": "0.2"}}, "cpu": {{"name": "Some CPU", "instructions": "avx2"}},
            "threads": 2, "load_average": {{"before": 0.25, "after": 1}}, "rounds": 3,
            "adapter": {{"name": "cpu", "backend": "host", "driver": "avx2"}},
            "geometric_means": {{"gemm": 1.25, "fastest peer": 1.25}}, "cases": [{case}]}}"#
    );
    fs::write(&file, text).unwrap();
    let table = String::from_utf8(succeed(&["bench", "--table", file.to_str().unwrap()])).unwrap();
    for part in [
        "## Comparison on the CPU with gemm 0.1, candle 0.2\n",
        "Some CPU (avx2), 2 threads, load average 0.25 before the first round. Ours is cpu (host, avx2).",
        "gemm 1.25, fastest peer 1.25.",
        r"| matvec | ours | F\|32 | 2.000 | 50.0 GB/s | 1e-7 |  |",
        r"|  | gemm | F\|32 | 2.000 | 50.0 GB/s | 1e-7 | 1.25 |",
    ] {
        assert!(table.contains(part), "no {part} in {table}");
    }
}

#[test]
fn a_run_through_bindings_has_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bindings.json");
    let text = r#"{"ratios": {"kotlin": {"median": 1.0125, "low": 0.995, "high": 1.03}, "c again": {"median": null}},
        "seconds_per_byte": {"c": [0.04]}, "rounds": 60, "model": "mid", "cpu": "Some CPU", "threads": 2,
        "load_average": {"before": 0.25}}"#;
    fs::write(&file, text).unwrap();
    let table = String::from_utf8(succeed(&["bench", "--table", file.to_str().unwrap()])).unwrap();
    for part in [
        "## Overhead of Kotlin and Swift\n",
        "Some CPU, 2 threads, load average 0.25 before the first round.",
        "| kotlin | +1.25 % | -0.50 % to +3.00 % |",
        "| c again | - | - to - |",
    ] {
        assert!(table.contains(part), "no {part} in {table}");
    }
}

#[test]
fn a_run_beside_llama_cpp_has_its_table() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("llama.json");
    let run = |rest: &str, formats: &str| {
        format!(
            r#"{{"llama_cpp_python": "0.3", "llama_cpp": {{"system": "CPU : AVX2 = 1 | FMA = 1 |"}},
                "cpu": "Some CPU", "threads": 2,
                "load_average": {{"before": 0.25, "after": 1}}, "rounds": 5, "model": {{"weights": 202000000}},
                "settings": {{"prompt": 512, "decoded": 64, "bytes_per_patch": 5}}, {rest}
                "formats": [{{"format": "q8_0", {formats}
                    "llama": {{"tokens_per_second": {{"best": 90}}, "streamed_bytes_per_second": {{"best": 2e10}},
                        "prompt_operations_per_second": {{"best": 1.5e11}}}}}}]}}"#
        )
    };
    let adapter = r#""adapter": {"name": "cpu", "backend": "host", "driver": "avx2"},"#;
    let ours = r#""bolmo": {"bytes_per_second": {"best": 250}, "streamed_bytes_per_second": {"best": 1.9e10},
        "prompt_bytes_per_second": {"best": 900}, "prompt_operations_per_second": {"best": 1.3e11}},
        "ratios": {"streamed": 0.95, "prompt": 0.87},"#;
    let faster = ours.replace("900", "901");
    let integers = format!(r#"{ours} "integer_products": {{{}}},"#, faster.trim_end_matches(','));
    for (text, parts) in [
        (
            run(adapter, ours),
            [
                "llama-cpp-python 0.3 (CPU : AVX2, FMA) with 202 M weights; ours is cpu (host, avx2) with",
                "| q8_0 | 90.0 | 20.0 | 150.0 | 250.0 | 19.0 | 0.95 | 900.0 | 130.0 | 0.87 |",
            ],
        ),
        (
            run(adapter, &integers),
            [
                "| q8_0 | 90.0 | 20.0 | 150.0 | 250.0 | 19.0 | 0.95 | 900.0 | 130.0 | 0.87 |",
                "| q8_0, int8 |  |  |  | 250.0 | 19.0 | 0.95 | 901.0 | 130.0 | 0.87 |",
            ],
        ),
        (run("", ""), ["ours is not measured with", "| q8_0 | 90.0 | 20.0 | 150.0 | - | - | - | - | - | - |"]),
    ] {
        fs::write(&file, text).unwrap();
        let table = String::from_utf8(succeed(&["bench", "--table", file.to_str().unwrap()])).unwrap();
        for part in parts {
            assert!(table.contains(part), "no {part} in {table}");
        }
    }
}

#[test]
fn parallel_sessions_add_up() {
    let run = succeed_json(&small(&["--json", "--parallel", "3"]));
    assert_eq!((number(&run, "/decode/bytes"), number(&run, "/decode/patches")), (42.0, 12.0));
    assert!(near(number(&run, "/decode/bytes_per_second/median") * number(&run, "/decode/seconds/median"), 42.0));
}

#[test]
fn report_has_every_figure() {
    let text = String::from_utf8(succeed(&small(&[]))).unwrap();
    for word in ["adapter", "dispatch gap", "first byte", "prefill", "decoding", "of the bandwidth", "device memory"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert!(!text.contains("NaN") && !text.contains("unknown"), "{text}");
}

#[test]
fn wrong_options_are_usage_errors() {
    for (option, values) in [
        ("--prompt-bytes", &["0", "-1", "1.5", "x", ""][..]),
        ("--decode-bytes", &["0", "-1", "x"]),
        ("--bytes-per-patch", &["0", "0.5", "-2", "nan", "inf", "x"]),
        ("--parallel", &["0", "-1", "x"]),
        ("--runs", &["0", "-1", "x"]),
        ("--quantize", &["f8"]),
        ("--save", &[]),
    ] {
        for value in values {
            fail(&["bench", option, value], 2, option);
        }
    }
    fail(&["bench", "--table", "a.json", "--runs", "2"], 2, "cannot be used with");
}

#[test]
fn files_that_are_not_runs_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.json");
    let name = file.to_str().unwrap();
    fail(&["bench", "--table", name], 1, "other.json");
    for text in ["", "{", "[]", "{\"adapter\": {}}"] {
        fs::write(&file, text).unwrap();
        fail(&["bench", "--table", name], 1, "other.json");
    }
    let missing = folder.path().join("no/folder/run.json");
    let output = run(&small(&["--quiet", "--save", missing.to_str().unwrap()]));
    common::message(&["bench"], &output, 1);
}

/// Whether no word of a text is a number that is not finite.
fn all_finite(text: &str) -> bool {
    !text.split(|c: char| !c.is_alphanumeric()).any(|word| matches!(word, "NaN" | "inf" | "infinity"))
}

/// A run in which no patch ended has no figures per patch.
#[test]
fn tiny_runs_have_dashes_for_what_cannot_be_computed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.json");
    let saved = file.to_str().unwrap();
    for (more, patches) in [
        (&[][..], 0.0),
        (&["--parallel", "3"], 0.0),
        (&["--bytes-per-patch", "1e300"], 0.0),
        (&["--bytes-per-patch", "1"], 1.0),
        (&["--bytes-per-patch", "1", "--decode-bytes", "2", "--quantize", "q4"], 2.0),
    ] {
        let tiny = ["bench", "--runs", "1", "--prompt-bytes", "1", "--save", saved];
        let decode: &[&str] = if more.contains(&"--decode-bytes") { &[] } else { &["--decode-bytes", "1"] };
        let report = String::from_utf8(succeed(&[&tiny[..], decode, more].concat())).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let run: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(number(&run, "/decode/patches"), patches, "{more:?}");
        let per_patch = run.pointer("/decode/counts/submits/per_patch").unwrap();
        assert_eq!(per_patch.is_null(), patches == 0.0, "{more:?}: {per_patch}");
        assert_eq!(report.contains("per byte, - per patch"), patches == 0.0, "{more:?}: {report}");
        let table = String::from_utf8(succeed(&["bench", "--table", saved])).unwrap();
        for (name, text) in [("report", &report), ("file", &text), ("table", &table)] {
            assert!(all_finite(text), "{more:?}: {name}: {text}");
        }
    }
}

/// A file without figures, such as an older one, has dashes in the table.
#[test]
fn missing_figures_are_dashes_in_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let (run, training) = (folder.path().join("run.json"), folder.path().join("training.json"));
    let parts = ["adapter", "model", "settings", "prefill", "decode", "memory", "first_byte"];
    let mut empty: Value = parts.iter().map(|part| ((*part).to_owned(), serde_json::json!({}))).collect();
    empty["limits"] = serde_json::json!({ "products": [{ "format": "f32" }] });
    empty["decode"] = serde_json::json!({ "bytes_per_second": { "median": null }, "counts": {} });
    fs::write(&run, empty.to_string()).unwrap();
    empty["training"] = serde_json::json!({ "parts": [{ "part": "products", "share": null }], "growth": [{}] });
    fs::write(&training, empty.to_string()).unwrap();
    let args = ["bench", "--table", run.to_str().unwrap(), training.to_str().unwrap()];
    let table = String::from_utf8(succeed(&args)).unwrap();
    assert!(all_finite(&table) && !table.contains("null"), "{table}");
    let rows = |start: &str| table.lines().filter(|line| line.starts_with(start)).count();
    let unnamed = "| unknown | ";
    // The run, its limits, the training and its length.
    assert_eq!(rows(unnamed) + rows("| unknown ("), 4, "{table}");
    assert!(table.contains("| - | - | - | - | - | - |"), "{table}");
    assert!(table.contains("| - of - bytes in - patches | - | - | - of - GFLOP/s | - | products - | - |"), "{table}");
}

#[test]
fn training_figures_are_consistent_and_the_table_has_them() {
    let args = ["bench", "--train", "--runs", "1", "--prompt-bytes", "256", "--bytes-per-patch", "3.5", "--json"];
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("train.json");
    let saved = saved.to_str().unwrap();
    let run = succeed_json(&[&args[..], &["--save", saved]].concat());
    let at = |path: &str| number(&run, path);
    assert_eq!((at("/training/examples"), at("/training/bytes"), at("/training/patches")), (1.0, 256.0, 128.0));
    assert!(near(at("/training/bytes_per_second/median"), 256.0 / at("/training/seconds/median")));
    let rate = at("/training/product_operations") / at("/training/seconds/median");
    assert!(near(at("/training/share_of_matmul_rate"), rate / at("/training/matmul_operations_per_second")));
    let sum = |list: &str, key: &str| {
        run["training"][list].as_array().unwrap().iter().map(|row| row[key].as_f64().unwrap()).sum::<f64>()
    };
    assert!(near(sum("parts", "share"), 1.0) && near(sum("kernels", "share"), 1.0));
    assert!(near(sum("parts", "seconds"), sum("kernels", "seconds")));
    assert_eq!(sum("kernels", "dispatches"), at("/training/dispatches"));
    // The same bytes, in examples of growing length.
    let growth = run["training"]["growth"].as_array().unwrap();
    let shapes: Vec<_> = growth.iter().map(|row| (row["examples"].as_u64(), row["bytes"].as_u64())).collect();
    assert_eq!(shapes, [(Some(4), Some(64)), (Some(2), Some(128)), (Some(1), Some(256))]);
    let table = String::from_utf8(succeed(&["bench", "--table", saved])).unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| the built-in demo model | ")).collect();
    // The run, and its examples of three lengths.
    assert_eq!(rows.len(), 4, "{table}");
    assert!(rows[0].contains("| 1 of 256 bytes in 128 patches |") && rows[0].contains("products "), "{table}");
    assert!(
        ["64", "128", "256"].iter().zip(&rows[1..]).all(|(bytes, row)| row.contains(&format!("| {bytes} |"))),
        "{table}"
    );
    let text = String::from_utf8(succeed(&args[..args.len() - 1])).unwrap();
    for word in ["mLSTM", "matmul", "of the matmul rate", "256 bytes"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    fail(&["bench", "--train", "--decode-bytes", "8"], 2, "--decode-bytes");
}
