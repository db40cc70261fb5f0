//! `bolmo bench --train`: the time of a training step, compared with the matmul rate of the adapter.
//!
//! Method. Steps of stage 2 run over a synthetic batch, one to warm up and then `--runs`, of which the median is
//! reported. The time of each kernel is measured in a further step in which each dispatch is a pass of its own, by the
//! device's clock, or by waiting for each dispatch if the device has none. The share of the matmul rate compares the
//! minimum operations of the step's products with a plain product of large matrices in the same run. Shorter examples
//! of the same batch show how the cost grows with their length.

use std::collections::BTreeMap;
use std::fmt::Write;

use bolmo_runtime::bench::{Limits, Spread, Traffic};
use bolmo_runtime::{Engine, Error, ErrorKind, Formats, Result, WeightFormat, block_on};
use bolmo_training::bench::StepBench;
use serde_json::{Value, json};

use super::measured::{adapter_json, spread};
use super::report::{adapter, micros, number, percent, word};
use super::{Steps, date, host_peak, name};
use crate::args::{BenchArgs, Common};
use crate::interrupt::Interrupt;
use crate::load::{checkpoint, open_engine};
use crate::output::{Failure, Outcome, count, size};

/// Parts of a step, by prefixes of kernel names; the first match counts.
const PARTS: [(&str, &[&str]); 6] = [
    ("products", &["matmul", "matvec", "transpose"]),
    ("mLSTM", &["mlstm"]),
    ("attention", &["attention", "rope"]),
    ("embeddings and patches", &["gather", "boundary", "copy"]),
    ("head and losses", &["log_softmax", "row_distance"]),
    ("optimizer", &["adamw", "sum_squares"]),
];
const OTHER: &str = "norms, SwiGLU and sums";

fn part(stem: &str) -> &'static str {
    let fits = |names: &[&str]| names.iter().any(|name| stem.starts_with(name));
    PARTS.iter().find(|(_, names)| fits(names)).map_or(OTHER, |(part, _)| part)
}

/// Measures training steps.
pub fn measure(common: &Common, args: &BenchArgs, interrupt: &Interrupt, steps: &Steps) -> Outcome<Value> {
    if common.quantize.is_some() {
        return Err(Failure::Usage("bench", "--quantize has no effect with --train: training uses f32".to_owned()));
    }
    let engine = open_engine(common)?;
    let value = block_on(run(&engine, common, args, interrupt, steps)).map_err(Failure::from)?;
    Ok(value)
}

async fn run(
    engine: &Engine,
    common: &Common,
    args: &BenchArgs,
    interrupt: &Interrupt,
    steps: &Steps,
) -> Result<Value> {
    let checkpoint = checkpoint(common)?;
    let config = checkpoint.config();
    let mut whole = None;
    let mut growth = Vec::new();
    // As many bytes each time, in fewer and longer examples.
    for shorter in [4, 2, 1] {
        let (rows, bytes) = (args.parallel * shorter, args.prompt_bytes / shorter);
        let shape = StepBench::shape(rows, bytes.max(1), args.bytes_per_patch);
        steps.next(&format!("{rows} examples of {} bytes", shape.bytes));
        let mut bench = StepBench::new(engine, config, &checkpoint, shape, false).await?;
        let mut samples = Vec::new();
        let mut counters = engine.counters();
        for run in 0..=args.runs {
            if interrupt.asked() {
                return Err(Error::new(ErrorKind::Cancelled, "measuring was stopped by Ctrl-C"));
            }
            counters = engine.counters();
            let seconds = bench.step().await?;
            // The first step compiles the kernels.
            if run > 0 {
                samples.push(seconds);
            }
        }
        let counters = engine.counters() - counters;
        let kernels = bench.kernels().await?;
        let mut parts: BTreeMap<&str, f64> = BTreeMap::new();
        for (kernel, time) in &kernels {
            *parts.entry(part(kernel.kernel().stem)).or_default() += time.time.as_secs_f64();
        }
        let per_byte = |part: &str| parts.get(part).map(|seconds| seconds / shape.all_bytes() as f64);
        growth.push(json!({
            "bytes": shape.bytes,
            "examples": shape.rows,
            "seconds": spread(Spread::of(&samples)),
            "mlstm_seconds_per_byte": per_byte("mLSTM"),
            "attention_seconds_per_byte": per_byte("attention"),
        }));
        whole = Some((shape, Spread::of(&samples), counters, kernels, parts));
    }
    let memory = engine.memory().peak_bytes;
    let Some((shape, seconds, counters, kernels, parts)) = whole else {
        return Err(Error::invalid("nothing was measured"));
    };
    let limits = Limits::measure(engine, &[WeightFormat::F32], args.runs, &mut |what| {
        steps.next(&format!("limits: {what}"));
        !interrupt.asked()
    })
    .await?;

    let bytes = shape.all_bytes() as f64;
    let traffic = Traffic::of(config, Formats::from(WeightFormat::F32));
    let operations = bytes * traffic.training_operations(shape.bytes as f64 / shape.patches as f64);
    let rate = limits.product(WeightFormat::F32).map(|product| 2.0 * product.matmul_products_per_second.median);
    let measured: f64 = parts.values().sum();
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    let parts: Vec<_> =
        parts.iter().map(|(part, time)| json!({"part": part, "seconds": time, "share": time / measured})).collect();
    let kernels: Vec<_> = kernels
        .iter()
        .map(|(kernel, time)| {
            let seconds = time.time.as_secs_f64();
            json!({
                "kernel": kernel.kernel().stem,
                "dispatches": time.dispatches,
                "seconds": seconds,
                "share": seconds / measured,
            })
        })
        .collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "date": date::today(),
        "adapter": adapter_json(engine.adapter()),
        "model": { "name": name(common), "local_weights": traffic.local_weights, "global_weights": traffic.global_weights },
        "training": {
            "examples": shape.rows,
            "bytes": shape.bytes,
            "patches": shape.patches,
            "runs": args.runs,
            "seconds": spread(seconds),
            "bytes_per_second": spread(seconds.rate(bytes)),
            "dispatches": counters.dispatches,
            "submits": counters.submits,
            "readbacks": counters.readbacks,
            "product_operations": operations,
            "matmul_operations_per_second": rate,
            "share_of_matmul_rate": rate.map(|rate| operations / seconds.median / rate),
            "parts": parts,
            "kernels": kernels,
            "growth": growth,
        },
        "memory": { "device_peak_bytes": memory, "host_peak_bytes": host_peak() },
    }))
}

