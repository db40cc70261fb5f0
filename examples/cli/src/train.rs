//! `bolmo train`: training runs, and the commands that prepare them.

use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use bolmo_corpus::{Corpus, write_files};
use bolmo_runtime::{Error, ErrorKind, block_on};
use bolmo_training::data::{
    BoundaryPredictability, END_OF_TEXT, PREDICTABILITY_BYTES, SubwordTokenizer, Subwords, boundary_predictability,
    train_tokenizer,
};
use bolmo_training::run::{Event, Kind, RunConfig, Texts, TrainingRun, draw, template};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::args::{Common, CorpusArgs, PlotArgs, TokenizerArgs, TrainArgs, TrainCommand, TrainInitArgs};
use crate::interrupt::Interrupt;
use crate::load::open_engine;
use crate::output::{Outcome, count, note, size, write, write_json};

/// Runs the command.
pub fn run(common: &Common, command: &TrainCommand) -> Outcome {
    match command {
        TrainCommand::Corpus(args) => corpus(common, args),
        TrainCommand::Tokenizer(args) => tokenizer(common, args),
        TrainCommand::Init(args) => init(common, args),
        TrainCommand::Subword(args) => train(common, Kind::Subword, args),
        TrainCommand::Stage1(args) => train(common, Kind::Stage1, args),
        TrainCommand::Stage2(args) => train(common, Kind::Stage2, args),
        TrainCommand::Plot(args) => plot(common, args),
    }
}

fn train(common: &Common, kind: Kind, args: &TrainArgs) -> Outcome {
    let target = args.target_compression.map(|target| format!("compression.target={target:?}"));
    let config = RunConfig::read(&args.config, &args.set.iter().cloned().chain(target).collect::<Vec<_>>())?;
    // Before the adapter is opened, which takes longer, and may be what is missing next.
    config.check(kind, &Texts::default()).map_err(|e| e.context(args.config.display()))?;
    let (out, steps) = (config.out.clone(), config.optimizer.steps);
    let interrupt = Interrupt::listen();
    let engine = open_engine(common)?;
    let mut run = block_on(TrainingRun::open(&engine, kind, config, &Texts::default(), args.resume))?;
    if !common.quiet {
        run.warnings().iter().for_each(|warning| note("warning", warning));
        // Snapshots and evaluations need no further memory.
        note("device", &format!("{}, {} of device memory", engine.adapter().name, size(run.memory_bytes())));
    }
    let bar = progress_bar(common, steps, run.steps());
    let outcome = block_on(run.go(&mut |event| {
        match event {
            Event::Step(record) => match &bar {
                Some(bar) => {
                    bar.set_position(record["step"].as_u64().unwrap_or(0));
                    bar.set_message(short(record));
                }
                // Without a terminal, a line every 50 steps is enough.
                None if !common.quiet && record["step"].as_u64().is_some_and(|step| step == 1 || step % 50 == 0) => {
                    note("step", &format!("{} of {steps}: {}", record["step"], short(record)));
                }
                None => {}
            },
            _ if common.quiet => {}
            Event::Resumed { step, planned } if planned == steps => {
                say(&bar, "resumed", &format!("from the snapshot of step {step}"));
            }
            Event::Resumed { step, planned } => {
                let message = format!(
                    "from the snapshot of step {step}, changed from {planned} to {steps} steps; the learning rates \
                     now follow the new length"
                );
                say(&bar, "resumed", &message);
            }
            Event::Evaluated(record) => say(&bar, "held-out text", &evaluation(record)),
            // The run logs it.
            Event::Saved(_) => {}
            Event::Exported(path) => say(&bar, "model", &path.display().to_string()),
        }
        if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }))?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    if common.json {
        return write_json(&json!({
            "out": out.display().to_string(),
            "steps": outcome.steps,
            "complete": outcome.complete,
            "model": outcome.model.map(|path| path.display().to_string()),
            "evaluation": outcome.evaluation,
            "adapter": engine.adapter().name,
        }));
    }
    match outcome.model {
        Some(path) => write(&format!("{}: trained in {} steps\n", path.display(), count(outcome.steps))),
        None => write(&format!(
            "{}: stopped after {} of {} steps; continue with --resume\n",
            out.display(),
            count(outcome.steps),
            count(steps)
        )),
    }
}

/// A bar over the steps, if standard error is a terminal.
fn progress_bar(common: &Common, steps: u64, done: u64) -> Option<ProgressBar> {
    if common.json || common.quiet || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new(steps).with_position(done);
    bar.enable_steady_tick(Duration::from_millis(500));
    let template = "{wide_bar} {pos} of {len}, {eta} to go  {msg}";
    // The template is a constant. Should it not parse, the default style is used.
    Some(match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    })
}

