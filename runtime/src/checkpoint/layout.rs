//! The list of tensors of a checkpoint: their names and shapes, and the part of the model each belongs to.

use std::fmt;

use crate::config::{BlockType, Config, QkNorm};

/// A tensor that a checkpoint must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Full name, as in published files.
    pub name: String,
    /// Shape, rows first: a matrix is `[out, in]`, a table `[rows, hidden_size]`.
    pub shape: Vec<usize>,
    /// Part of the model that uses it.
    pub part: Part,
}

impl TensorSpec {
    /// Number of elements. It cannot overflow for a [`Config`] that was read.
    pub fn element_count(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product()
    }
}

/// A part of a model, in the order of the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The embeddings of the plain and fused ids.
    ByteEmbedding,
    /// The suffix table: the embeddings of subwords.
    SuffixEmbedding,
    /// The local layers before the boundary predictor, and the projection of pooled states.
    LocalEncoder,
    /// The two projections whose cosine similarity decides where patches end.
    BoundaryPredictor,
    /// The global blocks, which run once per patch.
    Global,
    /// The local layers after the global blocks, and the depooling before them.
    LocalDecoder,
    /// The final norm and the projection to logits.
    Head,
}

impl Part {
    /// All parts, in order.
    pub const ALL: [Part; 7] = [
        Part::ByteEmbedding,
        Part::SuffixEmbedding,
        Part::LocalEncoder,
        Part::BoundaryPredictor,
        Part::Global,
        Part::LocalDecoder,
        Part::Head,
    ];
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Part::ByteEmbedding => "byte embedding",
            Part::SuffixEmbedding => "suffix embedding",
            Part::LocalEncoder => "local encoder",
            Part::BoundaryPredictor => "boundary predictor",
            Part::Global => "global blocks",
            Part::LocalDecoder => "local decoder",
            Part::Head => "head",
        })
    }
}

/// Returns all tensors of a checkpoint with this configuration, in the order of the forward pass.
pub fn expected_tensors(config: &Config) -> Vec<TensorSpec> {
    let d = config.hidden_size;
    let mut list = List { part: Part::ByteEmbedding, specs: Vec::new() };

    list.push("model.local_encoder.byte_embedding.weight", &[config.vocab_size, d]);
    if config.add_expanded_embeddings {
        list.part = Part::SuffixEmbedding;
        list.push("model.local_encoder.subword_embedding.weight", &[config.subword_vocab_size, d]);
    }

    list.part = Part::LocalEncoder;
    for layer in 0..config.num_local_encoder_layers {
        list.local_layer(config, &format!("model.local_encoder.layers.{layer}"));
    }
    list.push("model.local_encoder.post_last_block_norm.weight", &[d]);
    list.push("model.local_encoder.out_projection.weight", &[d, d]);
    list.push("model.local_encoder.out_projection.bias", &[d]);

    list.part = Part::BoundaryPredictor;
    list.push("model.local_encoder.boundary_predictor_module.q_proj_layer.weight", &[d, d]);
    list.push("model.local_encoder.boundary_predictor_module.k_proj_layer.weight", &[d, d]);

    list.part = Part::Global;
    for layer in 0..config.num_hidden_layers {
        list.global_block(config, &format!("model.layers.{layer}"));
    }

    list.part = Part::LocalDecoder;
    list.push("model.local_decoder.initial_norm.weight", &[d]);
    list.push("model.local_decoder.in_projection.weight", &[d, d]);
    list.push("model.local_decoder.in_projection.bias", &[d]);
    for layer in 0..config.num_local_decoder_layers {
        list.local_layer(config, &format!("model.local_decoder.layers.{layer}"));
    }

    list.part = Part::Head;
    list.push("model.norm.weight", &[d]);
    list.push("lm_head.weight", &[config.vocab_size, d]);
    list.specs
}

/// Returns the number of parameters of each part that the model has, in order.
pub fn parameters_by_part(config: &Config) -> Vec<(Part, u64)> {
    let mut counts = [0u64; Part::ALL.len()];
    for spec in expected_tensors(config) {
        counts[spec.part as usize] += spec.element_count();
    }
    Part::ALL.into_iter().zip(counts).filter(|&(_, count)| count > 0).collect()
}

/// A list under construction, and the part of the tensors that are added.
struct List {
    part: Part,
    specs: Vec<TensorSpec>,
}

impl List {
    fn push(&mut self, name: impl Into<String>, shape: &[usize]) {
        self.specs.push(TensorSpec { name: name.into(), shape: shape.to_vec(), part: self.part });
    }

