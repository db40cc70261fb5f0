//! The golden training runs: sizes, names of tensors, and batches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bolmo_runtime::{BlockType, LayerType, QkNorm, RopeScaling, SpecialIds};
use bolmo_runtime::{Config, Error, Result};
use bolmo_tests::fixtures;
use bolmo_training::loss::Targets;
use bolmo_training::{Examples, Shape, TensorSource};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The sizes of the golden training runs, and their folder.
pub struct Case {
    pub dir: PathBuf,
    sizes: Value,
}

/// The contents of a JSON file.
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    // The reference writes the losses that a run did not have as NaN, which is not JSON.
    serde_json::from_str(&text.replace("NaN", "null")).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The tensors of a file, by name.
#[derive(Default)]
pub struct Tensors {
    pub floats: BTreeMap<String, Vec<f32>>,
    pub integers: BTreeMap<String, Vec<i64>>,
}

impl Tensors {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let mut this = Self::default();
        for (name, tensor) in file.tensors() {
            match tensor.dtype() {
                Dtype::F32 => {
                    this.floats.insert(name, bytemuck::pod_collect_to_vec(tensor.data()));
                }
                Dtype::I64 => {
                    this.integers.insert(name, bytemuck::pod_collect_to_vec(tensor.data()));
                }
                _ => {}
            }
        }
        this
    }
}

impl TensorSource for Tensors {
    fn read(&self, name: &str) -> Result<Vec<f32>> {
        self.floats.get(name).cloned().ok_or_else(|| Error::not_found(format!("no tensor {name}")))
    }
}

/// The checkpoint's name for a tensor of the reference's training code.
fn published(name: &str) -> String {
    let renamed = |name: &str, pairs: &[(&str, &str)]| {
        pairs.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")))
    };
    let feed_forward = [
        ("feed_forward.w1.", "mlp.gate_proj."),
        ("feed_forward.w2.", "mlp.down_proj."),
        ("feed_forward.w3.", "mlp.up_proj."),
    ];
    let part = |name: &str, pairs: &[(&str, &str)]| {
        renamed(name, pairs).or_else(|| renamed(name, &feed_forward)).unwrap_or_else(|| name.to_owned())
    };
    if let Some(rest) = name.strip_prefix("blocks.") {
        let (layer, rest) = rest.split_once('.').expect("a layer");
        let pairs = [
            ("attention.w_q.", "self_attn.q_proj."),
            ("attention.w_k.", "self_attn.k_proj."),
            ("attention.w_v.", "self_attn.v_proj."),
            ("attention.w_out.", "self_attn.o_proj."),
            ("attention.q_norm.", "self_attn.q_norm."),
            ("attention.k_norm.", "self_attn.k_norm."),
            ("attention_norm.", "post_attention_layernorm."),
            ("feed_forward_norm.", "post_feedforward_layernorm."),
        ];
        return format!("model.layers.{layer}.{}", part(rest, &pairs));
    }
    for side in ["local_encoder", "local_decoder"] {
        if let Some(rest) = name.strip_prefix(&format!("{side}.blocks.")) {
            let (layer, rest) = rest.split_once('.').expect("a layer");
            let pairs = [("feed_forward_norm.", "pre_feedforward_layernorm."), ("xlstm_norm.", "pre_xlstm_layernorm.")];
            return format!("model.{side}.layers.{layer}.{}", part(rest, &pairs));
        }
    }
    match name {
        "lm_head.norm.weight" => "model.norm.weight".to_owned(),
        "lm_head.w_out.weight" => "lm_head.weight".to_owned(),
        "local_encoder.embedding.weight" => "model.local_encoder.byte_embedding.weight".to_owned(),
        "local_encoder.expanded_embeddings.weight" => "model.local_encoder.subword_embedding.weight".to_owned(),
        other => format!("model.{other}"),
    }
}

/// Splits the tensors of the reference's training code into the student's and the teacher's, by their checkpoint names.
pub fn checkpoint(tensors: &Tensors) -> (Tensors, Tensors) {
    let (mut student, mut teacher) = (Tensors::default(), Tensors::default());
    for (name, values) in &tensors.floats {
        match name.strip_prefix("teacher.") {
            Some(name) => {
                let name = match name {
                    "embeddings.weight" => "model.embed_tokens.weight",
                    "lm_head.norm.weight" => "model.norm.weight",
                    _ => "lm_head.weight",
                };
                teacher.floats.insert(name.to_owned(), values.clone());
            }
            None => {
                student.floats.insert(published(name), values.clone());
            }
        }
    }
    (student, teacher)
}

impl Case {
    pub fn new() -> Self {
        let dir = fixtures().join("train");
        let sizes = json(&dir.join("config.json"));
        Self { dir, sizes }
    }

    pub fn size(&self, name: &str) -> usize {
        self.sizes[name].as_u64().unwrap_or_else(|| panic!("no {name}")) as usize
    }

    pub fn shape(&self) -> Shape {
        Shape { rows: 3, bytes: self.size("L"), patches: self.size("P") }
    }

