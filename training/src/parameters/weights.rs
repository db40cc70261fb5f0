//! Weights of byte-level and subword models, requested from an [`Allocator`] in the order of the forward pass, under
//! the names of their tensors in checkpoints (docs/model.md, "Tensors").

use bolmo_runtime::unstable::{GlobalLayer, LocalLayer, Matrix, Mlp, Slice, Weights};
use bolmo_runtime::{BlockType, QkNorm};
use bolmo_runtime::{Config, Result};

use crate::parameters::{Allocator, Group};

/// Allocates the weights of a byte-level model.
pub(crate) fn byte_level(config: &Config, allocator: &mut dyn Allocator) -> Result<Weights> {
    let d = config.hidden_size;
    let (encoder, decoder) = ("model.local_encoder", "model.local_decoder");
    let predictor = |side: &str| (format!("{encoder}.boundary_predictor_module.{side}_proj_layer.weight"), d);
    let table = |part: &str| format!("{encoder}.{part}_embedding.weight");
    Ok(Weights {
        byte_embedding: allocator.matrix(Group::Embeddings, table("byte"), config.vocab_size, d)?,
        suffix_embedding: match config.add_expanded_embeddings {
            true => Some(allocator.matrix(Group::Embeddings, table("subword"), config.subword_vocab_size, d)?),
            false => None,
        },
        encoder: local_layers(config, (Group::Encoder, encoder), config.num_local_encoder_layers, allocator)?,
        post_encoder_norm: allocator.vector(Group::Encoder, format!("{encoder}.post_last_block_norm.weight"), d)?,
        boundary: allocator.stacked(Group::Encoder, vec![predictor("q"), predictor("k")], Vec::new(), d)?,
        pool_projection: linear((Group::Encoder, &format!("{encoder}.out_projection")), d, allocator)?,
        global: global_layers(config, allocator)?,
        initial_norm: allocator.vector(Group::Local, format!("{decoder}.initial_norm.weight"), d)?,
        depool_projection: linear((Group::Local, &format!("{decoder}.in_projection")), d, allocator)?,
        decoder: local_layers(config, (Group::Local, decoder), config.num_local_decoder_layers, allocator)?,
        final_norm: allocator.vector(Group::Local, "model.norm.weight".to_owned(), d)?,
        head: allocator.matrix(Group::Local, "lm_head.weight".to_owned(), config.vocab_size, d)?,
    })
}

/// Weights of a subword model.
#[derive(Debug)]
pub(crate) struct SubwordWeights {
    /// `[rows, D]`
    pub(crate) embedding: Matrix,
    /// Global blocks.
    pub(crate) global: Vec<GlobalLayer>,
    /// `[D]`
    pub(crate) final_norm: Slice,
    /// `[rows, D]`; `None` if the head is the embedding.
    pub(crate) head: Option<Matrix>,
}

/// Allocates the weights of a subword model with `rows` vocabulary rows. With `tied`, its head is its embedding.
pub(crate) fn subword(
    config: &Config,
    rows: usize,
    tied: bool,
    allocator: &mut dyn Allocator,
) -> Result<SubwordWeights> {
    let d = config.hidden_size;
    Ok(SubwordWeights {
        embedding: allocator.matrix(Group::Embeddings, "model.embed_tokens.weight".to_owned(), rows, d)?,
        global: global_layers(config, allocator)?,
        final_norm: allocator.vector(Group::Local, "model.norm.weight".to_owned(), d)?,
        head: match tied {
            true => None,
            false => Some(allocator.matrix(Group::Local, "lm_head.weight".to_owned(), rows, d)?),
        },
    })
}

fn linear((group, name): (Group, &str), d: usize, allocator: &mut dyn Allocator) -> Result<Matrix> {
    allocator.stacked(group, vec![(format!("{name}.weight"), d)], vec![Some(format!("{name}.bias"))], d)
}

