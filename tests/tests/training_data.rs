//! Training batches and patch merges against the reference's, and invalid corpora.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bolmo_runtime::Checkpoint;
use bolmo_runtime::{Config, Error, ErrorKind, Vocabulary};
use bolmo_tests::{fixtures, read_tensors};
use bolmo_training::data::{
    Batch, Batcher, ByteLength, Compression, CompressionKind, Corpus, Documents, IGNORED, IdType, RowOptions,
    SubwordTokenizer, TokenFile, bpe_merges, entropy_merges, merge_patches,
};
use proptest::prelude::*;
use serde_json::Value;

fn tokenizer_path() -> PathBuf {
    fixtures().join("infer/subword_tokenizer/tokenizer.json")
}

fn tokenizer() -> SubwordTokenizer {
    SubwordTokenizer::open(&tokenizer_path()).unwrap()
}

fn config() -> Config {
    Checkpoint::open(fixtures().join("infer/models/nano")).unwrap().config().clone()
}

fn batcher(patches: usize, length: ByteLength) -> Batcher {
    Batcher::new(&config(), tokenizer(), patches, length).unwrap()
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join(path)).unwrap()).unwrap()
}

/// A list of numbers.
fn list(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    list(value).into_iter().map(|id| id as u32).collect()
}

fn wide<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&x| x.into()).collect()
}

fn size(config: &Value, key: &str) -> usize {
    config[key].as_u64().unwrap() as usize
}

/// Shape and values by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f64>)>;

/// A golden batch, and the batch made of its ids here.
fn golden_batch(number: usize) -> (Tensors, Batch) {
    let config = json("train/config.json");
    let want = read_tensors(&fixtures().join(format!("train/batch{number}.safetensors")));
    let subwords: Vec<u32> = want["subword_ids_in"].1.iter().map(|&id| id as u32).collect();
    let batch = batcher(size(&config, "P"), ByteLength::Total(size(&config, "L"))).batch(&subwords).unwrap();
    (want, batch)
}

#[test]
fn batches_equal_the_reference() {
    for number in 0..3 {
        let (want, batch) = golden_batch(number);
        for (name, got) in [
            ("original_input_ids", wide(&batch.subword_ids)),
            ("input_ids", wide(&batch.byte_ids)),
            ("expanded_input_ids", wide(&batch.suffix_ids)),
            ("labels", wide(&batch.labels)),
            ("patch_lens", wide(&batch.patch_lens)),
            ("space_patch_lens", wide(&batch.space_patch_lens)),
            ("attention_mask", wide(&batch.attention_mask)),
        ] {
            let (shape, values) = &want[name];
            assert_eq!(shape.iter().product::<usize>(), got.len(), "batch {number}: {name}");
            assert_eq!(&got, values, "batch {number}: {name}");
        }
        assert!(!batch.compressed);
    }
}

#[test]
fn boundaries_and_patches_equal_the_reference() {
    let (_, batch) = golden_batch(0);
    let want = read_tensors(&fixtures().join("train/stage1/intermediates.safetensors"));
    assert_eq!(wide(&batch.boundaries), want["true_boundary_mask"].1);
    assert_eq!(wide(&batch.patch_of), want["patch_ids"].1);
    // The batch has an end of text in mid-row, with no boundary before it.
    let ends = (1..batch.byte_ids.len()).filter(|&i| i % batch.bytes > 0 && batch.byte_ids[i] == 1);
    assert!(ends.inspect(|&i| assert_eq!(batch.boundaries[i - 1], 0)).count() > 0);
}

/// Replays the recorded choices, and checks the number of candidates at each step.
fn choices(run: &Value) -> impl FnMut(usize) -> usize {
    let mut recorded = run["choices"].as_array().unwrap().iter().map(ids).collect::<Vec<_>>().into_iter();
    move |candidates| {
        let choice = recorded.next().expect("a recorded choice");
        assert_eq!(choice[0] as usize, candidates);
        choice[1] as usize
    }
}

