//! Checks that the three models of a merge belong together, before anything is written.

use serde_json::Value;

use crate::checkpoint::layout::{Part, expected_tensors};
use crate::checkpoint::{Checkpoint, TensorFolder, shortened, shown_shape};
use crate::convert::merge::source::Blocks;
use crate::convert::merge::{FINAL_NORM, TOKEN_EMBEDDINGS};
use crate::error::{Error, Result};

/// Prefix of the names of the blocks' tensors.
const BLOCKS: &str = "model.layers.";
/// Keys of a `config.json`, other than those of [`Blocks`], that must have the same value if both models have them. A
/// missing key means the default of the program that wrote the file.
const SAME: [&str; 11] = [
    "model_type",
    "vocab_size",
    "hidden_act",
    "rms_norm_eps",
    "rope_theta",
    "rope_parameters",
    "layer_types",
    "sliding_window",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
];
/// The scaling of rotary frequencies. A missing key means no scaling, unless there are `rope_parameters`.
const ROPE_SCALING: &str = "rope_scaling";
/// The remedy for models that don't belong together.
const ADVICE: &str = "name the model that the Bolmo model was made from, and one that was trained from it";

/// Checks that the global blocks of `bolmo` can come from the blocks of `base`.
pub(super) fn to_bolmo(bolmo: &Checkpoint, base: &TensorFolder) -> Result<()> {
    let refused =
        |what: String| Error::invalid(format!("{}: does not fit {}: {what}; {ADVICE}", base.origin(), bolmo.origin()));
    let blocks = Blocks::of_source(base.config(), &config_name(base))?;
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
        Some((name, _)) => Err(refused(format!("its tensor `{}` is not in the Bolmo model", shortened(name)))),
        None => Ok(()),
    }
}

/// Checks that two subword models differ only in their weights.
pub(super) fn to_each_other(base: &TensorFolder, post: &TensorFolder) -> Result<()> {
    let refused =
        |what: String| Error::invalid(format!("{}: does not fit {}: {what}; {ADVICE}", post.origin(), base.origin()));
    let blocks = Blocks::of_source(post.config(), &config_name(post))?;
    if let Some(difference) = blocks.difference(&Blocks::of_source(base.config(), &config_name(base))?) {
        return Err(refused(difference));
    }
    let says = |folder: &TensorFolder, key: &str| folder.config().get(key).cloned().filter(|value| !value.is_null());
    for key in SAME {
        if let (Some(this), Some(that)) = (says(post, key), says(base, key))
            && !same(&this, &that)
        {
            return Err(refused(format!("`{key}` of its config.json is different")));
        }
    }
    let elsewhere = [base, post].iter().any(|folder| says(folder, "rope_parameters").is_some());
    let [this, that] = [post, base].map(|folder| says(folder, ROPE_SCALING).unwrap_or(Value::Null));
    if !elsewhere && !same(&this, &that) {
        return Err(refused(format!("`{ROPE_SCALING}` of its config.json is different")));
    }
    for (name, shape) in base.shapes() {
        match post.shape(name) {
            Some(found) if found == shape => {}
            Some(found) => {
                return Err(refused(format!(
                    "tensor `{}` has shape {}, not {}",
                    shortened(name),
                    shown_shape(found),
                    shown_shape(shape)
                )));
            }
            None => return Err(refused(format!("it has no tensor `{}`", shortened(name)))),
        }
    }
    match post.shapes().find(|(name, _)| base.shape(name).is_none()) {
        Some((name, _)) => Err(refused(format!("the other model has no tensor `{}`", shortened(name)))),
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

fn config_name(folder: &TensorFolder) -> String {
    format!("{}/config.json", folder.origin())
}

/// Whether two JSON values are equal; `8` equals `8.0`.
fn same(this: &Value, that: &Value) -> bool {
    match (this, that) {
        (Value::Number(this), Value::Number(that)) => this.as_f64() == that.as_f64(),
        (Value::Array(this), Value::Array(that)) => {
            this.len() == that.len() && this.iter().zip(that).all(|(this, that)| same(this, that))
        }
        (Value::Object(this), Value::Object(that)) => {
            this.len() == that.len()
                && this.iter().all(|(key, this)| that.get(key).is_some_and(|that| same(this, that)))
        }
        _ => this == that,
    }
}