fn local_layers(
    config: &Config,
    (group, side): (Group, &str),
    count: usize,
    allocator: &mut dyn Allocator,
) -> Result<Vec<LocalLayer>> {
    let (d, heads) = (config.hidden_size, config.num_local_heads);
    let mut layers = Vec::new();
    for i in 0..count {
        let layer = format!("{side}.layers.{i}");
        let named = |part: &str| format!("{layer}.xlstm.{part}");
        let rows = [
            ("q", d / 2),
            ("k", d / 2),
            ("v", d),
            ("ogate_preact", d),
            ("igate_preact", heads),
            ("fgate_preact", heads),
        ];
        let weights = rows.iter().map(|(part, rows)| (named(part) + ".weight", *rows)).collect();
        let gates = ["igate_preact", "fgate_preact"].map(|part| Some(named(part) + ".bias"));
        let biases = [None, None, None, None].into_iter().chain(gates).collect();
        layers.push(LocalLayer {
            pre_xlstm_norm: allocator.vector(group, format!("{layer}.pre_xlstm_layernorm.weight"), d)?,
            projections: allocator.stacked(group, weights, biases, d)?,
            head_norm: allocator.vector(group, named("multihead_norm.weight"), d)?,
            out: allocator.matrix(group, named("out_proj.weight"), d, d)?,
            pre_feedforward_norm: allocator.vector(group, format!("{layer}.pre_feedforward_layernorm.weight"), d)?,
            mlp: mlp(group, &layer, d, config.local_intermediate_size, allocator)?,
        });
    }
    Ok(layers)
}

fn global_layers(config: &Config, allocator: &mut dyn Allocator) -> Result<Vec<GlobalLayer>> {
    let d = config.hidden_size;
    let (q, kv) = (config.query_width(), config.key_value_width());
    let (attention_norm, feedforward_norm) = match config.block_type {
        BlockType::ReorderedNorm => ("post_attention_layernorm", "post_feedforward_layernorm"),
        BlockType::PreNorm => ("input_layernorm", "post_attention_layernorm"),
    };
    let mut layers = Vec::new();
    for i in 0..config.num_hidden_layers {
        let layer = format!("model.layers.{i}");
        let projection = |part: &str| format!("{layer}.self_attn.{part}_proj.weight");
        let norm = |part: &str| format!("{layer}.{part}.weight");
        let (q_norm, k_norm) = match config.qk_norm {
            QkNorm::None => (0, 0),
            QkNorm::Whole => (q, kv),
            QkNorm::PerHead => (config.head_dim, config.head_dim),
        };
        let qk_norm = |part: &str, width: usize, allocator: &mut dyn Allocator| match width {
            0 => Ok(None),
            _ => allocator.vector(Group::Global, format!("{layer}.self_attn.{part}_norm.weight"), width).map(Some),
        };
        layers.push(GlobalLayer {
            attention_norm: allocator.vector(Group::Global, norm(attention_norm), d)?,
            qkv: allocator.stacked(
                Group::Global,
                vec![(projection("q"), q), (projection("k"), kv), (projection("v"), kv)],
                Vec::new(),
                d,
            )?,
            q_norm: qk_norm("q", q_norm, allocator)?,
            k_norm: qk_norm("k", k_norm, allocator)?,
            out: allocator.matrix(Group::Global, projection("o"), d, q)?,
            feedforward_norm: allocator.vector(Group::Global, norm(feedforward_norm), d)?,
            mlp: mlp(Group::Global, &layer, d, config.intermediate_size, allocator)?,
        });
    }
    Ok(layers)
}

fn mlp(group: Group, layer: &str, d: usize, inner: usize, allocator: &mut dyn Allocator) -> Result<Mlp> {
    let named = |part: &str| format!("{layer}.mlp.{part}_proj.weight");
    Ok(Mlp {
        gate_up: allocator.interleaved(group, [named("gate"), named("up")], inner, d)?,
        down: allocator.matrix(group, named("down"), d, inner)?,
    })
}
