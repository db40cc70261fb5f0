//! `bolmo bench --table`: saved runs as the tables of BENCHMARKS.md.

use std::fmt::Write;
use std::path::PathBuf;

use bolmo_runtime::{Error, ErrorKind};
use serde_json::Value;

use super::report::{adapter, micros, number, percent, word};
use crate::load;
use crate::output::Outcome;

const HEAD: &str = "\
# Benchmarks

Made by `make benchmarks` from the files in `benchmarks/`, which `bolmo bench --save FILE` (`make bench`) and `make bench-burn` write; don't edit it
by hand. Every row of the first table is one run.

**Method.** Weights are random (`bolmo init`), and patches end by a fixed schedule, so the weights don't decide how much work there is.
Speeds are medians of several runs in wall time, with one run before them to warm up. *Bandwidth* is the share of what the bandwidth of a copying
shader allows, where a decoded byte moves all weights of the local layers, those of the global blocks by their share, the mLSTM states and the
KV cache. *matvec* and *matmul* are the shares of what the kernels alone reach on matrices of 2048 by 2048 (software adapters: 1024 by 1024) in the same run.
*First byte* is the time from the start of loading to the logits behind the prompt, cold, and from an empty session, warm. *Memory* is the peak of all
buffers on the device, and how it compares to what `bolmo info` predicts for weights, prompts and sessions is told as a ratio.
Runs on machines that do other work at the same time come out slower; limits and speeds of one row were taken in one run.
";

const TRAINING: &str = "
## Training

`bolmo bench --train --save FILE`: steps of stage 2 over a made-up batch. *Of the matmul rate* is the share of what one plain product of large matrices
reaches in the same run; *parts* are of a step whose dispatches were measured one by one, by the device's clock
or, in runs before 2026-11-27, by waiting for each.

";

/// The tables of these files, in the order of their names.
pub fn table(files: &[PathBuf]) -> Outcome<String> {
    let mut files = files.to_vec();
    files.sort();
    let (mut runs, mut trainings, mut comparisons) = (Vec::new(), Vec::new(), Vec::new());
    for file in &files {
        let bytes = load::read_input(file)?;
        let run: Value =
            serde_json::from_slice(&bytes).map_err(|e| bad(file, &format!("is no run of bolmo bench: {e}")))?;
        if run["burn"].is_string() && run["cases"].is_array() {
            comparisons.push(run);
            continue;
        }
        let training = run["training"].is_object();
        let parts: &[&str] = if training {
            &["adapter", "model", "memory"]
        } else {
            &["adapter", "model", "settings", "limits", "prefill", "decode", "memory", "first_byte"]
        };
        for part in parts {
            if !run[part].is_object() {
                return Err(bad(file, &format!("is no run of bolmo bench: it has no {part:?}")).into());
            }
        }
        if training { trainings.push(run) } else { runs.push(run) }
    }
    let mut text = HEAD.to_owned();
    text.push_str("\n## Models\n\n");
    let columns = [
        "model",
        "format",
        "bytes a patch",
        "at once",
        "decoding, bytes/s",
        "bandwidth",
        "matvec",
        "dispatches a byte",
        "submits a byte",
        "prefill, bytes/s",
        "matmul",
        "first byte cold, warm, s",
        "memory, MiB",
        "adapter",
        "date",
    ];
    row(&mut text, &columns.map(str::to_owned));
    row(&mut text, &columns.map(|_| "---".to_owned()));
    for run in &runs {
        row(&mut text, &model_row(run));
    }
    text.push_str("\n## Limits\n\n");
    let columns = [
        "adapter",
        "date",
        "copy, GB/s",
        "dispatch gap, µs",
        "pass, µs",
        "empty submit, µs",
        "readback, µs",
        "format",
        "matvec, G weights/s",
        "matmul, GFLOP/s",
    ];
    row(&mut text, &columns.map(str::to_owned));
    row(&mut text, &columns.map(|_| "---".to_owned()));
    for run in &runs {
        for product in run["limits"]["products"].as_array().into_iter().flatten() {
            row(&mut text, &limits_row(run, product));
        }
    }
    if !trainings.is_empty() {
        training(&mut text, &trainings);
    }
    for comparison in &comparisons {
        beside_burn(&mut text, comparison);
    }
    Ok(text)
}

