//! Checkpoints: a configuration and its tensors, checked against each other when they are opened.
//!
//! Opening reads only the headers of the files; [`Tensor::read_f32`] reads weights. [`TensorFolder`] is the counterpart
//! for models of other kinds.

#[cfg(not(target_family = "wasm"))]
mod advice;
mod file;
#[cfg(not(target_family = "wasm"))]
mod folder;
pub(crate) mod formats;
mod header;
mod index;
pub mod layout;
#[cfg(not(target_family = "wasm"))]
pub mod output;
pub(crate) mod packed;
pub(crate) mod quantized;
pub(crate) mod stored_formats;
mod tensor;
mod tensor_folder;

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod mistaken_tests;
#[cfg(test)]
mod quantized_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
pub use file::MappedFile;
pub use file::{CheckpointFile, Fetching, MemoryFile};
pub use index::Index;
#[cfg(not(target_family = "wasm"))]
pub(crate) use tensor::convert_half;
pub use tensor::{DType, Tensor, check_finite};
pub use tensor_folder::TensorFolder;

use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::{TensorSpec, expected_tensors};
use crate::config::overrides::{Overrides, Warnings};
use crate::config::{Config, RopeScaling};
use crate::error::{Error, ErrorKind, Hint, Result};
#[cfg(not(target_family = "wasm"))]
use crate::input::file::exists_or_is_link;
use crate::input::shorten::shortened;
use crate::text::vocabulary::Vocabulary;
use header::{HeaderEntry, MAX_TENSORS, read_header};
use quantized::Stored;
use stored_formats::stored_formats;

/// Maximum number of names in a message about missing or unknown tensors.
const NAMES_SHOWN: usize = 5;
/// Suffix of tensors that some converters store although `config.json` implies them; they are ignored.
const IGNORED_SUFFIX: &str = "rotary_emb.inv_freq";

/// File name of weights in one file.
#[cfg(not(target_family = "wasm"))]
const SINGLE: &str = "model.safetensors";
/// File name of the index of sharded weights.
#[cfg(not(target_family = "wasm"))]
const INDEX: &str = "model.safetensors.index.json";
/// File name of the source model's tokenizer.
#[cfg(not(target_family = "wasm"))]
const TOKENIZER: &str = "tokenizer.json";

/// An open checkpoint. It has exactly the tensors of [`expected_tensors`].
pub struct Checkpoint {
    origin: String,
    /// The folder; `None` for a checkpoint from parts.
    #[cfg(not(target_family = "wasm"))]
    folder: Option<std::path::PathBuf>,
    config: Config,
    /// The text of `config.json`.
    #[cfg(not(target_family = "wasm"))]
    config_text: Vec<u8>,
    formats: Option<Formats>,
    warnings: Warnings,
    files: Vec<Arc<dyn CheckpointFile>>,
    /// In the order of [`expected_tensors`].
    tensors: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

/// A checked tensor.
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    file: usize,
    start: u64,
    /// File and first byte of the scales, for types that have scales.
    scales: Option<(usize, u64)>,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint of {} with {} tensors in {} files", self.origin, self.tensors.len(), self.files.len())
    }
}

