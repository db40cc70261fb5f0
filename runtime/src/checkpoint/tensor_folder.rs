//! Weights of any model: the tensors of a safetensors folder by name, independent of its `config.json`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checkpoint::header::HeaderEntry;
use crate::checkpoint::{CheckpointFile, IGNORED_SUFFIX, Index, Tensor, collect, read_headers, weight_type};
use crate::error::{Error, Result};
use crate::input::json;

/// A folder in the Hugging Face layout with a model of any kind, such as a subword model.
///
/// The files are validated as for a [`Checkpoint`](crate::checkpoint::Checkpoint): headers against the lengths of
/// files, shards against their index, each tensor in one file. The tensors are not compared with the configuration;
/// that is up to the caller. Opening reads headers only.
///
/// ```no_run
/// # fn demo() -> bolmo_runtime::Result<()> {
/// use bolmo_runtime::files::TensorFolder;
///
/// let folder = TensorFolder::open("olmo-2-1b")?;
/// for (name, shape) in folder.shapes() {
///     println!("{name} {shape:?}");
/// }
/// let norm = folder.tensor("model.norm.weight")?;
/// let mut values = vec![0.0; norm.element_count() as usize];
/// norm.read_f32(0, &mut values)?;
/// # Ok(()) }
/// ```
pub struct TensorFolder {
    origin: String,
    config: Value,
    files: Vec<Box<dyn CheckpointFile>>,
    /// The index of its file and its header entry, by name.
    tensors: BTreeMap<String, (usize, HeaderEntry)>,
}

impl std::fmt::Debug for TensorFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorFolder of {} with {} tensors in {} files", self.origin, self.tensors.len(), self.files.len())
    }
}

impl TensorFolder {
    /// Opens the folder `dir`: `config.json`, and `model.safetensors` or the shards that `model.safetensors.index.json`
    /// names.
    ///
    /// The files are mapped into memory. They must not be truncated or rewritten while the folder is open.
    ///
    /// # Errors
    /// `NotFound` for a missing folder or file, `InvalidArgument` if `dir` is a file, `BadCheckpoint` for damaged
    /// files, `Io`.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(dir: impl AsRef<std::path::Path>) -> Result<TensorFolder> {
        use crate::checkpoint::folder::{self, Folder};

        let Folder { origin, config, index, files } = folder::open(dir.as_ref())?;
        Self::from_parts(&origin, &config, index.as_ref(), files)
    }

    /// Opens a folder from the text of a `config.json` and safetensors files.
    ///
    /// With an index, `files` are in the order of [`Index::shards`]; otherwise in any order. `origin` names the folder
    /// in messages.
    ///
    /// # Errors
    /// `BadCheckpoint` for damaged files, `InvalidArgument` for a wrong number of files, and the errors of the files.
    pub fn from_parts(
        origin: &str,
        config: &[u8],
        index: Option<&Index>,
        files: Vec<Box<dyn CheckpointFile>>,
    ) -> Result<TensorFolder> {
        let config = json::config(config, &format!("{origin}/config.json"))?;
        if !config.is_object() {
            return Err(Error::bad_checkpoint(format!("{origin}/config.json: must be a JSON object")));
        }
        let headers = match index {
            Some(index) => index.headers(&files)?,
            None => read_headers(&files)?,
        };
        let tensors =
            collect(&files, headers)?.into_iter().filter(|(name, _)| !name.ends_with(IGNORED_SUFFIX)).collect();
        Ok(TensorFolder { origin: origin.to_owned(), config, files, tensors })
    }

    /// Path of the folder, or the name that the caller gave.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The contents of `config.json`, a JSON object.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Iterates over the names and shapes of the tensors, in the order of the names. Tables of rotary frequencies,
    /// which some converters store, are left out.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (_, entry))| (name.as_str(), entry.shape.as_slice()))
    }

    /// Returns the shape of the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// Returns the tensor `name`.
    ///
    /// # Errors
    /// `NotFound` if there is none, `Unsupported` if its elements are not F32, BF16 or F16.
    pub fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let found = self.tensors.get_key_value(name);
        let file = |index: &usize| self.files.get(*index).map(|file| file.as_ref());
        let Some((name, (Some(file), entry))) = found.map(|(name, (index, entry))| (name, (file(index), entry))) else {
            return Err(Error::not_found(format!("{}: has no tensor `{name}`", self.origin)));
        };
        let dtype = weight_type(file.name(), name, entry)?;
        Ok(Tensor { name, dtype, shape: &entry.shape, file, start: entry.start, scales: None })
    }
}
