//! A whole run: data, steps, metrics, evaluations, snapshots to go on from, charts and the model at the end.

mod config;
mod learner;
mod memory;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bolmo_metrics::MetricsFile;
use bolmo_metrics::plot::{CurveOptions, curves, write_svg};
use bolmo_runtime::internals::output::{io_error, write_json};
use bolmo_runtime::{Engine, Error, Result};
use serde_json::{Value, json};

pub use config::{
    BatchConfig, CompressionConfig, DataConfig, DeviceConfig, EveryConfig, ExportType, Kind, LocalConfig, LossConfig,
    ModelConfig, NewModel, OptimiserConfig, RunConfig, Start,
};
use learner::Learner;
use memory::Plan;

use crate::data::{Corpus, Cursor, Documents, RowOptions, Rows, SubwordTokenizer, TokenFile};
use crate::parameters::snapshot;

/// What a run tells of itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// It goes on from a snapshot of this step.
    Resumed(u64),
    /// A step: its metrics.
    Step(&'a Value),
    /// An evaluation: its metrics.
    Evaluated(&'a Value),
    /// A snapshot was written.
    Saved(&'a Path),
    /// The model was written.
    Exported(&'a Path),
}

/// Texts from memory, in UTF-8, with separators between their documents.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// To train on.
    pub train: &'a [Vec<u8>],
    /// To evaluate on.
    pub held_out: &'a [Vec<u8>],
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Steps that are behind it, those before it was resumed included.
    pub steps: u64,
    /// Whether all steps were made.
    pub complete: bool,
    /// Folder of the model, if all steps were made.
    pub model: Option<PathBuf>,
    /// The last evaluation.
    pub evaluation: Option<Value>,
}

/// A run, ready to go.
pub struct Run {
    config: RunConfig,
    kind: Kind,
    learner: Learner,
    train: Rows,
    held_out: Rows,
    step: u64,
    /// Seconds that steps have taken so far, in sittings before this one too.
    seconds: f64,
    memory_bytes: u64,
}

impl Run {
    /// Reads data and model, and the last snapshot if `resume`; without it the folder `out` must not hold a run. `texts` are added to the
    /// files that the configuration names.
    ///
    /// # Errors
    /// Files that are not there or not what they should be, options that cannot be meant, and whatever the device reports.
    pub async fn open(engine: &Engine, kind: Kind, config: RunConfig, texts: &Texts<'_>, resume: bool) -> Result<Self> {
        if config.data.train.is_empty() && texts.train.is_empty() {
            return Err(Error::invalid("there is nothing to train on: `data.train` names no file"));
        }
        let snapshots = snapshot::list(&config.out.join("snapshots"))?;
        if !resume && (!snapshots.is_empty() || metrics_path(&config).exists()) {
            return Err(Error::invalid(format!(
                "{}: holds a run already; resume it, or name another folder with `out`",
                config.out.display()
            )));
        }
        let tokenizer_path = tokenizer_path(kind, &config)?;
        let (train, held_out) = rows(&config, texts, &SubwordTokenizer::open(&tokenizer_path)?)?;
        let plan = Plan { engine, kind, config: &config, tokenizer_path: &tokenizer_path, rows: &train };
        let memory_bytes = plan.check().await?;
        let before = engine.memory().current_bytes;
        let learner = match Learner::open(engine, kind, &config, &tokenizer_path, &train).await {
            Ok(learner) => learner,
            Err(error) => {
                let taken = engine.memory().peak_bytes.saturating_sub(before);
                return Err(plan.explain(error, taken).await);
            }
        };
        let mut this = Self { config, kind, learner, train, held_out, step: 0, seconds: 0.0, memory_bytes };
        if let Some((step, path)) = snapshots.last() {
            this.restore(*step, path).await?;
        }
        Ok(this)
    }

    async fn restore(&mut self, step: u64, path: &Path) -> Result<()> {
        let progress = snapshot::progress(path)?;
        let bad = || Error::bad_checkpoint(format!("{}: state.json does not say where the run stood", path.display()));
        let cursor: Cursor = serde_json::from_value(progress["cursor"].clone()).map_err(|_| bad())?;
        if progress["step"].as_u64() != Some(step) {
            return Err(bad());
        }
        let recorded = recorded(&progress["config"]).ok_or_else(|| {
            Error::unsupported(format!(
                "{}: does not say, in words that this version knows, what run it is of; it was written by another version: begin anew with another `out`",
                path.display()
            ))
        })?;
        let mut changed = Vec::new();
        differences(&recorded, &comparable(&self.config), "", &mut changed);
        if !changed.is_empty() {
            return Err(Error::invalid(format!(
                "{}: was written by a run of another configuration: {}; resume with the old values, or begin anew with another `out`",
                path.display(),
                changed.join(", ")
            )));
        }
        self.train.restore(&cursor).map_err(|e| e.context(path.display()))?;
        self.learner.restore(path, step).await?;
        self.step = step;
        self.seconds = progress["seconds"].as_f64().unwrap_or(0.0);
        Ok(())
    }

    /// Steps that are behind it.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Bytes of device memory that it takes, as reckoned before any was taken.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Makes the steps that are left. `tell` may end the run early: a snapshot is then written and the outcome is not complete.
    ///
    /// # Errors
    /// Whatever files and device report. What was saved stays.
    pub async fn go(&mut self, tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<Outcome> {
        let out = self.config.out.clone();
        std::fs::create_dir_all(&out).map_err(|e| io_error(&out, "cannot be made", &e))?;
        let mut metrics = MetricsFile::resume(metrics_path(&self.config), self.step).map_err(of_metrics)?;
        let (total, every) = (self.config.optimiser.steps, self.config.every.clone());
        let mut evaluation = None;
        let mut stop = self.step > 0 && tell(Event::Resumed(self.step)).is_break();
        while self.step < total && !stop {
            let record = self.step().await?;
            metrics.append(&record).map_err(of_metrics)?;
            if let Some(term) = diverged(&record) {
                let kept = snapshot::list(&out.join("snapshots"))?.last().map_or_else(
                    || "there is no snapshot yet".to_owned(),
                    |(step, path)| format!("the last snapshot, of step {step}, is {}", path.display()),
                );
                return Err(Error::invalid(format!(
                    "step {}: `{term}` is no finite number any more, the run has diverged; {kept}; lower `optimiser.rate` or lengthen the warm-up",
                    self.step
                )));
            }
            stop = tell(Event::Step(&record)).is_break();
            if self.step.is_multiple_of(every.evaluate) || self.step == total {
                let record = self.evaluate().await?;
                metrics.append(&record).map_err(of_metrics)?;
                stop |= tell(Event::Evaluated(&record)).is_break();
                evaluation = Some(record);
            }
            if self.step.is_multiple_of(every.snapshot) || self.step == total || stop {
                let path = self.save().await?;
                stop |= tell(Event::Saved(&path)).is_break();
            }
        }
        draw(&out, &format!("{:?}", self.kind))?;
        let complete = self.step >= total;
        let mut model = None;
        if complete {
            let path = out.join("model");
            self.export(&path).await?;
            let summary = json!({
                "steps": self.step,
                "seconds": self.seconds,
                "evaluation": evaluation,
                "config": self.config,
            });
            write_json(&out.join("summary.json"), &summary)?;
            // Whether it is to end makes no difference any more.
            let _ = tell(Event::Exported(&path));
            model = Some(path);
        }
        Ok(Outcome { steps: self.step, complete, model, evaluation })
    }

    /// One step; its metrics. Past the last one of the schedule the learning rate is 0.
    ///
    /// # Errors
    /// Whatever files and device report.
    pub async fn step(&mut self) -> Result<Value> {
        let since = Instant::now();
        let rows = self.config.batch.rows * self.config.batch.accumulate;
        let ids = self.train.next(rows)?;
        let mut record = self.learner.step(&ids).await?;
        self.step += 1;
        let seconds = since.elapsed().as_secs_f64();
        self.seconds += seconds;
        record["step"] = json!(self.step);
        record["kind"] = json!("train");
        record["seconds"] = json!(self.seconds);
        record["bytes_per_second"] = json!(record["bytes"].as_f64().unwrap_or(0.0) / seconds.max(1e-9));
        Ok(record)
    }

    /// Writes a snapshot to resume from into the run's folder; returns its path.
    ///
    /// # Errors
    /// `Io`, and whatever the device reports.
    pub async fn save(&mut self) -> Result<PathBuf> {
        let progress = json!({ "step": self.step, "cursor": self.train.cursor(), "seconds": self.seconds, "config": comparable(&self.config) });
        let dir = self.config.out.join("snapshots");
        self.learner.save(&dir, self.step, &progress, self.config.every.keep).await
    }

    /// Writes the model as a folder, in place of a model that is there.
    ///
    /// # Errors
    /// `Io`, `InvalidArgument` for a folder of something else, and whatever the device reports.
    pub async fn export(&mut self, dir: &Path) -> Result<()> {
        self.learner.export(dir).await
    }

    /// Metrics on held-out text.
    ///
    /// # Errors
    /// Whatever files and device report.
    pub async fn evaluate(&mut self) -> Result<Value> {
        let rows = self.config.batch.rows;
        let batches = self.config.every.evaluate_batches.min((self.held_out.len() as usize).div_ceil(rows));
        let mut ids = Vec::new();
        for i in 0..batches * rows {
            ids.extend(self.held_out.get(i as u64 % self.held_out.len())?);
        }
        let mut record = self.learner.evaluate(&ids).await?;
        record["step"] = json!(self.step);
        record["kind"] = json!("eval");
        Ok(record)
    }
}

/// The first term of a step's metrics that is no finite number, which JSON has no word for.
fn diverged(record: &Value) -> Option<&'static str> {
    let terms = ["cross_entropy", "boundary", "encoder", "distill", "spelling", "loss", "gradient_norm"];
    terms.into_iter().find(|&term| record.get(term).is_some_and(|value| value.as_f64().is_none_or(|v| !v.is_finite())))
}

/// What must be the same for a run to go on as it began: everything but its folder, how often what is done, and what it may take.
fn comparable(config: &RunConfig) -> Value {
    let mut value = serde_json::to_value(config).unwrap_or_default();
    if let Value::Object(keys) = &mut value {
        keys.remove("out");
        keys.remove("every");
        keys.remove("device");
        // Takes memory and time, and changes nothing.
        if let Some(Value::Object(batch)) = keys.get_mut("batch") {
            batch.remove("recompute");
        }
    }
    value
}

/// What a snapshot says of its run, with the values that keys have which were not there yet when it was written.
fn recorded(value: &Value) -> Option<Value> {
    let mut value = value.clone();
    value.as_object_mut()?.insert("out".to_owned(), json!(""));
    serde_json::from_value(value).ok().map(|config| comparable(&config))
}

/// Lists the keys that differ, with both values.
fn differences(was: &Value, is: &Value, key: &str, out: &mut Vec<String>) {
    match (was, is) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in keys {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                differences(&was[name.as_str()], &is[name.as_str()], &key, out);
            }
        }
        _ if was == is => {}
        _ => out.push(format!("`{key}` was {was} and is {is}")),
    }
}

