//! Checkpoints: the files of a model, opened and checked but not loaded yet.
//!
//! A checkpoint is a folder with `config.json` and safetensors files, or the same parts from memory or from a reader of
//! the program's own. Nearly all models also need the `tokenizer.json` of the subword model that they were made from.
//! Opening reads headers only. Weights are read while a model is loaded; the checkpoint may be deleted after that.
//!
//! ```c
//! bolmo_checkpoint *checkpoint;
//! uint64_t needed;
//! if (bolmo_checkpoint_open(path, strlen(path), &checkpoint) == BOLMO_OK &&
//!     bolmo_checkpoint_device_bytes(checkpoint, BOLMO_F16, &needed) == BOLMO_OK) {
//!     printf("%.1f MB of device memory in f16\n", needed / 1e6);
//! }
//! ```
//!
//! From parts, with a reader:
//!
//! ```c
//! static int64_t read_asset(void *user_data, uint64_t offset, uint8_t *out, size_t size) {
//!     // Bytes read, 0 at the end, below 0 on errors.
//!     return my_asset_read((my_asset *)user_data, offset, out, size);
//! }
//! ...
//! bolmo_checkpoint_builder *builder;
//! bolmo_checkpoint_builder_create(&builder);
//! bolmo_checkpoint_builder_set_config(builder, config, config_size);
//! bolmo_checkpoint_builder_set_tokenizer(builder, tokenizer, tokenizer_size, NULL, 0);
//! bolmo_checkpoint_builder_add_reader(builder, "weights", 7, asset_size, read_asset, NULL, asset);
//! bolmo_status status = bolmo_checkpoint_builder_open(builder, &checkpoint);
//! bolmo_checkpoint_builder_delete(builder);
//! ```

use std::ffi::{CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::Mutex;

use bolmo_runtime::LayerType;
use bolmo_runtime::files::{CheckpointFile, MemoryFile, exists_or_is_link};
use bolmo_runtime::layout::parameters_by_part;
use bolmo_runtime::{
    Checkpoint, Config, Error, ErrorKind, Result, Vocabulary, WeightFormat, device_bytes, session_bytes,
};

use crate::adapters::{hand_out, with_nul};
use crate::engine::bolmo_engine;
use crate::handle::{self, opaque};
use crate::input::{self, Out, UserData, invalid};
use crate::status::{bolmo_status, call};
use crate::text::{bolmo_bytes, lock};

/// An opened and checked checkpoint. Any number of threads may use it at once.
pub struct bolmo_checkpoint {
    _opaque: [u8; 0],
}
opaque!(bolmo_checkpoint, OpenCheckpoint);

/// The parts of a checkpoint that is not a folder.
pub struct bolmo_checkpoint_builder {
    _opaque: [u8; 0],
}
opaque!(bolmo_checkpoint_builder, Mutex<Parts>);

/// Format of matrices on the device. Norms and biases are always f32.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_format {
    /// 32 bits per weight.
    BOLMO_F32 = 0,
    /// 16 bits per weight.
    BOLMO_F16 = 1,
    /// 8 bits per weight, and a scale for every 32 weights.
    BOLMO_Q8 = 2,
    /// 4 bits per weight, and a scale for every 32 weights.
    BOLMO_Q4 = 3,
}

/// A numeric property of a model.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum bolmo_model_property {
    /// Number of weights, all parts together.
    BOLMO_MODEL_PARAMETERS = 0,
    /// Width of the residual stream.
    BOLMO_MODEL_HIDDEN_SIZE = 1,
    /// Local layers before the boundary predictor.
    BOLMO_MODEL_ENCODER_LAYERS = 2,
    /// Global blocks.
    BOLMO_MODEL_GLOBAL_LAYERS = 3,
    /// Local layers after the global blocks.
    BOLMO_MODEL_DECODER_LAYERS = 4,
    /// Rows of the suffix table; 0 for a model without one. Such a model needs no tokenizer.json.
    BOLMO_MODEL_SUFFIX_ROWS = 5,
    /// Logits per step: 520.
    BOLMO_MODEL_LOGITS = 6,
    /// Size of the state that a byte changes, in bytes. A session takes more: bolmo_model_session_bytes.
    BOLMO_MODEL_STATE_BYTES = 7,
    /// Size of the keys and values of a patch, in bytes. Sessions reserve room for more patches than they hold:
    /// bolmo_model_session_bytes.
    BOLMO_MODEL_PATCH_BYTES = 8,
    /// The same for patches beyond the sliding window, if the model has one.
    BOLMO_MODEL_LATE_PATCH_BYTES = 9,
    /// Device memory that the model takes, beside weights and sessions, to process prompts, in bytes: once for each
    /// call that appends, scores or generates with a constraint at the same time. It is allocated when it is first
    /// needed, and kept. Of a checkpoint: at most this much, on any device.
    BOLMO_MODEL_WORK_BYTES = 10,
}