    /// Adds a local layer: mLSTM and feed-forward, each preceded by a norm.
    fn local_layer(&mut self, config: &Config, prefix: &str) {
        let (d, heads, inner) = (config.hidden_size, config.num_local_heads, config.local_intermediate_size);
        self.push(format!("{prefix}.pre_xlstm_layernorm.weight"), &[d]);
        for name in ["q", "k"] {
            self.push(format!("{prefix}.xlstm.{name}.weight"), &[d / 2, d]);
        }
        for name in ["v", "ogate_preact"] {
            self.push(format!("{prefix}.xlstm.{name}.weight"), &[d, d]);
        }
        for name in ["igate_preact", "fgate_preact"] {
            self.push(format!("{prefix}.xlstm.{name}.weight"), &[heads, d]);
            self.push(format!("{prefix}.xlstm.{name}.bias"), &[heads]);
        }
        self.push(format!("{prefix}.xlstm.multihead_norm.weight"), &[d]);
        self.push(format!("{prefix}.xlstm.out_proj.weight"), &[d, d]);
        self.push(format!("{prefix}.pre_feedforward_layernorm.weight"), &[d]);
        self.feed_forward(prefix, d, inner);
    }

    /// Adds a global block, with the norms of its kind.
    fn global_block(&mut self, config: &Config, prefix: &str) {
        let (d, q, kv) = (config.hidden_size, config.query_width(), config.key_value_width());
        if config.block_type == BlockType::PreNorm {
            self.push(format!("{prefix}.input_layernorm.weight"), &[d]);
        }
        self.push(format!("{prefix}.self_attn.q_proj.weight"), &[q, d]);
        self.push(format!("{prefix}.self_attn.k_proj.weight"), &[kv, d]);
        self.push(format!("{prefix}.self_attn.v_proj.weight"), &[kv, d]);
        let norms = match config.qk_norm {
            QkNorm::None => None,
            QkNorm::Whole => Some((q, kv)),
            QkNorm::PerHead => Some((config.head_dim, config.head_dim)),
        };
        if let Some((q_norm, k_norm)) = norms {
            self.push(format!("{prefix}.self_attn.q_norm.weight"), &[q_norm]);
            self.push(format!("{prefix}.self_attn.k_norm.weight"), &[k_norm]);
        }
        self.push(format!("{prefix}.self_attn.o_proj.weight"), &[d, q]);
        self.push(format!("{prefix}.post_attention_layernorm.weight"), &[d]);
        self.feed_forward(prefix, d, config.intermediate_size);
        if config.block_type == BlockType::ReorderedNorm {
            self.push(format!("{prefix}.post_feedforward_layernorm.weight"), &[d]);
        }
    }

    fn feed_forward(&mut self, prefix: &str, d: usize, inner: usize) {
        self.push(format!("{prefix}.mlp.gate_proj.weight"), &[inner, d]);
        self.push(format!("{prefix}.mlp.up_proj.weight"), &[inner, d]);
        self.push(format!("{prefix}.mlp.down_proj.weight"), &[d, inner]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::preset::Preset;

    fn names(config: &Config) -> Vec<String> {
        expected_tensors(config).into_iter().map(|spec| spec.name).collect()
    }

    #[test]
    fn each_kind_of_block_has_its_norms() {
        let olmo = names(&Preset::Nano.config());
        assert!(olmo.contains(&"model.layers.0.post_feedforward_layernorm.weight".to_owned()));
        assert!(!olmo.iter().any(|name| name.contains("input_layernorm")));

        let mut config = Preset::Nano.config();
        (config.block_type, config.qk_norm, config.head_dim) = (BlockType::PreNorm, QkNorm::PerHead, 24);
        let specs = expected_tensors(&config);
        let shape = |name: &str| specs.iter().find(|spec| spec.name == name).map(|spec| spec.shape.clone());
        assert_eq!(shape("model.layers.1.self_attn.k_norm.weight"), Some(vec![24]));
        assert_eq!(shape("model.layers.1.self_attn.o_proj.weight"), Some(vec![64, 96]));
        assert_eq!(shape("model.layers.1.input_layernorm.weight"), Some(vec![64]));
        assert_eq!(shape("model.layers.1.post_feedforward_layernorm.weight"), None);

        config.qk_norm = QkNorm::None;
        assert!(!names(&config).iter().any(|name| name.contains("self_attn.k_norm")));
    }

    #[test]
    fn the_suffix_table_is_optional() {
        let mut config = Preset::Nano.config();
        let with = names(&config).len();
        (config.add_expanded_embeddings, config.subword_vocab_size) = (false, 0);
        assert_eq!(names(&config).len(), with - 1);
        assert!(!parameters_by_part(&config).iter().any(|(part, _)| *part == Part::SuffixEmbedding));
    }

    #[test]
    fn names_are_distinct_and_parts_in_order() {
        let specs = expected_tensors(&Preset::Bolmo7b.config());
        let distinct: std::collections::HashSet<_> = specs.iter().map(|spec| &spec.name).collect();
        assert_eq!(distinct.len(), specs.len());
        assert!(specs.is_sorted_by_key(|spec| spec.part));
    }

    #[test]
    fn parameter_counts_of_the_released_sizes() {
        let billions = |preset: Preset| {
            parameters_by_part(&preset.config()).iter().map(|(_, count)| count).sum::<u64>() as f64 / 1e9
        };
        assert!((billions(Preset::Bolmo1b) - 1.47).abs() < 0.005, "{}", billions(Preset::Bolmo1b));
        assert!((billions(Preset::Bolmo7b) - 7.63).abs() < 0.005, "{}", billions(Preset::Bolmo7b));
    }
}
