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
use bolmo_runtime::{Checkpoint, Config, Counters, Engine, Error, ErrorKind, Formats, Result, WeightFormat, block_on};
use bolmo_training::bench::StepBench;
use serde_json::{Value, json};

use super::context::{Steps, host_peak, model_name};
use super::date;
use super::measured::{adapter_json, spread};
use super::report::{adapter, bytes, decimals, figure, micros, percent, plain, whole, word};
use crate::args::{BenchArgs, Common};
use crate::interrupt::Interrupt;
use crate::load::{checkpoint, open_engine};
use crate::output::{Failure, Outcome};

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
    let engine = open_engine(common)?;
    let bench = Bench { engine: &engine, args, interrupt, steps };
    let value = block_on(bench.run(common)).map_err(Failure::from)?;
    Ok(value)
}

struct Bench<'a> {
    engine: &'a Engine,
    args: &'a BenchArgs,
    interrupt: &'a Interrupt,
    steps: &'a Steps,
}

/// Measurements of steps over batches of one shape.
struct Measured {
    /// Examples of a batch.
    examples: usize,
    /// Bytes of an example.
    bytes: usize,
    /// Patches of an example.
    patches: usize,
    /// Bytes of a batch.
    batch_bytes: f64,
    seconds: Spread,
    /// Counters of one step.
    counters: Counters,
    kernels: Vec<Kernel>,
    /// Seconds of each part of a step.
    parts: BTreeMap<&'static str, f64>,
}

/// Measurements of a kernel in one step.
struct Kernel {
    stem: &'static str,
    dispatches: u64,
    seconds: f64,
}

impl Bench<'_> {
    async fn run(&self, common: &Common) -> Result<Value> {
        let checkpoint = checkpoint(common)?;
        let config = checkpoint.config();
        let mut whole = None;
        let mut growth = Vec::new();
        // Equally many bytes each time, in fewer and longer examples.
        for shorter in [4, 2, 1] {
            let measured = self.steps_of(config, &checkpoint, shorter).await?;
            growth.push(measured.growth_json());
            whole = Some(measured);
        }
        let memory = self.engine.memory().peak_bytes;
        let Some(whole) = whole else {
            return Err(Error::invalid("nothing was measured"));
        };
        let limits = Limits::measure(self.engine, &[WeightFormat::F32], self.args.runs, &mut |what| {
            self.steps.next(&format!("limits: {what}"));
            !self.interrupt.asked()
        })
        .await?;
        let traffic = Traffic::of(config, Formats::from(WeightFormat::F32));
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": date::today(),
            "adapter": adapter_json(self.engine.adapter()),
            "model": {
                "name": model_name(common),
                "local_weights": traffic.local_weights,
                "global_weights": traffic.global_weights,
            },
            "training": whole.to_json(self.args.runs, &traffic, &limits, growth),
            "memory": { "device_peak_bytes": memory, "host_peak_bytes": host_peak() },
        }))
    }

    /// Measures steps over examples whose length is divided by `shorter`, with as many more of them in a batch.
    async fn steps_of(&self, config: &Config, checkpoint: &Checkpoint, shorter: usize) -> Result<Measured> {
        let (rows, bytes) = (self.args.parallel * shorter, self.args.prompt_bytes / shorter);
        let shape = StepBench::shape(rows, bytes.max(1), self.args.bytes_per_patch);
        self.steps.next(&format!("{rows} examples of {} bytes", shape.bytes));
        let mut bench = StepBench::new(self.engine, config, checkpoint, shape, false).await?;
        let mut samples = Vec::new();
        let mut counters = self.engine.counters();
        for run in 0..=self.args.runs {
            if self.interrupt.asked() {
                return Err(Error::new(ErrorKind::Cancelled, "measuring was interrupted"));
            }
            counters = self.engine.counters();
            let seconds = bench.step().await?;
            // The first step compiles the kernels.
            if run > 0 {
                samples.push(seconds);
            }
        }
        let counters = self.engine.counters() - counters;
        let kernels = bench.kernels().await?.into_iter().map(|(kernel, time)| Kernel {
            stem: kernel.kernel().stem,
            dispatches: time.dispatches,
            seconds: time.time.as_secs_f64(),
        });
        let kernels: Vec<Kernel> = kernels.collect();
        let mut parts: BTreeMap<&str, f64> = BTreeMap::new();
        for kernel in &kernels {
            *parts.entry(part(kernel.stem)).or_default() += kernel.seconds;
        }
        Ok(Measured {
            examples: shape.rows,
            bytes: shape.bytes,
            patches: shape.patches,
            batch_bytes: shape.all_bytes() as f64,
            seconds: Spread::of(&samples),
            counters,
            kernels,
            parts,
        })
    }
}

