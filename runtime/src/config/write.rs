//! Writing a [`Config`] as a `config.json` in the layout of published folders.

use serde_json::{Value, json};

use crate::config::rotary::{DEFAULT_ROPE_THETA, ROPE_THETA_CONFIRMED, layer_type_name};
use crate::config::{BlockType, Config, LayerType, QkNorm, RopeScaling, block_keys, scaling};

impl Config {
    /// Returns the `config.json` of a float32 checkpoint, from which [`Config::from_json`] reads the same `Config`.
    ///
    /// Keys with their default values (`head_dim`, the kind of block) are omitted where published files omit them, so
    /// that other readers find only the keys they know.
    pub fn to_json(&self) -> Value {
        let layer_types: Vec<&str> = self.layer_types.iter().map(layer_type_name).collect();
        let mut json = json!({
            "add_expanded_embeddings": self.add_expanded_embeddings,
            "architectures": ["BolmoForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "auto_map": {
                "AutoConfig": "configuration_bolmo.BolmoConfig",
                "AutoModelForCausalLM": "modeling_bolmo.BolmoForCausalLM",
            },
            "bos_token_id": self.special.bos,
            "boundary_predictor_lookahead": 1,
            "boundary_threshold": "sample:0",
            "dtype": "float32",
            "eos_token_id": self.special.eos,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.intermediate_size,
            "layer_types": layer_types,
            "local_intermediate_size": self.local_intermediate_size,
            "local_rms_norm_eps": widened(self.local_rms_norm_eps),
            "max_position_embeddings": (self.max_position_embeddings != 0).then_some(self.max_position_embeddings),
            "model_type": "bolmo",
            "num_attention_heads": self.num_attention_heads,
            "num_hidden_layers": self.num_hidden_layers,
            "num_key_value_heads": self.num_key_value_heads,
            "num_local_decoder_layers": self.num_local_decoder_layers,
            "num_local_encoder_layers": self.num_local_encoder_layers,
            "num_local_heads": self.num_local_heads,
            "pad_token_id": self.special.pad,
            "rms_norm_eps": widened(self.rms_norm_eps),
            "rope_scaling": scaling::to_json(&self.rope_scaling),
            "rope_theta": self.rope_theta,
            "sliding_window": (self.sliding_window != 0).then_some(self.sliding_window),
            "subword_vocab_size": self.subword_vocab_size,
            "tie_word_embeddings": false,
            "tokenizer_config": {
                "bos_token_id": self.special.bos,
                "bpe_token_end_id": self.special.bpe_token_end,
                "eos_token_id": self.special.eos,
                "pad_token_id": self.special.pad,
                "special_tokens": self.special_tokens,
                "special_tokens_first": self.byte_offset != 0,
                "vocab_size": self.vocab_size,
            },
            "transformers_version": "4.57.3",
            "use_cache": true,
            "vocab_size": self.vocab_size,
        });
        if (self.sliding_rope_theta, self.sliding_rope_scaling) != (None, RopeScaling::None) {
            // Only the form of transformers 5 tells layers apart.
            let sliding_theta = self.sliding_rope_theta.unwrap_or(self.rope_theta);
            let full = scaling::to_parameters(self.rope_theta, &self.rope_scaling);
            let sliding = scaling::to_parameters(sliding_theta, &self.sliding_rope_scaling);
            json["rope_parameters"] = json!({
                layer_type_name(&LayerType::Full): full,
                layer_type_name(&LayerType::Sliding): sliding,
            });
            for key in ["rope_theta", "rope_scaling"] {
                json.as_object_mut().map(|object| object.remove(key));
            }
        }
        if self.looks_unscaled() && json.get("rope_scaling").is_some() {
            json["rope_scaling"] = json!({ "rope_type": "default" });
        }
        if self.rope_theta == DEFAULT_ROPE_THETA {
            // In other files this value usually means that the true one was lost.
            json[ROPE_THETA_CONFIRMED] = json!(true);
        }
        if let Some(identifier) = &self.original_identifier {
            json["tokenizer_config"]["original_identifier"] = json!(identifier);
        }
        if self.head_dim.checked_mul(self.num_attention_heads) != Some(self.hidden_size) {
            json["head_dim"] = json!(self.head_dim);
        }
        if (self.block_type, self.qk_norm) != (BlockType::ReorderedNorm, QkNorm::Whole) {
            json[block_keys::BLOCK_TYPE] = json!(match self.block_type {
                BlockType::ReorderedNorm => "reordered_norm",
                BlockType::PreNorm => "default",
            });
            json[block_keys::USE_QK_NORM] = json!(self.qk_norm != QkNorm::None);
            json[block_keys::USE_HEAD_QK_NORM] = json!(self.qk_norm == QkNorm::PerHead);
        }
        json
    }
}

/// Widens `x` through its shortest decimal representation, so that 1e-6 is written as 1e-6 and not with the digits of
/// the nearest f32.
fn widened(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}