#[test]
fn patch_merges_equal_the_reference() {
    let schedule = json("compress/schedule.json");
    let (patches, bytes) = (size(&schedule, "P"), size(&schedule, "L"));
    let batcher = batcher(patches, ByteLength::Total(bytes));
    for (name, row) in schedule["rows"].as_object().unwrap() {
        let mut batch = batcher.batch(&ids(&row["subword_ids"])).unwrap();
        assert_eq!(batch.subword_ids, ids(&row["original_input_ids"]), "{name}");
        assert_eq!(batch.byte_ids, ids(&row["byte_ids"]), "{name}");
        assert_eq!(batch.patch_lens, ids(&row["patch_lens"]), "{name}");
        assert_eq!(batch.labels_of(0), size(row, "n_label_bytes"), "{name}");
        let lens: Vec<u32> = batch.patch_lens.iter().copied().filter(|&len| len > 0).collect();
        // Negated in the file.
        let entropies: Vec<f32> = list(&row["entropies_f16"]).into_iter().map(|e| -e as f32).collect();
        for (kind, run) in [(CompressionKind::Bpe, "bpe"), (CompressionKind::Entropy, "entropy")] {
            let compression = Compression {
                kind,
                start: schedule["start_ratio"].as_f64().unwrap(),
                target: schedule["target_ratio"].as_f64().unwrap(),
                steps: size(&schedule, "steps") as u64,
                seed: 0,
            };
            for (mode, run) in row[run].as_object().unwrap() {
                let what = format!("{name} {kind:?} {mode}");
                let merges = match kind {
                    CompressionKind::Bpe => bpe_merges(&batch.subword_ids, choices(run)),
                    _ => entropy_merges(&entropies, choices(run)).unwrap(),
                };
                assert_eq!(merges, ids(&run["merges"]), "{what}");
                for (step, want) in run["patch_lens_at_step"].as_object().unwrap() {
                    let ratio = compression.ratio(step.parse().unwrap());
                    let got = merge_patches(&lens, &merges, batch.labels_of(0), ratio);
                    assert_eq!(got, ids(want), "{what} step {step}");
                }
            }
            // Another seed makes other choices, but as many patches.
            let before = batch.clone();
            compression.apply(&mut batch, u64::MAX, Some(&entropies)).unwrap();
            let got = batch.patch_lens.iter().filter(|&&len| len > 0).count();
            let last = compression.steps.to_string();
            assert_eq!(got, ids(&row[run]["first"]["patch_lens_at_step"][&last]).len(), "{name} {kind:?}");
            batch = before;
        }
    }
}

#[test]
fn compression_changes_patches_and_nothing_else() {
    for kind in [
        CompressionKind::Bpe,
        CompressionKind::Entropy,
        CompressionKind::CrossEntropy,
        CompressionKind::Space,
        CompressionKind::Words,
    ] {
        let (_, before) = golden_batch(1);
        let entropies: Vec<f32> = before.subword_ids.iter().map(|&id| (id % 17) as f32 / 8.0).collect();
        let compression = |seed| Compression { kind, start: 2.0, target: 5.0, steps: 100, seed };
        let compressed = |step, seed| {
            let mut batch = before.clone();
            compression(seed).apply(&mut batch, step, Some(&entropies)).unwrap();
            batch
        };
        assert_eq!(compressed(50, 1), compressed(50, 1), "{kind:?}");
        if kind != CompressionKind::Entropy && kind != CompressionKind::CrossEntropy {
            assert_ne!(compressed(50, 1), compressed(50, 2), "{kind:?}");
        }
        let mut patches = usize::MAX;
        for step in [0, 50, 100] {
            let batch = compressed(step, 1);
            let now = batch.patch_lens.iter().filter(|&&len| len > 0).count();
            assert!(now <= patches, "{kind:?}");
            patches = now;
            assert!(batch.compressed);
            for row in 0..batch.rows {
                check_patches(&batch, row);
            }
            let mut rest = batch;
            let Batch { patch_lens, boundaries, patch_of, compressed, .. } = before.clone();
            (rest.patch_lens, rest.boundaries, rest.patch_of, rest.compressed) =
                (patch_lens, boundaries, patch_of, compressed);
            assert_eq!(rest, before, "{kind:?}");
        }
    }
}

