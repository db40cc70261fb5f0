//! Helpers of the whole-model tests: the device, the golden files, and comparisons that say where they failed.
//!
//! `BOLMO_FIXTURES=DIR` selects another tree of golden files, `BOLMO_ADAPTER=…` another adapter.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bolmo_runtime::{
    AdapterChoice, Checkpoint, Engine, EngineOptions, Formats, LoadOptions, Model, Session, Tiles, Vocabulary,
    WeightFormat, block_on,
};
use safetensors::{Dtype, SafeTensors};

mod differences;
mod roundings;
mod tree;

pub use differences::{Slope, slope};
pub use roundings::Roundings;
pub use tree::{fixtures, in_tree};

/// Options that honor `BOLMO_ADAPTER` and `BOLMO_TILES`.
pub fn engine_options() -> EngineOptions {
    let mut options = EngineOptions::default();
    options.adapter = AdapterChoice::parse(&std::env::var("BOLMO_ADAPTER").unwrap_or_default());
    options.tiles = std::env::var("BOLMO_TILES")
        .ok()
        .map(|name| Tiles::from_name(&name).unwrap_or_else(|| panic!("BOLMO_TILES is {name:?}")));
    options
}

/// The device shared by all tests of a program.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let engine = block_on(Engine::open(&engine_options())).expect("an adapter");
        eprintln!("adapter: {} ({})", engine.adapter().name, engine.adapter().driver);
        engine
    })
}

/// The vocabulary of the golden models.
pub fn vocabulary() -> Vocabulary {
    Vocabulary::open(fixtures().join("infer/subword_tokenizer/tokenizer.json")).expect("the golden vocabulary")
}

/// Loads the checkpoint folder `dir` in these formats: one for all, or one per part.
pub fn load_on(engine: &Engine, dir: &Path, formats: impl Into<Formats>) -> Model {
    load_with(engine, dir, Some(formats.into()))
}

/// Loads the checkpoint folder `dir`; without formats, in its own.
pub fn load_with(engine: &Engine, dir: &Path, formats: Option<Formats>) -> Model {
    let checkpoint = Checkpoint::open(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut options = LoadOptions::default();
    options.formats = formats;
    options.vocabulary = checkpoint.config().add_expanded_embeddings.then(vocabulary);
    block_on(Model::load(engine, &checkpoint, options)).unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
}

/// Loads a golden model in f32 on the shared device.
pub fn load(family: &str, name: &str) -> Model {
    load_on(engine(), &fixtures().join(family).join("models").join(name), WeightFormat::F32)
}

/// A session over plain ids.
pub fn session_with(model: &Model, ids: &[u32]) -> Session {
    let mut session = block_on(Session::new(model)).expect("a session");
    block_on(session.append_ids(ids)).expect("ids");
    session
}

/// A golden model and the place of its golden files.
pub struct Golden {
    /// `infer` or `prenorm`.
    pub family: &'static str,
    /// The model's name.
    pub name: String,
    /// The folder of its golden files.
    pub dir: PathBuf,
    /// Its generations in `meta.json`.
    pub generate: Option<serde_json::Value>,
}

/// All golden models of the tree.
pub fn golden_models() -> Vec<Golden> {
    let mut all = Vec::new();
    for (family, meta) in [("infer", "meta.json"), ("prenorm", "meta_prenorm.json")] {
        let golden = fixtures().join(family).join("golden");
        let text = std::fs::read(golden.join(meta)).unwrap_or_else(|e| panic!("{}/{meta}: {e}", golden.display()));
        let meta: serde_json::Value = serde_json::from_slice(&text).expect("meta.json");
        for name in meta["boundary"].as_object().expect("models").keys() {
            let generate = meta["generate"].get(name).cloned();
            all.push(Golden { family, name: name.clone(), dir: golden.join(name), generate });
        }
    }
    all
}

/// All tensors of a safetensors file, as f64.
pub fn read_tensors(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let convert = |dtype, data: &[u8]| -> Vec<f64> {
        match dtype {
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            Dtype::U8 => data.iter().map(|&b| b.into()).collect(),
            other => panic!("a golden tensor of type {other:?}"),
        }
    };
    file.iter().map(|(name, t)| (name.to_owned(), (t.shape().to_vec(), convert(t.dtype(), t.data())))).collect()
}

/// The largest difference between `got` and `want`, which must have the same length.
pub fn largest_difference(what: &str, got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    got.iter()
        .zip(want)
        .map(|(&g, &w)| (f64::from(g) - w).abs())
        .fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b) })
}

/// The checksum at the end of a snapshot.
pub fn checksum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}
