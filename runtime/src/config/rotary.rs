//! Reading the rotary embedding of a `config.json`, in the form of transformers 4 (`rope_theta` and `rope_scaling`) and
//! in that of transformers 5 (`rope_parameters`, for all layers or by kind of layer).

use std::fmt::Display;

use crate::config::classes::Class;
use crate::config::keys::Keys;
use crate::config::overrides::{Answer, Warnings};
use crate::config::{LayerType, MAX_ROPE_THETA, RopeScaling, rope_theta_is_sound, scaling};
use crate::error::{Error, Result};

/// RoPE base that the reference's configuration class fills in when a converter wrote none.
pub(super) const DEFAULT_ROPE_THETA: f64 = Class::BOLMO.rope_theta;
/// Key that confirms the default RoPE base; only this runtime writes it.
pub(super) const ROPE_THETA_CONFIRMED: &str = "rope_theta_confirmed";

/// Base of the rotary frequencies.
const THETA: &str = "rope_theta";
/// Scaling of the rotary frequencies, before transformers 5.
const SCALING: &str = "rope_scaling";
/// Base and scaling since transformers 5.
const PARAMETERS: &str = "rope_parameters";
/// Original context of the scaling, which some converters put beside it.
const ORIGINAL: &str = "original_max_position_embeddings";

/// Rotary embeddings of the full and of the sliding layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rotary {
    pub(crate) theta: f64,
    pub(crate) scaling: RopeScaling,
    /// `None` for that of full layers.
    pub(crate) sliding_theta: Option<f64>,
    pub(crate) sliding_scaling: RopeScaling,
}

impl Rotary {
    /// Whether some scaling refers to the context of the model.
    pub(super) fn needs_context(&self) -> bool {
        [self.scaling, self.sliding_scaling].iter().any(RopeScaling::needs_context)
    }
}

/// A value with the path of its key.
type Claim<T> = (String, T);

/// What the keys say about the layers of one kind, in the order of precedence.
#[derive(Default)]
struct Claims {
    theta: Vec<Claim<f64>>,
    scaling: Vec<Claim<RopeScaling>>,
}

/// Reads the rotary embedding. Keys that say the same thing twice must agree. `slides` says whether any layer slides.
pub(super) fn read(keys: &Keys<'_>, class: &Class, slides: bool, warnings: &mut Warnings) -> Result<Rotary> {
    whole_heads(keys)?;
    let (mut full, mut sliding) = (Claims::default(), Claims::default());
    for key in [PARAMETERS, SCALING] {
        let Some(object) = keys.optional_object(key)? else { continue };
        let mut by_kind = false;
        for (kind, claims) in [(LayerType::Full, &mut full), (LayerType::Sliding, &mut sliding)] {
            let name = layer_type_name(&kind);
            by_kind |= object.has(name);
            if let Some(part) = object.optional_object(name)? {
                read_part(keys, &part, true, claims)?;
            }
        }
        let mut all = Claims::default();
        read_part(keys, &object, by_kind || key == PARAMETERS, &mut all)?;
        sliding.theta.extend(all.theta.iter().cloned());
        if class.scales_sliding_layers {
            sliding.scaling.extend(all.scaling.iter().cloned());
        }
        full.theta.extend(all.theta);
        full.scaling.extend(all.scaling);
    }
    if let Some(theta) = read_theta(keys)? {
        full.theta.push((keys.path_of(THETA), theta));
        sliding.theta.push((keys.path_of(THETA), theta));
    }
    let found = agreed(keys, &full.theta)?;
    let theta = found.unwrap_or(class.rope_theta);
    let scaling = agreed(keys, &full.scaling)?.unwrap_or(RopeScaling::None);
    warnings.extend(lost_theta(keys, class, theta, found.is_some())?, Some(Answer::RopeTheta));
    let full_only = slides && sliding.theta.is_empty() && found.is_some_and(|theta| theta != class.rope_theta);
    let lost = full_only.then(|| {
        let default = class.rope_theta;
        format!(
            "{}: `{}` has a base for full layers only, so sliding layers use the default {default}; override it if \
             that is wrong",
            keys.origin(),
            keys.path_of(PARAMETERS)
        )
    });
    warnings.extend(lost, Some(Answer::RopeTheta));
    let (sliding_theta, sliding_scaling) = match slides {
        // Nothing reads them.
        false => (None, RopeScaling::None),
        true => (
            Some(agreed(keys, &sliding.theta)?.unwrap_or(class.rope_theta)).filter(|sliding| *sliding != theta),
            agreed(keys, &sliding.scaling)?.unwrap_or(RopeScaling::None),
        ),
    };
    Ok(Rotary { theta, scaling, sliding_theta, sliding_scaling })
}