impl Measured {
    fn growth_json(&self) -> Value {
        let per_byte = |part: &str| self.parts.get(part).map(|seconds| seconds / self.batch_bytes);
        json!({
            "bytes": self.bytes,
            "examples": self.examples,
            "seconds": spread(self.seconds),
            "mlstm_seconds_per_byte": per_byte("mLSTM"),
            "attention_seconds_per_byte": per_byte("attention"),
        })
    }

    fn to_json(&self, runs: usize, traffic: &Traffic, limits: &Limits, growth: Vec<Value>) -> Value {
        let Self { seconds, counters, .. } = self;
        let operations = self.batch_bytes * traffic.training_operations(self.bytes as f64 / self.patches as f64);
        let rate = limits.product(WeightFormat::F32).map(|product| 2.0 * product.matmul_products_per_second.median);
        json!({
            "examples": self.examples,
            "bytes": self.bytes,
            "patches": self.patches,
            "runs": runs,
            "seconds": spread(*seconds),
            "bytes_per_second": spread(seconds.rate(self.batch_bytes)),
            "dispatches": counters.dispatches,
            "submits": counters.submits,
            "readbacks": counters.readbacks,
            "product_operations": operations,
            "matmul_operations_per_second": rate,
            "share_of_matmul_rate": rate.map(|rate| operations / seconds.median / rate),
            "parts": self.parts_json(),
            "kernels": self.kernels_json(),
            "growth": growth,
        })
    }

    /// Seconds of all kernels of a step.
    fn all_kernels(&self) -> f64 {
        self.parts.values().sum()
    }

    fn parts_json(&self) -> Vec<Value> {
        let all = self.all_kernels();
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_by(|a, b| b.1.total_cmp(a.1));
        parts.iter().map(|(part, time)| json!({"part": part, "seconds": time, "share": **time / all})).collect()
    }

    fn kernels_json(&self) -> Vec<Value> {
        let all = self.all_kernels();
        let to_json = |kernel: &Kernel| {
            json!({
                "kernel": kernel.stem,
                "dispatches": kernel.dispatches,
                "seconds": kernel.seconds,
                "share": kernel.seconds / all,
            })
        };
        self.kernels.iter().map(to_json).collect()
    }
}

/// The readable report, made from the JSON.
pub fn text(run: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<24}{value}");
    };
    let training = &run["training"];
    let ms = |value: &Value| figure(value, |seconds| format!("{:.1} ms", 1e3 * seconds));
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
            plain(&training["runs"])
        ),
    );
    line("  speed", format!("{} bytes/s", decimals(&training["bytes_per_second"]["median"], 0)));
    line(
        "  of the matmul rate",
        format!(
            "{} of {} GFLOP/s",
            percent(&training["share_of_matmul_rate"]),
            figure(&training["matmul_operations_per_second"], |rate| format!("{:.1}", 1e-9 * rate))
        ),
    );
    line(
        "  counts",
        format!(
            "{} dispatches, {} submits, {} readbacks",
            plain(&training["dispatches"]),
            plain(&training["submits"]),
            plain(&training["readbacks"])
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
    line("device memory", format!("{} at most", bytes(&run["memory"]["device_peak_bytes"])));
    text
}
