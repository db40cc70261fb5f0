//! The scaling of rotary frequencies: its kinds, their keys and their defaults, as JSON and as text.

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use crate::config::RopeScaling;
use crate::config::keys::Keys;
use crate::error::{Error, Result};

/// Default number of turns within the original context above which YaRN keeps a frequency.
const BETA_FAST: f64 = 32.0;
/// Default number of turns below which YaRN divides a frequency.
const BETA_SLOW: f64 = 1.0;
/// Smallest and largest divisor and number of turns. Far beyond any model's, and far within the range where angles are
/// finite.
const RANGE: (f64, f64) = (1e-6, 1e6);
/// Smallest and largest factor on cosine and sine. Its square multiplies the attention scores.
const ATTENTION_RANGE: (f64, f64) = (0.01, 100.0);

/// Key of the original context.
const ORIGINAL: &str = "original_max_position_embeddings";
/// Keys that only have a meaning beside a `rope_type`.
const NEED_TYPE: [&str; 5] = ["factor", "attention_factor", "low_freq_factor", "high_freq_factor", ORIGINAL];

/// Reads an object with a `rope_type` and the keys of its kind. Without one it is `None`, if that is allowed.
pub(super) fn read(keys: &Keys<'_>, type_is_optional: bool) -> Result<Option<RopeScaling>> {
    // Files from before 2024 use the key `type`.
    let name = if keys.get("rope_type").is_some() { "rope_type" } else { "type" };
    keys.same_if_both("rope_type", "type")?;
    let Some(kind) = keys.text(name)? else {
        return match type_is_optional && NEED_TYPE.iter().all(|key| keys.get(key).is_none()) {
            true => Ok(None),
            false => Err(keys.missing("rope_type")),
        };
    };
    let within = |key: &str| keys.number(key, RANGE.0, RANGE.1);
    let required = |key: &str| within(key)?.ok_or_else(|| keys.missing(key));
    let original = || Ok(keys.optional_integer(ORIGINAL, 1, 1 << 30)?.unwrap_or(0));
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: required("factor")? },
        "llama3" => {
            let (low_freq_factor, high_freq_factor) = (required("low_freq_factor")?, required("high_freq_factor")?);
            if low_freq_factor >= high_freq_factor {
                return Err(keys.bad(
                    "high_freq_factor",
                    format_args!("must be above `low_freq_factor` {low_freq_factor:?}, found {high_freq_factor:?}"),
                ));
            }
            RopeScaling::Llama3 {
                factor: required("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original()?,
            }
        }
        "yarn" => {
            let factor = required("factor")?;
            let attention_factor = match keys.number("attention_factor", ATTENTION_RANGE.0, ATTENTION_RANGE.1)? {
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
            RopeScaling::Yarn {
                factor,
                beta_fast: within("beta_fast")?.unwrap_or(BETA_FAST),
                beta_slow: within("beta_slow")?.unwrap_or(BETA_SLOW),
                original_max_position_embeddings: original()?,
                attention_factor,
                truncate: keys.flag("truncate", true)?,
            }
        }
        _ => return Err(keys.unsupported_value(name, "\"default\", \"linear\", \"llama3\" and \"yarn\"")),
    };
    Ok(Some(scaling))
}

impl RopeScaling {
    /// The original context, in kinds that have one.
    pub(super) fn original_mut(&mut self) -> Option<&mut usize> {
        match self {
            Self::Llama3 { original_max_position_embeddings: original, .. }
            | Self::Yarn { original_max_position_embeddings: original, .. } => Some(original),
            Self::None | Self::Linear { .. } => None,
        }
    }

    /// Whether the context of the model takes the place of an original context.
    pub(super) fn needs_context(&self) -> bool {
        self.clone().original_mut().is_some_and(|original| *original == 0)
    }
}

/// `none`, or a kind and its values: `yarn:factor=8,original_max_position_embeddings=8192`. The keys are those of
/// `rope_scaling`; `original` is short for `original_max_position_embeddings`. The JSON object of `rope_scaling` is
/// accepted, too.
impl FromStr for RopeScaling {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const NAME: &str = "rope_scaling";
        const KEYS: [&str; 8] = [
            "factor",
            ORIGINAL,
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "truncate",
            "low_freq_factor",
            "high_freq_factor",
        ];
        let text = text.trim();
        let refused = |what: String| Error::invalid(format!("{NAME}: {what}"));
        let object = if text.starts_with('{') {
            serde_json::from_str(text).map_err(|e| refused(format!("is not a JSON object: {e}")))?
        } else {
            let (kind, values) = text.split_once(':').unwrap_or((text, ""));
            let kind = if kind.trim() == "none" { "default" } else { kind.trim() };
            let mut object = Map::from_iter([("rope_type".to_owned(), json!(kind))]);
            for pair in values.split(',').filter(|pair| !pair.trim().is_empty()) {
                let (key, value) = pair.split_once('=').map_or((pair, ""), |(key, value)| (key, value.trim()));
                let key = if key.trim() == "original" { ORIGINAL } else { key.trim() };
                let value = serde_json::from_str::<Value>(value).ok().filter(|value| !value.is_string());
                let value = value.ok_or_else(|| refused(format!("expected a number after `{key}=`")))?;
                if object.insert(key.to_owned(), value).is_some() {
                    return Err(refused(format!("`{key}` is given twice")));
                }
            }
            Value::Object(object)
        };
        let invalid = |error: Error| Error::invalid(error.message());
        let keys = Keys::new(&object, NAME).map_err(invalid)?;
        let known = |key: &str| KEYS.contains(&key) || ["rope_type", "type"].contains(&key);
        if let Some(unknown) = keys.names().find(|key| !known(key)) {
            let unknown: String = unknown.chars().take(60).collect();
            return Err(refused(format!("{unknown:?} is not a key; known: {}", KEYS.join(", "))));
        }
        Ok(read(&keys, false).map_err(invalid)?.unwrap_or(Self::None))
    }
}

/// The text from which [`RopeScaling::from_str`] reads the same scaling.
impl fmt::Display for RopeScaling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = to_json(self);
        let Some(object) = json.as_object() else { return f.write_str("none") };
        f.write_str(object.get("rope_type").and_then(Value::as_str).unwrap_or_default())?;
        let values = object.iter().filter(|(key, _)| *key != "rope_type");
        for (i, (key, value)) in values.enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

/// YaRN's default factor on cosine and sine for a context extended by `factor`.
fn default_attention_factor(factor: f64) -> f64 {
    if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 }
}

/// Returns the object from which [`read`] reads `scaling`, or `null` for none.
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

/// Returns the object of `rope_parameters` with this base and scaling.
pub(super) fn to_parameters(theta: f64, scaling: &RopeScaling) -> Value {
    let mut object = match to_json(scaling) {
        Value::Null => json!({ "rope_type": "default" }),
        object => object,
    };
    object["rope_theta"] = json!(theta);
    object
}
