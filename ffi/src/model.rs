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

use bolmo_runtime::{
    Checkpoint, Config, Formats, LoadOptions, Model, Result, RopeScaling, WeightFormat, block_on, device_bytes,
};

use crate::adapters::{hand_out, with_nul};
use crate::checkpoint::{self, Tokenizer, bolmo_checkpoint};
use crate::engine::bolmo_engine;
use crate::handle::{self, opaque};
use crate::input::{self, Out, UserData, invalid};
use crate::status::{bolmo_status, call};
use crate::text::lock;

/// Options for loading a model.
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
    /// The parts that run once per byte: local layers, boundary predictor, head.
    BOLMO_PART_LOCAL = 0,
    /// The global blocks, which run once per patch.
    BOLMO_PART_GLOBAL = 1,
    /// The embedding tables of bytes and subwords.
    BOLMO_PART_EMBEDDINGS = 2,
}

/// Receives the progress of a long call: `done` of `total`. Returns 0 to continue; any other value cancels the call,
/// which then returns BOLMO_CANCELLED. If `done` equals `total`, nothing is left to cancel. Called by the thread that
/// made the call. It may call the library, except with the objects that the call uses: that returns BOLMO_BUSY.
pub type bolmo_progress_callback = Option<unsafe extern "C" fn(done: u64, total: u64, user_data: *mut c_void) -> i32>;

#[derive(Clone)]
pub(crate) struct Loading {
    format: Option<WeightFormat>,
    /// Formats of single parts, in the order of bolmo_part.
    part_formats: [Option<WeightFormat>; 3],
    tokenizer: Tokenizer,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeScaling>,
    progress: Progress,
}

impl Loading {
    /// The requested formats, if any. Parts without one follow the checkpoint.
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

/// The index of a bolmo_part.
fn part(part: i32) -> Result<usize> {
    match part {
        0..=2 => Ok(part as usize),
        other => Err(invalid(format!("part: expected a bolmo_part (0 to 2), found {other}"))),
    }
}

/// A model and the warnings about its checkpoint.
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

    /// Calls the callback; returns whether to continue.
    pub(crate) fn tell(&self, done: u64, total: u64) -> bool {
        match self.0 {
            None => true,
            Some(callback) => trusted!(callback(done, total, self.1.get())) == 0,
        }
    }
}

/// Creates options with the defaults: the formats in which the checkpoint is stored if it is quantized, else f32; the
/// checkpoint's own tokenizer and rotary frequencies; no progress callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_create(options: *mut *mut bolmo_load_options) -> bolmo_status {
    call(|| {
        let options = trusted!(Out::new(options, "options"))?;
        let progress = Progress::new(None, std::ptr::null_mut());
        let loading = Loading {
            format: None,
            part_formats: [None; 3],
            tokenizer: Tokenizer::None,
            rope_theta: None,
            rope_scaling: None,
            progress,
        };
        options.set(handle::insert(Mutex::new(loading))?);
        Ok(())
    })
}

/// Sets the format of matrices on the device (bolmo_format). A checkpoint that is stored quantized loads in its own
/// formats only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_format(options: *mut bolmo_load_options, format: i32) -> bolmo_status {
    call(|| {
        let format = checkpoint::format(format)?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.format = Some(format);
        Ok(())
    })
}

/// Sets the format (bolmo_format) of one part's matrices (bolmo_part). It overrides bolmo_load_options_set_format,
/// whichever is called first.
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

/// Sets the path of the source model's `tokenizer.json`, or of its folder, to use instead of the checkpoint's own. The
/// file is read when the model is loaded; models without a suffix table don't need it.
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

/// Sets the contents of the source model's `tokenizer.json` and of the `tokenizer_config.json` beside it, or NULL and 0
/// if there is none. Both are copied.
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

/// Sets the base of the rotary frequencies, instead of the checkpoint's: above 1 and at most 1e15. For checkpoints that
/// lost it in conversion, which loading warns about.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_rope_theta(
    options: *mut bolmo_load_options,
    theta: f64,
) -> bolmo_status {
    call(|| {
        Config::check_rope_theta(theta)?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.rope_theta = Some(theta);
        Ok(())
    })
}

/// Sets the scaling of the rotary frequencies of full-attention layers, instead of the checkpoint's. For checkpoints
/// that lost it in conversion, which loading warns about. UTF-8: `none`, or a kind (`linear`, `llama3`, `yarn`) with
/// the keys of `rope_scaling` in config.json, as in `yarn:factor=8,original_max_position_embeddings=8192` (`original`
/// is short for the long name), or the JSON object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_load_options_set_rope_scaling(
    options: *mut bolmo_load_options,
    scaling: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let scaling = trusted!(input::text(scaling, size, "scaling"))?.parse()?;
        let object = handle::get(options)?;
        lock(&object, "bolmo_load_options")?.rope_scaling = Some(scaling);
        Ok(())
    })
}