/// Reads up to `size` bytes at `offset` into `out`. Returns the number of bytes read, 0 at the end of the file, or a
/// negative number of its own on failure. Called by the thread that called the library and by threads of the library,
/// several at once.
pub type bolmo_read_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, offset: u64, out: *mut u8, size: usize) -> i64>;

/// Tells the program that the library no longer needs what `user_data` stands for. Called once, by the thread that
/// released the last reference.
pub type bolmo_release_callback = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A checkpoint and the place of its tokenizer.
pub(crate) struct OpenCheckpoint {
    pub(crate) checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    warnings: Vec<CString>,
    source: CString,
}

/// Place of the source model's tokenizer.
#[derive(Debug, Clone, Default)]
pub(crate) enum Tokenizer {
    /// Unknown.
    #[default]
    None,
    /// A file, or the folder that contains it.
    File(PathBuf),
    /// In memory: `tokenizer.json` and `tokenizer_config.json`.
    Memory(Vec<u8>, Option<Vec<u8>>),
}

impl Tokenizer {
    /// Reads the vocabulary.
    pub(crate) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        match self {
            Self::None => Ok(None),
            Self::File(path) if path.is_dir() => Vocabulary::open(path.join("tokenizer.json")).map(Some),
            Self::File(path) => Vocabulary::open(path).map(Some),
            Self::Memory(json, config) => {
                Vocabulary::from_json(json, config.as_deref(), "the tokenizer.json in memory").map(Some)
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct Parts {
    config: Option<Vec<u8>>,
    tokenizer: Tokenizer,
    files: Vec<Box<dyn CheckpointFile>>,
}

impl OpenCheckpoint {
    fn new(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Self {
        let warnings = checkpoint.warnings().iter().map(|w| with_nul(w)).collect();
        let source = with_nul(checkpoint.config().original_identifier.as_deref().unwrap_or_default());
        Self { checkpoint, tokenizer, warnings, source }
    }

    /// The vocabulary that came with the checkpoint, if the model needs one.
    pub(crate) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        if self.checkpoint.config().add_expanded_embeddings { self.tokenizer.vocabulary() } else { Ok(None) }
    }
}

/// Calls the program back when it is dropped, on success and on failure alike.
struct Release(bolmo_release_callback, UserData);

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(release) = self.0 {
            trusted!(release(self.1.get()));
        }
    }
}

/// A file that the program keeps in memory for the library.
struct CallerMemory {
    name: String,
    data: UserData,
    size: usize,
    _release: Release,
}

impl CheckpointFile for CallerMemory {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.size as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let from = usize::try_from(offset).ok().and_then(|from| self.contents().get(from..)?.get(..out.len()));
        let from = from.ok_or_else(|| {
            let message =
                format!("{}: the file ends at byte {}; expected {} bytes at {offset}", self.name, self.size, out.len());
            Error::new(ErrorKind::BadCheckpoint, message)
        })?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn bytes(&self) -> Option<&[u8]> {
        Some(self.contents())
    }
}

impl CallerMemory {
    fn contents(&self) -> &[u8] {
        // The pointer was checked when the file was added, so this cannot fail.
        trusted!(input::bytes(self.data.get(), self.size, "data")).unwrap_or_default()
    }
}

/// A file that the program reads for the library.
struct CallerReader {
    name: String,
    size: u64,
    read: unsafe extern "C" fn(*mut c_void, u64, *mut u8, usize) -> i64,
    release: Release,
}

impl CheckpointFile for CallerReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let failed = |what: String| Error::new(ErrorKind::Io, format!("{}: the reader {what}", self.name));
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let (at, wanted) = (offset + done as u64, rest.len());
            let got = trusted!((self.read)(self.release.1.get(), at, rest.as_mut_ptr(), wanted));
            match usize::try_from(got) {
                Ok(0) => return Err(failed(format!("reached the end at byte {at}, expected {} bytes", self.size))),
                Ok(got) if got <= wanted => done += got,
                Ok(got) => return Err(failed(format!("returned {got} bytes at {at}, expected at most {wanted}"))),
                Err(_) => return Err(failed(format!("failed with {got} at byte {at}"))),
            }
        }
        Ok(())
    }
}

