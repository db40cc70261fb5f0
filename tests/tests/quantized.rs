//! Checkpoints quantized ahead: bit for bit the same results as quantization on load, and no other formats than their
//! own.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bolmo_runtime::convert::quantize::{QuantizeOptions, write_quantized};
use bolmo_runtime::{
    Checkpoint, Engine, ErrorKind, Formats, GenerateOptions, LoadOptions, Model, Result, ScoreOptions, Session,
    block_on, device_bytes,
};
use bolmo_tests::{engine, engine_options, fixtures, load_on, load_with, session_with, vocabulary};

const TEXT: &[u8] =
    b"def read(self, n):\n    return self.buffer[:n]\n\nclass Reader:\n    def __init__(self, stream):\n";

fn model_dir(family: &str, name: &str) -> PathBuf {
    fixtures().join(family).join("models").join(name)
}

/// Quantizes a golden model into a folder below `parent`, in several shards.
fn quantized_folder(parent: &Path, source: &Path, formats: &str) -> PathBuf {
    let dir = parent.join(formats.replace(['=', ','], "-"));
    let mut options = QuantizeOptions::default();
    options.max_shard_bytes = 100_000;
    let checkpoint = Checkpoint::open(source).expect("a checkpoint");
    write_quantized(&checkpoint, &dir, formats.parse().expect("formats"), &options, &mut |_, _| true)
        .expect("a folder");
    dir
}

/// The logits after a text, and the ids of greedy decoding.
fn run(model: &Model) -> (Vec<u32>, Vec<u16>) {
    let mut ids = vec![1];
    ids.extend(TEXT.iter().map(|&b| u32::from(b) + 4));
    let mut session: Session = session_with(model, &ids);
    let logits = block_on(session.logits(0.0)).expect("logits").iter().map(|x| x.to_bits()).collect();
    let mut options = GenerateOptions::default();
    options.max_bytes = 16;
    block_on(session.generate(&options, &mut |_| ControlFlow::Continue(()))).expect("a generation");
    (logits, session.ids().to_vec())
}

#[test]
fn checkpoints_quantized_ahead_equal_quantization_on_load() {
    for (family, name) in [("infer", "nano_trained"), ("infer", "swa"), ("infer", "nano_bf16"), ("prenorm", "bwen")] {
        let source = model_dir(family, name);
        let parent = tempfile::tempdir().expect("a folder");
        let mut outputs = Vec::new();
        for formats in ["f16", "q8", "q4", "q4,local=q8,embeddings=f32"] {
            let what = format!("{name} {formats}");
            let on_load = load_on(engine(), &source, formats.parse::<Formats>().expect("formats"));
            let ahead = load_with(engine(), &quantized_folder(parent.path(), &source, formats), None);
            assert_eq!(ahead.formats(), on_load.formats(), "{what}");
            // Equal fingerprints make snapshots interchangeable.
            assert_eq!(ahead.fingerprint(), on_load.fingerprint(), "{what}");
            assert_eq!(ahead.warnings(), on_load.warnings(), "{what}");
            let expected = run(&on_load);
            assert_eq!(run(&ahead), expected, "{what}");
            assert!(!outputs.contains(&expected.0), "{what}: the same logits as in another format");
            outputs.push(expected.0);
        }
    }
}

#[test]
fn quantized_matrices_in_pieces_compute_the_same() {
    let mut options = engine_options();
    // The suffix table is larger than this in q8.
    options.max_binding_bytes = Some(1 << 16);
    let low = block_on(Engine::open(&options)).expect("an engine");
    let source = model_dir("infer", "swa");
    let parent = tempfile::tempdir().expect("a folder");
    for formats in ["q8", "q4,embeddings=q8"] {
        let dir = quantized_folder(parent.path(), &source, formats);
        let (whole, pieces) = (load_with(engine(), &dir, None), load_with(&low, &dir, None));
        assert_eq!(pieces.fingerprint(), whole.fingerprint());
        let on_load = load_on(&low, &source, formats.parse::<Formats>().expect("formats"));
        assert_eq!(run(&pieces), run(&on_load), "{formats}");
    }
}

fn try_load(dir: &Path, formats: Option<&str>) -> Result<Model> {
    let mut options = LoadOptions::default();
    options.vocabulary = Some(vocabulary());
    options.formats = formats.map(|text| text.parse().expect("formats"));
    block_on(Model::load(engine(), &Checkpoint::open(dir)?, options))
}

#[test]
fn quantized_checkpoint_loads_only_in_its_own_formats() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = quantized_folder(parent.path(), &model_dir("infer", "nano_trained"), "q4,local=q8");
    assert!(try_load(&dir, Some("q4,local=q8")).is_ok());
    for other in ["f32", "q8", "q4", "q4,local=q8,embeddings=f16"] {
        let error = try_load(&dir, Some(other)).expect_err(other);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        for word in ["as q4,local=q8 ", &format!("as {other};")] {
            assert!(error.message().contains(word), "{error} lacks {word:?}");
        }
    }
    // The estimate is exact here: the scales of this model need no padding.
    let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
    let formats = checkpoint.formats().expect("formats");
    assert_eq!(device_bytes(checkpoint.config(), formats), checkpoint.contents_bytes());
}

