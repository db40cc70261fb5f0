//! Merging by task arithmetic: the post-training of a subword model, added to a Bolmo model made from it.
//!
//! Each tensor of the global blocks and the final norm becomes `w + alpha * (post - base)`. The local layers, the
//! boundary predictor, the byte embedding and the head stay unchanged, since they work on bytes.

mod fit;
mod source;
mod write;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint::layout::{Part, expected_tensors};
use crate::checkpoint::output::{Replaces, Target};
use crate::checkpoint::{Checkpoint, DType, TensorFolder, shown_shape};
use crate::error::{Error, Hint, Result};

/// The token embeddings of the subword models, whose first rows correspond to the suffix table.
const TOKEN_EMBEDDINGS: &str = "model.embed_tokens.weight";
/// The norm before the head, which has the same name in subword models.
const FINAL_NORM: &str = "model.norm.weight";

/// The input of [`write_merged`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Merge {
    /// Folder of the Bolmo model.
    pub bolmo: PathBuf,
    /// Folder of the subword model that the Bolmo model was made from: OLMo 2 or 3, Qwen 3 or Llama, in the Hugging
    /// Face layout.
    pub base: PathBuf,
    /// Folder of a model that was trained from `base`.
    pub post_trained: PathBuf,
    /// Factor on the difference between the two; 1 by default.
    pub alpha: f32,
    /// Whether to change the suffix table too, by the difference of the token embeddings; `false` by default.
    pub embeddings: bool,
}

impl Merge {
    /// Creates a merge of the whole difference (`alpha` 1), without the embeddings.
    pub fn new(bolmo: impl Into<PathBuf>, base: impl Into<PathBuf>, post_trained: impl Into<PathBuf>) -> Self {
        Self {
            bolmo: bolmo.into(),
            base: base.into(),
            post_trained: post_trained.into(),
            alpha: 1.0,
            embeddings: false,
        }
    }

    /// Sets the factor on the difference.
    pub fn alpha(self, alpha: f32) -> Self {
        Self { alpha, ..self }
    }

    /// Sets whether the suffix table changes too.
    pub fn embeddings(self, embeddings: bool) -> Self {
        Self { embeddings, ..self }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// `InvalidArgument` for an `alpha` that is not finite.
    pub fn validate(&self) -> Result<()> {
        if !self.alpha.is_finite() {
            return Err(Error::invalid(format!("`alpha` must be a finite number, found {}", self.alpha)));
        }
        Ok(())
    }
}

/// The result of [`write_merged`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MergeReport {
    /// Factor on the difference.
    pub alpha: f32,
    /// Whether the suffix table was to change.
    pub embeddings: bool,
    /// Number of weight files.
    pub files: usize,
    /// Size of the weight files in bytes.
    pub bytes: u64,
    /// The tensors of the Bolmo model, in the order of the forward pass.
    pub tensors: Vec<MergedTensor>,
}

/// A tensor of the Bolmo model and its fate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MergedTensor {
    /// Full name.
    pub name: String,
    /// Shape, rows first.
    pub shape: Vec<usize>,
    /// Type of the elements, which does not change.
    pub dtype: DType,
    /// Whether and how the tensor changed.
    pub fate: Fate,
}

/// Whether and how a tensor changed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fate {
    /// The tensor moved. The numbers describe the changes of its elements as stored.
    Moved {
        /// Largest absolute change.
        largest: f64,
        /// Root mean square of the changes.
        rms: f64,
    },
    /// The tensor is unchanged, bit for bit.
    Kept(Kept),
}

/// The reason why a tensor is unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The subword models have no tensor of this name.
    NotInBase,
    /// The tensor of this name in the subword models has this other shape.
    OtherShape(Vec<usize>),
    /// The tensor works on bytes; the one of the same name in the subword models has another meaning.
    OfBytes,
    /// The tensor is the suffix table, which was not to change.
    NotAsked,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kept::NotInBase => f.write_str("the subword models have none of this name"),
            Kept::OtherShape(shape) => write!(f, "its shape in the subword models is {}", shown_shape(shape)),
            Kept::OfBytes => f.write_str("it was made for bytes"),
            Kept::NotAsked => f.write_str("the embeddings were not to move"),
        }
    }
}

impl MergeReport {
    /// Number of tensors that moved.
    pub fn moved(&self) -> usize {
        self.tensors.iter().filter(|tensor| matches!(tensor.fate, Fate::Moved { .. })).count()
    }

