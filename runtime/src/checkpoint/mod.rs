//! A checkpoint: its configuration and its tensors, all checked against each other before anything uses them.
//!
//! Opening reads headers only. Weights stay in their files until [`Tensor::read_f32`] asks for them. A [`TensorFolder`] is the same
//! for models of any other kind.

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
mod quantized_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

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
use crate::config::Config;
use crate::error::{Error, Result};
use header::{HeaderEntry, read_header};
use quantized::Stored;
use stored_formats::stored_formats;

/// Names in a message about missing or unknown tensors; the rest is counted.
const NAMES_SHOWN: usize = 5;
/// Tensors that some converters store and that `config.json` implies; skipped.
const IGNORED_SUFFIX: &str = "rotary_emb.inv_freq";

/// An open checkpoint. Its tensors are exactly those of [`expected_tensors`].
pub struct Checkpoint {
    origin: String,
    config: Config,
    /// The text of `config.json`.
    #[cfg(not(target_family = "wasm"))]
    config_text: Vec<u8>,
    formats: Option<Formats>,
    warnings: Vec<String>,
    files: Vec<Box<dyn CheckpointFile>>,
    /// In the order of [`expected_tensors`].
    tensors: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

/// One checked tensor.
struct Entry {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    file: usize,
    start: u64,
    /// File and first byte of the scales, in types that have some.
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
    /// The files are mapped into memory and must not be cut or rewritten while the checkpoint is open.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(dir: &std::path::Path) -> Result<Checkpoint> {
        let folder::Folder { origin, config, index, files } = folder::open(dir)?;
        match index {
            Some(index) => Self::from_shards(&origin, &config, &index, files),
            None => Self::from_parts(&origin, &config, files),
        }
    }

    /// Opens a checkpoint from the text of its `config.json` and its safetensors files, in any order.
    ///
    /// `origin` names the whole in messages.
    pub fn from_parts(origin: &str, config: &[u8], files: Vec<Box<dyn CheckpointFile>>) -> Result<Checkpoint> {
        let headers = read_headers(&files)?;
        Self::from_headers(origin, config, files, headers)
    }

    /// As [`Checkpoint::from_parts`], with the files' headers in the order of `files`.
    fn from_headers(
        origin: &str,
        config: &[u8],
        files: Vec<Box<dyn CheckpointFile>>,
        headers: Vec<Vec<HeaderEntry>>,
    ) -> Result<Checkpoint> {
        let (config_text, config_name) = (config, format!("{origin}/config.json"));
        let (config, warnings) = Config::from_json(config_text, &config_name)?;
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
                "{origin}: {} missing, which `config.json` implies",
                listed(&missing)
            )));
        }
        let mut extra: Vec<String> = found.into_keys().filter(|name| !name.ends_with(IGNORED_SUFFIX)).collect();
        if !extra.is_empty() {
            extra.sort();
            return Err(Error::bad_checkpoint(format!(
                "{origin}: {} too many, which `config.json` does not imply",
                listed(&extra)
            )));
        }
        let by_name = tensors.iter().enumerate().map(|(i, entry): (usize, &Entry)| (entry.name.clone(), i)).collect();
        Ok(Checkpoint {
            origin: origin.to_owned(),
            config,
            #[cfg(not(target_family = "wasm"))]
            config_text: config_text.to_owned(),
            formats,
            warnings,
            files,
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

    /// The formats that the matrices are stored in, if they were quantised ahead. They load in no others.
    pub fn formats(&self) -> Option<Formats> {
        self.formats
    }

    /// Replaces the base of the rotary frequencies, for checkpoints whose conversion lost it.
    pub fn override_rope_theta(&mut self, theta: f64) -> Result<()> {
        self.config.override_rope_theta(theta)
    }

    /// What was accepted and yet is likely to be a mistake of the files.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The folder, or the name that the caller gave.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.by_name
            .get(name)
            .and_then(|&i| self.tensors.get(i))
            .and_then(|entry| self.view(entry))
            .ok_or_else(|| Error::not_found(format!("{}: has no tensor `{name}`", self.origin)))
    }

    /// Every tensor, in the order of [`expected_tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.tensors.iter().filter_map(|entry| self.view(entry))
    }

    /// Bytes that the weights take in the files with their scales, headers not counted.
    pub fn contents_bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.byte_count()).sum()
    }

    /// The files.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn files(&self) -> &[Box<dyn CheckpointFile>] {
        &self.files
    }

    /// Which of [`Self::files`] holds the tensor called `name`, and its first byte there.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn place(&self, name: &str) -> Option<(usize, u64)> {
        let entry = self.tensors.get(*self.by_name.get(name)?)?;
        Some((entry.file, entry.start))
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

/// The headers of `files`, in their order.
fn read_headers(files: &[Box<dyn CheckpointFile>]) -> Result<Vec<Vec<HeaderEntry>>> {
    files.iter().map(|file| read_header(file.as_ref())).collect()
}

/// Every tensor of every file by name, with the index of its file.
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
                    "tensor `{}` is in both {} and {}; each must be in one file",
                    entry.name,
                    file_name(earlier),
                    file_name(index)
                )));
            }
        }
    }
    Ok(found)
}

/// The entry of a header as `spec` wants it.
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

/// The type of a tensor of weights as a header has it.
fn weight_type(file_name: &str, name: &str, entry: &HeaderEntry) -> Result<DType> {
    DType::from_safetensors(entry.dtype).ok_or_else(|| {
        Error::unsupported(format!("{file_name}: tensor `{name}` must be F32, BF16 or F16, found {}", entry.dtype))
    })
}

/// A shape for a message; a damaged file's may be very long.
pub(crate) fn shown_shape(shape: &[usize]) -> String {
    if shape.len() <= 8 { format!("{shape:?}") } else { format!("{} dimensions", shape.len()) }
}

/// "1 tensor (`a`) is" or "7 tensors (`a`, `b`, ...) are", cut after a few names.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{}`", shortened(name))).collect();
    let rest = if names.len() > NAMES_SHOWN { ", ..." } else { "" };
    let (noun, verb) = if names.len() == 1 { ("tensor", "is") } else { ("tensors", "are") };
    format!("{} {noun} ({}{rest}) {verb}", names.len(), shown.join(", "))
}

/// A name from a file for a message; a damaged one may be very long.
pub(crate) fn shortened(name: &str) -> String {
    const LONGEST: usize = 120;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}