fn say(bar: &Option<ProgressBar>, kind: &str, message: &str) {
    match bar {
        Some(bar) => bar.suspend(|| note(kind, message)),
        None => note(kind, message),
    }
}

/// A short summary of a step's metrics.
fn short(record: &Value) -> String {
    let number = |key: &str| record[key].as_f64();
    let mut text = String::new();
    for (key, name) in
        [("total", "loss"), ("loss", "loss"), ("bits_per_byte", "bits/byte"), ("boundary_accuracy", "boundaries")]
    {
        if let Some(value) = number(key) {
            text += &format!("{name} {value:.3}  ");
        }
    }
    text + &format!("{:.0} bytes/s", number("bytes_per_second").unwrap_or(0.0))
}

/// A short summary of an evaluation.
fn evaluation(record: &Value) -> String {
    let mut parts = vec![format!("step {}", record["step"])];
    for (key, name, digits) in [
        ("bits_per_byte", "bits per byte", 4),
        ("teacher_bits_per_byte", "teacher", 4),
        ("boundary_accuracy", "boundary accuracy", 4),
        ("bytes_per_patch", "bytes per patch", 2),
    ] {
        if let Some(value) = record[key].as_f64() {
            parts.push(format!("{name} {value:.digits$}"));
        }
    }
    parts.join(", ")
}

fn init(common: &Common, args: &TrainInitArgs) -> Outcome {
    let text = template(args.stage.into());
    let Some(path) = &args.out else {
        return if common.json { write_json(&json!({ "config": text })) } else { write(&text) };
    };
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Error::new(
            ErrorKind::InvalidArgument,
            format!("{}: exists already; name a new file, or delete this one first", path.display()),
        ),
        std::io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("{}: the folder does not exist; create it first", path.display()))
        }
        _ => Error::new(ErrorKind::Io, format!("{}: cannot be written: {e}", path.display())),
    };
    let mut file = std::fs::File::create_new(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(|e| {
        // Half a configuration is of no use. The first error is the one to report.
        let _ = std::fs::remove_file(path);
        failed(e)
    })?;
    let out = path.display().to_string();
    match common.json {
        true => write_json(&json!({ "out": out })),
        false => write(&format!("{out}: a configuration; set its paths and sizes\n")),
    }
}

fn plot(common: &Common, args: &PlotArgs) -> Outcome {
    let title = args.run.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let path = draw(&args.run, &title)?.display().to_string();
    if common.json { write_json(&json!({ "plot": path })) } else { write(&format!("{path}\n")) }
}

fn tokenizer(common: &Common, args: &TokenizerArgs) -> Outcome {
    let subwords = if args.prefixes { Subwords::Prefixes } else { Subwords::Pairs };
    train_tokenizer(&args.files, args.vocabulary, subwords, &args.out)?;
    let out = args.out.display().to_string();
    // The start of each file is enough for an estimate.
    let mut bytes = Vec::new();
    for path in &args.files {
        let failed = |e| Error::new(ErrorKind::Io, format!("{}: cannot be read: {e}", path.display()));
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(PREDICTABILITY_BYTES as u64).read_to_end(&mut bytes).map_err(failed)?;
        bytes.extend_from_slice(format!("\n{END_OF_TEXT}\n").as_bytes());
    }
    let tokenizer = SubwordTokenizer::open(&args.out.join("tokenizer.json"))?;
    let foresight = boundary_predictability(&tokenizer, &String::from_utf8_lossy(&bytes), END_OF_TEXT)?;
    if common.json {
        return write_json(&json!({ "out": out, "vocabulary": args.vocabulary, "foresight": foresight }));
    }
    let mut report = format!("{out}: a tokenizer of up to {} subwords\n", count(args.vocabulary as u64));
    if let Some(BoundaryPredictability { bytes_per_subword, accuracy, .. }) = foresight {
        report += &format!(
            "{bytes_per_subword:.2} bytes per subword; the word so far and one more byte predict {:.2} % of the cuts\n",
            100.0 * accuracy
        );
    }
    write(&report)
}

fn corpus(common: &Common, args: &CorpusArgs) -> Outcome {
    let corpus = Corpus { seed: args.seed, bytes: args.bytes as u64, puzzle_share: f64::from(args.puzzle_share) };
    let of_corpus = |e: bolmo_corpus::Error| Error::new(ErrorKind::Io, e.to_string());
    let manifest = write_files(&args.out, &corpus, args.held_out_bytes as u64).map_err(of_corpus)?;
    let out = args.out.display().to_string();
    if common.json {
        let mut json = serde_json::to_value(&manifest).unwrap_or_default();
        json["out"] = out.into();
        return write_json(&json);
    }
    write(&format!(
        "{out}: {} documents to train on, {} to evaluate on\n",
        count(manifest.training.documents),
        count(manifest.held_out.documents)
    ))
}