/// The format of a bolmo_format.
pub(crate) fn format(format: i32) -> Result<WeightFormat> {
    match format {
        0 => Ok(WeightFormat::F32),
        1 => Ok(WeightFormat::F16),
        2 => Ok(WeightFormat::Q8),
        3 => Ok(WeightFormat::Q4),
        other => Err(invalid(format!("format: expected a bolmo_format (0 to 3), found {other}"))),
    }
}

/// A numeric property of a model that has this much work memory.
pub(crate) fn property(config: &Config, work_bytes: impl FnOnce() -> u64, which: i32) -> Result<u64> {
    let full = config.layer_types.iter().filter(|kind| **kind == LayerType::Full).count();
    Ok(match which {
        0 => parameters_by_part(config).iter().map(|(_, count)| count).sum(),
        1 => config.hidden_size as u64,
        2 => config.num_local_encoder_layers as u64,
        3 => config.num_hidden_layers as u64,
        4 => config.num_local_decoder_layers as u64,
        5 if config.add_expanded_embeddings => config.subword_vocab_size as u64,
        5 => 0,
        6 => config.vocab_size as u64,
        7 => config.state_bytes(),
        8 => config.patch_bytes(config.num_hidden_layers),
        9 => config.patch_bytes(full),
        10 => work_bytes(),
        other => return Err(invalid(format!("which: expected a bolmo_model_property (0 to 10), found {other}"))),
    })
}

/// The warning at `index`.
pub(crate) fn warning(warnings: &[CString], index: usize) -> Result<&CString> {
    let missing = || {
        Error::new(
            ErrorKind::NotFound,
            format!("index: expected less than {}, the number of warnings, found {index}", warnings.len()),
        )
    };
    warnings.get(index).ok_or_else(missing)
}

/// Opens the folder at `path`: any bytes that the system allows in paths, but UTF-8 on Windows. The files must not
/// change until the checkpoint is deleted. A `tokenizer.json` in the folder is used as the source model's.
///
/// BOLMO_NOT_FOUND: no such folder, or no config.json or weights in it. BOLMO_BAD_CHECKPOINT, BOLMO_UNSUPPORTED: the
/// message names the file and the tensor or key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_open(
    path: *const c_void,
    size: usize,
    checkpoint: *mut *mut bolmo_checkpoint,
) -> bolmo_status {
    call(|| {
        let checkpoint = trusted!(Out::new(checkpoint, "checkpoint"))?;
        let path = trusted!(input::path(path, size, "path"))?;
        let opened = Checkpoint::open(&path)?;
        let file = path.join("tokenizer.json");
        let tokenizer = if exists_or_is_link(&file) { Tokenizer::File(file) } else { Tokenizer::None };
        checkpoint.set(handle::insert(OpenCheckpoint::new(opened, tokenizer))?);
        Ok(())
    })
}

/// Creates a builder without any parts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_builder_create(builder: *mut *mut bolmo_checkpoint_builder) -> bolmo_status {
    call(|| {
        let builder = trusted!(Out::new(builder, "builder"))?;
        builder.set(handle::insert(Mutex::default())?);
        Ok(())
    })
}

/// Sets the contents of `config.json`, which are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_builder_set_config(
    builder: *mut bolmo_checkpoint_builder,
    json: *const c_void,
    size: usize,
) -> bolmo_status {
    call(|| {
        let json = trusted!(input::bytes(json, size, "json"))?.to_vec();
        let object = handle::get(builder)?;
        lock(&object, "bolmo_checkpoint_builder")?.config = Some(json);
        Ok(())
    })
}

/// Sets the contents of the source model's `tokenizer.json` and of the `tokenizer_config.json` beside it, or NULL and 0
/// if there is none. Both are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_builder_set_tokenizer(
    builder: *mut bolmo_checkpoint_builder,
    json: *const c_void,
    size: usize,
    config_json: *const c_void,
    config_size: usize,
) -> bolmo_status {
    call(|| {
        let tokenizer = trusted!(tokenizer_in_memory(json, size, config_json, config_size))?;
        let object = handle::get(builder)?;
        lock(&object, "bolmo_checkpoint_builder")?.tokenizer = tokenizer;
        Ok(())
    })
}

