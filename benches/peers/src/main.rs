//! Our matrix products on the CPU compared with those of gemm, candle and burn: the same cores, shapes and inputs.
//!
//! Cases. `y = x Wᵀ` in f32 with 512 rows of x and a W of 2048 rows of 2048 weights, by gemm, by candle's `matmul` and
//! by burn's flex backend. One row of x by a W of 4096 rows of 4096 weights in f32, f16, q8 and q4, by candle's
//! `QMatMul` in F32, F16, Q8_0 and Q4_0. x and y are f32 everywhere; candle rounds x to f16 or to 8 bits where its
//! kernels do.
//!
//! Method. The results of all sides are first compared with a product in f64: `error` is the root mean square of the
//! difference, relative to that of the product. Then the sides alternate: a sample of ours, a sample of each peer, and
//! so on. Threads of either side that spin after a sample are given time to sleep before the next one. A sample of
//! `matvec` multiplies by several copies of W, 256 MiB together, so that weights come from memory and not from a cache.
//! Where a peer can state a case in several forms, each is timed and the fastest one counts. Times are wall times, and
//! the minimum of all rounds is compared, because other work on the machine only adds to a time; the medians are saved
//! beside it. The ratio is the peer's time divided by ours. The load average before the first round shows whether the
//! machine was quiet.
//!
//! `cargo run --release -- [--adapter NAME] [--threads N] [--rounds N] [--json] [--save FILE]`; the default adapter is
//! `cpu`, the default number of threads that of the physical cores. `make bench-peers` compiles everything with
//! `-C target-cpu=native`, because candle decides at compile time whether its kernels convert f16 by instructions.

mod cases;
mod machine;
mod ours;
mod peers;
mod timing;

use std::process::ExitCode;

use bolmo_runtime::{AdapterChoice, AdapterInfo, Engine, EngineOptions, block_on};
use serde_json::{Value, json};

/// The peers and their versions, as Cargo.toml pins them.
const VERSIONS: [(&str, &str); 3] = [("gemm", "0.19.0"), ("candle", "0.11.1"), ("burn", "0.22.1")];

/// Options of the command line.
struct Options {
    adapter: String,
    threads: usize,
    rounds: usize,
    json: bool,
    save: Option<std::path::PathBuf>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Options, String> {
    let mut options =
        Options { adapter: "cpu".to_owned(), threads: machine::physical_cores(), rounds: 15, json: false, save: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value. Give one after it."));
        match word.as_str() {
            "--adapter" => options.adapter = value()?,
            "--threads" => options.threads = number(&word, &value()?)?,
            "--rounds" => options.rounds = number(&word, &value()?)?,
            "--json" => options.json = true,
            "--save" => options.save = Some(value()?.into()),
            _ => {
                let known = "--adapter NAME, --threads N, --rounds N, --json or --save FILE";
                return Err(format!("Option {word} is unknown. Use {known}."));
            }
        }
    }
    Ok(options)
}

fn number(option: &str, text: &str) -> Result<usize, String> {
    let parsed = text.parse().ok().filter(|&n| n > 0);
    parsed.ok_or_else(|| format!("{option} must be a whole number of 1 or more, found {text}. Give such a number."))
}

/// Options that open our side on `threads` threads.
fn engine_options(options: &Options) -> EngineOptions {
    EngineOptions::default().adapter(AdapterChoice::parse(&options.adapter)).threads(options.threads)
}

/// Limits the peers, and software Vulkan drivers, to `threads` threads. They read these variables when they start
/// their threads.
fn limit_threads(threads: usize) {
    for name in ["RAYON_NUM_THREADS", "CANDLE_NUM_THREADS", "LP_NUM_THREADS"] {
        // SAFETY: `run` calls this first, so the process has one thread, and nothing else reads the environment.
        unsafe { std::env::set_var(name, threads.to_string()) };
    }
}

fn run(options: &Options) -> Result<(), String> {
    limit_threads(options.threads);
    let engine = block_on(Engine::open(&engine_options(options))).map_err(|e| e.to_string())?;
    let adapter = engine.adapter().clone();
    if adapter.kind.ends_with("GPU") {
        return Err(format!(
            "{} is a {}, but the peers run on the CPU. Use --adapter cpu.",
            adapter.name, adapter.kind
        ));
    }
    let before = machine::load_average();
    if before.as_f64().is_some_and(|load| load > 0.5) {
        eprintln!("warning: The load average is {before}. End other programs, or the figures mean little.");
    }
    let mut rows = Vec::new();
    for make in cases::ALL {
        let mut case = make(&engine, options.threads)?;
        case.check()?;
        rows.push(case.time(options.rounds)?);
    }
    let result = report(options, &adapter, rows, &before);
    if options.json {
        println!("{result}");
    } else {
        print(&result);
    }
    let Some(path) = &options.save else { return Ok(()) };
    // Written under another name until it is complete.
    let partial = path.with_extension("partial");
    std::fs::write(&partial, format!("{result:#}\n"))
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|e| format!("{} cannot be written: {e}. Give --save another file.", path.display()))
}