#[test]
fn loading_reports_progress_to_the_end() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = quantized_folder(parent.path(), &model_dir("infer", "nano_trained"), "q4");
    let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
    let load = |most: u64, last: &mut (u64, u64)| {
        let mut options = LoadOptions::default();
        options.vocabulary = Some(vocabulary());
        block_on(Model::load_with_progress(engine(), &checkpoint, options, &mut |done, total| {
            assert!(done >= last.0 && done <= total);
            *last = (done, total);
            done < most
        }))
    };
    let mut last = (0, 0);
    load(u64::MAX, &mut last).expect("a model");
    assert_eq!(last, (checkpoint.contents_bytes(), checkpoint.contents_bytes()));
    let mut last = (0, 0);
    let error = load(checkpoint.contents_bytes() / 2, &mut last).expect_err("cancelled");
    assert!(error.kind() == ErrorKind::Cancelled && last.0 < last.1);
}

#[test]
fn non_finite_scales_are_named() {
    let parent = tempfile::tempdir().expect("a folder");
    let source = Checkpoint::open(model_dir("infer", "nano_trained")).expect("a checkpoint");
    for (i, name) in ["model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.k_proj.weight"].iter().enumerate()
    {
        let dir = parent.path().join(i.to_string());
        write_quantized(&source, &dir, "q8".parse().unwrap(), &QuantizeOptions::default(), &mut |_, _| true).unwrap();
        let path = dir.join("model.safetensors");
        let mut file = std::fs::read(&path).unwrap();
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
        let scales = format!("{name}.scales");
        // Row 3, block 1 of rows of 64.
        let at = 8 + header + json[&scales]["data_offsets"][0].as_u64().unwrap() as usize + 2 * 7;
        file[at..at + 2].copy_from_slice(&[0, 0x7c]);
        std::fs::write(&path, file).unwrap();
        let error = try_load(&dir, None).expect_err("a scale that is infinite");
        assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
        assert!(error.message().contains(&scales) && error.message().contains("[3, 1] is inf"), "{error}");
    }
}

#[test]
fn comparison_equals_two_separate_scores() {
    let source = model_dir("infer", "nano_trained");
    let exact = load_on(engine(), &source, Formats::default());
    let coarse = load_on(engine(), &source, "q4".parse::<Formats>().expect("formats"));
    // Long enough for both models to prefill it in pieces.
    let text: Vec<u8> = TEXT.iter().copied().cycle().take(1500).collect();
    let cancel = Default::default();
    let compared = block_on(coarse.compare_text(&exact, &text, &cancel, &mut |_, _| {})).expect("a comparison");
    let mut options = ScoreOptions::default();
    options.dump = true;
    let score = |model: &Model| block_on(model.score_text(&text, &options, &mut |_, _| {})).expect("a score");
    let (a, b) = (score(&coarse), score(&exact));
    for (piecewise, whole) in [(&compared.score, &a), (&compared.reference, &b)] {
        assert_eq!((piecewise.bytes, piecewise.patches), (whole.bytes, whole.patches));
        assert_eq!(piecewise.boundaries, whole.boundaries);
        assert!((piecewise.bits_per_byte_joint() - whole.bits_per_byte_joint()).abs() < 1e-5);
        assert!((piecewise.bits_per_byte_marginal() - whole.bits_per_byte_marginal()).abs() < 1e-5);
    }
    let alike = a.boundaries.iter().zip(&b.boundaries).filter(|(a, b)| a == b).count();
    assert_eq!(compared.boundary_agreement, alike as f64 / text.len() as f64);
    // The dump has the logits after each byte of the text; those before the first one are compared too.
    let (a, b) = (a.dump.expect("tensors").logits, b.dump.expect("tensors").logits);
    let (a, b) = (&a[..a.len() - 520], &b[..b.len() - 520]);
    let (mut largest, mut agreeing) = (0.0f64, 0);
    let best = |row: &[f32]| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(id, _)| id);
    for (a, b) in a.chunks_exact(520).zip(b.chunks_exact(520)) {
        largest = a.iter().zip(b).map(|(x, y)| f64::from((x - y).abs())).fold(largest, f64::max);
        agreeing += usize::from(best(a) == best(b));
    }
    let rounding = 1e-3 * largest;
    assert!(compared.logit_difference_max >= largest - rounding, "{} {largest}", compared.logit_difference_max);
    assert!(compared.logit_difference_mean > 0.0 && compared.logit_difference_mean < compared.logit_difference_max);
    // The position before the first byte may agree or not, and a choice between two equal logits goes either way.
    let expected = agreeing as f64 / text.len() as f64;
    assert!((compared.greedy_agreement - expected).abs() <= 2.0 / text.len() as f64, "{compared:?}, {expected}");

    let same = block_on(exact.compare_text(&exact, &text, &cancel, &mut |_, _| {})).expect("a comparison");
    assert_eq!((same.boundary_agreement, same.greedy_agreement), (1.0, 1.0));
    assert_eq!((same.logit_difference_max, same.logit_difference_mean), (0.0, 0.0));
    let ids: Vec<u32> = std::iter::once(1).chain(text.iter().map(|&b| u32::from(b) + 4)).collect();
    let unframed = block_on(coarse.compare_ids(&exact, &ids, &cancel, &mut |_, _| {})).expect("a comparison");
    assert_eq!((unframed.score.bytes, unframed.score.boundaries.len()), (text.len(), ids.len()));
}
