//! Export of models as Hugging Face folders: byte-level models (docs/model.md, "Checkpoints and formats"), and subword
//! models as OLMo 2, Olmo 3, Qwen 3 or Llama 3.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use bolmo_runtime::layout::expected_tensors;
use bolmo_runtime::unstable::output::{
    HeaderItem, Replaces, Target, divide, header, io_error, shard_name, write_index, write_json,
};
use bolmo_runtime::{BYTE_VOCABULARY, BlockType, LayerType, QkNorm};
use bolmo_runtime::{Config, Error, Result};
use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

/// Type of stored tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoredType {
    /// Four bytes per element.
    #[default]
    F32,
    /// IEEE half precision: two bytes per element, 10 bits of mantissa.
    F16,
    /// Upper half of an f32: two bytes per element, 7 bits of mantissa.
    Bf16,
}

impl StoredType {
    fn dtype(self) -> Dtype {
        match self {
            StoredType::F32 => Dtype::F32,
            StoredType::F16 => Dtype::F16,
            StoredType::Bf16 => Dtype::BF16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            StoredType::F32 => "float32",
            StoredType::F16 => "float16",
            StoredType::Bf16 => "bfloat16",
        }
    }

    fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        out.clear();
        match self {
            StoredType::F32 => out.extend_from_slice(bytemuck::cast_slice(values)),
            StoredType::F16 => out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
            StoredType::Bf16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        }
    }
}

/// Tokenizer files that are copied with a model.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"];
/// Maximum bytes of a shard, unless a single tensor is larger.
const SHARD: u64 = 4 << 30;

/// Name and shape of a tensor to store.
struct Item {
    name: String,
    shape: Vec<usize>,
}

/// Writes a byte-level model. `tensors` holds the tensors by their names in checkpoints; of tables with more than 520
/// rows, the first 520 are stored. The tokenizer's files are copied from the folder `tokenizer`.
///
/// # Errors
/// Those of [`check`], `Io` also if there is too little free space, and `Internal` if a tensor is missing.
pub fn byte_level(
    dir: &Path,
    config: &Config,
    tensors: &HashMap<String, Vec<f32>>,
    stored: StoredType,
    tokenizer: &Path,
) -> Result<()> {
    let config = Config { vocab_size: BYTE_VOCABULARY, ..config.clone() };
    let items = expected_tensors(&config).into_iter().map(|spec| Item { name: spec.name, shape: spec.shape }).collect();
    let mut json = config.to_json();
    json["dtype"] = json!(stored.name());
    write(dir, &json, items, tensors, stored, tokenizer)
}

/// Writes a subword model with `vocabulary` vocabulary rows.
///
/// # Errors
/// Those of [`byte_level`].
pub fn subword(
    dir: &Path,
    config: &Config,
    (vocabulary, tied): (usize, bool),
    tensors: &HashMap<String, Vec<f32>>,
    stored: StoredType,
    (tokenizer, eos, pad): (&Path, u32, u32),
) -> Result<()> {
    let d = config.hidden_size;
    let mut items = vec![Item { name: "model.embed_tokens.weight".to_owned(), shape: vec![vocabulary, d] }];
    let blocks = expected_tensors(config).into_iter().filter(|spec| spec.name.starts_with("model.layers."));
    items.extend(blocks.map(|spec| Item { name: spec.name, shape: spec.shape }));
    items.push(Item { name: "model.norm.weight".to_owned(), shape: vec![d] });
    if !tied {
        items.push(Item { name: "lm_head.weight".to_owned(), shape: vec![vocabulary, d] });
    }
    let mut json = subword_config(config, vocabulary, tied)?;
    json["dtype"] = json!(stored.name());
    json["eos_token_id"] = json!(eos);
    json["pad_token_id"] = json!(pad);
    write(dir, &json, items, tensors, stored, tokenizer)
}

/// The `config.json` of a subword model.
fn subword_config(config: &Config, vocabulary: usize, tied: bool) -> Result<Value> {
    let sliding = config.layer_types.contains(&LayerType::Sliding);
    let (kind, class) = match (config.block_type, config.qk_norm) {
        (BlockType::ReorderedNorm, QkNorm::Whole) if sliding => ("olmo3", "Olmo3ForCausalLM"),
        (BlockType::ReorderedNorm, QkNorm::Whole) => ("olmo2", "Olmo2ForCausalLM"),
        (BlockType::PreNorm, QkNorm::PerHead) => ("qwen3", "Qwen3ForCausalLM"),
        (BlockType::PreNorm, QkNorm::None) if !sliding => ("llama", "LlamaForCausalLM"),
        (block, norm) => {
            return Err(Error::unsupported(format!(
                "no known subword model combines {block:?} blocks with the query norms {norm:?}"
            )));
        }
    };
    let ours = config.to_json();
    let mut json = Map::new();
    for key in [
        "attention_bias",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
        "rms_norm_eps",
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "rope_theta_confirmed",
        "layer_types",
        "sliding_window",
    ] {
        if let Some(value) = ours.get(key) {
            json.insert(key.to_owned(), value.clone());
        }
    }
    if kind == "qwen3" && sliding {
        json.insert("use_sliding_window".to_owned(), json!(true));
    }
    json.insert("head_dim".to_owned(), json!(config.head_dim));
    json.insert("architectures".to_owned(), json!([class]));
    json.insert("model_type".to_owned(), json!(kind));
    json.insert("tie_word_embeddings".to_owned(), json!(tied));
    json.insert("vocab_size".to_owned(), json!(vocabulary));
    Ok(Value::Object(json))
}

