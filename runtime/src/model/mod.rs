//! A loaded model: weights on the device, and what sessions on it share.

pub(crate) mod kernels;
pub(crate) mod loader;
pub(crate) mod warm_up;
pub(crate) mod weights;

use std::sync::{Arc, Mutex};

use bolmo_shaders::WeightFormat;

use crate::checkpoint::Checkpoint;
use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::{Part, expected_tensors, parameters_by_part};
use crate::config::rope::inverse_frequencies;
use crate::config::{Config, RopeScaling};
use crate::device::{Engine, Gpu, Recorder, Slice};
use crate::error::{Error, ErrorKind, Result};
use crate::model::loader::{LoadProgress, Loader};
use crate::model::weights::Weights;
use crate::state::workspace::Workspace;
use crate::text::suffix_trie::SuffixTrie;
use crate::text::vocabulary::Vocabulary;

/// How to load a model.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// How matrices are kept on the device; norms and biases stay f32. Unless set, as the checkpoint was quantised ahead, or f32.
    pub formats: Option<Formats>,
    /// The source model's vocabulary, needed by models with a suffix table; others ignore it.
    pub vocabulary: Option<Vocabulary>,
}

/// A model on a device. Cheap to clone: clones are the same model. Sessions keep it alive.
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
    /// Inverse frequencies and factor of plain and of scaled rotations.
    pub(crate) rope: [(Vec<f64>, f64); 2],
    pub(crate) fingerprint: u128,
    /// Products that a byte takes if it ends a patch, attention apart.
    pub(crate) weights_per_row: u64,
    /// Products that a byte takes if it doesn't.
    pub(crate) weights_per_byte: u64,
    warnings: Vec<String>,
    /// Kernels that were not compiled while the model was loaded.
    #[cfg(target_family = "wasm")]
    cold: Mutex<Vec<crate::model::kernels::Wanted>>,
    /// The trie on the device, once it was asked for.
    suffix_table: Mutex<Option<Slice>>,
    /// Workspaces for long stretches, handed out for the time of a call.
    spare: Mutex<Vec<(Workspace, Recorder)>>,
}