/// The tables of runs of `bolmo bench --train`.
fn training(text: &mut String, runs: &[Value]) {
    text.push_str(TRAINING);
    let columns = [
        "model",
        "examples",
        "step, ms",
        "bytes/s",
        "of the matmul rate",
        "dispatches",
        "parts of a step",
        "memory, MiB",
        "adapter",
        "date",
    ];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    for run in runs {
        let training = &run["training"];
        let parts = training["parts"].as_array().into_iter().flatten();
        let parts: Vec<_> = parts.map(|part| format!("{} {}", word(&part["part"]), percent(&part["share"]))).collect();
        let cells = [
            cell(&word(&run["model"]["name"])),
            format!("{} of {} bytes in {} patches", training["examples"], training["bytes"], training["patches"]),
            median(&training["seconds"], 1e3),
            median(&training["bytes_per_second"], 1.0),
            format!(
                "{} of {:.1} GFLOP/s",
                percent(&training["share_of_matmul_rate"]),
                1e-9 * number(&training["matmul_operations_per_second"])
            ),
            training["dispatches"].to_string(),
            cell(&parts.join(", ")),
            format!("{:.0}", number(&run["memory"]["device_peak_bytes"]) / f64::from(1 << 20)),
            cell(&adapter(run)),
            word(&run["date"]),
        ];
        row(text, &cells);
    }
    text.push_str("\nAs many bytes a step in fewer and longer examples; time a byte:\n\n");
    let columns = ["model", "bytes of an example", "step, ms", "mLSTM, µs a byte", "attention, µs a byte", "adapter"];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    for run in runs {
        for length in run["training"]["growth"].as_array().into_iter().flatten() {
            let cells = [
                cell(&word(&run["model"]["name"])),
                length["bytes"].to_string(),
                median(&length["seconds"], 1e3),
                micros(&length["mlstm_seconds_per_byte"]),
                micros(&length["attention_seconds_per_byte"]),
                cell(&adapter(run)),
            ];
            row(text, &cells);
        }
    }
}

/// The table of a run of `make bench-burn`.
fn beside_burn(text: &mut String, run: &Value) {
    let adapter = &run["adapter"];
    let by = word(&run["ratio_by"]);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n## Kernels beside those of burn {}\n\n{} ({}, {}), f32, medians of {} samples a side, by turns, each beside burn's best way to state \
         the case. The ratio is burn's time over ours, in {by} time; its geometric mean is {:.2}. `benches/burn/src/main.rs` has the method.\n\n",
        word(&run["burn"]),
        word(&adapter["name"]),
        word(&adapter["backend"]),
        word(&adapter["driver"]),
        run["runs"],
        number(&run["geometric_mean"])
    );
    let columns = ["case", "ours, ms", "ours, threads, ms", "burn, ms", "burn, threads, ms", "ratio", "burn's form"];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    let ms = |value: &Value| value.as_f64().map_or("-".to_owned(), |seconds| format!("{:.2}", 1e3 * seconds));
    for case in run["cases"].as_array().into_iter().flatten() {
        let (ours, burn) = (&case["ours"], &case["burn"]);
        let cells = [
            cell(&word(&case["case"])),
            ms(&ours["wall_seconds"]),
            ms(&ours["thread_seconds"]),
            ms(&burn["wall_seconds"]),
            ms(&burn["thread_seconds"]),
            format!("{:.2}", number(&case["ratio"])),
            cell(&word(&case["burn_form"])),
        ];
        row(text, &cells);
    }
}

fn bad(file: &std::path::Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{}: {why}", file.display()))
}

fn row(text: &mut String, cells: &[String]) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// Names may hold what ends a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn median(value: &Value, factor: f64) -> String {
    let value = factor * number(&value["median"]);
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn model_row(run: &Value) -> [String; 15] {
    let (decode, prefill, first, memory) = (&run["decode"], &run["prefill"], &run["first_byte"], &run["memory"]);
    let counts = |what: &str| format!("{:.2}", number(&decode["counts"][what]["per_byte"]));
    [
        cell(&word(&run["model"]["name"])),
        word(&run["model"]["quantize"]),
        run["settings"]["bytes_per_patch"].to_string(),
        run["settings"]["parallel"].to_string(),
        median(&decode["bytes_per_second"], 1.0),
        percent(&decode["share_of_bandwidth_bound"]),
        percent(&decode["share_of_product_bound"]),
        counts("dispatches"),
        counts("submits"),
        median(&prefill["bytes_per_second"], 1.0),
        percent(&prefill["share_of_product_bound"]),
        format!("{:.2}, {:.2}", number(&first["cold_seconds"]), number(&first["warm_seconds"])),
        format!(
            "{:.0} ({:.2})",
            number(&memory["device_peak_bytes"]) / f64::from(1 << 20),
            number(&memory["peak_over_predicted"])
        ),
        cell(&adapter(run)),
        word(&run["date"]),
    ]
}

fn limits_row(run: &Value, product: &Value) -> [String; 10] {
    let limits = &run["limits"];
    [
        cell(&adapter(run)),
        word(&run["date"]),
        median(&limits["copy_bytes_per_second"], 1e-9),
        median(&limits["dispatch_gap_seconds"], 1e6),
        median(&limits["pass_seconds"], 1e6),
        median(&limits["submit_seconds"], 1e6),
        median(&limits["readback_seconds"], 1e6),
        word(&product["format"]),
        median(&product["matvec_weights_per_second"], 1e-9),
        median(&product["matmul_operations_per_second"], 1e-9),
    ]
}