/// Whether the file has a `rope_scaling`, even one that scales nothing. Converters that lose the scaling write no key
/// at all.
pub(super) fn has_scaling(keys: &Keys<'_>) -> bool {
    keys.get(SCALING).is_some()
}

/// Reads one object with a base and a scaling.
fn read_part(config: &Keys<'_>, part: &Keys<'_>, type_is_optional: bool, claims: &mut Claims) -> Result<()> {
    whole_heads(part)?;
    if let Some(theta) = read_theta(part)? {
        claims.theta.push((part.path_of(THETA), theta));
    }
    let Some(mut scaling) = scaling::read(part, type_is_optional)? else { return Ok(()) };
    if let Some(inner) = scaling.original_mut()
        && let Some(outer) = config.optional_integer(ORIGINAL, 1, 1 << 30)?
    {
        if *inner != 0 && *inner != outer {
            return Err(differ(config, (&config.path_of(ORIGINAL), &outer), (&part.path_of(ORIGINAL), &*inner)));
        }
        *inner = outer;
    }
    claims.scaling.push((part.object_path(), scaling));
    Ok(())
}

fn read_theta(keys: &Keys<'_>) -> Result<Option<f64>> {
    match keys.real(THETA)? {
        Some(theta) if !rope_theta_is_sound(theta) => {
            Err(keys.bad(THETA, format_args!("must be above 1 and at most {MAX_ROPE_THETA:e}, found {theta:?}")))
        }
        found => Ok(found),
    }
}

/// Refuses heads that are rotated in part.
fn whole_heads(keys: &Keys<'_>) -> Result<()> {
    const KEY: &str = "partial_rotary_factor";
    match keys.get(KEY) {
        Some(factor) if factor.as_f64() != Some(1.0) => Err(keys.unsupported_value(KEY, "1.0")),
        _ => Ok(()),
    }
}

/// The value that all claims make, if there is one.
fn agreed<T: Copy + PartialEq + Display>(keys: &Keys<'_>, claims: &[Claim<T>]) -> Result<Option<T>> {
    let Some((first, value)) = claims.first() else { return Ok(None) };
    match claims.iter().find(|(_, other)| other != value) {
        Some((path, other)) => Err(differ(keys, (first, value), (path, other))),
        None => Ok(Some(*value)),
    }
}

fn differ(keys: &Keys<'_>, (this, value): (&str, &dyn Display), (that, other): (&str, &dyn Display)) -> Error {
    Error::bad_checkpoint(format!(
        "{}: `{this}` is {value}, but `{that}` is {other}; keep the one that the model was trained with",
        keys.origin()
    ))
}

/// The warning that the base was probably lost, if it was.
fn lost_theta(keys: &Keys<'_>, class: &Class, theta: f64, present: bool) -> Result<Option<String>> {
    let origin = keys.origin();
    if theta == DEFAULT_ROPE_THETA && !keys.flag(ROPE_THETA_CONFIRMED, false)? {
        let state = if present { "is 10000" } else { "is absent, so 10000 is used" };
        return Ok(Some(format!(
            "{origin}: `rope_theta` {state}; converted checkpoints are known to lose the source model's value (500000 \
             for OLMo 2 and 3): if so, override `rope_theta`"
        )));
    }
    Ok((!present).then(|| {
        format!(
            "{origin}: `rope_theta` is absent, so {theta} is used, the default of {}: if it is wrong, \
             override `rope_theta`",
            class.name
        )
    }))
}

/// The name of a kind of layer in `layer_types` and in `rope_parameters`.
pub(super) fn layer_type_name(layer: &LayerType) -> &'static str {
    match layer {
        LayerType::Full => "full_attention",
        LayerType::Sliding => "sliding_attention",
    }
}