#[test]
fn missing_or_non_finite_entropies_are_rejected() {
    let (_, batch) = golden_batch(0);
    let compression = Compression { kind: CompressionKind::Entropy, start: 2.0, target: 5.0, steps: 1, seed: 0 };
    let nan = vec![f32::NAN; batch.subword_ids.len()];
    for (entropies, says) in [(None, "found 0"), (Some(&[0.5; 3][..]), "found 3"), (Some(&nan), "row 0: ")] {
        let mut same = batch.clone();
        let error = compression.apply(&mut same, 1, entropies).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains(says), "{error}");
        assert_eq!(same, batch);
    }
}

/// Invariants of the patches of every row.
fn check_patches(batch: &Batch, row: usize) {
    let ids = &batch.byte_ids[row * batch.bytes..][..batch.bytes];
    let lens = &batch.patch_lens[row * batch.patches..][..batch.patches];
    let mut ends = vec![0; batch.bytes];
    let mut patch_of = Vec::new();
    for (&len, patch) in lens.iter().zip(0..) {
        patch_of.extend(vec![patch; len as usize]);
        if len > 0 && ids.get(patch_of.len()) != Some(&1) {
            ends[patch_of.len() - 1] = 1;
        }
    }
    ends[0] = 1;
    patch_of.resize(batch.bytes, batch.patches as u32);
    assert_eq!(&batch.boundaries[row * batch.bytes..][..batch.bytes], ends);
    assert_eq!(&batch.patch_of[row * batch.bytes..][..batch.bytes], patch_of);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn every_row_becomes_the_bytes_of_its_subwords(
        subwords in prop::collection::vec(prop_oneof![20 => 0u32..800, 1 => 800u32..811], 24), cap in 2usize..200,
    ) {
        let vocabulary = Vocabulary::open(tokenizer_path()).unwrap();
        let batch = batcher(12, ByteLength::Total(cap)).batch(&subwords).unwrap();
        prop_assert_eq!((batch.rows, batch.patches), (2, 12));
        prop_assert!(batch.bytes.is_multiple_of(64) && batch.bytes >= cap && batch.bytes < cap + 64);
        for row in 0..2 {
            check_patches(&batch, row);
            let subwords = &batch.subword_ids[row * 12..][..12];
            let sequences = subwords[..11].iter().flat_map(|&id| vocabulary.sequence(id).unwrap());
            let mut ids: Vec<u32> = std::iter::once(&1).chain(sequences).map(|&id| id.into()).collect();
            ids.truncate(cap);
            let used = ids.len();
            ids.resize(batch.bytes, 0);
            let positions = row * batch.bytes..(row + 1) * batch.bytes;
            prop_assert_eq!(&batch.byte_ids[positions.clone()], &ids[..]);
            let labels = &batch.labels[positions.clone()];
            let next = |i: usize| ids.get(i + 1).copied().filter(|&id| id != 0).map_or(IGNORED, |id| id as i32);
            prop_assert!(labels.iter().copied().eq((0..batch.bytes).map(next)));
            prop_assert!(batch.suffix_ids[positions][used..].iter().all(|&id| id == 0));
            for lens in [&batch.patch_lens, &batch.space_patch_lens, &batch.word_patch_lens] {
                prop_assert!(lens[row * 12..][..12].iter().sum::<u32>() as usize <= used);
            }
        }
    }
}

#[test]
fn row_of_end_tokens_becomes_padding() {
    let batcher = batcher(3, ByteLength::PerSubword(6));
    let (eos, pad) = (batcher.tokenizer().eos(), batcher.tokenizer().pad());
    let batch = batcher.batch(&[eos; 3]).unwrap();
    assert_eq!((&batch.subword_ids, batch.bytes), (&vec![pad; 3], 64));
    assert!(batch.labels.iter().all(|&label| label == IGNORED));
    assert_eq!(batch.attention_mask.iter().sum::<u32>(), 1);
}

