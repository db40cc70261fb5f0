//! Preparation of a byte-level run: its teacher's tables, the text of a fitted start, and the schedule of compression.

use bolmo_runtime::ids::BYTE_OFFSET;
use bolmo_runtime::layout::expected_tensors;
use bolmo_runtime::{Checkpoint, Error, Result};

use crate::checkpoint::source::{LocalSizes, SourceModel};
use crate::data::{Batch, Batcher, Compression, SubwordTokenizer};
use crate::init::EncodedText;
use crate::layers::Shape;
use crate::models::subword::SubwordModel;
use crate::parameters::TensorSource;
use crate::run::inputs::Inputs;

/// Number of rows for measurements on the training text.
const MEASURED_ROWS: u64 = 64;

/// Rows of the training text for a fitted start, enough for whole batches.
pub(super) fn encoded_text(inputs: Inputs<'_>, batcher: &Batcher, shape: Shape) -> Result<EncodedText> {
    let rows = inputs.train;
    let mut text = EncodedText { shape, ids: Vec::new(), suffixes: Vec::new(), ends: Vec::new() };
    for row in 0..(MEASURED_ROWS as usize).next_multiple_of(shape.rows) as u64 {
        let batch = batcher.batch(&rows.get(row % rows.len().max(1))?)?;
        let subwords = teacher_input(&batch, batcher.tokenizer().eos());
        let before = text.ids.len();
        let ends = batch.boundaries.iter().zip(&batch.patch_of).enumerate();
        text.ends.extend(ends.filter_map(|(at, (&end, &patch))| {
            let subword = subwords.get(patch as usize).filter(|_| end != 0);
            subword.map(|&subword| (before + at, subword))
        }));
        text.ids.extend(&batch.byte_ids);
        text.suffixes.extend(&batch.suffix_ids);
    }
    Ok(text)
}

/// The teacher's input: for each row, the end of text and all subwords but the last.
pub(super) fn teacher_input(batch: &Batch, eos: u32) -> Vec<u32> {
    let rows = batch.subword_ids.chunks(batch.patches);
    rows.flat_map(|row| std::iter::once(eos).chain(row[..row.len() - 1].iter().copied())).collect()
}

/// Checks that student and teacher have the same blocks, since stage 1 runs the teacher through the student's.
pub(super) fn check_blocks(student: &Checkpoint, source: &SourceModel) -> Result<()> {
    let blocks = |config| {
        let all = expected_tensors(config).into_iter();
        all.filter(|spec| spec.name.starts_with("model.layers.")).collect::<Vec<_>>()
    };
    let wanted = blocks(source.config());
    let mut same = wanted == blocks(student.config());
    for spec in &wanted {
        same = same && student.read(&spec.name)? == source.read(&spec.name)?;
    }
    if same {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`model.student` does not have the blocks of `model.source`, {}, which stage 1 leaves frozen; name the \
         source that \
         the student was made from",
        source.origin()
    )))
}

/// Subwords that begin with a space, a tab or a newline.
pub(super) fn space_subwords(tokenizer: &SubwordTokenizer) -> Vec<u32> {
    let vocabulary = tokenizer.vocabulary();
    let space_like = |&id: &u32| {
        let first = vocabulary.sequence(id).and_then(|ids| ids.first()).copied();
        first.is_some_and(|id| b" \t\n".iter().any(|&byte| id == u16::from(BYTE_OFFSET) + u16::from(byte)))
    };
    (0..vocabulary.len() as u32).filter(space_like).collect()
}

/// The byte ids of each subword.
pub(super) fn byte_sequences(tokenizer: &SubwordTokenizer) -> Vec<Vec<u16>> {
    let vocabulary = tokenizer.vocabulary();
    (0..vocabulary.len() as u32).map(|id| vocabulary.sequence(id).unwrap_or_default().to_vec()).collect()
}

/// The schedule of compression, and the model whose entropies choose the merges.
pub(super) async fn compression(
    inputs: Inputs<'_>,
    batcher: &Batcher,
) -> Result<(Option<Compression>, Option<SubwordModel>)> {
    let Inputs { engine, config, train: rows, .. } = inputs;
    let Some(wanted) = &config.compression else { return Ok((None, None)) };
    let (mut bytes, mut patches) = (0, 0);
    for row in 0..rows.len().min(MEASURED_ROWS) {
        let batch = batcher.batch(&rows.get(row)?)?;
        bytes += batch.labels_of(0);
        patches += batch.patch_lens[1..].iter().filter(|&&len| len != 0).count();
    }
    let compression = Compression {
        kind: wanted.kind,
        start: bytes as f64 / patches.max(1) as f64,
        target: wanted.target,
        // The run sets it when it begins.
        steps: wanted.steps.unwrap_or(1),
        seed: config.seed,
    };
    let entropies = match (&wanted.entropies, wanted.kind.needs_entropies()) {
        (_, false) => None,
        (None, true) => return Err(Error::internal("a run was opened without `compression.entropies`")),
        (Some(dir), true) => {
            let source = SourceModel::open(dir, LocalSizes::BLOCKS_ONLY, None)
                .map_err(|e| e.context("`compression.entropies`"))?;
            let size = (source.vocabulary(), source.tied());
            let options = config.subword_options(0.0);
            Some(SubwordModel::new(engine, source.config(), size, options, &source, false).await?)
        }
    };
    Ok((Some(compression), entropies))
}