impl Model {
    /// Puts the weights of `checkpoint` on the device. `progress` hears of bytes done and in all, and may stop the work.
    ///
    /// # Errors
    /// `InvalidArgument` if a needed vocabulary is missing or the checkpoint was quantised ahead in other formats, `BadCheckpoint` for damaged weights (not finite) or a
    /// vocabulary of another model, `OutOfMemory`, `Unsupported`, `Cancelled`, `DeviceLost`.
    pub async fn load(
        engine: &Engine,
        checkpoint: &Checkpoint,
        options: LoadOptions,
        progress: &mut LoadProgress<'_>,
    ) -> Result<Self> {
        let config = checkpoint.config().clone();
        let formats = formats_to_load(checkpoint, options.formats)?;
        let mut warnings = checkpoint.warnings().to_vec();
        let suffixes = match (config.add_expanded_embeddings, &options.vocabulary) {
            (false, _) => None,
            (true, Some(vocabulary)) => {
                warnings.extend(vocabulary.check_rows(config.subword_vocab_size)?);
                warnings.extend(vocabulary.warning().map(str::to_owned));
                let trie = SuffixTrie::new(vocabulary);
                // Every text begins with this id: better to say now that nothing can be appended.
                trie.suffixes(&[], &[config.special.bos])?;
                Some(trie)
            }
            (true, None) => {
                let source = config.original_identifier.as_deref().unwrap_or("the source model");
                return Err(Error::invalid(format!(
                    "{}: the model has a suffix table, so it needs the tokenizer.json of {source}: \
                     put it into the folder or name it (--subwords FILE)",
                    checkpoint.origin()
                )));
            }
        };
        let gpu = &engine.gpu;
        Workspace::fitting(gpu, &config, 1)?;
        if let Some(available) = gpu.adapter.is_software().then(available_memory).flatten() {
            let stored = checkpoint.formats().is_some();
            check_memory(&config, formats, stored, available).map_err(|e| e.context(&gpu.adapter.name))?;
        }
        // Kernels are compiled while weights are on their way.
        let kernels = crate::model::kernels::kernels(&config, formats, &gpu.capabilities);
        #[cfg(not(target_family = "wasm"))]
        let warming = warm_up::Warming::start(gpu, kernels.concat());
        // Browsers compile one at a time, and what is not needed at once can wait.
        #[cfg(target_family = "wasm")]
        let [first, later] = kernels;
        #[cfg(target_family = "wasm")]
        crate::model::warm_up(gpu, first);
        let (weights, fingerprint, warning) = Loader::new(gpu, checkpoint, formats, progress).load(&config).await?;
        #[cfg(not(target_family = "wasm"))]
        warming.finish();
        gpu.save_kernels();
        gpu.check()?;
        warnings.extend(warning);
        let frequencies =
            |scaling| inverse_frequencies(config.head_dim, config.rope_theta, scaling, config.max_position_embeddings);
        let rope = [frequencies(&RopeScaling::None), frequencies(&config.rope_scaling)];
        let tables = [Part::ByteEmbedding, Part::SuffixEmbedding];
        let parameters = parameters_by_part(&config);
        let weights_per_row = parameters.iter().filter(|(part, _)| !tables.contains(part)).map(|(_, n)| n).sum();
        let local = [Part::LocalEncoder, Part::LocalDecoder, Part::Head];
        let weights_per_byte = parameters.iter().filter(|(part, _)| local.contains(part)).map(|(_, n)| n).sum();
        let inner = Inner {
            engine: engine.clone(),
            config,
            formats,
            weights,
            suffixes,
            rope,
            fingerprint,
            weights_per_row,
            weights_per_byte,
            suffix_table: Mutex::default(),
            #[cfg(target_family = "wasm")]
            cold: Mutex::new(later),
            warnings,
            spare: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// How matrices are kept on the device.
    pub fn formats(&self) -> Formats {
        self.inner.formats
    }

    /// The device it is on.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// Names this model's configuration, weights and format: snapshots restore only on a model with the same.
    pub fn fingerprint(&self) -> u128 {
        self.inner.fingerprint
    }

    /// Begins to compile what is not needed for the first byte, in the background. Otherwise it is compiled when it is needed, and the second
    /// byte takes longer. A program that waits for its user's text has the time for it.
    #[cfg(target_family = "wasm")]
    pub fn warm(&self) {
        let kernels = std::mem::take(&mut *self.inner.cold.lock().unwrap_or_else(|e| e.into_inner()));
        crate::model::warm_up(self.inner.gpu(), kernels);
    }

    /// What was odd about the checkpoint but did not keep it from loading.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }
}

impl Inner {
    pub(crate) fn gpu(&self) -> &Arc<Gpu> {
        &self.engine.gpu
    }

    /// The suffix trie on the device, if the model has one, as `sample.wgsl` reads it.
    pub(crate) async fn suffix_table(&self) -> Result<Option<Slice>> {
        let Some(trie) = &self.suffixes else { return Ok(None) };
        let there = |table: &Mutex<Option<Slice>>| table.lock().unwrap_or_else(|e| e.into_inner()).clone();
        if let Some(table) = there(&self.suffix_table) {
            return Ok(Some(table));
        }
        let words = trie.words();
        let table = self.gpu().allocate("the suffix trie", 4 * words.len() as u64).await?;
        self.gpu().write(&table, 0, bytemuck::cast_slice(&words))?;
        *self.suffix_table.lock().unwrap_or_else(|e| e.into_inner()) = Some(table.clone());
        Ok(Some(table))
    }

    /// A workspace for long stretches; give it back with [`Self::give_back`].
    pub(crate) async fn take_workspace(&self) -> Result<(Workspace, Recorder)> {
        let spare = self.spare.lock().unwrap_or_else(|e| e.into_inner()).pop();
        if let Some(spare) = spare {
            return Ok(spare);
        }
        let gpu = self.gpu();
        let capacity = Workspace::fitting(gpu, &self.config, gpu.capabilities.prefill_bytes)?;
        Ok((Workspace::new(gpu, &self.config, capacity).await?, Recorder::new(gpu).await?))
    }

    pub(crate) fn give_back(&self, (workspace, mut recorder): (Workspace, Recorder)) {
        recorder.discard();
        // Bind groups hold the buffers of the session that used the workspace.
        recorder.forget_bindings();
        self.spare.lock().unwrap_or_else(|e| e.into_inner()).push((workspace, recorder));
    }
}

/// The formats to load in: those that were asked for, if the checkpoint has not its own.
fn formats_to_load(checkpoint: &Checkpoint, asked: Option<Formats>) -> Result<Formats> {
    match (checkpoint.formats(), asked) {
        (Some(stored), Some(asked)) if stored != asked => Err(Error::invalid(format!(
            "{}: is quantised as {stored} and cannot be loaded as {asked}; leave the format out, or quantise the original anew",
            checkpoint.origin()
        ))),
        (Some(stored), _) => Ok(stored),
        (None, asked) => Ok(asked.unwrap_or_default()),
    }
}

/// Bytes of device memory that a model's weights take when its matrices are kept in `formats`.
pub fn device_bytes(config: &Config, formats: impl Into<Formats>) -> u64 {
    let formats = formats.into();
    expected_tensors(config).iter().map(|tensor| formats.tensor_bytes(tensor)).sum()
}

/// Refuses a load that cannot end well, and says what would fit: software adapters take host memory, and systems kill who takes too
/// much of it. `stored`: the formats are the checkpoint's own, and not to be chosen here.
fn check_memory(config: &Config, formats: Formats, stored: bool, available: u64) -> Result<()> {
    let needed = device_bytes(config, formats);
    if needed <= available {
        return Ok(());
    }
    let smaller = WeightFormat::ALL.map(|format| (format.name(), device_bytes(config, format)));
    let advice = match smaller.iter().find(|(_, bytes)| *bytes <= available) {
        Some((name, bytes)) if stored => format!("quantise the original as {name} ({bytes} bytes; bolmo quantize)"),
        Some((name, bytes)) => format!("use --quantize {name} ({bytes} bytes)"),
        None => format!("use a smaller model: even in q4 this one needs {} bytes", smaller.map(|(_, b)| b)[3]),
    };
    let message = format!(
        "the weights need {needed} bytes, {available} are free, and the adapter computes in main memory; {advice}"
    );
    Err(Error::new(ErrorKind::OutOfMemory, message))
}

/// Bytes of main memory that can be had without swapping, where the system tells.
pub fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset::Preset;

    #[test]
    fn the_format_that_would_fit() {
        let config = Preset::Mid.config();
        let bytes = |format| device_bytes(&config, format);
        let refused = |formats: WeightFormat, stored, available| {
            check_memory(&config, formats.into(), stored, available).map_err(|e| e.message().to_owned())
        };
        assert_eq!(refused(WeightFormat::F32, false, bytes(WeightFormat::F32)), Ok(()));
        let message = refused(WeightFormat::F32, false, bytes(WeightFormat::F16)).unwrap_err();
        assert!(message.contains("--quantize f16"), "{message}");
        let message = refused(WeightFormat::F32, false, bytes(WeightFormat::F16) - 1).unwrap_err();
        assert!(message.contains("--quantize q8"), "{message}");
        let message = refused(WeightFormat::F16, false, bytes(WeightFormat::Q4)).unwrap_err();
        assert!(message.contains("--quantize q4"), "{message}");
        let message = refused(WeightFormat::Q8, true, bytes(WeightFormat::Q4)).unwrap_err();
        assert!(message.contains("bolmo quantize"), "{message}");
        let message = refused(WeightFormat::Q4, false, 1000).unwrap_err();
        assert!(message.contains("a smaller model"), "{message}");
    }
}