#[test]
fn row_with_a_fim_marker_is_tokenized_again() {
    let tokenizer = tokenizer();
    let encode = |text| tokenizer.encode(text).unwrap();
    let vocabulary = json("infer/subword_tokenizer/tokenizer.json");
    let added = vocabulary["added_tokens"].as_array().unwrap();
    let marker =
        added.iter().find(|token| token["content"] == "<|fim_middle|>").unwrap()["id"].as_u64().unwrap() as u32;
    let eos = tokenizer.eos();
    let row = [vec![eos], encode(" t"), vec![marker], encode("he"), vec![eos, marker], encode("x")].concat();
    // The end of text in the middle stays, and the halves of a word become one.
    let mut want = [encode(" the"), vec![eos], encode("x")].concat();
    assert!(want.len() < row.len() - 3, "the halves were no subwords of their own: {row:?}");
    want.resize(row.len(), tokenizer.pad());
    let batch = batcher(row.len(), ByteLength::PerSubword(6)).batch(&row).unwrap();
    assert_eq!(batch.subword_ids, want);
}

fn kind_and_text<T>(result: Result<T, Error>) -> (ErrorKind, String) {
    let error = result.err().expect("an error");
    (error.kind(), error.to_string())
}

#[test]
fn invalid_rows_and_sizes_are_rejected() {
    let batcher = batcher(4, ByteLength::PerSubword(6));
    let (kind, text) = kind_and_text(batcher.batch(&[1, 2, 3, 4, 5, 6, 7, 811]));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.contains("row 1, subword 3") && text.contains("found 811"), "{text}");
    assert!(kind_and_text(batcher.batch(&[])).1.contains("found 0 subwords"));
    assert!(kind_and_text(batcher.batch(&[1; 6])).1.contains("found 6 subwords"));
    for (patches, length) in [
        (1, ByteLength::PerSubword(6)),
        (4, ByteLength::PerSubword(0)),
        (4, ByteLength::Total(1)),
        (4, ByteLength::PerSubword(usize::MAX)),
        (4, ByteLength::Total(usize::MAX)),
    ] {
        let (kind, _) = kind_and_text(Batcher::new(&config(), tokenizer(), patches, length));
        assert_eq!(kind, ErrorKind::InvalidArgument, "{patches} {length:?}");
    }
}

#[test]
fn tokenizer_of_another_model_is_rejected() {
    let length = ByteLength::PerSubword(6);
    let mut config = config();
    config.subword_vocab_size = 500;
    let (kind, text) = kind_and_text(Batcher::new(&config, tokenizer(), 4, length));
    assert_eq!(kind, ErrorKind::BadCheckpoint);
    assert!(text.contains("another model"), "{text}");
    let mut config = self::config();
    (config.special.eos, config.byte_offset) = (257, 0);
    assert_eq!(kind_and_text(Batcher::new(&config, tokenizer(), 4, length)).0, ErrorKind::Unsupported);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    assert_eq!(kind_and_text(SubwordTokenizer::open(&path)).0, ErrorKind::NotFound);
    let mut json = json("infer/subword_tokenizer/tokenizer.json");
    json["pre_tokenizer"] = serde_json::json!({"type": "Psychic"});
    std::fs::write(&path, json.to_string()).unwrap();
    let (kind, text) = kind_and_text(SubwordTokenizer::open(&path));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("a tokenizer of a known kind"), "{text}");
}

fn options(patches: usize) -> RowOptions {
    RowOptions { patches, seed: 1, held_out: 0.0 }
}

/// All subwords of a corpus.
fn subwords(corpus: Corpus) -> Vec<u32> {
    let rows = corpus.rows(&options(1)).unwrap().train;
    (0..rows.len()).flat_map(|i| rows.get(i).unwrap()).collect()
}

