//! Task arithmetic against the reference, bit for bit, and the rejection of models that do not fit together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bolmo_runtime::convert::merge::{Fate, Kept, Merge, MergeReport, write_merged};
use bolmo_runtime::convert::quantize::{QuantizeOptions, write_quantized};
use bolmo_runtime::files::TensorFolder;
use bolmo_runtime::unstable::output::with_free_bytes;
use bolmo_runtime::{Checkpoint, ErrorKind, Result};
use bolmo_tests::fixtures;
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

const SUFFIX_TABLE: &str = "model.local_encoder.subword_embedding.weight";
const TOKEN_EMBEDDINGS: &str = "model.embed_tokens.weight";

fn arith(name: &str) -> PathBuf {
    fixtures().join("arith").join(name)
}

/// The golden merge.
fn golden() -> Merge {
    Merge::new(arith("bolmo"), arith("base"), arith("post"))
}

fn merged(merge: &Merge, out: &Path) -> Result<MergeReport> {
    write_merged(merge, out, &mut |_, _| true)
}

/// Shape, type and bytes of every tensor of a file.
type Tensors = BTreeMap<String, (Vec<usize>, Dtype, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    file.iter().map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), t.dtype(), t.data().to_vec()))).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (shape, dtype, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    safetensors::serialize_to_file(views, None, path).expect("a file");
}

fn values((_, dtype, data): &(Vec<usize>, Dtype, Vec<u8>)) -> Vec<f32> {
    match dtype {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        other => panic!("a tensor of type {other:?}"),
    }
}

fn stored(dtype: Dtype, values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    let values = values.into_iter();
    match dtype {
        Dtype::F32 => values.flat_map(f32::to_le_bytes).collect(),
        Dtype::BF16 => values.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        Dtype::F16 => values.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        other => panic!("a tensor of type {other:?}"),
    }
}

/// Copies of the three golden models, which tests may damage.
struct Models {
    dir: TempDir,
    merge: Merge,
}

