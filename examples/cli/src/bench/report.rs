//! A readable report of a run, made from its JSON, so that both say the same.

use std::fmt::Write;

use serde_json::Value;

use crate::output::{count, one_line, size};

/// The report.
pub fn text(run: &Value) -> String {
    let mut report = Report::default();
    report.setup(run);
    report.load(&run["load_average"]);
    report.limits(&run["limits"]);
    report.first_byte(&run["first_byte"]);
    report.prefill(&run["prefill"]);
    report.decode(&run["decode"]);
    report.memory(&run["memory"]);
    report.text
}

/// A report under construction.
#[derive(Default)]
struct Report {
    text: String,
}

impl Report {
    fn line(&mut self, name: &str, value: String) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "  {name:<24}{value}");
    }

    fn setup(&mut self, run: &Value) {
        self.line("adapter", adapter(run));
        self.line("model", format!("{}, {}", word(&run["model"]["name"]), word(&run["model"]["quantize"])));
        let settings = &run["settings"];
        self.line(
            "work",
            format!(
                "prompts of {} bytes, {} bytes decoded, {} bytes per patch, {} sessions, {} runs; median (least to \
                 most)",
                whole(&settings["prompt_bytes"]),
                whole(&settings["decode_bytes"]),
                settings["bytes_per_patch"],
                settings["parallel"],
                settings["runs"]
            ),
        );
    }

    fn load(&mut self, load: &Value) {
        if let (Some(before), Some(after)) = (load["before"].as_f64(), load["after"].as_f64()) {
            self.line("load of the machine", format!("{before:.2} before, {after:.2} after"));
        }
    }

    fn limits(&mut self, limits: &Value) {
        self.line("limits", String::new());
        self.line("  copying kernel", spread(&limits["copy_bytes_per_second"], 1e-9, "GB/s"));
        if limits["read_bytes_per_second"].is_object() {
            self.line("  reading memory", spread(&limits["read_bytes_per_second"], 1e-9, "GB/s"));
        }
        self.line("  dispatch gap", spread(&limits["dispatch_gap_seconds"], 1e6, "µs"));
        self.line("  compute pass", spread(&limits["pass_seconds"], 1e6, "µs"));
        self.line("  empty submit", spread(&limits["submit_seconds"], 1e6, "µs"));
        self.line("  submit and readback", spread(&limits["readback_seconds"], 1e6, "µs"));
        for product in limits["products"].as_array().into_iter().flatten() {
            let format = word(&product["format"]);
            let (matvec, matmul) = (&product["matvec_weights_per_second"], &product["matmul_operations_per_second"]);
            self.line(&format!("  matvec {format}"), spread(matvec, 1e-9, "G weights/s"));
            self.line(&format!("  matmul {format}"), spread(matmul, 1e-9, "GFLOP/s"));
        }
    }

    fn first_byte(&mut self, first: &Value) {
        let seconds = |value: &Value| format!("{:.3} s", number(value));
        self.line(
            "first byte",
            format!(
                "cold {} ({} of them to load), warm {}",
                seconds(&first["cold_seconds"]),
                seconds(&first["load_seconds"]),
                seconds(&first["warm_seconds"])
            ),
        );
    }

    fn prefill(&mut self, prefill: &Value) {
        self.line("prefill", spread(&prefill["bytes_per_second"], 1.0, "bytes/s"));
        self.line("  of the matmul rate", share(prefill));
        self.line("  counts", format!("{} dispatches, {} submits", prefill["dispatches"], prefill["submits"]));
    }

    fn decode(&mut self, decode: &Value) {
        self.line("decoding", spread(&decode["bytes_per_second"], 1.0, "bytes/s"));
        self.line(
            "  of the bandwidth",
            format!(
                "{} of {:.1} bytes/s, at {} moved per byte",
                percent(&decode["share_of_bandwidth_bound"]),
                number(&decode["bandwidth_bound_bytes_per_second"]),
                size(number(&decode["bytes_moved_per_byte"]) as u64)
            ),
        );
        self.line("  of the matvec rate", share(decode));
        for what in ["dispatches", "submits", "readbacks"] {
            let counts = &decode["counts"][what];
            let (byte, patch) = (number(&counts["per_byte"]), number(&counts["per_patch"]));
            self.line(&format!("  {what}"), format!("{byte:.2} per byte, {patch:.2} per patch"));
        }
    }

    fn memory(&mut self, memory: &Value) {
        self.line(
            "device memory",
            format!(
                "{} at most, {} of the predicted {} for weights, prompts and sessions",
                size(memory["device_peak_bytes"].as_u64().unwrap_or_default()),
                percent(&memory["peak_over_predicted"]),
                size(memory["predicted_bytes"].as_u64().unwrap_or_default())
            ),
        );
        if let Some(bytes) = memory["host_peak_bytes"].as_u64() {
            self.line("host memory", format!("{} at most", size(bytes)));
        }
    }
}

/// Name and driver of a run's adapter.
pub fn adapter(run: &Value) -> String {
    let adapter = &run["adapter"];
    let driver = format!("{} {}", word(&adapter["backend"]), word(&adapter["driver"]));
    format!("{} ({})", word(&adapter["name"]), driver.trim())
}

/// A string of the JSON, on one line.
pub fn word(value: &Value) -> String {
    one_line(value.as_str().unwrap_or("unknown"))
}

/// Seconds as microseconds, with three decimals for values below 1.
pub fn micros(value: &Value) -> String {
    let micros = 1e6 * number(value);
    if micros < 1.0 { format!("{micros:.3}") } else { format!("{micros:.1}") }
}

/// A number of the JSON; NaN if it is missing.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

/// A share as a percentage.
pub fn percent(value: &Value) -> String {
    match value.as_f64() {
        Some(share) => format!("{:.1} %", 100.0 * share),
        None => "unknown".to_owned(),
    }
}

fn whole(value: &Value) -> String {
    count(value.as_u64().unwrap_or_default())
}

fn share(of: &Value) -> String {
    let bound = number(&of["product_bound_bytes_per_second"]);
    format!("{} of {bound:.1} bytes/s", percent(&of["share_of_product_bound"]))
}

fn spread(value: &Value, factor: f64, unit: &str) -> String {
    let [median, least, most] = ["median", "least", "most"].map(|name| factor * number(&value[name]));
    let digits = if median < 10.0 { 2 } else { 1 };
    format!("{median:.digits$} {unit} ({least:.digits$} to {most:.digits$})")
}

/// Appends a row of a Markdown table.
pub fn row(text: &mut String, cells: &[String]) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

/// `text` as a cell of a Markdown table. Names may contain the character that ends a cell.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