fn report(options: &Options, adapter: &AdapterInfo, cases: Vec<Value>, before: &Value) -> Value {
    let ratios = |peer: Option<&str>| {
        let of_case = |case: &Value| {
            let peers = case["peers"].as_array().into_iter().flatten();
            let chosen = peers.filter(|found| peer.is_none_or(|name| found["peer"] == name));
            chosen.filter_map(|found| found["ratio"].as_f64()).min_by(f64::total_cmp)
        };
        timing::geometric_mean(cases.iter().filter_map(of_case))
    };
    let mut means: serde_json::Map<_, _> =
        VERSIONS.iter().map(|(name, _)| ((*name).to_owned(), json!(ratios(Some(name))))).collect();
    means.insert("fastest peer".to_owned(), json!(ratios(None)));
    let versions: serde_json::Map<_, _> =
        VERSIONS.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "peers": versions,
        "cpu": machine::describe(),
        "threads": options.threads,
        "load_average": { "before": before, "after": machine::load_average() },
        "adapter": { "name": adapter.name, "backend": adapter.backend, "driver": adapter.driver, "kind": adapter.kind },
        "rounds": options.rounds,
        "cases": cases,
        "geometric_means": means,
    })
}

fn print(result: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (cpu, adapter) = (&result["cpu"], &result["adapter"]);
    println!("CPU: {} ({}), {} threads", text(&cpu["name"]), text(&cpu["instructions"]), result["threads"]);
    println!("ours: {} ({}, {})", text(&adapter["name"]), text(&adapter["backend"]), text(&adapter["driver"]));
    let peers: Vec<_> = VERSIONS.iter().map(|(name, version)| format!("{name} {version}")).collect();
    println!("peers: {}", peers.join(", "));
    let load = &result["load_average"];
    println!("load average: {} before, {} after", load["before"], load["after"]);
    println!("minima of {} rounds, wall time; ratio: the peer's time divided by ours\n", result["rounds"]);
    println!("{:<26}{:<8}{:<26}{:>9}{:>19}{:>9}{:>8}", "", "", "form", "ms", "rate     ", "error", "ratio");
    let line = |name: &str, side: &str, values: &Value, unit: &str| {
        let ratio = values["ratio"].as_f64().map_or(String::new(), |ratio| format!("{ratio:.2}"));
        println!(
            "{name:<26}{side:<8}{:<26}{:>9.3}{:>10.1} {unit:<8}{:>9.0e}{ratio:>8}",
            text(&values["form"]),
            1e3 * number(&values["seconds"]["minimum"]),
            number(&values["rate"]),
            number(&values["error"]),
        );
    };
    for case in result["cases"].as_array().into_iter().flatten() {
        let unit = text(&case["unit"]);
        line(&text(&case["case"]), "ours", &case["ours"], &unit);
        for peer in case["peers"].as_array().into_iter().flatten() {
            line("", &text(&peer["peer"]), peer, &unit);
        }
    }
    println!();
    for (name, mean) in result["geometric_means"].as_object().into_iter().flatten() {
        println!("geometric mean of the ratios, {name}: {:.2}", number(mean));
    }
}