/// A tokenizer from the caller's memory.
///
/// # Safety
/// As [`input::items`], for both.
pub(crate) unsafe fn tokenizer_in_memory(
    json: *const c_void,
    size: usize,
    config_json: *const c_void,
    config_size: usize,
) -> Result<Tokenizer> {
    let json = trusted!(input::bytes(json, size, "json"))?;
    let config = trusted!(input::bytes(config_json, config_size, "config_json"))?;
    Ok(Tokenizer::Memory(json.to_vec(), (!config.is_empty()).then(|| config.to_vec())))
}

/// Adds a safetensors file in memory. `name` is used in messages. With a `release` callback the bytes are used in
/// place: they must stay valid until `release` is called with `user_data`, when both checkpoint and builder have been
/// deleted. Without one (NULL) the bytes are copied. `release` is not called if this function fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_builder_add_memory(
    builder: *mut bolmo_checkpoint_builder,
    name: *const c_void,
    name_size: usize,
    data: *const c_void,
    size: usize,
    release: bolmo_release_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let name = trusted!(input::text(name, name_size, "name"))?.to_owned();
        let bytes = trusted!(input::bytes(data, size, "data"))?;
        let object = handle::get(builder)?;
        let mut parts = lock(&object, "bolmo_checkpoint_builder")?;
        parts.files.push(match release {
            None => Box::new(MemoryFile::new(name, bytes.to_vec())),
            Some(_) => {
                let _release = Release(release, UserData::new(user_data));
                Box::new(CallerMemory { name, data: UserData::new(data.cast_mut()), size, _release })
            }
        });
        Ok(())
    })
}

/// Adds a safetensors file of `size` bytes that `read` reads, with `user_data`. `name` is used in messages. `release`,
/// which may be NULL, is called with `user_data` when both checkpoint and builder have been deleted, but not if this
/// function fails. The file must not change.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_builder_add_reader(
    builder: *mut bolmo_checkpoint_builder,
    name: *const c_void,
    name_size: usize,
    size: u64,
    read: bolmo_read_callback,
    release: bolmo_release_callback,
    user_data: *mut c_void,
) -> bolmo_status {
    call(|| {
        let name = trusted!(input::text(name, name_size, "name"))?.to_owned();
        let read = read.ok_or_else(|| invalid("read: must not be NULL"))?;
        let object = handle::get(builder)?;
        let mut parts = lock(&object, "bolmo_checkpoint_builder")?;
        let release = Release(release, UserData::new(user_data));
        parts.files.push(Box::new(CallerReader { name, size, read, release }));
        Ok(())
    })
}

/// Opens the checkpoint that the parts make up. The parts move to the checkpoint: the builder is empty afterwards, even
/// if this function fails.
///
/// BOLMO_IO: a reader failed. Other statuses as for bolmo_checkpoint_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_builder_open(
    builder: *mut bolmo_checkpoint_builder,
    checkpoint: *mut *mut bolmo_checkpoint,
) -> bolmo_status {
    call(|| {
        let checkpoint = trusted!(Out::new(checkpoint, "checkpoint"))?;
        let object = handle::get(builder)?;
        // Readers run without the lock, so they may use the builder.
        let parts = std::mem::take(&mut *lock(&object, "bolmo_checkpoint_builder")?);
        let config = parts
            .config
            .ok_or_else(|| invalid("the builder has no config; call bolmo_checkpoint_builder_set_config first"))?;
        let opened = Checkpoint::from_parts("the checkpoint from parts", &config, parts.files)?;
        checkpoint.set(handle::insert(OpenCheckpoint::new(opened, parts.tokenizer))?);
        Ok(())
    })
}

/// Deletes the builder and its parts. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_checkpoint_builder_delete(builder: *mut bolmo_checkpoint_builder) {
    handle::delete(builder);
}

/// Gets a numeric property (bolmo_model_property) of the model.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_number(
    checkpoint: *const bolmo_checkpoint,
    which: i32,
    number: *mut u64,
) -> bolmo_status {
    call(|| {
        let number = trusted!(Out::new(number, "number"))?;
        let object = handle::get(checkpoint)?;
        number.set(property(object.checkpoint.config(), || object.checkpoint.work_bytes(), which)?);
        Ok(())
    })
}

