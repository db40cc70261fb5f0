//! The weights of byte-level and subword models, in the order in which data passes them: what is asked of a [`Memory`], by the names
//! that tensors have in checkpoints (SPEC 2).

use bolmo_runtime::config::{BlockType, QkNorm};
use bolmo_runtime::internals::{GlobalLayer, LocalLayer, Matrix, Mlp, Slice, Weights};
use bolmo_runtime::{Config, Result};

use crate::parameters::{Group, Memory};

/// All weights of a byte-level model.
pub(crate) fn byte_level(config: &Config, memory: &mut dyn Memory) -> Result<Weights> {
    let d = config.hidden_size;
    let (encoder, decoder) = ("model.local_encoder", "model.local_decoder");
    let predictor = |side: &str| (format!("{encoder}.boundary_predictor_module.{side}_proj_layer.weight"), d);
    let table = |part: &str| format!("{encoder}.{part}_embedding.weight");
    Ok(Weights {
        byte_embedding: memory.matrix(Group::Embeddings, table("byte"), config.vocab_size, d)?,
        suffix_embedding: match config.add_expanded_embeddings {
            true => Some(memory.matrix(Group::Embeddings, table("subword"), config.subword_vocab_size, d)?),
            false => None,
        },
        encoder: local_layers(config, (Group::Encoder, encoder), config.num_local_encoder_layers, memory)?,
        post_encoder_norm: memory.vector(Group::Encoder, format!("{encoder}.post_last_block_norm.weight"), d)?,
        boundary: memory.stacked(Group::Encoder, vec![predictor("q"), predictor("k")], Vec::new(), d)?,
        pool_projection: linear((Group::Encoder, &format!("{encoder}.out_projection")), d, memory)?,
        global: global_layers(config, memory)?,
        initial_norm: memory.vector(Group::Local, format!("{decoder}.initial_norm.weight"), d)?,
        depool_projection: linear((Group::Local, &format!("{decoder}.in_projection")), d, memory)?,
        decoder: local_layers(config, (Group::Local, decoder), config.num_local_decoder_layers, memory)?,
        final_norm: memory.vector(Group::Local, "model.norm.weight".to_owned(), d)?,
        head: memory.matrix(Group::Local, "lm_head.weight".to_owned(), config.vocab_size, d)?,
    })
}

/// What a subword model has besides its blocks.
#[derive(Debug)]
pub(crate) struct SubwordWeights {
    /// `[rows, D]`
    pub(crate) embedding: Matrix,
    /// The blocks.
    pub(crate) global: Vec<GlobalLayer>,
    /// `[D]`
    pub(crate) final_norm: Slice,
    /// `[rows, D]`; the embedding is the head too if `None`.
    pub(crate) head: Option<Matrix>,
}

/// All weights of a subword model with `rows` entries in its vocabulary, whose head is its embedding if `tied`.
pub(crate) fn subword(config: &Config, rows: usize, tied: bool, memory: &mut dyn Memory) -> Result<SubwordWeights> {
    let d = config.hidden_size;
    Ok(SubwordWeights {
        embedding: memory.matrix(Group::Embeddings, "model.embed_tokens.weight".to_owned(), rows, d)?,
        global: global_layers(config, memory)?,
        final_norm: memory.vector(Group::Local, "model.norm.weight".to_owned(), d)?,
        head: match tied {
            true => None,
            false => Some(memory.matrix(Group::Local, "lm_head.weight".to_owned(), rows, d)?),
        },
    })
}

fn linear((group, name): (Group, &str), d: usize, memory: &mut dyn Memory) -> Result<Matrix> {
    memory.stacked(group, vec![(format!("{name}.weight"), d)], vec![Some(format!("{name}.bias"))], d)
}

fn local_layers(
    config: &Config,
    (group, side): (Group, &str),
    count: usize,
    memory: &mut dyn Memory,
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
            pre_xlstm_norm: memory.vector(group, format!("{layer}.pre_xlstm_layernorm.weight"), d)?,
            projections: memory.stacked(group, weights, biases, d)?,
            head_norm: memory.vector(group, named("multihead_norm.weight"), d)?,
            out: memory.matrix(group, named("out_proj.weight"), d, d)?,
            pre_feedforward_norm: memory.vector(group, format!("{layer}.pre_feedforward_layernorm.weight"), d)?,
            mlp: mlp(group, &layer, d, config.local_intermediate_size, memory)?,
        });
    }
    Ok(layers)
}

fn global_layers(config: &Config, memory: &mut dyn Memory) -> Result<Vec<GlobalLayer>> {
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
        let qk_norm = |part: &str, width: usize, memory: &mut dyn Memory| match width {
            0 => Ok(None),
            _ => memory.vector(Group::Global, format!("{layer}.self_attn.{part}_norm.weight"), width).map(Some),
        };
        layers.push(GlobalLayer {
            attention_norm: memory.vector(Group::Global, norm(attention_norm), d)?,
            qkv: memory.stacked(
                Group::Global,
                vec![(projection("q"), q), (projection("k"), kv), (projection("v"), kv)],
                Vec::new(),
                d,
            )?,
            q_norm: qk_norm("q", q_norm, memory)?,
            k_norm: qk_norm("k", k_norm, memory)?,
            out: memory.matrix(Group::Global, projection("o"), d, q)?,
            feedforward_norm: memory.vector(Group::Global, norm(feedforward_norm), d)?,
            mlp: mlp(Group::Global, &layer, d, config.intermediate_size, memory)?,
        });
    }
    Ok(layers)
}

fn mlp(group: Group, layer: &str, d: usize, inner: usize, memory: &mut dyn Memory) -> Result<Mlp> {
    let named = |part: &str| format!("{layer}.mlp.{part}_proj.weight");
    Ok(Mlp {
        gate_up: memory.by_turns(group, [named("gate"), named("up")], inner, d)?,
        down: memory.matrix(group, named("down"), d, inner)?,
    })
}