#[test]
fn texts_are_split_into_documents() {
    let tokenizer = tokenizer();
    let delimited = Documents::Delimited("<|endoftext|>".to_owned());
    let text = "<|endoftext|>\nOne <|endoftext|>\n\n<|endoftext|>\r\n<|endoftext|>\nTwo: äöü";
    let mut want = Vec::new();
    for document in ["One <|endoftext|>\n\n", "Two: äöü"] {
        let ids = tokenizer.encode(document).unwrap();
        // The text of an end-of-text token is plain text.
        assert!(!ids.contains(&tokenizer.eos()));
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|&id| tokenizer.vocabulary().sequence(id).unwrap())
            .map(|&id| u8::try_from(id - 4).unwrap())
            .collect();
        assert_eq!(bytes, document.as_bytes());
        want.extend(ids);
        want.push(tokenizer.eos());
    }
    let mut corpus = Corpus::new(&tokenizer);
    corpus.add_text(&tokenizer, "a text", text.as_bytes(), &delimited).unwrap();
    assert_eq!(subwords(corpus), want);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.txt");
    std::fs::write(&path, text).unwrap();
    let mut corpus = Corpus::new(&tokenizer);
    corpus.add_text_file(&tokenizer, &path, &Documents::OnePerFile).unwrap();
    assert_eq!(subwords(corpus), [tokenizer.encode(text).unwrap(), vec![tokenizer.eos()]].concat());
}

#[test]
fn unreadable_texts_are_named() {
    let tokenizer = tokenizer();
    let mut corpus = Corpus::new(&tokenizer);
    let mut add = |bytes: &[u8], line: &str| {
        kind_and_text(corpus.add_text(&tokenizer, "a text", bytes, &Documents::Delimited(line.to_owned())))
    };
    let (kind, text) = add(b"good\n--\nbad \xff", "--");
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.contains("a text: the document that begins at byte 8: ") && text.contains(" 4 bytes on"), "{text}");
    assert_eq!(add(b"", "a\nb").0, ErrorKind::InvalidArgument);
    let missing = corpus.add_text_file(&tokenizer, "no/such/file".as_ref(), &Documents::OnePerFile);
    assert_eq!(kind_and_text(missing).0, ErrorKind::NotFound);
    // Nothing has been added.
    assert!(corpus.is_empty());
    let (kind, text) = kind_and_text(corpus.rows(&options(8)));
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(text.contains("at least 8 ids, which make a row, found 0"), "{text}");
}

#[test]
fn files_of_ids_are_mapped_and_batched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.npy");
    let (want, batch) = golden_batch(0);
    let (shape, ids) = &want["subword_ids_in"];
    let header = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({},), }}\n", ids.len());
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
    std::fs::write(&path, &file).unwrap();

    let batcher = batcher(batch.patches, ByteLength::Total(batch.bytes));
    let mut corpus = Corpus::new(batcher.tokenizer());
    corpus.add_file(TokenFile::open(&path).unwrap());
    let rows = corpus.rows(&options(batch.patches)).unwrap().train;
    assert_eq!(rows.len(), shape[0] as u64);
    let rows: Vec<u32> = (0..rows.len()).flat_map(|i| rows.get(i).unwrap()).collect();
    assert_eq!(batcher.batch(&rows).unwrap(), batch);

    std::fs::write(&path, &file[..file.len() - 1]).unwrap();
    let (kind, text) = kind_and_text(TokenFile::open(&path));
    assert_eq!(kind, ErrorKind::BadCheckpoint);
    assert!(text.contains("ids.npy: ") && text.contains("cut off"), "{text}");
    assert_eq!(kind_and_text(TokenFile::open_raw(&path, IdType::U16)).0, ErrorKind::BadCheckpoint);
    assert_eq!(kind_and_text(TokenFile::open(&dir.path().join("none.npy"))).0, ErrorKind::NotFound);
}