    /// Error bound of a gradient in f32, relative to its norm: each sum on the way through the model and
    /// back has as many roundings as terms, and the last sum runs over all positions.
    pub fn gradient_rounding(&self) -> f64 {
        let (shape, config) = (self.shape(), self.config());
        let d = config.hidden_size;
        // Projections into the layer and out of it, the sum over the sequence, and the feed-forward part.
        let local = 3 * d + shape.bytes + config.local_intermediate_size;
        let block = 3 * d + shape.patches + config.intermediate_size;
        let locals = config.num_local_encoder_layers + config.num_local_decoder_layers;
        // Pooling, the decoder's input, the head.
        let way = locals * local + config.num_hidden_layers * block + 3 * d;
        f64::from(f32::EPSILON) * (2 * way + shape.rows * shape.bytes) as f64
    }

    pub fn config(&self) -> Config {
        let d = self.size("D");
        let heads = self.size("n_heads");
        let layers = self.size("n_layers");
        Config {
            hidden_size: d,
            vocab_size: self.size("byte_vocab_rows"),
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: d / heads,
            intermediate_size: self.size("ffn"),
            local_intermediate_size: self.size("local_ffn"),
            num_local_heads: self.size("local_heads"),
            num_local_encoder_layers: self.size("n_enc"),
            num_local_decoder_layers: self.size("n_dec"),
            subword_vocab_size: self.size("subword_vocab"),
            rms_norm_eps: 1e-6,
            local_rms_norm_eps: 1e-5,
            rope_theta: self.size("rope_theta") as f64,
            rope_scaling: RopeScaling::None,
            sliding_rope_theta: None,
            sliding_rope_scaling: RopeScaling::None,
            layer_types: vec![LayerType::Full; layers],
            sliding_window: 0,
            max_position_embeddings: 4096,
            add_expanded_embeddings: true,
            block_type: BlockType::ReorderedNorm,
            qk_norm: QkNorm::Whole,
            special: SpecialIds { pad: 0, bos: 1, eos: 1, bpe_token_end: 3 },
            special_tokens: ["<pad>", "<bos>", "<eos>", "<bpe_token_end>"].map(str::to_owned).to_vec(),
            byte_offset: 4,
            original_identifier: None,
        }
    }
}

/// A golden batch, with the boundaries and patches that follow from it.
pub struct Batch {
    shape: Shape,
    ids: Vec<u32>,
    suffixes: Vec<u32>,
    subwords: Vec<u32>,
    labels: Vec<i32>,
    truth: Vec<bool>,
    patch_lens: Vec<u32>,
    patch_of: Vec<u32>,
}

impl Batch {
    pub fn read(case: &Case, which: usize, eos: u32) -> Self {
        let shape = case.shape();
        let tensors = Tensors::read(&case.dir.join(format!("batch{which}.safetensors")));
        let column = |name: &str| tensors.integers[name].iter().map(|&v| v as u32).collect::<Vec<_>>();
        let (ids, patch_lens) = (column("input_ids"), column("patch_lens"));
        let labels: Vec<i32> = tensors.integers["labels"].iter().map(|&v| v as i32).collect();
        let mut subwords = Vec::new();
        for row in column("original_input_ids").chunks(shape.patches) {
            subwords.push(eos);
            subwords.extend(&row[..shape.patches - 1]);
        }
        let (mut truth, mut patch_of) = (vec![false; ids.len()], Vec::new());
        for (row, lens) in patch_lens.chunks(shape.patches).enumerate() {
            let mut starts = vec![0];
            let mut end = 0;
            for &len in lens {
                end += len as usize;
                starts.push(end);
                if end <= shape.bytes {
                    truth[row * shape.bytes + end - 1] = true;
                }
            }
            for t in 0..shape.bytes {
                patch_of.push(starts.iter().filter(|&&start| start <= t).count() as u32 - 1);
                let at = row * shape.bytes + t;
                if t + 1 < shape.bytes && ids[at + 1] == 1 {
                    truth[at] = false;
                }
            }
            truth[row * shape.bytes] = true;
        }
        Self { shape, ids, suffixes: column("expanded_input_ids"), subwords, labels, truth, patch_lens, patch_of }
    }

    pub fn examples(&self) -> Examples<'_> {
        Examples {
            ids: &self.ids,
            suffixes: &self.suffixes,
            subwords: &self.subwords,
            targets: Targets {
                shape: self.shape,
                labels: &self.labels,
                truth: &self.truth,
                patch_lens: &self.patch_lens,
                patch_of: &self.patch_of,
            },
        }
    }
}

/// The subwords of the golden vocabulary that begin with a space, a tab or a newline, and its end of text, with which
/// the teacher's input begins.
pub fn subwords() -> (Vec<u32>, u32) {
    let path = fixtures().join("infer/subword_tokenizer/tokenizer.json");
    let file = json(&path);
    let vocabulary = file["model"]["vocab"].as_object().expect("a vocabulary");
    let spaces = vocabulary.iter().filter(|(text, _)| text.starts_with(['Ġ', 'Ċ', 'ĉ']));
    let spaces = spaces.map(|(_, id)| id.as_u64().expect("an id") as u32).collect();
    let config = json(&path.with_file_name("tokenizer_config.json"));
    let eos = config["eos_token"].as_str().or(config["eos_token"]["content"].as_str()).expect("an end of text");
    let added = file["added_tokens"].as_array().expect("added tokens");
    let id = added.iter().find(|token| token["content"] == eos).and_then(|token| token["id"].as_u64());
    (spaces, id.expect("the id of the end of text") as u32)
}