fn of_metrics(error: bolmo_metrics::Error) -> Error {
    Error::io(error.to_string())
}

fn metrics_path(config: &RunConfig) -> PathBuf {
    config.out.join("metrics.jsonl")
}

/// Draws `curves.svg` of the run in `out` from its metrics.
///
/// # Errors
/// Metrics that are missing or damaged, `Io`.
pub fn draw(out: &Path, title: &str) -> Result<PathBuf> {
    let records = bolmo_metrics::read(out.join("metrics.jsonl")).map_err(of_metrics)?;
    let options = CurveOptions { title: title.to_owned(), ..CurveOptions::default() };
    let svg = curves(&records, &options).map_err(of_metrics)?;
    let path = out.join("curves.svg");
    write_svg(&path, &svg).map_err(of_metrics)?;
    Ok(path)
}

/// The `tokenizer.json` that the data goes through.
fn tokenizer_path(kind: Kind, config: &RunConfig) -> Result<PathBuf> {
    let folder = match (&config.data.tokenizer, kind) {
        (Some(path), _) => path.clone(),
        (None, Kind::Stage2) => config.model.student.clone().unwrap_or_default(),
        (None, _) => config.model.source.clone().unwrap_or_default(),
    };
    let path = if folder.is_dir() { folder.join("tokenizer.json") } else { folder };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::not_found(format!(
        "{}: no tokenizer.json is there; name the subword tokenizer's with `data.tokenizer`",
        path.display()
    )))
}

