//! Training: a subword model from nothing, and the two stages that make a byte-level model of one.
//!
//! What is trained, on what and how is a text in TOML, as in `examples/byteify`; texts may come from memory as well as from the files
//! that it names. The program makes the steps, a few at a time, and saves and exports when it wants to:
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
//! A trainer is used by one thread at a time; a second one gets BOLMO_BUSY. Only bolmo_trainer_cancel, bolmo_trainer_reset_cancel and
//! bolmo_trainer_delete may be called while another call with the trainer is running. Libraries that are built without the cargo
//! feature `training` lack this group.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bolmo_runtime::{Error, ErrorKind, Result, block_on};
use bolmo_training::run::{Kind, Run, RunConfig, Texts};

use crate::engine::bolmo_engine;
use crate::handle::{self, opaque};
use crate::input::{self, Out, UserData, invalid};
use crate::status::{bolmo_status, call};
use crate::text::{bolmo_bytes, lock};

/// What to train, and on what.
pub struct bolmo_trainer_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_trainer_options, Mutex<Training>);

/// A run of training on a device, which it keeps open.
pub struct bolmo_trainer {
    _opaque: [u8; 0],
}
opaque!(bolmo_trainer, OpenTrainer);

/// Which training it is.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_train_kind {
    /// A subword model: a new one, or a folder's further.
    BOLMO_TRAIN_SUBWORD = 0,
    /// The first stage of making a byte-level model: the local parts learn what a subword model does, whose blocks are frozen.
    BOLMO_TRAIN_STAGE1 = 1,
    /// The second stage: everything learns, end to end.
    BOLMO_TRAIN_STAGE2 = 2,
}

/// Gets the metrics of a step: one JSON object, UTF-8 without a NUL at the end, valid during the call. Returns 0 to go on; any other
/// value stops. Called by the thread that made the call. It may call the library, but for what the call itself uses: that is
/// BOLMO_BUSY.
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

/// A run, and what stops it while it is in use.
pub(crate) struct OpenTrainer {
    run: Mutex<Run>,
    /// Steps of its schedule.
    total: u64,
    cancelled: AtomicBool,
}

fn change(options: *mut bolmo_trainer_options, edit: impl FnOnce(&mut Training)) -> Result<()> {
    let object = handle::get(options)?;
    let mut this = lock(&object, "bolmo_trainer_options")?;
    edit(&mut this);
    Ok(())
}

/// Runs `work` with the run, if nobody else uses it.
fn with<T>(trainer: *const bolmo_trainer, work: impl FnOnce(&mut Run) -> Result<T>) -> Result<T> {
    let object = handle::get(trainer)?;
    let mut run = lock(&object.run, "bolmo_trainer")?;
    work(&mut run)
}

/// Options without a kind and a configuration, which have to be set, without texts, and for a new run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_create(options: *mut *mut bolmo_trainer_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        options.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Which training it is (bolmo_train_kind).
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
            other => return Err(invalid(format!("kind: expected a bolmo_train_kind, found {other}"))),
        };
        change(options, |o| o.kind = Some(kind))
    })
}

/// The configuration, a text in TOML, which is copied; bolmo_trainer_create reads it. Paths in it are relative to the current folder.
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

/// Replaces or adds one value of the configuration: `key=value` with a dotted key, as in `optimiser.steps=100`. What is no value of TOML
/// is a text. Of two for one key the later one counts.
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

/// Adds a text to train on, UTF-8, which is copied, to the files that `data.train` names. Between its documents are lines that say
/// `data.separator`.
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

/// Adds a text to evaluate on, as bolmo_trainer_options_add_text. Without any, and without files in `data.held_out`, a share of the
/// documents to train on is held out.
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

/// Other than 0: the run goes on from the last snapshot in its folder, if there is one. 0, as unless set: its folder must not hold a
/// run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_options_set_resume(
    options: *mut bolmo_trainer_options,
    resume: i32,
) -> bolmo_status {
    call(|| change(options, |o| o.resume = resume != 0))
}