impl Models {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        for name in ["bolmo", "base", "post"] {
            std::fs::create_dir(path(name)).expect("a folder");
            for file in ["config.json", "model.safetensors"] {
                // Contents only: a tree of golden files may be read-only.
                std::fs::write(path(name).join(file), std::fs::read(arith(name).join(file)).expect("a file")).unwrap();
            }
        }
        let merge = Merge::new(path("bolmo"), path("base"), path("post"));
        Self { dir, merge }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edit_config(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.path(name).join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        edit(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    fn edit_tensors(&self, name: &str, edit: impl FnOnce(&mut Tensors)) {
        let path = self.path(name).join("model.safetensors");
        let mut tensors = read(&path);
        edit(&mut tensors);
        write(&path, &tensors);
    }

    fn run(&self) -> Result<MergeReport> {
        merged(&self.merge, &self.path("out"))
    }

    /// Asserts that the merge fails with this kind and these words, and leaves no files behind.
    fn refused(&self, kind: ErrorKind, words: &[&str]) {
        let list = || -> BTreeSet<_> {
            std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let before = list();
        let error = self.run().expect_err("models that do not fit");
        assert_eq!(error.kind(), kind, "{error}");
        for word in words {
            assert!(error.message().contains(word), "{error} lacks {word}");
        }
        assert!(!error.message().contains('\n'), "{error}");
        assert_eq!(list(), before, "{error}");
    }
}

#[test]
fn merges_equal_the_reference_bit_for_bit() {
    let report: Value = serde_json::from_slice(&std::fs::read(arith("report.json")).expect("report.json")).unwrap();
    let runs = report["runs"].as_object().expect("runs");
    assert!(runs.keys().any(|name| name.ends_with("_emb")) && runs.len() >= 2);
    for (name, run) in runs {
        let dir = tempfile::tempdir().expect("a folder");
        let mut merge = golden();
        merge.alpha = run["alpha"].as_f64().expect("a number") as f32;
        merge.embeddings = name.ends_with("_emb");
        let report = merged(&merge, &dir.path().join("out")).unwrap_or_else(|e| panic!("{name}: {e}"));

        let changed: BTreeSet<&str> = run["changed"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        let moved = report.tensors.iter().filter(|t| matches!(t.fate, Fate::Moved { .. }));
        assert_eq!(moved.map(|t| t.name.as_str()).collect::<BTreeSet<_>>(), changed, "{name}");
        assert_eq!(report.moved(), changed.len());

        // Moved tensors equal the reference's, the others the model's own.
        let mut expected = read(&arith("bolmo/model.safetensors"));
        expected.extend(read(&arith(name.trim_end_matches("_emb")).join("model.safetensors")));
        if merge.embeddings {
            let table = read(&arith(&format!("{name}.safetensors")));
            assert!(table.contains_key(SUFFIX_TABLE));
            expected.extend(table);
        }
        let (found, before) =
            (read(&dir.path().join("out/model.safetensors")), read(&arith("bolmo/model.safetensors")));
        assert!(found.keys().eq(expected.keys()), "{name}");
        for tensor in &report.tensors {
            assert!(found[&tensor.name] == expected[&tensor.name], "{name}: {}", tensor.name);
            assert_eq!(found[&tensor.name] != before[&tensor.name], changed.contains(tensor.name.as_str()));
            assert_eq!(tensor.shape, found[&tensor.name].0);
            if let Fate::Moved { largest, rms } = tensor.fate {
                let (old, new) = (values(&before[&tensor.name]), values(&found[&tensor.name]));
                let changes: Vec<f64> = old.iter().zip(&new).map(|(a, b)| f64::from(*b) - f64::from(*a)).collect();
                let squares: f64 = changes.iter().map(|x| x * x).sum();
                assert_eq!(largest, changes.iter().fold(0.0, |most: f64, x| most.max(x.abs())), "{}", tensor.name);
                assert!((rms - (squares / changes.len() as f64).sqrt()).abs() <= 1e-12 * rms, "{}", tensor.name);
            }
        }
        let config = std::fs::read(dir.path().join("out/config.json")).unwrap();
        assert!(config == std::fs::read(arith("bolmo/config.json")).unwrap());
        Checkpoint::open(dir.path().join("out")).expect("a checkpoint");
    }
}

#[test]
fn report_says_why_tensors_stay() {
    let models = Models::new();
    models.edit_tensors("base", |t| drop(t.insert("lm_head.weight".into(), (vec![4, 32], Dtype::F32, vec![0; 512]))));
    models.edit_tensors("post", |t| drop(t.insert("lm_head.weight".into(), (vec![4, 32], Dtype::F32, vec![1; 512]))));
    let report = models.run().expect("a merge");
    let why = |name: &str| match &report.tensors.iter().find(|t| t.name == name).expect(name).fate {
        Fate::Kept(why) => why.clone(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(why("lm_head.weight"), Kept::OtherShape(vec![4, 32]));
    assert_eq!(why("model.local_encoder.byte_embedding.weight"), Kept::NotInBase);
    assert_eq!(why(SUFFIX_TABLE), Kept::NotAsked);

    // A head of the same shape is still a head over subwords.
    let models = Models::new();
    for (name, byte) in [("base", 0), ("post", 1)] {
        let head = (vec![520, 32], Dtype::F32, vec![byte; 4 * 520 * 32]);
        models.edit_tensors(name, |t| drop(t.insert("lm_head.weight".into(), head)));
    }
    let report = models.run().expect("a merge");
    let head = report.tensors.iter().find(|t| t.name == "lm_head.weight").expect("a head");
    assert_eq!(head.fate, Fate::Kept(Kept::OfBytes));
    let heads =
        ["bolmo", "out"].map(|name| read(&models.path(name).join("model.safetensors"))["lm_head.weight"].clone());
    assert!(heads[0] == heads[1]);

    let json = report.to_json();
    assert_eq!((&json["alpha"], &json["embeddings"], &json["files"]), (&json!(1.0), &json!(false), &json!(1)));
    let list = json["tensors"].as_array().expect("tensors");
    assert_eq!(json["moved"].as_u64().unwrap() + json["kept"].as_u64().unwrap(), list.len() as u64);
    for tensor in list {
        assert_eq!(tensor["moved"].as_bool().unwrap(), tensor["largest_change"].is_f64(), "{tensor}");
        assert_eq!(tensor["moved"].as_bool().unwrap(), tensor["why"].is_null(), "{tensor}");
    }
}

/// Sharded folders with rotary tables, other types, and tokenizer files.
#[test]
fn merged_folder_keeps_shards_types_and_tokenizer_files() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let mut models = Models::new();
        models.edit_tensors("bolmo", |tensors| {
            for tensor in tensors.values_mut() {
                *tensor = (tensor.0.clone(), dtype, stored(dtype, values(tensor)));
            }
        });
        let all = read(&models.path("bolmo/model.safetensors"));
        std::fs::remove_file(models.path("bolmo/model.safetensors")).unwrap();
        // Both shards get tensors of the global blocks.
        let mut shards = [Tensors::new(), Tensors::new()];
        let mut map = serde_json::Map::new();
        for (i, (name, tensor)) in all.iter().enumerate() {
            shards[i % 2].insert(name.clone(), tensor.clone());
            map.insert(name.clone(), json!(format!("part{}.safetensors", i % 2)));
        }
        let table = (vec![4], Dtype::F32, stored(Dtype::F32, [1.0, f32::NAN, 0.5, -0.0]));
        shards[1].insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), table);
        for (i, shard) in shards.iter().enumerate() {
            write(&models.path("bolmo").join(format!("part{i}.safetensors")), shard);
        }
        let index = json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string();
        std::fs::write(models.path("bolmo/model.safetensors.index.json"), index).unwrap();
        let others = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "merges.txt", "chat.jinja"];
        let left_out =
            ["pytorch_model.bin", "pytorch_model.bin.index.json", ".hid.json", "README.md", "bolmo-files.json"];
        for name in others.into_iter().chain(left_out) {
            std::fs::write(models.path("bolmo").join(name), name).unwrap();
        }
        std::fs::create_dir(models.path("bolmo/folder.json")).unwrap();
        models.merge.alpha = 0.3;
        models.merge.embeddings = true;
        let mut told = (0, 0);
        let report = write_merged(&models.merge, models.path("out"), &mut |done, total| {
            assert!(done > told.0 && done <= total);
            told = (done, total);
            true
        });
        let report = report.expect("a merge");
        assert_eq!((report.files, report.bytes), (2, told.1));
        assert_eq!(told.0, told.1);

        let list = |name: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(models.path(name)).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let weights = ["config.json", "model.safetensors.index.json", "part0.safetensors", "part1.safetensors"];
        assert_eq!(list("out"), weights.iter().chain(&others).map(|&name| name.to_owned()).collect());
        for name in others.iter().chain(&weights[..2]) {
            let [old, new] = ["bolmo", "out"].map(|dir| std::fs::read(models.path(dir).join(name)).unwrap());
            assert!(old == new, "{name}");
        }
        let (base, post) = (read(&arith("base/model.safetensors")), read(&arith("post/model.safetensors")));
        for (i, shard) in shards.iter().enumerate() {
            let found = read(&models.path("out").join(format!("part{i}.safetensors")));
            assert!(found.keys().eq(shard.keys()));
            for (name, tensor) in shard {
                let source = if name == SUFFIX_TABLE { TOKEN_EMBEDDINGS } else { name };
                let moves = name.starts_with("model.layers.") && !name.contains("rotary")
                    || name == SUFFIX_TABLE
                    || name == "model.norm.weight";
                let expected = match moves {
                    true => {
                        let (old, base, post) = (values(tensor), values(&base[source]), values(&post[source]));
                        let sums = old.iter().zip(&base).zip(&post).map(|((w, base), post)| w + 0.3f32 * (post - base));
                        (tensor.0.clone(), dtype, stored(dtype, sums))
                    }
                    false => tensor.clone(),
                };
                assert!(found[name] == expected, "{dtype:?} {name}");
            }
        }
    }
}

/// Qwen 3, Llama and OLMo 3.
#[test]
fn blocks_of_every_kind_are_merged() {
    let kinds = [("qwen3", "pre_norm", Some(8)), ("llama", "default", None), ("olmo3", "reordered_norm", Some(0))];
    for (kind, block_type, qk_norm) in kinds {
        let models = Models::new();
        let pre_norm = kind != "olmo3";
        let blocks = |tensors: &mut Tensors, offset: f32| {
            for layer in 0..2 {
                let name = |what: &str| format!("model.layers.{layer}.{what}.weight");
                if pre_norm {
                    let norm = tensors.remove(&name("post_feedforward_layernorm")).expect("a norm");
                    tensors.insert(name("input_layernorm"), norm);
                }
                for norm in ["self_attn.q_norm", "self_attn.k_norm"] {
                    match qk_norm {
                        None => drop(tensors.remove(&name(norm))),
                        Some(0) => {}
                        Some(width) => {
                            let data = stored(Dtype::F32, (0..width).map(|i| offset + i as f32));
                            tensors.insert(name(norm), (vec![width], Dtype::F32, data));
                        }
                    }
                }
            }
        };
        models.edit_config("bolmo", |config| {
            config["block_type"] = json!(block_type);
            config["use_qk_norm"] = json!(qk_norm.is_some());
            config["use_head_qk_norm"] = json!(kind == "qwen3");
        });
        for (name, offset) in [("bolmo", 1.0), ("base", 2.0), ("post", 4.0)] {
            models.edit_tensors(name, |tensors| blocks(tensors, offset));
            if name != "bolmo" {
                // Qwen 3 has a default of its own.
                models.edit_config(name, |config| (config["model_type"], config["head_dim"]) = (json!(kind), json!(8)));
            }
        }
        let report = models.run().unwrap_or_else(|e| panic!("{kind}: {e}"));
        let moved = |part: &str| {
            let moved = report.tensors.iter().filter(|t| matches!(t.fate, Fate::Moved { .. }));
            moved.filter(|t| t.name.contains(part)).count()
        };
        let norms = if qk_norm.is_some() { 2 } else { 0 };
        assert_eq!(moved(".layers."), 2 * (9 + norms), "{kind}");
        assert_eq!((moved("self_attn.q_norm"), moved("input_layernorm")), (norms, if pre_norm { 2 } else { 0 }));
        if kind == "qwen3" {
            let found = read(&models.path("out/model.safetensors"));
            let norm: Vec<f32> = (0..8).map(|i| 3.0 + i as f32).collect();
            assert_eq!(values(&found["model.layers.1.self_attn.k_norm.weight"]), norm);
        }
        // Another kind is rejected, for its missing tensors or though its shapes are the same.
        let other = if kind == "llama" { "qwen3" } else { "llama" };
        std::fs::remove_dir_all(models.path("out")).unwrap();
        models.edit_config("base", |config| config["model_type"] = json!(other));
        models.refused(ErrorKind::InvalidArgument, &["base", "does not fit", "on queries and keys"]);
    }
}

#[test]
fn mismatched_models_are_rejected() {
    let invalid = |spoil: &dyn Fn(&Models), words: &[&str]| {
        let models = Models::new();
        spoil(&models);
        models.refused(ErrorKind::InvalidArgument, words);
    };
    for (key, value) in [
        ("hidden_size", 64),
        ("num_hidden_layers", 3),
        ("num_attention_heads", 2),
        ("num_key_value_heads", 4),
        ("head_dim", 16),
        ("intermediate_size", 32),
    ] {
        let words = [key, &value.to_string(), "not"];
        for name in ["base", "post"] {
            invalid(&|m| m.edit_config(name, |c| c[key] = json!(value)), &[&words[..], &[name]].concat());
        }
    }
    let projection = "model.layers.1.self_attn.k_proj.weight";
    let bias = "model.layers.1.self_attn.k_proj.bias";
    let row = || (vec![16], Dtype::F32, vec![0; 64]);
    let other_shape = |t: &mut Tensors| t.get_mut(projection).unwrap().0 = vec![32, 16];
    invalid(&|m| m.edit_tensors("base", other_shape), &["base", projection, "[32, 16]", "[16, 32]"]);
    invalid(&|m| m.edit_tensors("post", other_shape), &["post", projection, "[32, 16]", "[16, 32]"]);
    for name in ["base", "post"] {
        invalid(&|m| m.edit_tensors(name, |t| drop(t.remove(projection))), &[name, projection]);
        invalid(&|m| m.edit_tensors(name, |t| drop(t.insert(bias.into(), row()))), &[name, bias]);
    }
    invalid(&|m| m.edit_tensors("post", |t| drop(t.insert("score.weight".into(), row()))), &["post", "score.weight"]);
    invalid(&|m| m.edit_tensors("base", |t| drop(t.insert("score.weight".into(), row()))), &["post", "score.weight"]);
    for (key, value) in [("vocab_size", json!(897)), ("rope_theta", json!(1e4)), ("rms_norm_eps", json!(1e-5))] {
        invalid(&|m| m.edit_config("post", |c| c[key] = value.clone()), &["post", key, "config.json"]);
    }
    let scaling = json!({ "rope_type": "linear", "factor": 2.0 });
    invalid(&|m| m.edit_config("post", |c| c["rope_scaling"] = scaling.clone()), &["post", "rope_scaling"]);
    invalid(&|m| m.edit_config("base", |c| c["rope_scaling"] = scaling.clone()), &["post", "rope_scaling"]);

    // The same configuration written differently, and keys that may be absent.
    let models = Models::new();
    models.edit_config("base", |c| c["rope_scaling"] = json!({ "rope_type": "linear", "factor": 2 }));
    models.edit_config("post", |c| c["rope_scaling"] = json!({ "factor": 2.0, "rope_type": "linear" }));
    models.edit_config("post", |c| {
        c["head_dim"] = json!(8);
        c["rope_theta"] = json!(500_000);
        c["eos_token_id"] = json!([1, 2]);
        c["layer_types"] = json!(["full_attention", "full_attention"]);
        c.as_object_mut().unwrap().remove("attention_bias");
    });
    models.run().expect("a merge");
}

#[test]
fn unreadable_folders_and_bad_options_are_rejected() {
    for alpha in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut models = Models::new();
        models.merge.alpha = alpha;
        models.refused(ErrorKind::InvalidArgument, &["alpha", &alpha.to_string()]);
    }
    for name in ["bolmo", "base", "post"] {
        for file in ["config.json", "model.safetensors"] {
            let models = Models::new();
            std::fs::remove_file(models.path(name).join(file)).unwrap();
            models.refused(ErrorKind::NotFound, &[name, file]);
        }
        let models = Models::new();
        std::fs::rename(models.path(name), models.path("elsewhere")).unwrap();
        models.refused(ErrorKind::NotFound, &[name]);
        let models = Models::new();
        let path = models.path(name).join("model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        models.refused(ErrorKind::BadCheckpoint, &[name, "cut short"]);
        let models = Models::new();
        std::fs::write(models.path(name).join("config.json"), "[]").unwrap();
        models.refused(ErrorKind::BadCheckpoint, &[name, "config.json", "object"]);
        for (dtype, kind) in [(Dtype::I32, ErrorKind::Unsupported), (Dtype::F32, ErrorKind::BadCheckpoint)] {
            let models = Models::new();
            // An infinite weight, and a type that is no weight's.
            let norm = (vec![32], dtype, stored(Dtype::F32, (0..32).map(|i| if i == 7 { f32::INFINITY } else { 1.0 })));
            models.edit_tensors(name, |t| drop(t.insert("model.norm.weight".into(), norm)));
            let place = if dtype == Dtype::F32 { "[0, 7]" } else { "I32" };
            models.refused(kind, &[name, "model.norm.weight", place]);
        }
    }
    for kind in ["gpt2", "bolmo"] {
        let models = Models::new();
        models.edit_config("base", |c| c["model_type"] = json!(kind));
        models.refused(ErrorKind::Unsupported, &["base", "model_type", kind, "qwen3"]);
    }
    let models = Models::new();
    models.edit_config("post", |c| drop(c.as_object_mut().unwrap().remove("model_type")));
    models.refused(ErrorKind::BadCheckpoint, &["post", "model_type"]);

    let models = Models::new();
    std::fs::create_dir(models.path("out")).unwrap();
    std::fs::write(models.path("out/mine"), "mine").unwrap();
    models.refused(ErrorKind::InvalidArgument, &["out", "files in it"]);
    assert_eq!(std::fs::read(models.path("out/mine")).unwrap(), b"mine");
    let models = Models::new();
    std::fs::write(models.path("out"), "mine").unwrap();
    models.refused(ErrorKind::InvalidArgument, &["out", "is a file"]);
    with_free_bytes(1000, || Models::new().refused(ErrorKind::Io, &["out", "bytes are needed", "1000 bytes free"]));

    let mut models = Models::new();
    let checkpoint = Checkpoint::open(&models.merge.bolmo).unwrap();
    let quantized = models.path("q8");
    write_quantized(&checkpoint, &quantized, "q8".parse().unwrap(), &QuantizeOptions::default(), &mut |_, _| true)
        .expect("a folder");
    models.merge.bolmo = quantized;
    models.refused(ErrorKind::InvalidArgument, &["q8", "quantized already"]);
}

#[test]
fn embeddings_that_cannot_be_merged_are_rejected() {
    let with = || {
        let mut models = Models::new();
        models.merge.embeddings = true;
        models
    };
    let models = with();
    for name in ["base", "post"] {
        models.edit_tensors(name, |t| {
            let (shape, _, data) = t.get_mut(TOKEN_EMBEDDINGS).unwrap();
            shape[0] = 810;
            data.truncate(4 * 810 * 32);
        });
    }
    models.refused(ErrorKind::InvalidArgument, &["base", TOKEN_EMBEDDINGS, "[810, 32]", "811 rows"]);
    let models = with();
    for name in ["base", "post"] {
        models.edit_tensors(name, |t| drop(t.remove(TOKEN_EMBEDDINGS)));
    }
    models.refused(ErrorKind::InvalidArgument, &["base", TOKEN_EMBEDDINGS]);
    let models = with();
    models.edit_config("bolmo", |c| {
        c["add_expanded_embeddings"] = json!(false);
        c["subword_vocab_size"] = json!(0);
    });
    models.edit_tensors("bolmo", |t| drop(t.remove(SUFFIX_TABLE)));
    models.refused(ErrorKind::InvalidArgument, &["bolmo", "suffix table"]);
}

#[test]
fn overflow_of_the_stored_type_is_rejected() {
    let mut models = Models::new();
    let name = "model.layers.0.mlp.down_proj.weight";
    models.edit_tensors("bolmo", |t| {
        let (shape, _, _) = t[name].clone();
        let data = stored(Dtype::F16, (0..shape[0] * shape[1]).map(|i| if i == 70 { 65_000.0 } else { 0.0 }));
        t.insert(name.into(), (shape, Dtype::F16, data));
    });
    models.edit_tensors("post", |t| {
        let (shape, dtype, data) = t[name].clone();
        let data = stored(dtype, values(&(shape.clone(), dtype, data)).into_iter().map(|x| x + 1000.0));
        t.insert(name.into(), (shape, dtype, data));
    });
    models.refused(ErrorKind::Unsupported, &[name, "[1, 6]", "F16", "alpha"]);
    models.merge.alpha = 0.01;
    models.run().expect("a merge");
}

#[test]
fn a_merge_can_be_cancelled() {
    let models = Models::new();
    let mut calls = 0;
    let cancelled = write_merged(&models.merge, models.path("out"), &mut |_, _| {
        calls += 1;
        calls < 5
    });
    assert_eq!(cancelled.expect_err("cancelled").kind(), ErrorKind::Cancelled);
    assert_eq!((calls, std::fs::read_dir(models.dir.path()).unwrap().count()), (5, 3));
    // After the last byte it is too late to cancel.
    write_merged(&models.merge, models.path("out"), &mut |done, total| done < total).expect("a merge");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// An alpha of 0 leaves every file as it is, whatever the models hold.
    #[test]
    fn alpha_zero_changes_no_bit(seed in any::<u32>(), kind in 0usize..3, negative in any::<bool>()) {
        let dtype = [Dtype::F32, Dtype::BF16, Dtype::F16][kind];
        let mut models = Models::new();
        let mut state = seed | 1;
        models.edit_tensors("bolmo", |tensors| {
            for tensor in tensors.values_mut() {
                let count = tensor.0.iter().product::<usize>();
                let data = (0..count).map(|i| {
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    // With negative zeros and subnormal numbers among them.
                    match i % 7 {
                        0 => -0.0,
                        1 => f32::from_bits(state & 0x807f_ffff),
                        _ => (state as f32 / u32::MAX as f32 - 0.5) * 8.0,
                    }
                });
                *tensor = (tensor.0.clone(), dtype, stored(dtype, data));
            }
        });
        models.merge.alpha = if negative { -0.0 } else { 0.0 };
        models.merge.embeddings = seed % 2 == 0;
        let report = models.run().expect("a merge");
        prop_assert!(report.moved() >= 23);
        for tensor in &report.tensors {
            if let Fate::Moved { largest, rms } = tensor.fate {
                prop_assert_eq!((largest, rms), (0.0, 0.0));
            }
        }
        for file in ["config.json", "model.safetensors"] {
            let [old, new] = ["bolmo", "out"].map(|name| std::fs::read(models.path(name).join(file)).unwrap());
            prop_assert!(old == new, "{}", file);
        }
    }
}

#[test]
fn tensor_folders_list_and_read_their_tensors() {
    let models = Models::new();
    models.edit_tensors("base", |tensors| {
        tensors.insert("counts".into(), (vec![2], Dtype::I64, vec![0; 16]));
        tensors.insert("model.layers.0.rotary_emb.inv_freq".into(), (vec![1], Dtype::F32, vec![0; 4]));
    });
    let folder = TensorFolder::open(models.path("base")).expect("a folder");
    let tensors = read(&models.path("base/model.safetensors"));
    let names: Vec<&str> = tensors.keys().map(String::as_str).filter(|name| !name.contains("rotary")).collect();
    assert!(folder.shapes().map(|(name, _)| name).eq(names.iter().copied()));
    assert_eq!(folder.config()["model_type"], json!("olmo2"));
    assert_eq!(folder.origin(), models.path("base").display().to_string());
    for (name, shape) in folder.shapes() {
        assert_eq!((shape, folder.shape(name)), (tensors[name].0.as_slice(), Some(tensors[name].0.as_slice())));
        if name != "counts" {
            let tensor = folder.tensor(name).expect(name);
            let mut found = vec![0.0; tensor.element_count() as usize];
            tensor.read_f32(0, &mut found).expect(name);
            assert!(found == values(&tensors[name]), "{name}");
        }
    }
    let kinds = ["counts", "nothing"].map(|name| folder.tensor(name).expect_err(name).kind());
    assert_eq!(kinds, [ErrorKind::Unsupported, ErrorKind::NotFound]);
    assert_eq!(folder.shape("nothing"), None);

    // Shards must agree with their index.
    let index = json!({ "weight_map": { "counts": "model.safetensors" } }).to_string();
    std::fs::write(models.path("base/model.safetensors.index.json"), index).unwrap();
    let error = TensorFolder::open(models.path("base")).expect_err("an index that lacks tensors");
    assert!(error.kind() == ErrorKind::BadCheckpoint && error.message().contains("does not list"), "{error}");
}
