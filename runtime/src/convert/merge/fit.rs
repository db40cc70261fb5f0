//! Checks that the three models of a merge belong together, before anything is written.

use crate::checkpoint::layout::{Part, expected_tensors};
use crate::checkpoint::{Checkpoint, TensorFolder, shown_name, shown_shape};
use crate::config::LayerType;
use crate::config::source::SourceConfig;
use crate::convert::merge::source::Blocks;
use crate::convert::merge::{FINAL_NORM, TOKEN_EMBEDDINGS};
use crate::error::{Error, Result};

/// Prefix of the names of the blocks' tensors.
const BLOCKS: &str = "model.layers.";
/// The remedy for models that don't belong together.
const ADVICE: &str = "name the model that the Bolmo model was made from, and one that was trained from it";

/// Checks that the global blocks of `bolmo` can come from the blocks of `base`.
pub(super) fn to_bolmo(bolmo: &Checkpoint, base: &TensorFolder) -> Result<()> {
    let refused =
        |what: String| Error::invalid(format!("{}: does not fit {}: {what}; {ADVICE}", base.origin(), bolmo.origin()));
    let blocks = Blocks::of_source(&source(base)?);
    if let Some(difference) = blocks.difference(&Blocks::of_bolmo(bolmo.config())) {
        return Err(refused(difference));
    }
    for spec in expected_tensors(bolmo.config()) {
        if spec.part != Part::Global && spec.name != FINAL_NORM {
            continue;
        }
        match base.shape(&spec.name) {
            Some(shape) if shape == spec.shape => {}
            Some(shape) => {
                return Err(refused(format!(
                    "tensor `{}` has shape {}, not {:?}",
                    spec.name,
                    shown_shape(shape),
                    spec.shape
                )));
            }
            None => return Err(refused(format!("it has no tensor `{}`", spec.name))),
        }
    }
    // Further tensors, such as biases, would be missing from the difference.
    let extra = base.shapes().find(|(name, _)| name.starts_with(BLOCKS) && bolmo.tensor(name).is_err());
    match extra {
        Some((name, _)) => Err(refused(format!("its tensor `{}` is not in the Bolmo model", shown_name(name)))),
        None => Ok(()),
    }
}

/// Checks that two subword models differ only in their weights.
pub(super) fn to_each_other(base: &TensorFolder, post: &TensorFolder) -> Result<()> {
    let refused =
        |what: String| Error::invalid(format!("{}: does not fit {}: {what}; {ADVICE}", post.origin(), base.origin()));
    let [this, that] = [post, base].map(source);
    let (this, that) = (this?, that?);
    if let Some(difference) = Blocks::of_source(&this).difference(&Blocks::of_source(&that)) {
        return Err(refused(difference));
    }
    if let Some(key) = differing_key(&this, &that) {
        return Err(refused(format!("`{key}` of its config.json is different")));
    }
    let [this, that] = [post, base].map(|folder| folder.config().get("model_type"));
    if this != that {
        return Err(refused("`model_type` of its config.json is different".to_owned()));
    }
    for (name, shape) in base.shapes() {
        match post.shape(name) {
            Some(found) if found == shape => {}
            Some(found) => {
                return Err(refused(format!(
                    "tensor `{}` has shape {}, not {}",
                    shown_name(name),
                    shown_shape(found),
                    shown_shape(shape)
                )));
            }
            None => return Err(refused(format!("it has no tensor `{}`", shown_name(name)))),
        }
    }
    match post.shapes().find(|(name, _)| base.shape(name).is_none()) {
        Some((name, _)) => Err(refused(format!("the other model has no tensor `{}`", shown_name(name)))),
        None => Ok(()),
    }
}

/// Checks that there is a suffix table, and that the token embeddings have at least its rows.
pub(super) fn embeddings(bolmo: &Checkpoint, base: &TensorFolder) -> Result<()> {
    let config = bolmo.config();
    if !config.add_expanded_embeddings {
        return Err(Error::invalid(format!(
            "{}: has no suffix table to change; merge without the embeddings",
            bolmo.origin()
        )));
    }
    let (rows, columns) = (config.subword_vocab_size, config.hidden_size);
    match base.shape(TOKEN_EMBEDDINGS) {
        Some(&[found_rows, found_columns]) if found_rows >= rows && found_columns == columns => Ok(()),
        Some(found) => Err(Error::invalid(format!(
            "{}: tensor `{TOKEN_EMBEDDINGS}` has shape {}, expected at least {rows} rows of {columns}; {ADVICE}",
            base.origin(),
            shown_shape(found)
        ))),
        None => Err(Error::invalid(format!("{}: has no tensor `{TOKEN_EMBEDDINGS}`; {ADVICE}", base.origin()))),
    }
}

fn source(folder: &TensorFolder) -> Result<SourceConfig> {
    SourceConfig::read(folder.config(), &format!("{}/config.json", folder.origin()))
}

/// The first key, other than those of [`Blocks`], that gives two source models another computation.
fn differing_key(this: &SourceConfig, that: &SourceConfig) -> Option<&'static str> {
    let (a, b) = (&this.blocks, &that.blocks);
    let (rotary, other) = (a.rotary, b.rotary);
    let differences = [
        ("vocab_size", this.vocab_size != that.vocab_size),
        ("tie_word_embeddings", this.tied != that.tied),
        ("rms_norm_eps", a.rms_norm_eps != b.rms_norm_eps),
        ("layer_types", a.layer_types != b.layer_types),
        ("sliding_window", a.layer_types.contains(&LayerType::Sliding) && a.sliding_window != b.sliding_window),
        ("rope_theta", rotary.theta != other.theta || rotary.sliding_theta != other.sliding_theta),
        ("rope_scaling", rotary.scaling != other.scaling || rotary.sliding_scaling != other.sliding_scaling),
    ];
    differences.iter().find(|(_, differ)| *differ).map(|(key, _)| *key)
}
