//! A loaded model: the weights on the device, and what its sessions share.

mod in_place;
pub(crate) mod kernels;
pub(crate) mod loader;
mod matrix_source;
mod memory;
pub(crate) mod warm_up;
pub(crate) mod weights;

use std::sync::Arc;
#[cfg(target_family = "wasm")]
use std::sync::Mutex;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::{Part, expected_tensors, parameters_by_part};
use crate::config::overrides::Overrides;
use crate::config::{Config, LayerType, RopeScaling};
use crate::device::{Device, Engine, Kept, Recorder, Slice};
use crate::error::{Error, Hint, Result};
use crate::model::in_place::Files;
use crate::model::kernels::kernels;
use crate::model::loader::{LoadProgress, Loaded, Loader};
pub use crate::model::memory::available_memory;
use crate::model::memory::check_memory;
use crate::model::weights::Weights;
use crate::state::workspace::Workspace;
use crate::text::suffix_trie::SuffixTrie;
use crate::text::vocabulary::Vocabulary;
use crate::timer::Timer;

/// Name of the suffix trie in messages about its buffer.
const SUFFIX_TRIE: &str = "the suffix trie of the vocabulary";

/// How to load a model.
///
/// ```
/// use bolmo_runtime::{LoadOptions, WeightFormat};
///
/// let options = LoadOptions::default().formats(WeightFormat::Q8);
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// Formats of the matrices on the device; norms and biases stay f32. With `None` they are the formats of a
    /// quantized checkpoint, or f32.
    pub formats: Option<Formats>,
    /// Vocabulary of the source model, which a model with a suffix table needs and others ignore. With `None` it is
    /// read from the checkpoint's folder.
    pub vocabulary: Option<Vocabulary>,
    /// Base of the rotary frequencies, instead of the checkpoint's.
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies of full-attention layers, instead of the checkpoint's.
    pub rope_scaling: Option<RopeScaling>,
}

impl LoadOptions {
    /// Sets [`Self::rope_theta`], for a checkpoint that lost it in conversion.
    #[must_use]
    pub fn rope_theta(mut self, theta: f64) -> Self {
        self.rope_theta = Some(theta);
        self
    }

    /// Sets [`Self::rope_scaling`], for a checkpoint that lost it in conversion.
    #[must_use]
    pub fn rope_scaling(mut self, scaling: RopeScaling) -> Self {
        self.rope_scaling = Some(scaling);
        self
    }

    /// Sets [`Self::formats`].
    #[must_use]
    pub fn formats(mut self, formats: impl Into<Formats>) -> Self {
        self.formats = Some(formats.into());
        self
    }

    /// Sets [`Self::vocabulary`].
    #[must_use]
    pub fn vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.vocabulary = Some(vocabulary);
        self
    }
}

/// A model on a device. Cheap to clone; sessions keep it alive.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) formats: Formats,
    pub(crate) weights: Weights,
    pub(crate) suffixes: Option<SuffixTrie>,
    /// Inverse frequencies and attention factor of the rotary embeddings of sliding and of full layers.
    pub(crate) rope: [(Vec<f64>, f64); 2],
    pub(crate) fingerprint: u128,
    mapped_bytes: u64,
    /// Multiply-adds of a byte that ends a patch, without attention.
    pub(crate) weights_per_row: u64,
    /// Multiply-adds of a byte that does not end a patch.
    pub(crate) weights_per_byte: u64,
    /// Files whose contents are used in place.
    pub(crate) files: Files,
    warnings: Vec<String>,
    /// Kernels that were not compiled during loading.
    #[cfg(target_family = "wasm")]
    cold: Mutex<Vec<kernels::KernelSpec>>,
    /// The suffix trie on the device, uploaded on first use.
    suffix_table: Kept<Slice>,
    /// Buffers for prefill chunks that no call is using.
    prefill_buffers: Kept<PrefillBuffers>,
}

/// Buffers for prefill chunks.
#[derive(Debug)]
pub(crate) struct PrefillBuffers {
    pub(crate) workspace: Workspace,
    pub(crate) recorder: Recorder,
    /// How often the device's memory had been released when these were made or taken.
    trims: u64,
}

impl Model {
    /// Loads `checkpoint` onto the device of `engine`.
    ///
    /// The CPU device uses large tensors where the checkpoint's files are mapped, if they are stored in the wanted
    /// format. These files must not be changed while the model exists; work that begins after a change fails with
    /// `BadCheckpoint`.
    ///
    /// # Errors
    /// `InvalidArgument` if the model needs a vocabulary and none is found, or if the checkpoint is quantized in other
    /// formats than those requested, `BadCheckpoint` if weights are not finite or the vocabulary belongs to another
    /// model, `OutOfMemory`, `Unsupported`, `DeviceLost`, `Suspended`.
    pub async fn load(engine: &Engine, checkpoint: &Checkpoint, options: LoadOptions) -> Result<Self> {
        Self::load_with_progress(engine, checkpoint, options, &mut |_, _| true).await
    }

