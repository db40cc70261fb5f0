//! Reading the global blocks of a `config.json`: those of a Bolmo model, and those of a source model.

use serde_json::Value;

use crate::config::classes::{Class, Layers, LocalParts, MAX_WINDOW_LAYERS, SLIDING_WINDOW};
use crate::config::keys::{Absent, Keys, shown};
use crate::config::overrides::{Answer, Warnings};
use crate::config::rotary::{self, Rotary};
use crate::config::special::SPECIAL_TOKENS;
use crate::config::{BYTE_VOCABULARY, BlockType, Config, LayerType, QkNorm, RopeScaling, SpecialIds, block_keys};
use crate::error::{Error, Result};

/// The global blocks that a `config.json` describes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocks {
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) num_key_value_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) rms_norm_eps: f32,
    pub(crate) rotary: Rotary,
    pub(crate) layer_types: Vec<LayerType>,
    pub(crate) sliding_window: usize,
    pub(crate) max_position_embeddings: usize,
    pub(crate) block_type: BlockType,
    pub(crate) qk_norm: QkNorm,
}

impl Blocks {
    /// Reads the blocks of a configuration that `class` wrote. `absent` collects the sizes that the file lacks.
    pub(crate) fn read(keys: &Keys<'_>, class: &Class, absent: &mut Absent, warnings: &mut Warnings) -> Result<Self> {
        keys.must_be("hidden_act", "silu", false)?;
        for key in ["attention_bias", "mlp_bias"] {
            if keys.flag(key, false)? {
                return Err(keys.unsupported_value(key, "false"));
            }
        }
        keys.same_if_both("dtype", "torch_dtype")?;
        let hidden_size = absent.integer(keys, "hidden_size", class.hidden_size, (1, 65_536))?;
        let num_hidden_layers = absent.integer(keys, "num_hidden_layers", class.num_hidden_layers, (1, 1024))?;
        let num_attention_heads = absent.integer(keys, "num_attention_heads", class.num_attention_heads, (1, 1024))?;
        let num_key_value_heads = match (keys.optional_integer("num_key_value_heads", 1, 1024)?, class) {
            (Some(heads), _) => heads,
            // In this class, `null` means the number of query heads, and an absent key does not.
            (None, Class { num_key_value_heads: Some(heads), .. }) if !keys.is_null("num_key_value_heads") => *heads,
            (None, _) => num_attention_heads,
        };
        let head_dim = match keys.optional_integer("head_dim", 1, 65_536)?.or(class.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
            None => {
                return Err(keys.bad(
                    "num_attention_heads",
                    format_args!(
                        "is {num_attention_heads}, which does not divide `hidden_size` {hidden_size}; change it or \
                         add `head_dim`"
                    ),
                ));
            }
        };
        let intermediate_size = absent.integer(keys, "intermediate_size", class.intermediate_size, (1, 1 << 20))?;
        let rms_norm_eps = absent.epsilon(keys, "rms_norm_eps", class.rms_norm_eps)?;
        let (layer_types, sliding_window) = read_layers(keys, class, num_hidden_layers)?;
        let (block_type, qk_norm) = match class.norms {
            Some(norms) => norms,
            None => (read_block_type(keys)?, read_qk_norm(keys)?),
        };
        let max_position_embeddings = read_context(keys, class)?;
        let rotary = rotary::read(keys, class, layer_types.contains(&LayerType::Sliding), warnings)?;
        if max_position_embeddings == 0 && rotary.needs_context() {
            return Err(no_context(keys));
        }
        Ok(Self {
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim,
            intermediate_size,
            rms_norm_eps,
            rotary,
            layer_types,
            sliding_window,
            max_position_embeddings,
            block_type,
            qk_norm,
        })
    }
}

