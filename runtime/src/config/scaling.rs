//! Reading and writing the `rope_scaling` object: its kinds, their keys and their defaults.

use serde_json::{Value, json};

use crate::config::RopeScaling;
use crate::config::keys::Keys;
use crate::error::Result;

/// Default number of turns within the original context above which YaRN keeps a frequency.
const BETA_FAST: f64 = 32.0;
/// Default number of turns below which YaRN divides a frequency.
const BETA_SLOW: f64 = 1.0;

/// Reads `rope_scaling` of a `config.json`.
pub(super) fn read(config: &Keys) -> Result<RopeScaling> {
    let Some(keys) = config.optional_object("rope_scaling")? else { return Ok(RopeScaling::None) };
    // Files from before 2024 use the key `type`.
    let name = if keys.get("rope_type").is_some() { "rope_type" } else { "type" };
    let kind = keys.text(name)?.ok_or_else(|| keys.missing("rope_type"))?;
    let required = |key: &str| keys.positive(key)?.ok_or_else(|| keys.missing(key));
    let original = || Ok(keys.optional_integer("original_max_position_embeddings", 1, 1 << 30)?.unwrap_or(0));
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: required("factor")? }),
        "llama3" => {
            let (low_freq_factor, high_freq_factor) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if low_freq_factor >= high_freq_factor {
                return Err(keys.bad(
                    "high_freq_factor",
                    format_args!("must be above `low_freq_factor` {low_freq_factor}, found {high_freq_factor}"),
                ));
            }
            Ok(RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original()?,
            })
        }
        "yarn" => {
            let factor = required("factor")?;
            let attention_factor = match keys.positive("attention_factor")? {
                Some(given) => given,
                None => {
                    for key in ["mscale", "mscale_all_dim"] {
                        if keys.get(key).is_some() {
                            return Err(keys.unsupported(key, "is not supported; use `attention_factor` instead"));
                        }
                    }
                    default_attention_factor(factor)
                }
            };
            Ok(RopeScaling::Yarn {
                factor,
                beta_fast: keys.positive("beta_fast")?.unwrap_or(BETA_FAST),
                beta_slow: keys.positive("beta_slow")?.unwrap_or(BETA_SLOW),
                original_max_position_embeddings: original()?,
                attention_factor,
                truncate: keys.flag("truncate", true)?,
            })
        }
        _ => Err(keys.unsupported_value(name, "\"default\", \"linear\", \"llama3\" and \"yarn\"")),
    }
}

/// YaRN's default factor on cosine and sine for a context extended by `factor`.
fn default_attention_factor(factor: f64) -> f64 {
    if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 }
}

/// Returns the `rope_scaling` object from which [`read`] reads `scaling`.
pub(super) fn to_json(scaling: &RopeScaling) -> Value {
    let (mut object, original) = match *scaling {
        RopeScaling::None => return Value::Null,
        RopeScaling::Linear { factor } => (json!({ "rope_type": "linear", "factor": factor }), 0),
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => (
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
            }),
            original_max_position_embeddings,
        ),
        RopeScaling::Yarn {
            factor,
            beta_fast,
            beta_slow,
            original_max_position_embeddings,
            attention_factor,
            truncate,
        } => {
            let mut yarn = json!({
                "rope_type": "yarn",
                "factor": factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "attention_factor": attention_factor,
            });
            if !truncate {
                yarn["truncate"] = json!(false);
            }
            (yarn, original_max_position_embeddings)
        }
    };
    if original != 0 {
        object["original_max_position_embeddings"] = json!(original);
    }
    object
}