    /// Loads a model like [`Self::load`] and calls `progress` with the bytes loaded and their total. If `progress`
    /// returns `false`, loading stops.
    ///
    /// # Errors
    /// The same as [`Self::load`], and `Cancelled`.
    pub async fn load_with_progress(
        engine: &Engine,
        checkpoint: &Checkpoint,
        options: LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self> {
        let timer = Timer::start();
        checkpoint.check_unchanged()?;
        let overrides = Overrides { rope_theta: options.rope_theta, rope_scaling: options.rope_scaling };
        let (config, mut warnings) = checkpoint.overridden(overrides)?;
        let formats = formats_to_load(checkpoint, options.formats)?;
        let suffixes = suffix_trie(checkpoint, options.vocabulary, &mut warnings)?;
        let device = &engine.device;
        let permit = device.begin_work()?;
        if let Some(trie) = &suffixes {
            // It is uploaded with the first generated byte, which is too late to fail.
            device.buffer_size(SUFFIX_TRIE, trie.bytes())?;
        }
        Workspace::fitting(device, &config, 1)?;
        if let Some(available) = device.adapter.has_host_memory().then(available_memory).flatten() {
            let stored = checkpoint.formats().is_some();
            let mapped = checkpoint.mapped_bytes_from(formats, device.capabilities.in_place_bytes);
            check_memory(&config, formats, mapped, stored, available).map_err(|e| e.context(&device.adapter.name))?;
        }
        // Kernels are compiled while weights are loaded.
        let kernels = kernels(&config, formats, &device.capabilities);
        #[cfg(not(target_family = "wasm"))]
        let warming = match device.adapter.is_cpu() {
            // Its kernels are compiled with this crate.
            true => None,
            false => Some(warm_up::Warming::start(device, kernels.concat())),
        };
        // Browsers compile one kernel at a time, so kernels that the first byte does not need come later.
        #[cfg(target_family = "wasm")]
        let [first, later] = kernels;
        #[cfg(target_family = "wasm")]
        warm_up::warm(device, first);
        let Loaded { weights, fingerprint, files, warning } =
            Loader::new(device, checkpoint, formats, permit, progress).load(&config).await?;
        #[cfg(not(target_family = "wasm"))]
        if let Some(warming) = warming {
            warming.finish();
        }
        device.save_kernels();
        device.check()?;
        warnings.extend(warning);
        let rope = [LayerType::Sliding, LayerType::Full].map(|layers| config.rotary_frequencies(layers));
        let parameters = parameters_by_part(&config);
        let count =
            |counts: fn(Part) -> bool| parameters.iter().filter(|(part, _)| counts(*part)).map(|(_, n)| n).sum();
        let weights_per_row = count(|part| !matches!(part, Part::ByteEmbedding | Part::SuffixEmbedding));
        let weights_per_byte = count(|part| matches!(part, Part::LocalEncoder | Part::LocalDecoder | Part::Head));
        let inner = Inner {
            engine: engine.clone(),
            config,
            formats,
            weights,
            suffixes,
            rope,
            fingerprint,
            mapped_bytes: checkpoint.mapped_bytes_from(formats, device.capabilities.in_place_bytes),
            weights_per_row,
            weights_per_byte,
            files,
            suffix_table: device.keep(|| false),
            #[cfg(target_family = "wasm")]
            cold: Mutex::new(later),
            warnings,
            prefill_buffers: device.keep(|| false),
        };
        let bytes = device_bytes(&inner.config, formats);
        let mapped = inner.mapped_bytes;
        let origin = checkpoint.origin();
        log::info!("model loaded: {origin}, {formats}, {bytes} bytes, {mapped} of them in place, {timer}");
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Formats of the matrices on the device.
    pub fn formats(&self) -> Formats {
        self.inner.formats
    }

    /// Bytes of weights that are used where the checkpoint has them and need no memory of their own, on the CPU device.
    pub fn mapped_bytes(&self) -> u64 {
        self.inner.mapped_bytes
    }

    /// The engine that holds the model.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Hash of the configuration, formats and weights. A snapshot can only be restored on a model with the same
    /// fingerprint.
    pub fn fingerprint(&self) -> u128 {
        self.inner.fingerprint
    }

    /// Compiles in the background the kernels that the first byte does not need. Otherwise they are compiled on first
    /// use, which delays the second byte. A good time to call this is while the program waits for input.
    #[cfg(target_family = "wasm")]
    pub fn warm(&self) {
        let kernels = std::mem::take(&mut *self.inner.cold.lock().unwrap_or_else(|e| e.into_inner()));
        warm_up::warm(self.inner.device(), kernels);
    }

    /// Non-fatal load warnings.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }
}

impl Inner {
    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.engine.device
    }

    /// Whether a decode step of `sequences` sequences may be stopped part-way.
    pub(crate) fn stops_steps(&self, sequences: usize) -> bool {
        let capabilities = &self.device().capabilities;
        let weights = self.weights_per_row.saturating_mul(sequences as u64);
        capabilities.interrupts && weights > capabilities.long_step_weights
    }

    /// The suffix trie on the device in the layout of `sample.wgsl`, if the model has a suffix table.
    pub(crate) async fn suffix_table(&self) -> Result<Option<Slice>> {
        let Some(trie) = &self.suffixes else { return Ok(None) };
        if let Some(table) = self.suffix_table.get() {
            return Ok(Some(table));
        }
        let words = trie.words();
        let table = self.device().allocate(SUFFIX_TRIE, 4 * words.len() as u64).await?;
        self.device().write(&table, 0, bytemuck::cast_slice(&words))?;
        self.suffix_table.put(table.clone());
        Ok(Some(table))
    }

    /// Takes buffers for prefill chunks, to be returned with [`Self::give_back`].
    pub(crate) async fn take_prefill_buffers(&self) -> Result<PrefillBuffers> {
        let device = self.device();
        let trims = device.trims();
        if let Some(kept) = self.prefill_buffers.take() {
            return Ok(PrefillBuffers { trims, ..kept });
        }
        let capacity = Workspace::fitting(device, &self.config, device.capabilities.prefill_bytes)?;
        let workspace = Workspace::new(device, &self.config, capacity).await?;
        Ok(PrefillBuffers { workspace, recorder: Recorder::new(device).await?, trims })
    }

    /// Returns buffers for reuse, unless memory was to be released since they were taken.
    pub(crate) fn give_back(&self, mut buffers: PrefillBuffers) {
        if buffers.trims != self.device().trims() {
            return;
        }
        buffers.recorder.discard();
        // Bind groups keep the buffers of the session alive.
        buffers.recorder.forget_bindings();
        self.prefill_buffers.put(buffers);
    }
}

/// The suffix trie of a model with a suffix table, from `vocabulary` or else from the checkpoint's folder. Appends what
/// is unusual about the vocabulary to `warnings`.
fn suffix_trie(
    checkpoint: &Checkpoint,
    vocabulary: Option<Vocabulary>,
    warnings: &mut Vec<String>,
) -> Result<Option<SuffixTrie>> {
    let config = checkpoint.config();
    if !config.add_expanded_embeddings {
        return Ok(None);
    }
    let found = match vocabulary {
        Some(vocabulary) => Some(vocabulary),
        None => checkpoint.vocabulary().map_err(missing_vocabulary)?,
    };
    let Some(vocabulary) = found else { return Ok(None) };
    warnings.extend(vocabulary.check_rows(config.subword_vocab_size)?);
    warnings.extend(vocabulary.warning().map(str::to_owned));
    let trie = SuffixTrie::new(&vocabulary);
    // Every text begins with this id: a vocabulary that lacks it fails here instead of at the first append.
    trie.suffixes(&[], &[config.special.bos])?;
    Ok(Some(trie))
}

/// Reports a vocabulary that the checkpoint's folder lacks as a missing argument of the load.
fn missing_vocabulary(error: Error) -> Error {
    match error.hint() {
        Some(hint @ Hint::VocabularyMissing { .. }) => Error::invalid(error.message()).with_hint(hint.clone()),
        _ => error,
    }
}

/// The formats to load: those of a quantized checkpoint, else the requested ones.
fn formats_to_load(checkpoint: &Checkpoint, requested: Option<Formats>) -> Result<Formats> {
    match (checkpoint.formats(), requested) {
        // Nothing quantizes to f32 in all parts: only the original has these weights.
        (Some(stored), Some(requested)) if stored != requested && requested == Formats::default() => {
            Err(Error::invalid(format!(
                "{}: is quantized as {stored} and cannot be loaded as {requested}; omit the formats, or load the \
                 original checkpoint",
                checkpoint.origin()
            )))
        }
        (Some(stored), Some(requested)) if stored != requested => Err(Error::invalid(format!(
            "{}: is quantized as {stored} and cannot be loaded as {requested}; omit the formats, or quantize the \
             original checkpoint as {requested}",
            checkpoint.origin()
        ))
        .with_hint(Hint::QuantizeOriginal { format: requested.uniform() })),
        (Some(stored), _) => Ok(stored),
        (None, requested) => Ok(requested.unwrap_or_default()),
    }
}

/// Bytes of device memory that the weights of a model take in `formats`.
pub fn device_bytes(config: &Config, formats: impl Into<Formats>) -> u64 {
    let formats = formats.into();
    expected_tensors(config).iter().map(|tensor| formats.tensor_bytes(tensor)).sum()
}
