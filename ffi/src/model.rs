//! Models: weights on a device, for any number of sessions.
//!
//! ```c
//! static int32_t show(uint64_t done, uint64_t total, void *user_data) {
//!     (void)user_data;
//!     fprintf(stderr, "\r%3.0f %%", 100.0 * (double)done / (double)total);
//!     return 0; // any other value cancels
//! }
//! ...
//! bolmo_load_options *options;
//! bolmo_load_options_create(&options);
//! bolmo_load_options_set_format(options, BOLMO_F16);
//! bolmo_load_options_set_progress(options, show, NULL);
//! bolmo_model *model;
//! bolmo_status status = bolmo_model_load(engine, checkpoint, options, &model);
//! bolmo_load_options_delete(options);
//! bolmo_checkpoint_delete(checkpoint);
//! ```

use std::ffi::{CString, c_char, c_void};
use std::sync::Mutex;

use bolmo_runtime::{Checkpoint, Formats, LoadOptions, Model, Result, WeightFormat, block_on, device_bytes};

use crate::adapters::{hand_out, with_nul};
use crate::checkpoint::{self, Tokenizer, bolmo_checkpoint};
use crate::engine::bolmo_engine;
use crate::handle::{self, opaque};
use crate::input::{self, Out, UserData, invalid};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// How to load a model.
pub struct bolmo_load_options {
    _opaque: [u8; 0],
}
opaque!(bolmo_load_options, Mutex<Loading>);

/// A model on a device. Any number of threads may use it at once. It keeps the device open.
pub struct bolmo_model {
    _opaque: [u8; 0],
}
opaque!(bolmo_model, LoadedModel);

/// Parts of a model that may be kept in different formats.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_part {
    /// What runs once a byte: local layers, boundary predictor, head.
    BOLMO_PART_LOCAL = 0,
    /// The global blocks, which run once a patch.
    BOLMO_PART_GLOBAL = 1,
    /// The tables of bytes and of subwords.
    BOLMO_PART_EMBEDDINGS = 2,
}

/// Told how far a long call has come, of how much. Returns 0 to go on; any other value cancels the call, which then returns
/// BOLMO_CANCELLED, unless `done` is `total`: there is nothing left to cancel. Called by the thread that made the call. It may call the library, but for what the call itself uses: that is
/// BOLMO_BUSY.
pub type bolmo_progress_callback = Option<unsafe extern "C" fn(done: u64, total: u64, user_data: *mut c_void) -> i32>;

#[derive(Clone)]
pub(crate) struct Loading {
    format: Option<WeightFormat>,
    /// Of parts that were set by themselves, in the order of bolmo_part.
    part_formats: [Option<WeightFormat>; 3],
    tokenizer: Tokenizer,
    progress: Progress,
}

impl Loading {
    /// The formats that were asked for, if any were. Parts that were not go by the checkpoint.
    fn formats(&self, checkpoint: &Checkpoint) -> Option<Formats> {
        if self.format.is_none() && self.part_formats == [None; 3] {
            return None;
        }
        let mut formats = self.format.map_or_else(|| checkpoint.formats().unwrap_or_default(), Formats::from);
        let [local, global, embeddings] = self.part_formats;
        formats.local = local.unwrap_or(formats.local);
        formats.global = global.unwrap_or(formats.global);
        formats.embeddings = embeddings.unwrap_or(formats.embeddings);
        Some(formats)
    }
}

/// The place of a bolmo_part in lists of parts.
fn part(part: i32) -> Result<usize> {
    match part {
        0..=2 => Ok(part as usize),
        other => Err(invalid(format!("part: expected a bolmo_part, found {other}"))),
    }
}

/// A model and what was odd about its checkpoint.
pub(crate) struct LoadedModel {
    pub(crate) model: Model,
    warnings: Vec<CString>,
}

/// A progress callback with its user data.
#[derive(Clone, Copy)]
pub(crate) struct Progress(pub(crate) bolmo_progress_callback, pub(crate) UserData);

impl Progress {
    pub(crate) fn new(callback: bolmo_progress_callback, user_data: *mut c_void) -> Self {
        Self(callback, UserData::new(user_data))
    }

    /// Whether to go on.
    pub(crate) fn tell(&self, done: u64, total: u64) -> bool {
        match self.0 {
            None => true,
            Some(callback) => trusted!(callback(done, total, self.1.get())) == 0,
        }
    }
}

/// Options with everything as it is unless set: the formats that the checkpoint was quantised in ahead or else f32, the tokenizer that comes with the checkpoint, no progress.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_create(options: *mut *mut bolmo_load_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        let progress = Progress::new(None, std::ptr::null_mut());
        let loading = Loading { format: None, part_formats: [None; 3], tokenizer: Tokenizer::None, progress };
        options.set(handle::insert(Mutex::new(loading))?);
        Ok(())
    })
}

/// How matrices are kept on the device (bolmo_format). A checkpoint that was quantised ahead loads in its own formats only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_format(options: *mut bolmo_load_options, format: i32) -> bolmo_status {
    call(|| {
        let format = checkpoint::format(format)?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.format = Some(format);
        Ok(())
    })
}

/// How the matrices of one part (bolmo_part) are kept (bolmo_format), whatever bolmo_load_options_set_format says, before or after.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_part_format(
    options: *mut bolmo_load_options,
    part: i32,
    format: i32,
) -> bolmo_status {
    call(|| {
        let (part, format) = (self::part(part)?, checkpoint::format(format)?);
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.part_formats[part] = Some(format);
        Ok(())
    })
}

