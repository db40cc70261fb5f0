//! Runs of `make bench-burn`, `make bench-peers`, `make bench-llama` and `make bench-bindings` as tables of
//! BENCHMARKS.md.

use std::fmt::Write;

use serde_json::Value;

use super::report::{cell, decimals, figure, plain, row, word};

/// Writes the table of a run.
pub type Writer = fn(&mut String, &Value);

/// What writes the table of `run`, if it is a comparison.
pub fn writer(run: &Value) -> Option<Writer> {
    if run["burn"].is_string() && run["cases"].is_array() {
        Some(burn)
    } else if run["peers"].is_object() && run["cases"].is_array() {
        Some(peers)
    } else if run["llama_cpp"].is_object() && run["formats"].is_array() {
        Some(llama)
    } else if run["ratios"].is_object() && run["seconds_per_byte"].is_object() {
        Some(bindings)
    } else {
        None
    }
}

/// The table of a `make bench-burn` run.
fn burn(text: &mut String, run: &Value) {
    let adapter = &run["adapter"];
    let by = word(&run["ratio_by"]);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n## Comparison with burn {}\n\n\
         {} ({}, {}), f32, medians of {} samples per side, alternating, each compared with burn's fastest form of the\n\
         case. The ratio is burn's time divided by ours, in {by} time; its geometric mean is {}.\n\
         `benches/burn/src/main.rs` describes the method.\n\n",
        word(&run["burn"]),
        word(&adapter["name"]),
        word(&adapter["backend"]),
        word(&adapter["driver"]),
        plain(&run["runs"]),
        decimals(&run["geometric_mean"], 2)
    );
    let columns = ["case", "ours, ms", "ours, threads, ms", "burn, ms", "burn, threads, ms", "ratio", "burn's form"];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    let ms = |value: &Value| figure(value, |seconds| format!("{:.2}", 1e3 * seconds));
    for case in run["cases"].as_array().into_iter().flatten() {
        let (ours, burn) = (&case["ours"], &case["burn"]);
        let cells = [
            cell(&word(&case["case"])),
            ms(&ours["wall_seconds"]),
            ms(&ours["thread_seconds"]),
            ms(&burn["wall_seconds"]),
            ms(&burn["thread_seconds"]),
            decimals(&case["ratio"], 2),
            cell(&word(&case["burn_form"])),
        ];
        row(text, &cells);
    }
}

/// The table of a `make bench-peers` run.
fn peers(text: &mut String, run: &Value) {
    let pairs = |value: &Value, show: fn(&Value) -> String| {
        let pairs = value.as_object().into_iter().flatten();
        pairs.map(|(name, value)| format!("{name} {}", show(value))).collect::<Vec<_>>().join(", ")
    };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n## Comparison on the CPU with {}\n\n\
         {} ({}), {}. Ours is {}.\n\
         Minima of {} rounds, alternating. *Error* is the root mean square of the difference from a product in f64,\n\
         relative to that of the product. The ratio is the peer's time divided by ours. Geometric means of the\n\
         ratios: {}. `benches/peers/src/main.rs` describes the method.\n\n",
        pairs(&run["peers"], word),
        word(&run["cpu"]["name"]),
        word(&run["cpu"]["instructions"]),
        threads(run),
        device(&run["adapter"]),
        plain(&run["rounds"]),
        pairs(&run["geometric_means"], |mean| decimals(mean, 2)),
    );
    let columns = ["case", "side", "form", "ms", "rate", "error", "ratio"];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    for case in run["cases"].as_array().into_iter().flatten() {
        let mut side = |case_name: String, name: String, values: &Value| {
            let cells = [
                case_name,
                name,
                cell(&word(&values["form"])),
                figure(&values["seconds"]["minimum"], |seconds| format!("{:.3}", 1e3 * seconds)),
                format!("{} {}", decimals(&values["rate"], 1), word(&case["unit"])),
                figure(&values["error"], |error| format!("{error:.0e}")),
                values["ratio"].as_f64().map_or(String::new(), |ratio| format!("{ratio:.2}")),
            ];
            row(text, &cells);
        };
        side(cell(&word(&case["case"])), "ours".to_owned(), &case["ours"]);
        for peer in case["peers"].as_array().into_iter().flatten() {
            side(String::new(), word(&peer["peer"]), peer);
        }
    }
}