impl Checkpoint {
    /// Opens the folder `dir`: `config.json`, and `model.safetensors` or the shards that `model.safetensors.index.json`
    /// names.
    ///
    /// The files are mapped into memory. They must not be truncated or rewritten while the checkpoint, or a model on
    /// the CPU device that was loaded from it, exists. They may be deleted or replaced.
    ///
    /// # Errors
    /// `NotFound` for a missing folder or file, `InvalidArgument` if `dir` is a file, `BadCheckpoint` for damaged files
    /// or tensors that don't match the configuration, `Unsupported` for a model that cannot be computed here, `Io`.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(dir: impl AsRef<std::path::Path>) -> Result<Checkpoint> {
        let dir = dir.as_ref();
        let folder::Folder { origin, config, index, files } = folder::open(dir)?;
        let checkpoint = match index {
            Some(index) => Self::from_shards(&origin, &config, &index, files),
            None => Self::from_parts(&origin, &config, files),
        }?;
        Ok(Checkpoint { folder: Some(dir.to_owned()), ..checkpoint })
    }

    /// Opens a checkpoint from the text of its `config.json` and its safetensors files, in any order.
    ///
    /// `origin` names the checkpoint in messages.
    pub fn from_parts(origin: &str, config: &[u8], files: Vec<Box<dyn CheckpointFile>>) -> Result<Checkpoint> {
        let headers = read_headers(&files)?;
        Self::from_headers(origin, config, files, headers)
    }

    /// Opens a checkpoint from parts and the headers of `files`, in the same order.
    fn from_headers(
        origin: &str,
        config: &[u8],
        files: Vec<Box<dyn CheckpointFile>>,
        headers: Vec<Vec<HeaderEntry>>,
    ) -> Result<Checkpoint> {
        let (config_text, config_name) = (config, format!("{origin}/config.json"));
        let (config, warnings) = Config::read(config_text, &config_name)?;
        let formats = stored_formats(config_text, &config_name)?;
        let expected = expected_tensors(&config);
        let mut found = collect(&files, headers)?;

        let mut tensors = Vec::with_capacity(expected.len());
        let mut missing = Vec::new();
        for spec in expected {
            let file_name = |file: usize| files.get(file).map_or("", |file| file.name());
            let stored = formats.map(|formats| Stored::new(&spec, formats));
            let scales_name = stored.as_ref().and_then(|stored| stored.scales.as_ref()).map(|(name, _)| name.clone());
            let scales = scales_name.as_ref().and_then(|name| found.remove(name));
            if let (Some(name), None) = (scales_name, &scales) {
                missing.push(name);
            }
            match (found.remove(&spec.name), stored) {
                (Some((file, entry)), None) => tensors.push(check(file_name(file), file, spec, entry)?),
                (Some((file, entry)), Some(stored)) => {
                    stored.check(file_name(file), &spec.name, &entry)?;
                    if let Some((file, entry)) = &scales {
                        stored.check_scales(file_name(*file), entry)?;
                    }
                    let TensorSpec { name, shape, .. } = spec;
                    let scales = scales.map(|(file, entry)| (file, entry.start));
                    tensors.push(Entry { name, dtype: stored.dtype, shape, file, start: entry.start, scales });
                }
                (None, _) => missing.push(spec.name),
            }
        }
        if !missing.is_empty() {
            return Err(Error::bad_checkpoint(format!(
                "{origin}: {} missing, but required by `config.json`; fetch the checkpoint again",
                listed(&missing)
            )));
        }
        let mut extra: Vec<String> = found.into_keys().filter(|name| !name.ends_with(IGNORED_SUFFIX)).collect();
        if !extra.is_empty() {
            extra.sort();
            return Err(Error::bad_checkpoint(format!(
                "{origin}: {} too many, not implied by `config.json`; use the `config.json` of this checkpoint",
                listed(&extra)
            )));
        }
        let (count, bytes) = (files.len(), files.iter().map(|file| file.len()).sum::<u64>());
        let stored = formats.map(|formats| format!(", quantized as {formats}")).unwrap_or_default();
        log::info!("checkpoint opened: {origin}, {} tensors in {count} files of {bytes} bytes{stored}", tensors.len());
        let by_name = tensors.iter().enumerate().map(|(i, entry): (usize, &Entry)| (entry.name.clone(), i)).collect();
        Ok(Checkpoint {
            origin: origin.to_owned(),
            #[cfg(not(target_family = "wasm"))]
            folder: None,
            config,
            #[cfg(not(target_family = "wasm"))]
            config_text: config_text.to_owned(),
            formats,
            warnings,
            files: files.into_iter().map(Arc::from).collect(),
            tensors,
            by_name,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The text of `config.json`.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn config_text(&self) -> &[u8] {
        &self.config_text
    }

    /// The formats of the matrices if the checkpoint is quantized. It cannot be loaded in other formats.
    pub fn formats(&self) -> Option<Formats> {
        self.formats
    }

    /// Replaces the base of the rotary frequencies, for checkpoints that lost it in conversion.
    ///
    /// # Errors
    /// `InvalidArgument` as for [`Config::override_rope_theta`].
    pub fn override_rope_theta(&mut self, theta: f64) -> Result<()> {
        self.apply(Overrides { rope_theta: Some(theta), ..Overrides::default() })
    }

    /// Replaces the scaling of the rotary frequencies of full-attention layers, for checkpoints that lost it in
    /// conversion.
    ///
    /// # Errors
    /// `InvalidArgument` as for [`Config::override_rope_scaling`].
    pub fn override_rope_scaling(&mut self, scaling: RopeScaling) -> Result<()> {
        self.apply(Overrides { rope_scaling: Some(scaling), ..Overrides::default() })
    }

    fn apply(&mut self, overrides: Overrides) -> Result<()> {
        overrides.apply(&mut self.config, &mut self.warnings)
    }

    /// The configuration with `overrides`, and the warnings that they leave.
    pub(crate) fn overridden(&self, overrides: Overrides) -> Result<(Config, Vec<String>)> {
        let (mut config, mut warnings) = (self.config.clone(), self.warnings.clone());
        overrides.apply(&mut config, &mut warnings)?;
        Ok((config, warnings.into_texts()))
    }

    /// Non-fatal warnings: values of the files that are accepted but are likely mistakes.
    pub fn warnings(&self) -> &[String] {
        self.warnings.texts()
    }

    /// Path of the folder, or the name that the caller gave.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Reads the source model's vocabulary from the `tokenizer.json` in the checkpoint's folder. Returns `None` for a
    /// model without a suffix table, which needs no vocabulary.
    ///
    /// # Errors
    /// With [`Hint::VocabularyMissing`] if the model needs a vocabulary: `NotFound` if the folder has no
    /// `tokenizer.json`, `InvalidArgument` if the checkpoint was opened from parts. Also the errors of
    /// [`Vocabulary::open`].
    pub fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        if !self.config.add_expanded_embeddings {
            return Ok(None);
        }
        #[cfg(not(target_family = "wasm"))]
        // A link whose target is missing is reported as such.
        if let Some(path) = self.folder.as_ref().map(|folder| folder.join(TOKENIZER))
            && exists_or_is_link(&path)
        {
            return Vocabulary::open(&path).map(Some);
        }
        let source = self.config.original_identifier.clone();
        let message = format!(
            "{}: has a suffix table but no tokenizer.json; provide the tokenizer.json of {}, or put it into the \
             checkpoint's folder",
            self.origin,
            source.as_deref().unwrap_or("the source model")
        );
        #[cfg(not(target_family = "wasm"))]
        let kind = if self.folder.is_some() { ErrorKind::NotFound } else { ErrorKind::InvalidArgument };
        #[cfg(target_family = "wasm")]
        let kind = ErrorKind::InvalidArgument;
        Err(Error::new(kind, message).with_hint(Hint::VocabularyMissing { source }))
    }

    /// Returns the tensor `name`.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.by_name
            .get(name)
            .and_then(|&i| self.tensors.get(i))
            .and_then(|entry| self.view(entry))
            .ok_or_else(|| Error::not_found(format!("{}: has no tensor `{name}`", self.origin)))
    }

    /// Iterates over the tensors, in the order of [`expected_tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.tensors.iter().filter_map(|entry| self.view(entry))
    }

    /// Size of the weights and their scales in the files in bytes, without headers.
    pub fn contents_bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.byte_count()).sum()
    }

    /// The files.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn files(&self) -> &[Arc<dyn CheckpointFile>] {
        &self.files
    }

    /// Returns the index in [`Self::files`] of the file with the tensor `name`, and the tensor's first byte there.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn place(&self, name: &str) -> Option<(usize, u64)> {
        let entry = self.tensors.get(*self.by_name.get(name)?)?;
        Some((entry.file, entry.start))
    }

    /// Checks that no file was changed after it was opened: reading what was cut off from a mapped one ends the
    /// process.
    ///
    /// # Errors
    /// `BadCheckpoint` if one was.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| file.check_unchanged())
    }

    /// The file with the tensor `name` and the one with its scales, if it has any.
    pub(crate) fn files_of(&self, name: &str) -> [Option<&Arc<dyn CheckpointFile>>; 2] {
        let entry = self.by_name.get(name).and_then(|&i| self.tensors.get(i));
        let file = |of: fn(&Entry) -> Option<usize>| self.files.get(of(entry?)?);
        [file(|entry| Some(entry.file)), file(|entry| entry.scales.map(|(file, _)| file))]
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> Option<Tensor<'a>> {
        let file = self.files.get(entry.file)?.as_ref();
        let scales = match entry.scales {
            Some((file, start)) => Some((self.files.get(file)?.as_ref(), start)),
            None => None,
        };
        Some(Tensor { name: &entry.name, dtype: entry.dtype, shape: &entry.shape, file, start: entry.start, scales })
    }
}