/// The source model's `tokenizer.json`, or the folder that it is in, instead of the checkpoint's own. Read when the model is loaded;
/// models without a suffix table don't need it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_tokenizer_path(
    options: *mut bolmo_load_options,
    path: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let path = trusted!(input::path(path, size, "path"))?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.tokenizer = Tokenizer::File(path);
        Ok(())
    })
}

/// The contents of the source model's `tokenizer.json` and, where there is one, of the `tokenizer_config.json` beside it (else NULL
/// and 0), which are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_tokenizer(
    options: *mut bolmo_load_options,
    json: *const c_void,
    size: usize,
    config_json: *const c_void,
    config_size: usize,
) -> bolmo_status {
    call(|| {
        let tokenizer = trusted!(checkpoint::tokenizer_in_memory(json, size, config_json, config_size))?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.tokenizer = tokenizer;
        Ok(())
    })
}

/// Whom to tell about progress, in bytes of the checkpoint; NULL for nobody.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_progress(
    options: *mut bolmo_load_options,
    progress: bolmo_progress_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.progress = Progress::new(progress, user_data);
        Ok(())
    })
}

/// Deletes the options. NULL and handles that were deleted are left alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_load_options_delete(options: *mut bolmo_load_options) {
    handle::delete(options);
}

/// Puts the checkpoint's weights on the engine's device. `options` may be NULL; they are read during the call only.
///
/// BOLMO_INVALID_ARGUMENT: the model needs a tokenizer.json and has none, or it was quantised ahead in other formats than were set. BOLMO_BAD_CHECKPOINT: a tokenizer of another model, or
/// weights that are not finite. BOLMO_UNSUPPORTED: weights beyond f16. BOLMO_OUT_OF_MEMORY, BOLMO_DEVICE_LOST, BOLMO_CANCELLED,
/// BOLMO_IO.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_load(
    engine: *const bolmo_engine,
    checkpoint: *const bolmo_checkpoint,
    options: *const bolmo_load_options,
    model: *mut *mut bolmo_model,
) -> bolmo_status {
    call(|| {
        let model = trusted!(Out::new(model, "model"))?;
        let engine = handle::get(engine)?;
        let checkpoint = handle::get(checkpoint)?;
        let loading = match handle::get_optional(options)? {
            Some(object) => Some(lock(&object, "bolmo_load_options")?.clone()),
            None => None,
        };
        let mut load = LoadOptions::default();
        load.formats = loading.as_ref().and_then(|l| l.formats(&checkpoint.checkpoint));
        load.vocabulary = match &loading {
            Some(Loading { tokenizer: tokenizer @ (Tokenizer::File(_) | Tokenizer::Memory(..)), .. })
                if checkpoint.checkpoint.config().add_expanded_embeddings =>
            {
                tokenizer.vocabulary()?
            }
            _ => checkpoint.vocabulary()?,
        };
        let progress = loading.map(|l| l.progress);
        let loaded = block_on(Model::load(&engine.engine, &checkpoint.checkpoint, load, &mut |done, total| {
            progress.is_none_or(|progress| progress.tell(done, total))
        }))?;
        let warnings = loaded.warnings().iter().map(|w| with_nul(w)).collect();
        model.set(handle::insert(LoadedModel { model: loaded, warnings })?);
        Ok(())
    })
}

/// A number (bolmo_model_property) about the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_number(model: *const bolmo_model, which: i32, number: *mut u64) -> bolmo_status {
    call(|| {
        let number = trusted!(Out::new(number, "number"))?;
        number.set(checkpoint::property(handle::get(model)?.model.config(), which)?);
        Ok(())
    })
}

/// Bytes of device memory that the weights take.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_device_bytes(model: *const bolmo_model, bytes: *mut u64) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        let model = handle::get(model)?;
        bytes.set(device_bytes(model.model.config(), model.model.formats()));
        Ok(())
    })
}

/// Bytes of a fingerprint.
pub const BOLMO_FINGERPRINT_SIZE: usize = 16;

/// Names the model's configuration, weights and format in BOLMO_FINGERPRINT_SIZE bytes: snapshots restore on models with the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_fingerprint(model: *const bolmo_model, fingerprint: *mut u8) -> bolmo_status {
    call(|| {
        let fingerprint = trusted!(Out::new(fingerprint.cast::<[u8; BOLMO_FINGERPRINT_SIZE]>(), "fingerprint"))?;
        fingerprint.set(handle::get(model)?.model.fingerprint().to_le_bytes());
        Ok(())
    })
}

/// How many warnings there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_warning_count(model: *const bolmo_model, count: *mut usize) -> bolmo_status {
    call(|| {
        let count = trusted!(Out::new(count, "count"))?;
        count.set(handle::get(model)?.warnings.len());
        Ok(())
    })
}

/// What was odd about the files and accepted, one sentence an index, with a NUL at the end. Valid until the model is deleted.
///
/// BOLMO_NOT_FOUND: there are not so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_warning(
    model: *const bolmo_model,
    index: usize,
    text: *mut *const c_char,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, size) = trusted!((Out::new(text, "text")?, Out::optional(size)?));
        hand_out(checkpoint::warning(&handle::get(model)?.warnings, index)?, text, size);
        Ok(())
    })
}

/// Deletes the model's handle; its memory is freed when its last session is gone too. NULL and handles that were deleted are left
/// alone.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_model_delete(model: *mut bolmo_model) {
    handle::delete(model);
}