    /// Returns the report as a JSON object: `alpha`, `embeddings`, `files`, `bytes`, `moved`, `kept` and a list
    /// `tensors` of objects with `name`, `shape`, `dtype`, `moved`, and either `largest_change` and `rms_change` or
    /// `why`.
    pub fn to_json(&self) -> Value {
        let tensors: Vec<Value> = self.tensors.iter().map(MergedTensor::to_json).collect();
        json!({
            "alpha": self.alpha,
            "embeddings": self.embeddings,
            "files": self.files,
            "bytes": self.bytes,
            "moved": self.moved(),
            "kept": self.tensors.len() - self.moved(),
            "tensors": tensors,
        })
    }
}

impl MergedTensor {
    fn to_json(&self) -> Value {
        let mut json =
            json!({ "name": self.name, "shape": self.shape, "dtype": self.dtype.to_string().to_lowercase() });
        match &self.fate {
            Fate::Moved { largest, rms } => {
                json["moved"] = true.into();
                json["largest_change"] = (*largest).into();
                json["rms_change"] = (*rms).into();
            }
            Fate::Kept(why) => {
                json["moved"] = false.into();
                json["why"] = why.to_string().into();
            }
        }
        json
    }
}

/// Writes the folder `out`: the Bolmo model plus `alpha * (post_trained - base)`, computed in f32 in this order and
/// rounded to the type of each tensor.
///
/// `out` must not exist or be empty. It gets the files of the Bolmo folder: the same shards and index, the
/// configuration, the tokenizer and code. They are written to a hidden folder beside it, which is renamed at the end.
/// The memory use is a few MiB. `progress` receives the number of bytes of weight files that are written and their
/// total; returning `false` cancels.
///
/// # Errors
/// `InvalidArgument` for models that don't belong together, for an `alpha` that is not finite, for a quantized Bolmo
/// model and for an `out` with files in it; `NotFound` for missing folders and files; `BadCheckpoint` for damaged files
/// and weights that are not finite; `Unsupported` for other kinds of subword models and for sums beyond f16; `Io`, also
/// if there is too little free space; `Busy` while another run writes into `out`; `Cancelled`.
pub fn write_merged(
    merge: &Merge,
    out: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<MergeReport> {
    merge.validate()?;
    let target = Target::new(out.as_ref(), Replaces::Nothing)?;
    let bolmo = Checkpoint::open(&merge.bolmo)?;
    if let Some(stored) = bolmo.formats() {
        return Err(Error::invalid(format!(
            "{}: is quantized already, as {stored}; merge the folder that it was made from, then quantize the result",
            bolmo.origin()
        ))
        .with_hint(Hint::QuantizeOriginal { format: None }));
    }
    let base = TensorFolder::open(&merge.base)?;
    let post = TensorFolder::open(&merge.post_trained)?;
    fit::to_bolmo(&bolmo, &base)?;
    fit::to_each_other(&base, &post)?;
    if merge.embeddings {
        fit::embeddings(&bolmo, &base)?;
    }

    let partial = target.begin(bolmo.files().iter().map(|file| file.len()).sum())?;
    write::companions(&merge.bolmo, &partial.path)?;
    let mut tensors = Vec::new();
    let mut moves = Vec::new();
    for spec in expected_tensors(bolmo.config()) {
        let tensor = bolmo.tensor(&spec.name)?;
        let source = match spec.part {
            Part::Global => Ok(spec.name.as_str()),
            Part::Head if spec.name == FINAL_NORM => Ok(FINAL_NORM),
            Part::SuffixEmbedding if merge.embeddings => Ok(TOKEN_EMBEDDINGS),
            Part::SuffixEmbedding => Err(Kept::NotAsked),
            _ => Err(match base.shape(&spec.name) {
                None => Kept::NotInBase,
                Some(shape) if shape != spec.shape => Kept::OtherShape(shape.to_vec()),
                Some(_) => Kept::OfBytes,
            }),
        };
        let fate = match source {
            Ok(source) => {
                moves.push(write::Move {
                    index: tensors.len(),
                    tensor,
                    base: (base.origin(), base.tensor(source)?),
                    post: (post.origin(), post.tensor(source)?),
                });
                Fate::Moved { largest: 0.0, rms: 0.0 }
            }
            Err(why) => Fate::Kept(why),
        };
        let dtype = tensor.dtype;
        tensors.push(MergedTensor { name: spec.name, shape: spec.shape, dtype, fate });
    }
    let mut writer = write::Writer::new(&bolmo, merge.alpha, progress);
    let bytes = writer.write(&partial.path, &moves, |index, fate| tensors[index].fate = fate)?;
    target.finish(partial)?;
    let (alpha, embeddings, files) = (merge.alpha, merge.embeddings, bolmo.files().len());
    Ok(MergeReport { alpha, embeddings, files, bytes, tensors })
}
