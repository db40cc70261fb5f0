//! A training run: data, steps, metrics, evaluations, snapshots to resume from, charts, and the exported model.

mod check;
mod config;
mod data;
mod inputs;
mod keys;
mod kind;
mod learner;
mod lock;
mod memory;
mod parse;
mod resume;
mod template;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bolmo_metrics::MetricsFile;
use bolmo_metrics::plot::{CurveOptions, curves, write_svg};
use bolmo_runtime::files::exists_or_is_link;
use bolmo_runtime::unstable::output::{io_error, write_json};
use bolmo_runtime::unstable::{Call, Calls, Device, device};
use bolmo_runtime::{CancelToken, Engine, Error, Result};
use serde_json::{Value, json};

pub use config::{
    BatchConfig, CompressionConfig, DataConfig, DeviceConfig, EveryConfig, ExportType, LocalConfig, LossConfig,
    ModelConfig, NewModel, OptimizerConfig, RunConfig, Start,
};
pub use data::Texts;
use data::{datasets, tokenizer_path};
use inputs::Inputs;
pub use kind::Kind;
use learner::Learner;
use lock::RunLock;
use memory::MemoryPlan;
use resume::Progress;
pub use template::{reference, template};

use crate::checkpoint::export;
use crate::data::{Dataset, SubwordTokenizer};
use crate::parameters::snapshot;

