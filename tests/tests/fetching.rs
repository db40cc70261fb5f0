//! Loading from files that must be fetched before they are read, as in browsers: every read was fetched, and the model
//! equals the one loaded from a folder.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bolmo_runtime::convert::quantize::{QuantizeOptions, write_quantized};
use bolmo_runtime::files::{CheckpointFile, Fetching, Index};
use bolmo_runtime::{Checkpoint, Error, ErrorKind, LoadOptions, Model, Result, block_on};
use bolmo_tests::{engine, fixtures, load_with, vocabulary};

static FETCHES: AtomicUsize = AtomicUsize::new(0);

/// A file whose header and two last fetched ranges can be read, and nothing else.
struct FarFile {
    name: String,
    bytes: Vec<u8>,
    header: u64,
    fetched: Mutex<Vec<(u64, u64)>>,
}

impl FarFile {
    fn open(path: &Path) -> Box<dyn CheckpointFile> {
        let bytes = std::fs::read(path).expect("a file");
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().expect("a length"));
        Box::new(Self { name: path.display().to_string(), bytes, header, fetched: Mutex::default() })
    }
}

impl CheckpointFile for FarFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let end = offset + out.len() as u64;
        let fetched = self.fetched.lock().expect("the ranges");
        if end > self.header && !fetched.iter().any(|&(first, last)| first <= offset && end <= last) {
            return Err(Error::new(ErrorKind::Io, format!("{}: {offset}..{end} was not fetched", self.name)));
        }
        out.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }

    fn fetch(&self, offset: u64, length: usize) -> Option<Fetching<'_>> {
        Some(Box::pin(async move {
            // Pending once, as a real fetch would be.
            let mut waited = false;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                match std::mem::replace(&mut waited, true) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
            FETCHES.fetch_add(1, Ordering::Relaxed);
            let mut fetched = self.fetched.lock().expect("the ranges");
            if fetched.len() == 2 {
                fetched.remove(0);
            }
            fetched.push((offset, offset + length as u64));
            Ok(())
        }))
    }
}

/// A checkpoint folder behind [`FarFile`]s.
fn open(dir: &Path) -> Result<Checkpoint> {
    let config = std::fs::read(dir.join("config.json")).expect("a config");
    match std::fs::read(dir.join("model.safetensors.index.json")) {
        Ok(index) => {
            let index = Index::parse(&index, "the index")?;
            let files = index.shards().iter().map(|shard| FarFile::open(&dir.join(shard))).collect();
            Checkpoint::from_shards("far", &config, &index, files)
        }
        Err(_) => Checkpoint::from_parts("far", &config, vec![FarFile::open(&dir.join("model.safetensors"))]),
    }
}

fn assert_same(dir: &Path) {
    let near = load_with(engine(), dir, None);
    let mut options = LoadOptions::default();
    options.vocabulary = Some(vocabulary());
    let before = FETCHES.load(Ordering::Relaxed);
    let far = open(dir).expect("a checkpoint");
    let far = block_on(Model::load(engine(), &far, options)).expect("a model");
    assert!(FETCHES.load(Ordering::Relaxed) > before);
    // The fingerprint covers names, formats and weights.
    assert_eq!(far.fingerprint(), near.fingerprint(), "{}", dir.display());
}

#[test]
fn tensors_are_fetched_before_they_are_read() {
    let models = fixtures().join("infer").join("models");
    let parent = tempfile::tempdir().expect("a folder");
    for name in ["nano_trained", "nano_bf16"] {
        assert_same(&models.join(name));
    }
    for formats in ["q8", "q4,local=q8,embeddings=f16"] {
        let dir = parent.path().join(formats.replace(['=', ','], "-"));
        let mut options = QuantizeOptions::default();
        options.max_shard_bytes = 100_000;
        let source = Checkpoint::open(models.join("nano_trained")).expect("a checkpoint");
        write_quantized(&source, &dir, formats.parse().expect("formats"), &options, &mut |_, _| true)
            .expect("a folder");
        assert_same(&dir);
    }
}

#[test]
fn files_must_match_the_index_in_number() {
    let index = br#"{ "weight_map": { "a": "model-1.safetensors", "b": "model-2.safetensors" } }"#;
    let index = Index::parse(index, "the index").expect("an index");
    assert_eq!(index.shards(), ["model-1.safetensors", "model-2.safetensors"]);
    let error = Checkpoint::from_shards("far", b"{}", &index, Vec::new()).expect_err("no files");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