/// Reads the headers of `files`, in the same order.
fn read_headers(files: &[Box<dyn CheckpointFile>]) -> Result<Vec<Vec<HeaderEntry>>> {
    let (mut headers, mut tensors) = (Vec::with_capacity(files.len()), 0);
    for file in files {
        let entries = read_header(file.as_ref())?;
        tensors += entries.len();
        if tensors > MAX_TENSORS {
            return Err(Error::bad_checkpoint(format!(
                "{}: the files up to this one have more than {MAX_TENSORS} tensors, which is not supported",
                file.name()
            )));
        }
        headers.push(entries);
    }
    Ok(headers)
}

/// Maps the names of all tensors to the index of their file and their header entry.
fn collect(
    files: &[Box<dyn CheckpointFile>],
    headers: Vec<Vec<HeaderEntry>>,
) -> Result<HashMap<String, (usize, HeaderEntry)>> {
    let mut found: HashMap<String, (usize, HeaderEntry)> = HashMap::new();
    for (index, entries) in headers.into_iter().enumerate() {
        for entry in entries {
            let name = entry.name.clone();
            if let Some((earlier, entry)) = found.insert(name, (index, entry)) {
                let file_name = |i: usize| files.get(i).map_or("", |file| file.name());
                return Err(Error::bad_checkpoint(format!(
                    "tensor `{}` is in both {} and {}; remove the file that does not belong to the checkpoint",
                    entry.name,
                    file_name(earlier),
                    file_name(index)
                )));
            }
        }
    }
    Ok(found)
}