/// The readable report, made from the JSON.
pub fn text(run: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<24}{value}");
    };
    let training = &run["training"];
    let ms = |value: &Value| format!("{:.1} ms", 1e3 * number(value));
    let whole = |value: &Value| count(value.as_u64().unwrap_or_default());
    line("adapter", adapter(run));
    line("model", word(&run["model"]["name"]));
    line(
        "step",
        format!(
            "{} examples of {} bytes in {} patches: {} ({} to {}, {} runs)",
            whole(&training["examples"]),
            whole(&training["bytes"]),
            whole(&training["patches"]),
            ms(&training["seconds"]["median"]),
            ms(&training["seconds"]["least"]),
            ms(&training["seconds"]["most"]),
            training["runs"]
        ),
    );
    line("  speed", format!("{:.0} bytes/s", number(&training["bytes_per_second"]["median"])));
    line(
        "  of the matmul rate",
        format!(
            "{} of {:.1} GFLOP/s",
            percent(&training["share_of_matmul_rate"]),
            1e-9 * number(&training["matmul_operations_per_second"])
        ),
    );
    line(
        "  counts",
        format!(
            "{} dispatches, {} submits, {} readbacks",
            training["dispatches"], training["submits"], training["readbacks"]
        ),
    );
    let list = |name: &str| training[name].as_array().cloned().unwrap_or_default();
    line("parts", "each dispatch measured by itself".to_owned());
    for part in list("parts") {
        line(
            &format!("  {}", word(&part["part"])),
            format!("{:>10}  {:>6}", ms(&part["seconds"]), percent(&part["share"])),
        );
    }
    line("kernels", String::new());
    for kernel in list("kernels").iter().take(10) {
        let name = word(&kernel["kernel"]);
        let dispatches = whole(&kernel["dispatches"]);
        let value =
            format!("{:>10}  {:>6}  {dispatches} dispatches", ms(&kernel["seconds"]), percent(&kernel["share"]));
        line(&format!("  {name}"), value);
    }
    line("length of examples", "mLSTM and attention, per byte".to_owned());
    for row in list("growth") {
        let us = |name: &str| format!("{} µs", micros(&row[name]));
        let value = format!("{:>10}  {:>10}", us("mlstm_seconds_per_byte"), us("attention_seconds_per_byte"));
        line(&format!("  {} bytes", whole(&row["bytes"])), value);
    }
    line("device memory", format!("{} at most", size(run["memory"]["device_peak_bytes"].as_u64().unwrap_or_default())));
    text
}