impl Config {
    /// A configuration with these blocks and local parts. It has the published byte vocabulary and no suffix table.
    pub(super) fn of_blocks(blocks: Blocks, local: LocalParts) -> Self {
        Self {
            hidden_size: blocks.hidden_size,
            vocab_size: BYTE_VOCABULARY,
            num_hidden_layers: blocks.num_hidden_layers,
            num_attention_heads: blocks.num_attention_heads,
            num_key_value_heads: blocks.num_key_value_heads,
            head_dim: blocks.head_dim,
            intermediate_size: blocks.intermediate_size,
            local_intermediate_size: local.intermediate_size,
            num_local_heads: local.heads,
            num_local_encoder_layers: local.encoder_layers,
            num_local_decoder_layers: local.decoder_layers,
            subword_vocab_size: 0,
            rms_norm_eps: blocks.rms_norm_eps,
            local_rms_norm_eps: local.rms_norm_eps,
            rope_theta: blocks.rotary.theta,
            rope_scaling: blocks.rotary.scaling,
            sliding_rope_theta: blocks.rotary.sliding_theta,
            sliding_rope_scaling: blocks.rotary.sliding_scaling,
            layer_types: blocks.layer_types,
            sliding_window: blocks.sliding_window,
            max_position_embeddings: blocks.max_position_embeddings,
            add_expanded_embeddings: true,
            block_type: blocks.block_type,
            qk_norm: blocks.qk_norm,
            special: SpecialIds { pad: 0, bos: 1, eos: 1, bpe_token_end: 3 },
            special_tokens: Vec::new(),
            byte_offset: SPECIAL_TOKENS as u16,
            original_identifier: None,
        }
    }

    /// Whether this is a model like Olmo 3 with an extended context and without the scaling that goes with it.
    pub(super) fn looks_unscaled(&self) -> bool {
        /// Context of Olmo 3 before it was extended with YaRN.
        const BEFORE_YARN: usize = 8192;
        (self.block_type, self.qk_norm) == (BlockType::ReorderedNorm, QkNorm::Whole)
            && [LayerType::Full, LayerType::Sliding].iter().all(|kind| self.layer_types.contains(kind))
            && self.rope_scaling == RopeScaling::None
            && self.max_position_embeddings > BEFORE_YARN
    }

    /// Warns that the scaling was probably lost, if it was. An explicit `rope_scaling` is no accident.
    pub(super) fn warn_of_lost_scaling(&self, keys: &Keys<'_>, warnings: &mut Warnings) {
        let warning = (self.looks_unscaled() && !rotary::has_scaling(keys)).then(|| {
            let (origin, length) = (keys.origin(), self.max_position_embeddings);
            format!(
                "{origin}: `rope_scaling` is absent, but Olmo 3 models with a `max_position_embeddings` of {length} \
                 scale the rotary frequencies of full layers \
                 (\"yarn:factor=8,original_max_position_embeddings=8192\" in Olmo 3 7B), and converted checkpoints are \
                 known to lose this: if so, override `rope_scaling`"
            )
        });
        warnings.extend(warning, Some(Answer::RopeScaling));
    }
}

const CONTEXT: &str = "max_position_embeddings";
const LONGEST_CONTEXT: usize = 1 << 30;

/// Reads `max_position_embeddings`, which only a scaling without an original context needs: 0 stands for a number that
/// is no length.
fn read_context(keys: &Keys<'_>, class: &Class) -> Result<usize> {
    match keys.get(CONTEXT) {
        None if keys.is_null(CONTEXT) => Ok(0),
        None => Ok(class.max_position_embeddings),
        Some(Value::Number(n)) => {
            let length = n.as_u64().and_then(|n| usize::try_from(n).ok());
            Ok(length.filter(|n| *n <= LONGEST_CONTEXT).unwrap_or(0))
        }
        Some(_) => keys.integer(CONTEXT, 1, LONGEST_CONTEXT),
    }
}

/// The error that `max_position_embeddings` is no length, though a scaling needs one.
fn no_context(keys: &Keys<'_>) -> Error {
    let found = keys.get(CONTEXT).map_or_else(|| "null".to_owned(), shown);
    keys.bad(
        CONTEXT,
        format_args!(
            "must be an integer from 1 to {LONGEST_CONTEXT}, found {found}; the rotary scaling has no \
             `original_max_position_embeddings` and needs it"
        ),
    )
}

