//! Training: a subword model from scratch, and the two stages that make a byte-level model from one.
//!
//! A text in TOML describes the model, the data and the schedule, as in `examples/byteify`; `docs/training.md` has all
//! keys. Training texts may come from memory as well as from the files that it names. The program runs the steps, a
//! few at a time, and saves and exports when it wants to:
//!
//! ```c
//! static int32_t show(const char *metrics, size_t size, void *user_data) {
//!     return fwrite(metrics, 1, size, (FILE *)user_data) != size; // any other value than 0 stops
//! }
//! ...
//! bolmo_trainer_options *options;
//! bolmo_trainer *trainer;
//! bolmo_trainer_options_create(&options);
//! bolmo_trainer_options_set_kind(options, BOLMO_TRAIN_STAGE1);
//! bolmo_trainer_options_set_config(options, toml, strlen(toml));
//! bolmo_trainer_options_add_text(options, text, strlen(text));
//! bolmo_status status = bolmo_trainer_create(engine, options, &trainer);
//! bolmo_trainer_options_delete(options);
//! if (status == BOLMO_OK) status = bolmo_trainer_step(trainer, 100, show, stdout);
//! if (status == BOLMO_OK) status = bolmo_trainer_export(trainer, "model", 5);
//! bolmo_trainer_delete(trainer);
//! ```
//!
//! A trainer is used by one thread at a time; a second one gets BOLMO_BUSY. Only bolmo_trainer_cancel,
//! bolmo_trainer_reset_cancel and bolmo_trainer_delete may be called while another call with the trainer is running.
//! Libraries that are built without the cargo feature `training` lack this group.

use std::ffi::{c_char, c_void};
use std::sync::{Arc, Mutex};

use bolmo_runtime::{CancelToken, Error, ErrorKind, Result, block_on};
use bolmo_training::run::{Kind, RunConfig, Texts, TrainingRun};

use crate::engine::bolmo_engine;
use crate::handle::{self, opaque};
use crate::input::{self, Out, UserData, invalid};
use crate::status::{bolmo_status, call};
use crate::text::{bolmo_bytes, lock};

/// Options of a training run: what to train, and on which texts.
pub struct bolmo_trainer_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_trainer_options, Mutex<Training>);

/// A training run on a device, which it keeps open.
pub struct bolmo_trainer {
    _opaque: [u8; 0],
}
opaque!(bolmo_trainer, OpenTrainer);

/// Kinds of training.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_train_kind {
    /// Training of a subword model: a new one, or one from a folder.
    BOLMO_TRAIN_SUBWORD = 0,
    /// First stage of byteifying: the local parts learn to imitate a subword model, whose blocks are frozen.
    BOLMO_TRAIN_STAGE1 = 1,
    /// Second stage of byteifying: all parts learn, end to end.
    BOLMO_TRAIN_STAGE2 = 2,
}

/// Receives the metrics of a step: one JSON object, UTF-8 without a NUL at the end, valid during the call. Returns 0 to
/// continue; any other value stops. Called by the thread that made the call. It may call the library, except with the
/// objects that the call uses: that returns BOLMO_BUSY.
pub type bolmo_metrics_callback =
    Option<unsafe extern "C" fn(metrics: *const c_char, size: usize, user_data: *mut c_void) -> i32>;

/// Texts are shared with the calls that read the options.
#[derive(Clone, Default)]
pub(crate) struct Training {
    kind: Option<Kind>,
    config: Option<String>,
    overrides: Vec<String>,
    train: Arc<Vec<Vec<u8>>>,
    held_out: Arc<Vec<Vec<u8>>>,
    resume: bool,
}

/// A training run, and what cancels it while it is in use.
pub(crate) struct OpenTrainer {
    run: Mutex<TrainingRun>,
    /// Steps of the schedule.
    total: u64,
    cancelled: CancelToken,
}

fn change(options: *mut bolmo_trainer_options, edit: impl FnOnce(&mut Training)) -> Result<()> {
    let object = handle::get(options)?;
    let mut this = lock(&object, "bolmo_trainer_options")?;
    edit(&mut this);
    Ok(())
}

/// Runs `work` with the training run, unless another call uses it.
fn with<T>(trainer: *const bolmo_trainer, work: impl FnOnce(&mut TrainingRun) -> Result<T>) -> Result<T> {
    let object = handle::get(trainer)?;
    let mut run = lock(&object.run, "bolmo_trainer")?;
    work(&mut run)
}

