//! Our kernels compared with those of burn's wgpu backend: the same adapter, the same shapes, f32 on both sides.
//!
//! Method. Both sides first compute every case from the same inputs, and their results must agree; this also compiles
//! and tunes the kernels (burn with its default autotune and fusion). Then the sides alternate: a sample of ours, a
//! sample of burn's, and so on. A sample is several repetitions, submitted together, and the wait for them. Where burn
//! can state a case in several forms (weights in either order), each is timed and the best one counts. Medians are
//! reported, in wall time, and on Linux also in the time of all threads of the process: this is the meaningful time on
//! software adapters, because other work on the machine doesn't add to it. The ratio is burn's time divided by ours, in
//! thread time on software adapters and in wall time on GPUs. Control: a product of two short vectors on either side,
//! which is all overhead.
//!
//! `cargo run --release -- [--adapter NAME] [--runs N] [--json] [--save FILE]`; the default adapter is `software`, and
//! both sides run on the same one.

mod cases;
mod clock;

use std::process::ExitCode;

use bolmo_runtime::{AdapterChoice, Engine, EngineOptions, block_on};
use burn::tensor::{Device, DeviceKind, wgpu::WgpuBackend};
use serde_json::{Value, json};

use cases::Case;
use clock::{Clock, Times};

/// Options of the command line.
struct Options {
    adapter: String,
    runs: usize,
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
    let mut options = Options { adapter: "software".to_owned(), runs: 7, json: false, save: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--adapter" => options.adapter = value()?,
            "--runs" => {
                let text = value()?;
                options.runs =
                    text.parse().ok().filter(|&n| n > 0).ok_or(format!("--runs {text}: expected 1 or more"))?;
            }
            "--json" => options.json = true,
            "--save" => options.save = Some(value()?.into()),
            _ => {
                return Err(format!("unknown option {word}; expected --adapter NAME, --runs N, --json or --save FILE"));
            }
        }
    }
    Ok(options)
}

fn run(options: &Options) -> Result<(), String> {
    let mut engine_options = EngineOptions::default();
    engine_options.adapter = AdapterChoice::parse(&options.adapter);
    let engine = block_on(Engine::open(&engine_options)).map_err(|e| e.to_string())?;
    let adapter = engine.adapter().clone();
    let kind = match adapter.kind {
        "software" => DeviceKind::Cpu,
        "discrete GPU" => DeviceKind::DiscreteGpu(0),
        "integrated GPU" => DeviceKind::IntegratedGpu(0),
        "virtual GPU" => DeviceKind::VirtualGpu(0),
        _ => DeviceKind::DefaultDevice,
    };
    let api = match adapter.backend.as_str() {
        "vulkan" => WgpuBackend::Vulkan,
        _ => WgpuBackend::Auto,
    };
    let chosen = Device::wgpu_options().device_kind(kind).graphics_api(api);
    let (device, setup) = chosen.init_with_setup().map_err(|e| format!("burn cannot open the adapter: {e:?}"))?;
    let theirs = setup.adapter.get_info().name;
    if theirs != adapter.name {
        return Err(format!("burn chose {theirs}, our side {}; give another --adapter", adapter.name));
    }

    let by_threads = adapter.is_software() && Clock::has_thread_time();
    let mut rows = Vec::new();
    let mut ratios = Vec::new();
    for mut case in cases::all(&engine, &device)? {
        case.check()?;
        let (ours, theirs, how) = time(&mut case, options.runs)?;
        let ratio = if by_threads { theirs.threads / ours.threads } else { theirs.wall / ours.wall };
        if !case.control {
            ratios.push(ratio);
        }
        rows.push(json!({
            "case": case.name,
            "control": case.control,
            "repetitions": case.times,
            "burn_form": how,
            "largest_difference": case.difference,
            "ours": ours.to_json(),
            "burn": theirs.to_json(),
            "ratio": ratio,
        }));
    }
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let result = json!({
        "adapter": { "name": adapter.name, "backend": adapter.backend, "driver": adapter.driver, "kind": adapter.kind },
        "burn": "0.22.1", "runs": options.runs, "ratio_by": if by_threads { "threads" } else { "wall" },
        "cases": rows, "geometric_mean": mean,
    });
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
        .map_err(|e| format!("{}: {e}", path.display()))
}

/// Times both sides alternately. Returns the medians of ours and of burn's best form, and the name of that form.
fn time(case: &mut Case<'_>, runs: usize) -> Result<(Times, Times, &'static str), String> {
    let mut ours = Vec::new();
    let mut theirs: Vec<Vec<Times>> = case.theirs.iter().map(|_| Vec::new()).collect();
    for _ in 0..runs {
        ours.push(Clock::time(case.times, || (case.ours)(case.times))?);
        for (samples, (_, form)) in theirs.iter_mut().zip(&mut case.theirs) {
            samples.push(Clock::time(case.times, || form(case.times))?);
        }
    }
    let medians = theirs.iter().map(|samples| Times::median(samples));
    let best = medians.zip(case.theirs.iter().map(|(name, _)| *name)).min_by(|a, b| a.0.busy().total_cmp(&b.0.busy()));
    let (best, name) = best.ok_or("a case without burn's side")?;
    Ok((Times::median(&ours), best, name))
}

fn print(result: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ms = |value: &Value| value.as_f64().map_or("-".to_owned(), |seconds| format!("{:.3}", 1e3 * seconds));
    let adapter = &result["adapter"];
    println!("adapter: {} ({}, {})", text(&adapter["name"]), text(&adapter["backend"]), text(&adapter["driver"]));
    println!(
        "burn {}, f32, medians of {} samples per side, alternating, ms per repetition; ratio burn/ours by {} time",
        text(&result["burn"]),
        result["runs"],
        text(&result["ratio_by"])
    );
    println!(
        "{:<36}{:>12}{:>12}{:>12}{:>12}{:>8}  burn's form",
        "", "ours wall", "threads", "burn wall", "threads", "ratio"
    );
    for row in result["cases"].as_array().into_iter().flatten() {
        let (ours, burn) = (&row["ours"], &row["burn"]);
        println!(
            "{:<36}{:>12}{:>12}{:>12}{:>12}{:>8.2}  {}",
            text(&row["case"]),
            ms(&ours["wall_seconds"]),
            ms(&ours["thread_seconds"]),
            ms(&burn["wall_seconds"]),
            ms(&burn["thread_seconds"]),
            row["ratio"].as_f64().unwrap_or(f64::NAN),
            text(&row["burn_form"])
        );
    }
    println!("geometric mean of the ratios: {:.2}", result["geometric_mean"].as_f64().unwrap_or(f64::NAN));
}
