//! The measurements, and the JSON object made from them. Text and tables are made from the JSON.

use bolmo_runtime::bench::{Limits, ProductRate, Spread, Traffic};
use bolmo_runtime::{AdapterInfo, Counters, Model, Products, WeightFormat};
use serde_json::{Value, json};

use super::date::today;
use crate::args::BenchArgs;

/// Measurements of the prefill.
pub struct Prefill {
    /// The first prefill, which compiles the kernels.
    pub cold_seconds: f64,
    /// Further prefills.
    pub seconds: Spread,
    /// Counters of one prefill.
    pub counters: Counters,
    /// Patches of the prompt, including `<bos>`.
    pub patches: usize,
}

/// Measurements of decoding, all sessions together.
pub struct Decode {
    pub seconds: Spread,
    /// Counters of one run.
    pub counters: Counters,
    /// Patches that end in one run.
    pub patches: usize,
    /// Patches of each session at its end.
    pub patches_each: u64,
    /// Minimum memory traffic per decoded byte.
    pub bytes_moved: f64,
}

/// Memory, in bytes.
pub struct Memory {
    /// Weights, predicted.
    pub weights: u64,
    /// Those of them that are used where the checkpoint's files are mapped.
    pub mapped: u64,
    /// Buffers of the prefill, predicted.
    pub prompts: u64,
    /// Sessions, predicted.
    pub sessions: u64,
    /// All buffers, counted.
    pub device_peak: u64,
    /// The process, if the system reports it.
    pub host_peak: Option<u64>,
    /// The process without what it has mapped.
    pub host_own: Option<u64>,
}

/// Further properties of a run.
pub struct Setup {
    pub name: String,
    pub products: Products,
    pub load_seconds: f64,
    pub traffic: Traffic,
}

/// A complete run.
pub struct Measured<'a> {
    pub model: &'a Model,
    pub args: &'a BenchArgs,
    pub setup: Setup,
    pub prefill: Prefill,
    pub decode: Decode,
    pub memory: Memory,
    pub limits: Limits,
    pub load: Load,
}

/// Load averages of the machine over one minute, where the system reports them.
pub struct Load {
    pub before: Option<f64>,
    pub after: Option<f64>,
}

impl Measured<'_> {
    pub fn to_json(&self) -> Value {
        let Self { model, args, setup, prefill, limits, load, .. } = self;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "date": today(),
            "adapter": adapter_json(model.engine().adapter()),
            "model": {
                "name": setup.name,
                "quantize": model.formats().to_string(),
                "products": match setup.products {
                    Products::F32 => "f32",
                    Products::Int8 => "int8",
                },
                "local_weights": setup.traffic.local_weights,
                "global_weights": setup.traffic.global_weights,
            },
            "settings": {
                "prompt_bytes": args.prompt_bytes,
                "decode_bytes": args.decode_bytes,
                "bytes_per_patch": args.bytes_per_patch,
                "parallel": args.parallel,
                "runs": args.runs,
            },
            "load_average": { "before": load.before, "after": load.after },
            "limits": limits_json(limits),
            "first_byte": {
                "load_seconds": setup.load_seconds,
                "cold_prefill_seconds": prefill.cold_seconds,
                "cold_seconds": setup.load_seconds + prefill.cold_seconds,
                "warm_seconds": prefill.seconds.median,
            },
            "prefill": self.prefill_json(),
            "decode": self.decode_json(),
            "memory": self.memory_json(),
        })
    }

    fn prefill_json(&self) -> Value {
        let Self { model, args, setup, prefill, limits, .. } = self;
        let speed = prefill.seconds.rate(args.prompt_bytes as f64);
        let rate = |format| rate(limits, format, |product| product.matmul_products_per_second);
        let products = setup.traffic.prefill_seconds(model.formats(), args.bytes_per_patch, rate);
        json!({
            "seconds": spread(prefill.seconds),
            "bytes_per_second": spread(speed),
            "patches": prefill.patches,
            "operations_per_byte": setup.traffic.prefill_operations(args.bytes_per_patch),
            "product_bound_bytes_per_second": finite(1.0 / products),
            "share_of_product_bound": finite(products * speed.median),
            "dispatches": prefill.counters.dispatches,
            "submits": prefill.counters.submits,
            "readbacks": prefill.counters.readbacks,
        })
    }

    fn decode_json(&self) -> Value {
        let Self { model, args, setup, decode, limits, .. } = self;
        let bytes = (args.decode_bytes * args.parallel) as f64;
        let speed = decode.seconds.rate(bytes);
        let rate = |format| rate(limits, format, |product| product.matvec_weights_per_second);
        let products = setup.traffic.decode_seconds(model.formats(), args.bytes_per_patch, rate);
        let bandwidth_bound = limits.copy_bytes_per_second.median / decode.bytes_moved;
        json!({
            "bytes": args.decode_bytes * args.parallel,
            "patches": decode.patches,
            "patches_behind": decode.patches_each,
            "seconds": spread(decode.seconds),
            "bytes_per_second": spread(speed),
            "bytes_moved_per_byte": decode.bytes_moved,
            "bytes_moved_per_second": decode.bytes_moved * speed.median,
            "bandwidth_bound_bytes_per_second": bandwidth_bound,
            "share_of_bandwidth_bound": speed.median / bandwidth_bound,
            "product_bound_bytes_per_second": finite(1.0 / products),
            "share_of_product_bound": finite(products * speed.median),
            "counts": counts(decode.counters, bytes, decode.patches as f64),
        })
    }

    fn memory_json(&self) -> Value {
        let memory = &self.memory;
        // Mapped weights are not allocated.
        let predicted = memory.weights.saturating_sub(memory.mapped) + memory.prompts + memory.sessions;
        json!({
            "device_peak_bytes": memory.device_peak,
            "predicted_bytes": predicted,
            "predicted_weights_bytes": memory.weights,
            "predicted_prompts_bytes": memory.prompts,
            "predicted_sessions_bytes": memory.sessions,
            "peak_over_predicted": memory.device_peak as f64 / predicted.max(1) as f64,
            "host_peak_bytes": memory.host_peak,
            "host_own_bytes": memory.host_own,
            "mapped_weight_bytes": memory.mapped,
        })
    }
}

