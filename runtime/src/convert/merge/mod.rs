//! Task arithmetic: what a subword model learnt after its pretraining, added to a Bolmo model that was made from it, without training.
//!
//! Every tensor of the global blocks and the final norm becomes `w + alpha * (post - base)`. What was made for bytes stays: the
//! local layers, the boundary predictor, the byte embedding and the head.

mod fit;
mod source;
mod write;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint::layout::{Part, expected_tensors};
use crate::checkpoint::output::Target;
use crate::checkpoint::{Checkpoint, DType, TensorFolder, shown_shape};
use crate::error::{Error, Result};

/// The token embeddings of the subword models, whose first rows are those of the suffix table.
const TOKEN_EMBEDDINGS: &str = "model.embed_tokens.weight";
/// The norm in front of the head; subword models have it by the same name.
const FINAL_NORM: &str = "model.norm.weight";

/// What [`write_merged`] adds to what.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Merge {
    /// Folder of the Bolmo model.
    pub bolmo: PathBuf,
    /// Folder of the subword model that it was made from: OLMo 2 or 3, Qwen 3 or Llama, in the Hugging Face layout.
    pub base: PathBuf,
    /// Folder of a model that was trained from `base`.
    pub post_trained: PathBuf,
    /// How much of the difference between the two is added; 1 unless set.
    pub alpha: f32,
    /// Whether the suffix table moves as well, by the difference of the token embeddings; not unless set.
    pub embeddings: bool,
}

impl Merge {
    /// The whole difference of the two subword models, without that of their embeddings.
    pub fn new(bolmo: impl Into<PathBuf>, base: impl Into<PathBuf>, post_trained: impl Into<PathBuf>) -> Self {
        Self {
            bolmo: bolmo.into(),
            base: base.into(),
            post_trained: post_trained.into(),
            alpha: 1.0,
            embeddings: false,
        }
    }

    /// Refuses an `alpha` that is not finite.
    pub fn validate(&self) -> Result<()> {
        if !self.alpha.is_finite() {
            return Err(Error::invalid(format!("`alpha` must be a finite number, found {}", self.alpha)));
        }
        Ok(())
    }
}

/// What [`write_merged`] wrote.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MergeReport {
    /// How much of the difference was added.
    pub alpha: f32,
    /// Whether the suffix table was to move.
    pub embeddings: bool,
    /// Weight files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Every tensor of the Bolmo model, in the order in which data passes them.
    pub tensors: Vec<MergedTensor>,
}

/// One tensor of the Bolmo model and what became of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MergedTensor {
    /// Full name.
    pub name: String,
    /// Shape, rows first.
    pub shape: Vec<usize>,
    /// Type of its elements, before and after.
    pub dtype: DType,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Fate {
    /// It moved; the numbers tell how its elements changed, as they are stored.
    Moved {
        /// The largest change without its sign.
        largest: f64,
        /// Root of the mean square of all changes.
        rms: f64,
    },
    /// It stayed as it was, bit for bit.
    Kept(Kept),
}

/// Why a tensor stayed as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// The subword models have none of this name.
    NotInBase,
    /// The subword models have one of this name and of this other shape.
    OtherShape(Vec<usize>),
    /// It was made for bytes, so that the one of the same name in the subword models means something else.
    OfBytes,
    /// It is the suffix table, which was not to move.
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
    /// Tensors that moved.
    pub fn moved(&self) -> usize {
        self.tensors.iter().filter(|tensor| matches!(tensor.fate, Fate::Moved { .. })).count()
    }

    /// The report as a JSON object: `alpha`, `embeddings`, `files`, `bytes`, `moved`, `kept` and a list `tensors` of objects with `name`,
    /// `shape`, `dtype`, `moved`, and `largest_change` and `rms_change` or else `why`.
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

/// Writes the folder `out`: the Bolmo model with `alpha * (post_trained - base)` added, computed in f32 in this order and rounded to
/// the type that each tensor has.
///
/// `out` must not exist or be empty. Its files are those of the Bolmo folder: the same shards and index, the configuration, the
/// tokenizer and code. They are written to a hidden folder beside it, which takes its name at the end. Memory stays at a few
/// MiB. `progress` gets the bytes of weight files that are written and their total; `false` cancels.
///
/// # Errors
/// `InvalidArgument` for models that don't belong together, for an `alpha` that is not finite, for a Bolmo model that was quantised
/// ahead and for an `out` with files in it; `NotFound` for folders and files that are not there; `BadCheckpoint` for damaged ones and
/// weights that are not finite; `Unsupported` for subword models of other kinds, and sums beyond f16; `Io`, `Cancelled`.
pub fn write_merged(merge: &Merge, out: &Path, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<MergeReport> {
    merge.validate()?;
    let target = Target::new(out)?;
    let bolmo = Checkpoint::open(&merge.bolmo)?;
    if let Some(stored) = bolmo.formats() {
        return Err(Error::invalid(format!(
            "{}: is quantised already, as {stored}; merge the folder that it was made from, and quantise the result",
            bolmo.origin()
        )));
    }
    let base = TensorFolder::open(&merge.base)?;
    let post = TensorFolder::open(&merge.post_trained)?;
    fit::to_bolmo(&bolmo, &base)?;
    fit::to_each_other(&base, &post)?;
    if merge.embeddings {
        fit::embeddings(&bolmo, &base)?;
    }

    let partial = target.begin()?;
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
                    place: tensors.len(),
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
    let bytes = writer.write(&partial.path, &moves, |place, fate| tensors[place].fate = fate)?;
    target.finish(partial)?;
    let (alpha, embeddings, files) = (merge.alpha, merge.embeddings, bolmo.files().len());
    Ok(MergeReport { alpha, embeddings, files, bytes, tensors })
}