/// Checks a header entry against `spec`.
fn check(file_name: &str, file: usize, spec: TensorSpec, entry: HeaderEntry) -> Result<Entry> {
    let TensorSpec { name, shape, .. } = spec;
    if entry.shape != shape {
        return Err(Error::bad_checkpoint(format!(
            "{file_name}: tensor `{name}` must have shape {shape:?}, as `config.json` implies, found {}",
            shown_shape(&entry.shape)
        )));
    }
    let dtype = weight_type(file_name, &name, &entry)?;
    Ok(Entry { name, dtype, shape, file, start: entry.start, scales: None })
}

/// Returns the type of a tensor of weights, from its header entry.
fn weight_type(file_name: &str, name: &str, entry: &HeaderEntry) -> Result<DType> {
    DType::from_safetensors(entry.dtype).ok_or_else(|| {
        Error::unsupported(format!("{file_name}: tensor `{name}` must be F32, BF16 or F16, found {}", entry.dtype))
    })
}

/// A shape for a message, shortened: a damaged file may have a very long one.
pub(crate) fn shown_shape(shape: &[usize]) -> String {
    if shape.len() <= 8 { format!("{shape:?}") } else { format!("{} dimensions", shape.len()) }
}

/// Lists names for a message: "1 tensor (`a`) is" or "7 tensors (`a`, `b`, ...) are"; long lists are cut.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{}`", shown_name(name))).collect();
    let rest = if names.len() > NAMES_SHOWN { ", ..." } else { "" };
    let (noun, verb) = if names.len() == 1 { ("tensor", "is") } else { ("tensors", "are") };
    format!("{} {noun} ({}{rest}) {verb}", names.len(), shown.join(", "))
}

/// A name from a file for a message, shortened: a damaged file may have a very long one.
pub(crate) fn shown_name(name: &str) -> String {
    shortened(name, 120)
}