/// Rows to train on and rows to evaluate on.
fn rows(config: &RunConfig, texts: &Texts<'_>, tokenizer: &SubwordTokenizer) -> Result<(Rows, Rows)> {
    let data = &config.data;
    let documents = Documents::Delimited(data.separator.clone());
    let corpus = |files: &[PathBuf], texts: &[Vec<u8>]| {
        let mut corpus = Corpus::new(tokenizer);
        for path in files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("npy") => corpus.add_file(TokenFile::open(path)?),
                _ => corpus.add_text_file(tokenizer, path, &documents)?,
            }
        }
        for (i, text) in texts.iter().enumerate() {
            corpus.add_text(tokenizer, &format!("text {i}"), text.as_slice(), &documents)?;
        }
        Ok::<_, Error>(corpus)
    };
    let given = !data.held_out.is_empty() || !texts.held_out.is_empty();
    let share = if !given { data.held_out_share } else { 0.0 };
    let options = |held_out: f64| RowOptions { patches: config.batch.subwords, seed: config.seed, held_out };
    let split = corpus(&data.train, texts.train)?.rows(&options(share)).map_err(|e| e.context("`data.train`"))?;
    let held_out = match (split.held_out, given) {
        (_, true) => {
            corpus(&data.held_out, texts.held_out)?.rows(&options(0.0)).map_err(|e| e.context("`data.held_out`"))?.train
        }
        (Some(held_out), false) => held_out,
        (None, false) => {
            return Err(Error::invalid(
                "no text is held out: name files with `data.held_out`, or a `data.held_out_share`",
            ));
        }
    };
    Ok((split.train, held_out))
}