/// Creates options for a new run, without texts. Kind and configuration must be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_create(options: *mut *mut bolmo_trainer_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        options.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Sets the kind of training (bolmo_train_kind).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_set_kind(
    options: *mut bolmo_trainer_options,
    kind: i32,
) -> bolmo_status {
    call(|| {
        let kind = match kind {
            0 => Kind::Subword,
            1 => Kind::Stage1,
            2 => Kind::Stage2,
            other => return Err(invalid(format!("kind: expected a bolmo_train_kind (0 to 2), found {other}"))),
        };
        change(options, |o| o.kind = Some(kind))
    })
}

/// Sets the configuration, a text in TOML, which is copied; bolmo_trainer_create parses it. Its paths are relative to
/// the current folder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_set_config(
    options: *mut bolmo_trainer_options,
    toml: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let toml = trusted!(input::text(toml, size, "toml"))?;
        change(options, |o| o.config = Some(toml.to_owned()))
    })
}

/// Replaces or adds one value of the configuration: `key=value` with a dotted key, as in `optimiser.steps=100`. A value
/// that is not valid TOML is taken as a string. If a key is set twice, the later value counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_set_override(
    options: *mut bolmo_trainer_options,
    pair: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let pair = trusted!(input::text(pair, size, "pair"))?;
        if !pair.contains('=') {
            return Err(invalid(format!("pair: expected key=value, found {pair:?}")));
        }
        change(options, |o| o.overrides.push(pair.to_owned()))
    })
}

/// Adds a text to train on, UTF-8, which is copied, to the files that `data.train` names. Lines that equal
/// `data.separator`, and end with LF, CRLF or the text, separate its documents.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_add_text(
    options: *mut bolmo_trainer_options,
    data: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let text = trusted!(input::text(data, size, "data"))?;
        change(options, |o| Arc::make_mut(&mut o.train).push(text.as_bytes().to_vec()))
    })
}

/// Adds a held-out text to evaluate on, in the form of bolmo_trainer_options_add_text. Without held-out texts, and
/// without files in `data.held_out`, a part of the training documents is held out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_add_held_out_text(
    options: *mut bolmo_trainer_options,
    data: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let text = trusted!(input::text(data, size, "data"))?;
        change(options, |o| Arc::make_mut(&mut o.held_out).push(text.as_bytes().to_vec()))
    })
}

/// Sets whether the run continues from the last snapshot in its folder, if there is one. 0, the default: the folder
/// must not contain a run. Any other value: continue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_set_resume(
    options: *mut bolmo_trainer_options,
    resume: i32,
) -> bolmo_status {
    call(|| change(options, |o| o.resume = resume != 0))
}

/// Deletes the options. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_trainer_options_delete(options: *mut bolmo_trainer_options) {
    handle::delete(options);
}

/// Reads data and model, and prepares the run on the device. The options are read during the call only. The folder of
/// the run is locked until the trainer is deleted. A run that is resumed may have another `optimiser.steps`, so that a
/// finished one can be extended.
///
/// BOLMO_INVALID_ARGUMENT: kind, configuration or texts are missing, the configuration has an unknown key or an invalid
/// value, or its folder contains a run that is not to be resumed. BOLMO_BUSY: another trainer or process uses the
/// folder. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT, BOLMO_IO: the message names the file. BOLMO_OUT_OF_MEMORY,
/// BOLMO_UNSUPPORTED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_create(
    engine: *const bolmo_engine,
    options: *const bolmo_trainer_options,
    trainer: *mut *mut bolmo_trainer,
) -> bolmo_status {
    call(|| {
        let trainer = trusted!(Out::new(trainer, "trainer"))?;
        let engine = handle::get(engine)?;
        let object = handle::get(options)?;
        let Training { kind, config, overrides, train, held_out, resume } =
            lock(&object, "bolmo_trainer_options")?.clone();
        let missing =
            |what: &str| invalid(format!("the options have no {what}; call bolmo_trainer_options_set_{what} first"));
        let kind = kind.ok_or_else(|| missing("kind"))?;
        let config = config.ok_or_else(|| missing("config"))?;
        let config = RunConfig::parse(&config, &overrides).map_err(|e| e.context("configuration"))?;
        let total = config.optimizer.steps;
        let texts = Texts { train: &train, held_out: &held_out };
        let run = block_on(TrainingRun::open(&engine.engine, kind, config, &texts, resume))?;
        let cancelled = run.cancel_token();
        trainer.set(handle::insert(OpenTrainer { run: Mutex::new(run), total, cancelled })?);
        Ok(())
    })
}