/// Deletes the options. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_trainer_options_delete(options: *mut bolmo_trainer_options) {
    handle::delete(options);
}

/// Reads data and model, and makes the run ready on the device. The options are read during the call only.
///
/// BOLMO_INVALID_ARGUMENT: kind, configuration or texts are missing, the configuration has a key that is none or a value that cannot
/// be, or its folder holds a run and it is not to be resumed. BOLMO_NOT_FOUND, BOLMO_BAD_CHECKPOINT, BOLMO_IO: the message names the
/// file. BOLMO_OUT_OF_MEMORY, BOLMO_UNSUPPORTED.
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
            |what: &str| invalid(format!("the options have no {what}: expected bolmo_trainer_options_set_{what}"));
        let kind = kind.ok_or_else(|| missing("kind"))?;
        let config = config.ok_or_else(|| missing("config"))?;
        let config = RunConfig::parse(&config, &overrides).map_err(|e| e.context("configuration"))?;
        let total = config.optimiser.steps;
        let texts = Texts { train: &train, held_out: &held_out };
        let run = block_on(Run::open(&engine.engine, kind, config, &texts, resume))?;
        trainer.set(handle::insert(OpenTrainer { run: Mutex::new(run), total, cancelled: AtomicBool::new(false) })?);
        Ok(())
    })
}

/// Makes `count` steps, or as many as are left of `optimiser.steps`, maybe none. After each one `callback`, which may be NULL, gets its
/// metrics, and can stop. Nothing is written to the run's folder.
///
/// BOLMO_CANCELLED: stopped by the callback or by bolmo_trainer_cancel, with steps left to make; another call goes on from there. After
/// any other failure go on from the last snapshot, with a new trainer.
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
        while run.steps() < end {
            if stop || object.cancelled.swap(false, Ordering::Relaxed) {
                let left = end - run.steps();
                return Err(Error::new(ErrorKind::Cancelled, format!("training was cancelled with {left} steps left")));
            }
            let metrics = block_on(run.step())?.to_string();
            stop = callback.is_some_and(|callback| {
                trusted!(callback(metrics.as_ptr().cast(), metrics.len(), user_data.get())) != 0
            });
        }
        Ok(())
    })
}

/// Stops bolmo_trainer_step after the step under way, or else before the first step of the next call that has steps to make. May be
/// called from any thread at any time, but not from a signal handler: let that set a flag, and the callback return it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_cancel(trainer: *mut bolmo_trainer) -> bolmo_status {
    call(|| {
        handle::get(trainer)?.cancelled.store(true, Ordering::Relaxed);
        Ok(())
    })
}

/// Takes back a bolmo_trainer_cancel that came too late for what it was meant for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_reset_cancel(trainer: *mut bolmo_trainer) -> bolmo_status {
    call(|| {
        handle::get(trainer)?.cancelled.store(false, Ordering::Relaxed);
        Ok(())
    })
}

/// Steps that are behind the run, those before it was resumed included.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_steps(trainer: *const bolmo_trainer, steps: *mut u64) -> bolmo_status {
    call(|| {
        let steps = trusted!(Out::new(steps, "steps"))?;
        steps.set(with(trainer, |run| Ok(run.steps()))?);
        Ok(())
    })
}

/// Metrics on the text that is held out, as one JSON object.
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

/// Writes a snapshot into the folder `snapshots` of the run's own, and deletes the oldest but `every.keep`. It appears when it is
/// complete; a run that is resumed goes on from it as if never interrupted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_trainer_save(trainer: *mut bolmo_trainer) -> bolmo_status {
    call(|| with(trainer, |run| block_on(run.save()).map(drop)))
}

/// Writes the model as a folder in the Hugging Face layout, in place of a model that is there. Paths are as in bolmo_checkpoint_open.
///
/// BOLMO_INVALID_ARGUMENT: the folder has other files in it.
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

/// Deletes the trainer. If a call with it is running, that call goes on to its end. NULL and handles that were deleted are left
/// alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_trainer_delete(trainer: *mut bolmo_trainer) {
    handle::delete(trainer);
}
