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
        self.line("model", format!("{}, {}", word(&run["model"]["name"]), format_of(run)));
        let settings = &run["settings"];
        self.line(
            "work",
            format!(
                "prompts of {} bytes, {} bytes decoded, {} bytes per patch, {} sessions, {} runs; median (least to \
                 most)",
                whole(&settings["prompt_bytes"]),
                whole(&settings["decode_bytes"]),
                plain(&settings["bytes_per_patch"]),
                plain(&settings["parallel"]),
                plain(&settings["runs"])
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
        let seconds = |value: &Value| figure(value, |seconds| format!("{seconds:.3} s"));
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
        let (dispatches, submits) = (plain(&prefill["dispatches"]), plain(&prefill["submits"]));
        self.line("  counts", format!("{dispatches} dispatches, {submits} submits"));
    }

    fn decode(&mut self, decode: &Value) {
        self.line("decoding", spread(&decode["bytes_per_second"], 1.0, "bytes/s"));
        self.line(
            "  of the bandwidth",
            format!(
                "{} of {} bytes/s, at {} moved per byte",
                percent(&decode["share_of_bandwidth_bound"]),
                decimals(&decode["bandwidth_bound_bytes_per_second"], 1),
                bytes(&decode["bytes_moved_per_byte"])
            ),
        );
        self.line("  of the matvec rate", share(decode));
        for what in ["dispatches", "submits", "readbacks"] {
            let counts = &decode["counts"][what];
            let (byte, patch) = (decimals(&counts["per_byte"], 2), decimals(&counts["per_patch"], 2));
            self.line(&format!("  {what}"), format!("{byte} per byte, {patch} per patch"));
        }
    }

    fn memory(&mut self, memory: &Value) {
        self.line(
            "device memory",
            format!(
                "{} at most, {} of the predicted {} for weights, prompts and sessions",
                bytes(&memory["device_peak_bytes"]),
                percent(&memory["peak_over_predicted"]),
                bytes(&memory["predicted_bytes"])
            ),
        );
        if memory["host_peak_bytes"].is_number() {
            let own = match memory["host_own_bytes"].is_number() {
                true => format!(", {} of it own, the rest mapped files", bytes(&memory["host_own_bytes"])),
                false => String::new(),
            };
            self.line("host memory", format!("{} at most{own}", bytes(&memory["host_peak_bytes"])));
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

/// The format of a run's weights, and the arithmetic of its products if that is not f32.
pub fn format_of(run: &Value) -> String {
    let format = word(&run["model"]["quantize"]);
    match run["model"]["products"].as_str() {
        Some("int8") => format!("{format}, int8 products"),
        _ => format,
    }
}

/// What stands for a figure that a run does not have, such as one per patch where no patch ended.
const NONE: &str = "-";

/// A number of the JSON as text; a dash if there is none.
pub fn figure(value: &Value, text: impl FnOnce(f64) -> String) -> String {
    value.as_f64().filter(|number| number.is_finite()).map_or(NONE.to_owned(), text)
}

/// A number with so many decimals.
pub fn decimals(value: &Value, digits: usize) -> String {
    figure(value, |number| format!("{number:.digits$}"))
}

/// A number as the JSON has it.
pub fn plain(value: &Value) -> String {
    if value.is_number() { value.to_string() } else { NONE.to_owned() }
}

/// A whole number with groups of digits.
pub fn whole(value: &Value) -> String {
    value.as_u64().map_or(NONE.to_owned(), count)
}

/// A readable number of bytes.
pub fn bytes(value: &Value) -> String {
    figure(value, |bytes| size(bytes as u64))
}

/// Seconds as microseconds, with three decimals for values below 1.
pub fn micros(value: &Value) -> String {
    figure(value, |seconds| {
        let micros = 1e6 * seconds;
        if micros < 1.0 { format!("{micros:.3}") } else { format!("{micros:.1}") }
    })
}

/// A share as a percentage.
pub fn percent(value: &Value) -> String {
    figure(value, |share| format!("{:.1} %", 100.0 * share))
}

fn share(of: &Value) -> String {
    let bound = decimals(&of["product_bound_bytes_per_second"], 1);
    format!("{} of {bound} bytes/s", percent(&of["share_of_product_bound"]))
}

fn spread(value: &Value, factor: f64, unit: &str) -> String {
    let digits = if value["median"].as_f64().is_some_and(|median| factor * median >= 10.0) { 1 } else { 2 };
    let [median, least, most] =
        ["median", "least", "most"].map(|name| figure(&value[name], |number| format!("{:.digits$}", factor * number)));
    format!("{median} {unit} ({least} to {most})")
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
