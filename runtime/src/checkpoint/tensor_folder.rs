//! Weights of any model: the tensors of a safetensors folder by name, whatever its `config.json` says.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::checkpoint::header::HeaderEntry;
use crate::checkpoint::{CheckpointFile, IGNORED_SUFFIX, Index, Tensor, collect, read_headers, weight_type};
use crate::error::{Error, Result};

/// A Hugging Face folder whose tensors nobody has compared with its configuration, as that of a subword model.
///
/// The files are checked as those of a [`Checkpoint`](crate::checkpoint::Checkpoint) are: headers against the files' lengths, shards against
/// their index, each tensor in one file. Which tensors there must be, of which shape, is for the caller to demand. Opening reads
/// headers only.
///
/// ```no_run
/// # fn demo() -> bolmo_runtime::Result<()> {
/// use bolmo_runtime::checkpoint::TensorFolder;
///
/// let folder = TensorFolder::open("olmo-2-1b".as_ref())?;
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
    /// The index of its file with each.
    tensors: BTreeMap<String, (usize, HeaderEntry)>,
}

impl std::fmt::Debug for TensorFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorFolder of {} with {} tensors in {} files", self.origin, self.tensors.len(), self.files.len())
    }
}

impl TensorFolder {
    /// Opens the folder `dir`: `config.json`, and `model.safetensors` or the shards that `model.safetensors.index.json` names.
    ///
    /// The files are mapped into memory and must not be cut or rewritten while the folder is open.
    ///
    /// # Errors
    /// `NotFound` for a folder or files that are not there, `BadCheckpoint` for damaged ones, `InvalidArgument` for a file in place
    /// of a folder, `Io`.
    #[cfg(not(target_family = "wasm"))]
    pub fn open(dir: &std::path::Path) -> Result<TensorFolder> {
        let crate::checkpoint::folder::Folder { origin, config, index, files } = crate::checkpoint::folder::open(dir)?;
        Self::from_parts(&origin, &config, index.as_ref(), files)
    }

    /// The same from the text of a `config.json` and safetensors files: those that the index names, in its order, or without one
    /// any files in any order. `origin` names the whole in messages.
    pub fn from_parts(
        origin: &str,
        config: &[u8],
        index: Option<&Index>,
        files: Vec<Box<dyn CheckpointFile>>,
    ) -> Result<TensorFolder> {
        let config: Value = serde_json::from_slice(config)
            .map_err(|e| Error::bad_checkpoint(format!("{origin}/config.json: not a JSON document: {e}")))?;
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

    /// The folder, or the name that the caller gave.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What `config.json` holds: an object.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Name and shape of every tensor, in the order of the names. Tables of rotary frequencies, which some converters store, are left out.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, (_, entry))| (name.as_str(), entry.shape.as_slice()))
    }

    /// The shape of the tensor called `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// The tensor called `name`.
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