/// Sets the progress callback, which counts bytes of the checkpoint; NULL for none.
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

/// Deletes the options. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_load_options_delete(options: *mut bolmo_load_options) {
    handle::delete(options);
}

/// Loads the checkpoint's weights onto the engine's device. `options` may be NULL; they are read during the call only.
///
/// BOLMO_INVALID_ARGUMENT: the model needs a tokenizer.json and has none, or the weights are stored quantized in other
/// formats than the options ask for. BOLMO_BAD_CHECKPOINT: the tokenizer belongs to another model, or weights are not
/// finite. BOLMO_UNSUPPORTED: weights exceed the range of f16. BOLMO_OUT_OF_MEMORY, BOLMO_DEVICE_LOST, BOLMO_CANCELLED,
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
        load.rope_theta = loading.as_ref().and_then(|l| l.rope_theta);
        load.rope_scaling = loading.as_ref().and_then(|l| l.rope_scaling);
        load.vocabulary = match &loading {
            Some(Loading { tokenizer: tokenizer @ (Tokenizer::File(_) | Tokenizer::Memory(..)), .. })
                if checkpoint.checkpoint.config().add_expanded_embeddings =>
            {
                tokenizer.vocabulary()?
            }
            _ => checkpoint.vocabulary()?,
        };
        let progress = loading.map(|l| l.progress);
        let loaded =
            block_on(Model::load_with_progress(&engine.engine, &checkpoint.checkpoint, load, &mut |done, total| {
                progress.is_none_or(|progress| progress.tell(done, total))
            }))?;
        let warnings = loaded.warnings().iter().map(|w| with_nul(w)).collect();
        model.set(handle::insert(LoadedModel { model: loaded, warnings })?);
        Ok(())
    })
}

/// Gets a numeric property (bolmo_model_property) of the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_number(model: *const bolmo_model, which: i32, number: *mut u64) -> bolmo_status {
    call(|| {
        let number = trusted!(Out::new(number, "number"))?;
        let object = handle::get(model)?;
        number.set(checkpoint::property(object.model.config(), || object.model.work_bytes(), which)?);
        Ok(())
    })
}

/// Gets the device memory that the weights take, in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_device_bytes(model: *const bolmo_model, bytes: *mut u64) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        let model = handle::get(model)?;
        bytes.set(device_bytes(model.model.config(), model.model.formats()));
        Ok(())
    })
}

/// Gets how many of these bytes are used where the checkpoint's files are mapped, and need no memory of their own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_mapped_bytes(model: *const bolmo_model, bytes: *mut u64) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        bytes.set(handle::get(model)?.model.mapped_bytes());
        Ok(())
    })
}

/// Gets the device memory that a session takes at most while it grows to `patches` patches, in bytes.
///
/// Included are the keys and values of the patches, the state, and what the session keeps to process and choose bytes.
/// The memory for keys and values doubles when it is full, and the old one is copied, which is included too. Not
/// included: BOLMO_MODEL_WORK_BYTES, a fraction of that for what the sessions of a batch share, a repetition window of
/// more than 2000 ids, more than 400 bytes of stop strings, and the host's memory through which a snapshot is read. A
/// clone or a session checkpoint counts as a session of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_session_bytes(
    model: *const bolmo_model,
    patches: usize,
    bytes: *mut u64,
) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        bytes.set(handle::get(model)?.model.session_bytes(patches));
        Ok(())
    })
}

/// Size of a fingerprint, in bytes.
pub const BOLMO_FINGERPRINT_SIZE: usize = 16;

/// Gets a fingerprint of the model's configuration, weights and format, of BOLMO_FINGERPRINT_SIZE bytes. Snapshots
/// restore only on models with the same fingerprint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_fingerprint(model: *const bolmo_model, fingerprint: *mut u8) -> bolmo_status {
    call(|| {
        let fingerprint = trusted!(Out::new(fingerprint.cast::<[u8; BOLMO_FINGERPRINT_SIZE]>(), "fingerprint"))?;
        fingerprint.set(handle::get(model)?.model.fingerprint().to_le_bytes());
        Ok(())
    })
}

/// Number of warnings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_model_warning_count(model: *const bolmo_model, count: *mut usize) -> bolmo_status {
    call(|| {
        let count = trusted!(Out::new(count, "count"))?;
        count.set(handle::get(model)?.warnings.len());
        Ok(())
    })
}

/// Gets the warning at `index`, about something odd in the files that was accepted: one sentence, with a NUL at the
/// end. Valid until the model is deleted.
///
/// BOLMO_NOT_FOUND: there is no such warning.
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

/// Deletes the model's handle. Its memory is freed when its last session is gone too. NULL and deleted handles are
/// ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_model_delete(model: *mut bolmo_model) {
    handle::delete(model);
}