/// Runs `count` steps, or as many as are left of `optimiser.steps`, which may be none. After each step `callback`,
/// which may be NULL, receives its metrics and can stop. Nothing is written to the run's folder.
///
/// BOLMO_CANCELLED: the callback or bolmo_trainer_cancel stopped the run with steps left; another call continues from
/// there. After any other failure, continue from the last snapshot with a new trainer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_step(
    trainer: *mut bolmo_trainer,
    count: u64,
    callback: bolmo_metrics_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let user_data = UserData::new(user_data);
        let object = handle::get(trainer)?;
        let mut run = lock(&object.run, "bolmo_trainer")?;
        let end = run.steps().saturating_add(count).min(object.total);
        let mut stop = false;
        // One call, however many steps it has.
        let _call = if run.steps() < end { Some(run.begin_call()?) } else { None };
        while run.steps() < end {
            let left = end - run.steps();
            let cancelled =
                || Error::new(ErrorKind::Cancelled, format!("training was cancelled with {left} steps left"));
            if stop || object.cancelled.take() {
                return Err(cancelled());
            }
            let metrics = match block_on(run.step()) {
                // While the engine was suspended.
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(cancelled()),
                metrics => metrics?.to_string(),
            };
            stop = callback.is_some_and(|callback| {
                trusted!(callback(metrics.as_ptr().cast(), metrics.len(), user_data.get())) != 0
            });
        }
        Ok(())
    })
}

/// Stops bolmo_trainer_step after the current step. If no step is running, the next call that has steps to run stops
/// before its first one. May be called from any thread at any time, but not from a signal handler: set a flag there,
/// and let the callback return it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_cancel(trainer: *mut bolmo_trainer) -> bolmo_status {
    call(|| {
        handle::get(trainer)?.cancelled.cancel();
        Ok(())
    })
}

/// Withdraws a bolmo_trainer_cancel that arrived after the call that it was meant for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_reset_cancel(trainer: *mut bolmo_trainer) -> bolmo_status {
    call(|| {
        handle::get(trainer)?.cancelled.reset();
        Ok(())
    })
}

/// Gets the number of completed steps, including those before the run was resumed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_steps(trainer: *const bolmo_trainer, steps: *mut u64) -> bolmo_status {
    call(|| {
        let steps = trusted!(Out::new(steps, "steps"))?;
        steps.set(with(trainer, |run| Ok(run.steps()))?);
        Ok(())
    })
}

/// Evaluates the model on the held-out text. The metrics are one JSON object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_evaluate(
    trainer: *mut bolmo_trainer,
    metrics: *mut *mut bolmo_bytes,
) -> bolmo_status {
    call(|| {
        let metrics = trusted!(Out::new(metrics, "metrics"))?;
        let record = with(trainer, |run| block_on(run.evaluate()))?;
        metrics.set(handle::insert(record.to_string().into_bytes())?);
        Ok(())
    })
}

/// Writes a snapshot to the folder `snapshots` of the run, and deletes the oldest ones beyond `every.keep`. The
/// snapshot appears when it is complete. A resumed run continues from it as if it had never been interrupted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_save(trainer: *mut bolmo_trainer) -> bolmo_status {
    call(|| with(trainer, |run| block_on(run.save()).map(drop)))
}

/// Writes the model as a folder in the Hugging Face layout, and replaces a model that is there. Paths are as in
/// bolmo_checkpoint_open.
///
/// BOLMO_INVALID_ARGUMENT: the folder contains other files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_export(
    trainer: *mut bolmo_trainer,
    path: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let path = trusted!(input::path(path, size, "path"))?;
        with(trainer, |run| block_on(run.export(&path)))
    })
}

/// Deletes the trainer. A running call with it continues to its end. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_trainer_delete(trainer: *mut bolmo_trainer) {
    handle::delete(trainer);
}