/// Reads the attention of each layer, and the window of the sliding ones.
fn read_layers(keys: &Keys<'_>, class: &Class, layers: usize) -> Result<(Vec<LayerType>, usize)> {
    let listed = read_layer_types(keys, layers)?;
    match class.layers {
        Layers::EveryFourthFull => {
            let layer_types = listed.unwrap_or_else(|| every_fourth_full(layers));
            let window = read_window(keys, layer_types.contains(&LayerType::Sliding))?;
            Ok((layer_types, window))
        }
        Layers::Windowed => {
            let windowed = keys.flag("use_sliding_window", false)? && !keys.is_null("sliding_window");
            let layer_types = match listed {
                Some(listed) => listed,
                None => {
                    let first = keys.optional_integer("max_window_layers", 0, 1 << 20)?.unwrap_or(MAX_WINDOW_LAYERS);
                    let kind = |i| if windowed && i >= first { LayerType::Sliding } else { LayerType::Full };
                    (0..layers).map(kind).collect()
                }
            };
            let slides = layer_types.contains(&LayerType::Sliding);
            if slides && !windowed {
                return Err(keys.bad(
                    "layer_types",
                    "has sliding layers, but `use_sliding_window` is not true or `sliding_window` is null; make them \
                     agree",
                ));
            }
            let window = if slides { read_window(keys, true)? } else { 0 };
            Ok((layer_types, window))
        }
        Layers::Full => match listed {
            Some(listed) if listed.contains(&LayerType::Sliding) => Err(keys.unsupported(
                "layer_types",
                format_args!("has sliding layers, but models of the class {} have none", class.name),
            )),
            _ => Ok((vec![LayerType::Full; layers], 0)),
        },
    }
}

/// Three sliding layers, then a full one.
fn every_fourth_full(layers: usize) -> Vec<LayerType> {
    (1..=layers).map(|i| if i % 4 == 0 { LayerType::Full } else { LayerType::Sliding }).collect()
}

/// Reads `sliding_window`; 0 stands for none.
fn read_window(keys: &Keys<'_>, slides: bool) -> Result<usize> {
    const KEY: &str = "sliding_window";
    if slides {
        if keys.is_null(KEY) {
            return Err(keys.bad(KEY, "must be above 0, since some layers slide; found null"));
        }
        return Ok(keys.optional_integer(KEY, 1, 1 << 30)?.unwrap_or(SLIDING_WINDOW));
    }
    match keys.get(KEY) {
        // Nothing reads it.
        Some(Value::Number(n)) => Ok(n.as_u64().filter(|n| *n <= 1 << 30).unwrap_or(0) as usize),
        _ => Ok(keys.optional_integer(KEY, 0, 1 << 30)?.unwrap_or(0)),
    }
}

fn read_layer_types(keys: &Keys<'_>, layers: usize) -> Result<Option<Vec<LayerType>>> {
    let Some(list) = keys.list("layer_types")? else { return Ok(None) };
    if list.len() != layers {
        return Err(keys.bad(
            "layer_types",
            format_args!("must have `num_hidden_layers` = {layers} entries, found {}", list.len()),
        ));
    }
    let kinds = list.iter().map(|entry| match entry.as_str() {
        Some("full_attention") => Ok(LayerType::Full),
        Some("sliding_attention") => Ok(LayerType::Sliding),
        _ => Err(keys.unsupported(
            "layer_types",
            format_args!("has {}; known are \"full_attention\" and \"sliding_attention\"", shown(entry)),
        )),
    });
    kinds.collect::<Result<_>>().map(Some)
}

fn read_block_type(keys: &Keys<'_>) -> Result<BlockType> {
    match keys.text(block_keys::BLOCK_TYPE)? {
        None | Some("reordered_norm") => Ok(BlockType::ReorderedNorm),
        Some("default" | "pre_norm") => Ok(BlockType::PreNorm),
        Some(_) => {
            Err(keys.unsupported_value(block_keys::BLOCK_TYPE, "\"reordered_norm\", \"default\" or \"pre_norm\""))
        }
    }
}

fn read_qk_norm(keys: &Keys<'_>) -> Result<QkNorm> {
    // Both kinds of norm are the same in float32.
    match keys.text(block_keys::NORM_TYPE)? {
        None | Some("rms" | "qwen_rms") => {}
        Some(_) => return Err(keys.unsupported_value(block_keys::NORM_TYPE, "\"rms\" and \"qwen_rms\"")),
    }
    let (any, per_head) = (keys.flag(block_keys::USE_QK_NORM, true)?, keys.flag(block_keys::USE_HEAD_QK_NORM, false)?);
    Ok(match (any, per_head) {
        (false, _) => QkNorm::None,
        (true, false) => QkNorm::Whole,
        (true, true) => QkNorm::PerHead,
    })
}