/// The measured rate of products in `format`; infinite if they were not measured.
fn rate(limits: &Limits, format: WeightFormat, of: fn(&ProductRate) -> Spread) -> f64 {
    limits.product(format).map_or(f64::INFINITY, |product| of(product).median)
}

/// Properties of an adapter.
pub fn adapter_json(adapter: &AdapterInfo) -> Value {
    json!({
        "name": adapter.name,
        "kind": adapter.kind,
        "backend": adapter.backend,
        "driver": adapter.driver,
    })
}

fn limits_json(limits: &Limits) -> Value {
    let products: Vec<Value> = limits
        .products
        .iter()
        .map(|product| {
            json!({
                "format": product.format.name(),
                "matvec_weights_per_second": spread(product.matvec_weights_per_second),
                "width": product.width,
                "matmul_rows": product.matmul_rows,
                "matmul_operations_per_second": spread(twice(product.matmul_products_per_second)),
            })
        })
        .collect();
    json!({
        "copy_buffer_bytes": limits.copy_buffer_bytes,
        "copy_bytes_per_second": spread(limits.copy_bytes_per_second),
        "read_bytes_per_second": limits.read_bytes_per_second.map(spread),
        "dispatch_gap_seconds": spread(limits.dispatch_gap_seconds),
        "pass_seconds": spread(limits.pass_seconds),
        "submit_seconds": spread(limits.submit_seconds),
        "readback_seconds": spread(limits.readback_seconds),
        "products": products,
    })
}

/// Multiply-adds are counted as two operations.
fn twice(mut of: Spread) -> Spread {
    for value in [&mut of.median, &mut of.least, &mut of.most] {
        *value *= 2.0;
    }
    of
}

fn counts(counters: Counters, bytes: f64, patches: f64) -> Value {
    let Counters { dispatches, submits, readbacks, .. } = counters;
    let per = |count: u64| {
        json!({
            "total": count,
            "per_byte": count as f64 / bytes,
            "per_patch": finite(count as f64 / patches),
        })
    };
    json!({ "dispatches": per(dispatches), "submits": per(submits), "readbacks": per(readbacks) })
}

/// A spread of measurements as JSON.
pub fn spread(of: Spread) -> Value {
    json!({ "median": of.median, "least": of.least, "most": of.most })
}

/// JSON has no infinity; a value that is not finite had nothing to divide by.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