/// Checks that a model can be written to `dir`, before the training whose result it will be. Of an earlier model, files
/// that a run listed in `bolmo-files.json` are replaced.
///
/// # Errors
/// `InvalidArgument` if `dir` holds other files, `Busy` while another run writes into it, `Io`.
pub fn check(dir: &Path) -> Result<()> {
    target(dir).map(drop)
}

fn target(dir: &Path) -> Result<Target> {
    Target::new(dir, Replaces::Listed("train"))
}

fn write(
    dir: &Path,
    config: &Value,
    items: Vec<Item>,
    tensors: &HashMap<String, Vec<f32>>,
    stored: StoredType,
    tokenizer: &Path,
) -> Result<()> {
    let target = target(dir)?;
    let dtype = stored.dtype();
    let bytes_of = |item: &Item| HeaderItem { name: &item.name, dtype, shape: &item.shape }.byte_count();
    let total = items.iter().map(bytes_of).sum();
    let partial = target.begin(total)?;
    write_json(&partial.path.join("config.json"), config)?;
    for name in TOKENIZER_FILES {
        let from = tokenizer.join(name);
        let copied = match bolmo_files::open_regular(&from) {
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            file => file.and_then(|mut file| io::copy(&mut file, &mut File::create_new(partial.path.join(name))?)),
        };
        copied.map_err(|e| io_error(&from, "cannot be copied", &e))?;
    }
    let shards = divide(&items, SHARD, bytes_of);
    let mut weight_map = Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = shard_name(i, shards.len());
        let path = partial.path.join(&name);
        let failed = |e: std::io::Error| io_error(&path, "cannot be written", &e);
        let mut file = File::create(&path).map_err(failed)?;
        let headers: Vec<_> =
            shard.iter().map(|item| HeaderItem { name: &item.name, dtype, shape: &item.shape }).collect();
        file.write_all(&header(&headers)).map_err(failed)?;
        let mut bytes = Vec::new();
        for item in *shard {
            let count: usize = item.shape.iter().product();
            let values = tensors.get(&item.name).and_then(|values| values.get(..count)).ok_or_else(|| {
                Error::internal(format!("tensor {} is missing or has fewer than {count} elements", item.name))
            })?;
            stored.encode(values, &mut bytes);
            file.write_all(&bytes).map_err(failed)?;
            weight_map.insert(item.name.clone(), json!(name));
        }
        file.sync_all().map_err(failed)?;
    }
    let parameters = items.iter().map(|item| item.shape.iter().product::<usize>() as u64).sum();
    write_index(&partial.path, shards.len(), parameters, total, weight_map)?;
    target.finish(partial)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bolmo_runtime::unstable::output::with_free_bytes;
    use bolmo_runtime::{ErrorKind, Preset};

    use super::*;

    /// Exports a small model of zeros.
    fn export(dir: &Path, stored: StoredType, tokenizer: &Path) -> Result<()> {
        let config = Config { subword_vocab_size: 0, add_expanded_embeddings: false, ..Preset::Nano.config() };
        let of = |spec: bolmo_runtime::layout::TensorSpec| (spec.name, vec![0.0; spec.shape.iter().product()]);
        byte_level(dir, &config, &expected_tensors(&config).into_iter().map(of).collect(), stored, tokenizer)
    }

    #[test]
    fn an_export_replaces_an_earlier_one_but_no_other_file() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        export(&dir, StoredType::F32, parent.path()).unwrap();
        check(&dir).unwrap();
        for name in ["README.md", "tokenizer.json", "model-mine.safetensors"] {
            fs::write(dir.join(name), "mine").unwrap();
            let errors = [check(&dir), export(&dir, StoredType::Bf16, parent.path())].map(|done| done.unwrap_err());
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                assert!(error.message().contains(name), "{error}");
            }
            assert_eq!(fs::read(dir.join(name)).unwrap(), b"mine");
            fs::remove_file(dir.join(name)).unwrap();
        }
        export(&dir, StoredType::Bf16, parent.path()).unwrap();
        let config: Value = serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["dtype"], "bfloat16");
        // A model of another program has no list.
        fs::remove_file(dir.join("bolmo-files.json")).unwrap();
        assert!(check(&dir).unwrap_err().message().contains("no bolmo-files.json"));
    }

    #[cfg(unix)]
    #[test]
    fn a_tokenizer_that_is_a_fifo_is_refused_at_once() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, fifo) = (parent.path().join("model"), parent.path().join("tokenizer.json"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let error = export(&dir, StoredType::F32, parent.path()).unwrap_err();
        assert!(error.message().contains("tokenizer.json: cannot be copied") && !dir.exists(), "{error}");
        fs::remove_file(&fifo).unwrap();
        fs::write(&fifo, "{}").unwrap();
        export(&dir, StoredType::F32, parent.path()).unwrap();
        assert_eq!(fs::read(dir.join("tokenizer.json")).unwrap(), b"{}");
    }

    #[test]
    fn an_export_looks_at_the_free_space_first() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("model");
        let error = with_free_bytes(4000, || export(&dir, StoredType::F32, parent.path())).unwrap_err();
        assert!(error.message().contains("4000 bytes free") && !dir.exists(), "{error}");
    }
}