/// Gets the device memory that the weights will take in `format` (bolmo_format), in bytes. For weights that are stored
/// quantized, `format` is ignored and their own formats count. Needed in addition: bolmo_checkpoint_session_bytes for
/// each session, and BOLMO_MODEL_WORK_BYTES.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_device_bytes(
    checkpoint: *const bolmo_checkpoint,
    format: i32,
    bytes: *mut u64,
) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        let (format, object) = (self::format(format)?, handle::get(checkpoint)?);
        let formats = object.checkpoint.formats().unwrap_or(format.into());
        bytes.set(device_bytes(object.checkpoint.config(), formats));
        Ok(())
    })
}

/// Gets how many of the bytes of bolmo_checkpoint_device_bytes need no memory of their own on `engine`: on the CPU
/// device large tensors that are stored in the wanted format are used where the file is mapped, and processes share
/// them. 0 on other devices, and for files that a program reads itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_mapped_bytes(
    checkpoint: *const bolmo_checkpoint,
    engine: *const bolmo_engine,
    format: i32,
    bytes: *mut u64,
) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        let (format, object, engine) = (self::format(format)?, handle::get(checkpoint)?, handle::get(engine)?);
        let formats = object.checkpoint.formats().unwrap_or(format.into());
        bytes.set(object.checkpoint.mapped_bytes_on(&engine.engine, formats));
        Ok(())
    })
}

/// Gets the device memory that a session takes at most while it grows to `patches` patches, in bytes, on any device.
/// bolmo_model_session_bytes says what is included. A patch has about 4 bytes of text; the model decides.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_session_bytes(
    checkpoint: *const bolmo_checkpoint,
    patches: usize,
    bytes: *mut u64,
) -> bolmo_status {
    call(|| {
        let bytes = trusted!(Out::new(bytes, "bytes"))?;
        bytes.set(session_bytes(handle::get(checkpoint)?.checkpoint.config(), patches));
        Ok(())
    })
}

/// Gets the name under which the source model's tokenizer was published, or an empty text if the checkpoint doesn't
/// say. UTF-8, with a NUL at the end. `size`, which may be NULL, receives the size without the NUL. Valid until the
/// checkpoint is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_tokenizer_source(
    checkpoint: *const bolmo_checkpoint,
    text: *mut *const c_char,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, size) = trusted!((Out::new(text, "text")?, Out::optional(size)?));
        hand_out(&handle::get(checkpoint)?.source, text, size);
        Ok(())
    })
}

/// Number of warnings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_warning_count(
    checkpoint: *const bolmo_checkpoint,
    count: *mut usize,
) -> bolmo_status {
    call(|| {
        let count = trusted!(Out::new(count, "count"))?;
        count.set(handle::get(checkpoint)?.warnings.len());
        Ok(())
    })
}

/// Gets the warning at `index`, about something odd in the files that was accepted: one sentence, with a NUL at the
/// end. Valid until the checkpoint is deleted.
///
/// BOLMO_NOT_FOUND: there is no such warning.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_warning(
    checkpoint: *const bolmo_checkpoint,
    index: usize,
    text: *mut *const c_char,
    size: *mut usize,
) -> bolmo_status {
    call(|| {
        let (text, size) = trusted!((Out::new(text, "text")?, Out::optional(size)?));
        hand_out(warning(&handle::get(checkpoint)?.warnings, index)?, text, size);
        Ok(())
    })
}

/// Gets the configuration as this library understands it: JSON with the keys of `config.json`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bolmo_checkpoint_config_json(
    checkpoint: *const bolmo_checkpoint,
    json: *mut *mut bolmo_bytes,
) -> bolmo_status {
    call(|| {
        let json = trusted!(Out::new(json, "json"))?;
        let text = handle::get(checkpoint)?.checkpoint.config().to_json().to_string();
        json.set(handle::insert(text.into_bytes())?);
        Ok(())
    })
}

/// Deletes the checkpoint. Models that were loaded from it stay. NULL and deleted handles are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn bolmo_checkpoint_delete(checkpoint: *mut bolmo_checkpoint) {
    handle::delete(checkpoint);
}