/// The table of a `make bench-llama` run.
fn llama(text: &mut String, run: &Value) {
    let (model, settings) = (&run["model"], &run["settings"]);
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n## Comparison with llama.cpp\n\n\
         {}, {}. llama-cpp-python {} ({}) with {} M weights; ours is {} with the preset `mid` at {} bytes per patch.\n\
         Best of {} rounds, alternating; prompts of {} tokens or bytes. *Weights* are those that decoding reads per\n\
         second. Operations are two per weight and position. The ratio is ours divided by llama.cpp's. *int8*: the\n\
         inputs of our products are rounded to 8-bit integers, as llama.cpp's always are in q8_0 and q4_0.\n\
         `benches/llama/bench.py` describes the method.\n\n",
        word(&run["cpu"]),
        threads(run),
        word(&run["llama_cpp_python"]),
        // "CPU : AVX2 = 1 | FMA = 1 |"
        word(&run["llama_cpp"]["system"]).replace(" = 1", "").replace(" |", ",").trim_end_matches(','),
        figure(&model["weights"], |weights| format!("{:.0}", 1e-6 * weights)),
        device(&run["adapter"]),
        plain(&settings["bytes_per_patch"]),
        plain(&run["rounds"]),
        plain(&settings["prompt"]),
    );
    let columns = [
        "format",
        "llama.cpp, tokens/s",
        "weights, GB/s",
        "prompt, GFLOP/s",
        "ours, bytes/s",
        "weights, GB/s",
        "ratio",
        "prompt, bytes/s",
        "GFLOP/s",
        "ratio",
    ];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    for format in run["formats"].as_array().into_iter().flatten() {
        let best =
            |side: &Value, key: &str, factor: f64| figure(&side[key]["best"], |best| format!("{:.1}", factor * best));
        let ours = |found: &Value| {
            [
                best(&found["bolmo"], "bytes_per_second", 1.0),
                best(&found["bolmo"], "streamed_bytes_per_second", 1e-9),
                decimals(&found["ratios"]["streamed"], 2),
                best(&found["bolmo"], "prompt_bytes_per_second", 1.0),
                best(&found["bolmo"], "prompt_operations_per_second", 1e-9),
                decimals(&found["ratios"]["prompt"], 2),
            ]
        };
        let theirs = [
            word(&format["format"]),
            best(&format["llama"], "tokens_per_second", 1.0),
            best(&format["llama"], "streamed_bytes_per_second", 1e-9),
            best(&format["llama"], "prompt_operations_per_second", 1e-9),
        ];
        row(text, &[&theirs[..], &ours(format)].concat());
        let integers = &format["integer_products"];
        if integers.is_object() {
            let name = format!("{}, int8", word(&format["format"]));
            row(text, &[&[name, String::new(), String::new(), String::new()][..], &ours(integers)].concat());
        }
    }
}

/// The table of a `make bench-bindings` run.
fn bindings(text: &mut String, run: &Value) {
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "\n## Overhead of Kotlin and Swift\n\n\
         {}, {}.\n\
         CPU time of a generated byte on the CPU device with the preset `{}`, divided by that through the C ABI:\n\
         medians of {} rounds with their 95 % confidence intervals. *c again* is a second process of the C program,\n\
         which shows what the method can tell apart. `benches/bindings/bench.py` describes it.\n\n",
        word(&run["cpu"]),
        threads(run),
        word(&run["model"]),
        plain(&run["rounds"]),
    );
    let columns = ["program", "CPU time against C", "95 %"];
    row(text, &columns.map(str::to_owned));
    row(text, &columns.map(|_| "---".to_owned()));
    let percent = |ratio: &Value| figure(ratio, |ratio| format!("{:+.2} %", 100.0 * (ratio - 1.0)));
    for (name, ratio) in run["ratios"].as_object().into_iter().flatten() {
        let interval = format!("{} to {}", percent(&ratio["low"]), percent(&ratio["high"]));
        row(text, &[cell(name), percent(&ratio["median"]), interval]);
    }
}

fn threads(run: &Value) -> String {
    let (count, load) = (plain(&run["threads"]), plain(&run["load_average"]["before"]));
    format!("{count} threads, load average {load} before the first round")
}

fn device(adapter: &Value) -> String {
    if adapter.is_null() {
        return "not measured".to_owned();
    }
    format!("{} ({}, {})", word(&adapter["name"]), word(&adapter["backend"]), word(&adapter["driver"]))
}