/// Progress of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The run resumed from a snapshot.
    Resumed {
        /// Number of completed steps.
        step: u64,
        /// Number of steps that the run had before. A change of the number changes the learning rates.
        planned: u64,
    },
    /// A step was made: its metrics.
    Step(&'a Value),
    /// An evaluation was made: its metrics.
    Evaluated(&'a Value),
    /// A snapshot was written to this folder.
    Saved(&'a Path),
    /// The model was written to this folder.
    Exported(&'a Path),
}

/// Outcome of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Number of completed steps, including those before it was resumed.
    pub steps: u64,
    /// Whether all steps are complete.
    pub complete: bool,
    /// Folder of the model, if all steps are complete.
    pub model: Option<PathBuf>,
    /// The last evaluation.
    pub evaluation: Option<Value>,
}

/// A training run.
pub struct TrainingRun {
    config: RunConfig,
    kind: Kind,
    learner: Learner,
    train: Dataset,
    held_out: Dataset,
    step: u64,
    /// Seconds that all steps took, including those before the run was resumed.
    seconds: f64,
    /// Number of steps that the run had when it was last stopped.
    planned: u64,
    memory_bytes: u64,
    device: Arc<Device>,
    /// The calls in progress on the run and its model.
    calls: Calls,
    cancel: CancelToken,
    /// Keeps other runs out of the folder.
    _lock: RunLock,
}

impl TrainingRun {
    /// Opens the data and the model, and with `resume` the last snapshot. Without it the folder `out` must not hold a
    /// run. `texts` are added to the files that the configuration names. The folder is locked until the run is dropped.
    ///
    /// A run that resumes may have another number of steps, so that a finished run can be extended. The learning rates
    /// of the steps to come are then those of a run of the new length.
    ///
    /// # Errors
    /// `Busy` if another run uses the folder, those of [`RunConfig::check`], files that are invalid, and errors of the
    /// device.
    pub async fn open(
        engine: &Engine,
        kind: Kind,
        mut config: RunConfig,
        texts: &Texts<'_>,
        resume: bool,
    ) -> Result<Self> {
        config.check(kind, texts)?;
        drop(device(engine).begin_work()?);
        let lock = RunLock::acquire(&config.out)?;
        let snapshots = snapshot::list(&config.out.join("snapshots"))?;
        // A run replaces these files, which may be somebody else's.
        let replaced = ["summary.json", "curves.svg"].map(|name| config.out.join(name));
        let replaced = replaced.into_iter().chain([metrics_path(&config)]);
        if !resume && (!snapshots.is_empty() || replaced.into_iter().any(exists_or_is_link)) {
            return Err(Error::invalid(format!(
                "{}: the folder holds a run already; resume it, with more `optimiser.steps` if it is finished, or name \
                 another folder with `out`",
                config.out.display()
            )));
        }
        let progress = match snapshots.into_iter().next_back() {
            Some((step, path)) => Some(Progress::read(step, path, kind, &mut config)?),
            None => None,
        };
        resume::settle(&mut config);
        let tokenizer_path = tokenizer_path(kind, &config)?;
        let (train, held_out) = datasets(&config, texts, &SubwordTokenizer::open(&tokenizer_path)?)?;
        let inputs = Inputs { engine, kind, config: &config, tokenizer_path: &tokenizer_path, train: &train };
        let plan = MemoryPlan { inputs };
        let memory_bytes = plan.check().await?;
        let before = engine.memory().current_bytes;
        let learner = match Learner::open(inputs).await {
            Ok(learner) => learner,
            Err(error) => {
                let taken = engine.memory().peak_bytes.saturating_sub(before);
                return Err(plan.explain(error, taken).await);
            }
        };
        let planned = config.optimizer.steps;
        let (step, seconds) = (0, 0.0);
        let mut this = Self {
            device: device(engine).clone(),
            calls: learner.calls().clone(),
            cancel: CancelToken::default(),
            config,
            kind,
            learner,
            train,
            held_out,
            step,
            seconds,
            planned,
            memory_bytes,
            _lock: lock,
        };
        if let Some(progress) = progress {
            this.restore(progress).await?;
        }
        log::info!(
            "training opened: {kind:?} in {}, step {} of {}, {memory_bytes} bytes",
            this.config.out.display(),
            this.step,
            this.config.optimizer.steps
        );
        Ok(this)
    }

    async fn restore(&mut self, progress: Progress) -> Result<()> {
        let Progress { path, step, planned, cursor, seconds } = progress;
        self.train.restore(&cursor).map_err(|e| e.context(path.display()))?;
        self.learner.restore(&path, step).await?;
        (self.step, self.planned, self.seconds) = (step, planned, seconds);
        Ok(())
    }

    /// Begins a call that consists of several others. They wait if the engine is suspended meanwhile, instead of
    /// failing.
    ///
    /// # Errors
    /// `Suspended`.
    pub fn begin_call(&self) -> Result<Call> {
        self.calls.begin(&self.device)
    }

    /// A token that ends a step which waits for a suspended engine, before the step has done anything. It does not stop
    /// the run otherwise.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Number of completed steps.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Bytes of device memory that the run uses, as computed before the allocation.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Non-fatal warnings about the configurations of the models that the run begins with.
    pub fn warnings(&self) -> &[String] {
        self.learner.warnings()
    }

    /// Makes the remaining steps. If `tell` breaks, the run writes a snapshot and ends early, with an incomplete
    /// outcome.
    ///
    /// # Errors
    /// Errors of files and of the device. Snapshots remain.
    pub async fn go(&mut self, tell: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>) -> Result<Outcome> {
        let _call = self.begin_call()?;
        let out = self.config.out.clone();
        std::fs::create_dir_all(&out).map_err(|e| io_error(&out, "cannot be created", &e))?;
        // The model of an extended run replaces the earlier one. Whether it can is known before the training.
        export::check(&out.join("model"))?;
        let mut metrics = MetricsFile::resume(metrics_path(&self.config), self.step).map_err(metrics_error)?;
        let (total, every) = (self.config.optimizer.steps, self.config.every.clone());
        let mut evaluation = None;
        let resumed = Event::Resumed { step: self.step, planned: self.planned };
        let mut stop = self.step > 0 && tell(resumed).is_break();
        while self.step < total && !stop {
            let record = self.step().await?;
            metrics.append(&record).map_err(metrics_error)?;
            if let Some(term) = diverged(&record) {
                let last = snapshot::list(&out.join("snapshots"))?.last().map_or_else(
                    || "there is no snapshot yet".to_owned(),
                    |(step, path)| format!("the last snapshot, of step {step}, is {}", path.display()),
                );
                return Err(Error::invalid(format!(
                    "step {}: `{term}` is not finite, so the run has diverged ({last}); lower \
                     `optimiser.rate` or raise `optimiser.warmup`",
                    self.step
                )));
            }
            stop = tell(Event::Step(&record)).is_break();
            if self.step.is_multiple_of(every.evaluate) || self.step == total {
                let record = self.evaluate().await?;
                metrics.append(&record).map_err(metrics_error)?;
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
            // A run that was stopped after its last snapshot made its last evaluation before that.
            if evaluation.is_none() {
                evaluation = Some(self.evaluate().await?);
            }
            let path = out.join("model");
            self.export(&path).await?;
            let summary = json!({
                "steps": self.step,
                "seconds": self.seconds,
                "evaluation": evaluation,
                "config": self.config,
            });
            write_json(&out.join("summary.json"), &summary)?;
            // The run is over, whatever the answer.
            let _ = tell(Event::Exported(&path));
            model = Some(path);
        }
        Ok(Outcome { steps: self.step, complete, model, evaluation })
    }

    /// Makes one step and returns its metrics. After the last step of the schedule the learning rate is 0.
    ///
    /// # Errors
    /// Errors of files and of the device.
    pub async fn step(&mut self) -> Result<Value> {
        let _call = self.begin_call()?;
        // Before the data moves on.
        drop(self.calls.permit(&self.device, &self.cancel).await?);
        let start = Instant::now();
        let rows = self.config.batch.rows * self.config.batch.accumulate;
        let ids = self.train.next(rows)?;
        let mut record = self.learner.step(&ids).await?;
        self.step += 1;
        let seconds = start.elapsed().as_secs_f64();
        self.seconds += seconds;
        record["step"] = json!(self.step);
        record["kind"] = json!("train");
        log::debug!("step {}: {seconds:.3} s, loss {}", self.step, record["loss"]);
        record["seconds"] = json!(self.seconds);
        record["bytes_per_second"] = json!(record["bytes"].as_f64().unwrap_or(0.0) / seconds.max(1e-9));
        Ok(record)
    }

    /// Writes a snapshot into the run's folder and returns its path.
    ///
    /// # Errors
    /// `Io`, and errors of the device.
    pub async fn save(&mut self) -> Result<PathBuf> {
        let _call = self.begin_call()?;
        let progress = json!({
            "step": self.step,
            "kind": self.kind.name(),
            "cursor": self.train.cursor(),
            "seconds": self.seconds,
            "config": self.config,
        });
        let dir = self.config.out.join("snapshots");
        let path = self.learner.save(&dir, self.step, &progress, self.config.every.keep).await?;
        log::info!("step {}: snapshot saved as {}", self.step, path.display());
        Ok(path)
    }

    /// Writes the model to a folder, in place of an earlier model.
    ///
    /// # Errors
    /// `Io`, `InvalidArgument` for a folder that holds something else, and errors of the device.
    pub async fn export(&mut self, dir: &Path) -> Result<()> {
        let _call = self.begin_call()?;
        self.learner.export(dir).await?;
        log::info!("step {}: model exported to {}", self.step, dir.display());
        Ok(())
    }

    /// Metrics on held-out text.
    ///
    /// # Errors
    /// Errors of files and of the device.
    pub async fn evaluate(&mut self) -> Result<Value> {
        let _call = self.begin_call()?;
        let rows = self.config.batch.rows;
        let batches = self.config.every.evaluate_batches.min((self.held_out.len() as usize).div_ceil(rows));
        let mut ids = Vec::new();
        for i in 0..batches * rows {
            ids.extend(self.held_out.get(i as u64 % self.held_out.len())?);
        }
        let mut record = self.learner.evaluate(&ids).await?;
        record["step"] = json!(self.step);
        record["kind"] = json!("eval");
        log::info!("step {}: evaluated on {} batches of {rows} rows", self.step, batches);
        Ok(record)
    }
}

/// The first metric of a step that is not finite, which JSON writes as null.
fn diverged(record: &Value) -> Option<&'static str> {
    let terms = ["cross_entropy", "boundary", "encoder", "distill", "spelling", "loss", "gradient_norm"];
    terms.into_iter().find(|&term| record.get(term).is_some_and(|value| value.as_f64().is_none_or(|v| !v.is_finite())))
}

fn metrics_error(error: bolmo_metrics::Error) -> Error {
    Error::io(error.to_string())
}

fn metrics_path(config: &RunConfig) -> PathBuf {
    config.out.join("metrics.jsonl")
}

/// Draws `curves.svg` of the run in `out` from its metrics.
///
/// # Errors
/// Missing or damaged metrics, and `Io`.
pub fn draw(out: &Path, title: &str) -> Result<PathBuf> {
    let records = bolmo_metrics::read(out.join("metrics.jsonl")).map_err(metrics_error)?;
    let options = CurveOptions { title: title.to_owned(), ..CurveOptions::default() };
    let svg = curves(&records, &options).map_err(metrics_error)?;
    let path = out.join("curves.svg");
    write_svg(&path, &svg).map_err(metrics_error)?;
    Ok(path)
}
