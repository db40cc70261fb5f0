//! Batches: rows of subword ids, spelled out as bytes.

use bolmo_runtime::ids::BYTE_OFFSET;
use bolmo_runtime::unstable::SuffixTrie;
use bolmo_runtime::unstable::map_chunks;
use bolmo_runtime::{Config, Error, Result};
use serde::{Deserialize, Serialize};

use super::space::{Kind, space_patch_lens};
use super::tokenizer::SubwordTokenizer;

/// Label of a position without a target.
pub const IGNORED: i32 = -100;
/// The bytes of a row are a multiple of this number.
const BYTE_MULTIPLE: usize = 64;

/// Maximum number of bytes of a row. Whole patches beyond it are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteLength {
    /// This many for each subword; the reference uses 6.
    PerSubword(usize),
    /// This many in total.
    Total(usize),
}

/// A batch of examples as bytes, with their target patches.
///
/// Slot 0 of a row holds `<bos>`, and slot `j + 1` the bytes of subword `j`. The last subword has no bytes in the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Number of examples.
    pub rows: usize,
    /// Positions of a row, a multiple of 64.
    pub bytes: usize,
    /// Patch slots of a row, one for each subword.
    pub patches: usize,
    /// Subwords, `[rows, patches]`. Leading ends of text are removed, and padding is appended.
    pub subword_ids: Vec<u32>,
    /// Plain byte ids, `[rows, bytes]`: `<bos>` first, padding last.
    pub byte_ids: Vec<u32>,
    /// Longest subword that ends at each position, `[rows, bytes]`; 0 at the padding after the last byte.
    pub suffix_ids: Vec<u32>,
    /// The next plain byte id, `[rows, bytes]`; [`IGNORED`] where there is none or it is padding.
    pub labels: Vec<i32>,
    /// Bytes of each patch, `[rows, patches]`; 0 for an unused slot or a patch that was cut off.
    pub patch_lens: Vec<u32>,
    /// Bytes of each patch if patches ended before whitespace, `[rows, patches]`.
    pub space_patch_lens: Vec<u32>,
    /// The same with punctuation in the patch of its word, `[rows, patches]`.
    pub word_patch_lens: Vec<u32>,
    /// 1 at positions that are not padding, `[rows, bytes]`.
    pub attention_mask: Vec<u32>,
    /// 1 where a patch ends, `[rows, bytes]`; 0 before an end of text, which closes the patch itself.
    pub boundaries: Vec<u32>,
    /// Patch of each position, `[rows, bytes]`; `patches` after the last one.
    pub patch_of: Vec<u32>,
    /// Whether patches were merged. They are then no longer the subwords of a teacher.
    pub compressed: bool,
    /// Id of the end of text.
    eos: u32,
}

impl Batch {
    /// Number of positions of a row that have a label.
    pub fn labels_of(&self, row: usize) -> usize {
        self.labels[row * self.bytes..(row + 1) * self.bytes].iter().filter(|&&label| label != IGNORED).count()
    }

    /// Sets the patches of a row to these lengths, and updates what depends on them. There are at most as many lengths
    /// as slots, all above 0.
    pub(super) fn set_patches(&mut self, row: usize, lens: &[u32]) {
        let slots = &mut self.patch_lens[row * self.patches..(row + 1) * self.patches];
        slots.fill(0);
        slots[..lens.len()].copy_from_slice(lens);
        let positions = row * self.bytes..(row + 1) * self.bytes;
        let ids = &self.byte_ids[positions.clone()];
        let boundaries = &mut self.boundaries[positions.clone()];
        let patch_of = &mut self.patch_of[positions];
        boundaries.fill(0);
        patch_of.fill(self.patches as u32);
        let mut start = 0;
        for (&len, patch) in lens.iter().zip(0..) {
            let end = start + len as usize;
            patch_of[start..end].fill(patch);
            let next = ids.get(end).copied();
            boundaries[end - 1] = (next != Some(self.eos)).into();
            start = end;
        }
        boundaries[0] = 1;
    }
}

/// Maker of batches of one size for one model.
pub struct Batcher {
    tokenizer: SubwordTokenizer,
    suffixes: SuffixTrie,
    bos: u16,
    eos: u16,
    pad: u16,
    patches: usize,
    /// Maximum number of bytes of a row.
    cap: usize,
}

/// A row of a [`Batch`].
struct Row {
    subword_ids: Vec<u32>,
    byte_ids: Vec<u16>,
    suffix_ids: Vec<u32>,
    patch_lens: Vec<u32>,
    space_patch_lens: Vec<u32>,
    word_patch_lens: Vec<u32>,
}

impl Batcher {
    /// Creates a batcher for rows of `patches` subwords of a tokenizer, for a model with this configuration.
    ///
    /// # Errors
    /// A tokenizer of another model, special ids that the suffix table cannot represent, and sizes out of range.
    pub fn new(config: &Config, tokenizer: SubwordTokenizer, patches: usize, length: ByteLength) -> Result<Self> {
        let vocabulary = tokenizer.vocabulary();
        if config.subword_vocab_size > 0 {
            vocabulary.check_rows(config.subword_vocab_size)?;
        }
        let special = config.special;
        let is = |subword, id| vocabulary.sequence(subword) == Some(&[id]);
        let known = is(tokenizer.eos(), special.eos)
            && (is(tokenizer.pad(), special.pad) || tokenizer.pad() == tokenizer.eos())
            && config.byte_offset == u16::from(BYTE_OFFSET);
        if !known {
            return Err(Error::unsupported(format!(
                "config.json: `tokenizer_config` has the padding id {}, the end-of-text id {} and byte ids from {}, \
                 which the \
                 suffix table does not support; use the ids of the published models",
                special.pad, special.eos, config.byte_offset
            )));
        }
        let cap = match length {
            ByteLength::PerSubword(bytes) => bytes.checked_mul(patches),
            ByteLength::Total(bytes) => Some(bytes),
        };
        let longest = u32::MAX as usize / 2;
        let cap =
            cap.filter(|&cap| patches >= 2 && patches <= longest && (2..=longest).contains(&cap)).ok_or_else(|| {
                Error::invalid(format!(
                    "a row must have at least 2 subwords and 2 bytes, and less than 2 GB; found {patches} and \
                     {length:?}"
                ))
            })?;
        let suffixes = SuffixTrie::new(vocabulary);
        let (bos, eos, pad) = (special.bos, special.eos, special.pad);
        Ok(Self { tokenizer, suffixes, bos, eos, pad, patches, cap })
    }

    /// Tokenizer of the rows.
    pub fn tokenizer(&self) -> &SubwordTokenizer {
        &self.tokenizer
    }

    /// Positions of a row, a multiple of 64.
    pub fn bytes(&self) -> usize {
        self.cap.next_multiple_of(BYTE_MULTIPLE)
    }

    /// Subwords of a row.
    pub fn patches(&self) -> usize {
        self.patches
    }

    /// Spells out rows of subwords, `[rows, patches]`.
    ///
    /// # Errors
    /// No row, an incomplete row, and ids that are not subwords.
    pub fn batch(&self, subword_ids: &[u32]) -> Result<Batch> {
        let (patches, bytes) = (self.patches, self.bytes());
        if subword_ids.is_empty() || !subword_ids.len().is_multiple_of(patches) {
            let found = subword_ids.len();
            return Err(Error::invalid(format!(
                "a batch must have whole rows of {patches} subwords, found {found} subwords in total"
            )));
        }
        let rows = subword_ids.len() / patches;
        let mut batch = Batch {
            rows,
            bytes,
            patches,
            subword_ids: Vec::with_capacity(rows * patches),
            byte_ids: vec![self.pad.into(); rows * bytes],
            suffix_ids: vec![0; rows * bytes],
            labels: vec![IGNORED; rows * bytes],
            patch_lens: vec![0; rows * patches],
            space_patch_lens: vec![0; rows * patches],
            word_patch_lens: vec![0; rows * patches],
            attention_mask: vec![0; rows * bytes],
            boundaries: vec![0; rows * bytes],
            patch_of: vec![0; rows * bytes],
            compressed: false,
            eos: self.eos.into(),
        };
        let spell_out = |index: usize| {
            let ids = &subword_ids[index * patches..(index + 1) * patches];
            for (place, &id) in ids.iter().enumerate() {
                self.tokenizer.check(id, || format!("row {index}, subword {place}"))?;
            }
            self.row(ids)
        };
        let shares = map_chunks(rows, 1, 1, |range| range.map(spell_out).collect::<Vec<_>>());
        for (index, row) in shares.into_iter().flat_map(|(_, rows)| rows).enumerate() {
            let row = row?;
            batch.subword_ids.extend(row.subword_ids);
            let at = index * bytes;
            for (i, &id) in row.byte_ids.iter().enumerate() {
                batch.byte_ids[at + i] = id.into();
                batch.attention_mask[at + i] = (id != self.pad).into();
                if i > 0 && id != self.pad {
                    batch.labels[at + i - 1] = id.into();
                }
            }
            batch.suffix_ids[at..at + row.suffix_ids.len()].copy_from_slice(&row.suffix_ids);
            let slots = index * patches;
            batch.space_patch_lens[slots..slots + row.space_patch_lens.len()].copy_from_slice(&row.space_patch_lens);
            batch.word_patch_lens[slots..slots + row.word_patch_lens.len()].copy_from_slice(&row.word_patch_lens);
            batch.set_patches(index, &row.patch_lens);
        }
        Ok(batch)
    }

    fn row(&self, ids: &[u32]) -> Result<Row> {
        let mut subword_ids = self.tokenizer.without_markers(ids)?;
        // `<bos>` already stands for an end of text at the start of the row.
        let ends = subword_ids.iter().take_while(|&&id| id == self.tokenizer.eos()).count();
        subword_ids.drain(..ends);
        subword_ids.resize(self.patches, self.tokenizer.pad());

        let mut byte_ids = vec![self.bos];
        let mut patch_lens = vec![1];
        for &id in &subword_ids[..self.patches - 1] {
            let sequence = self.tokenizer.vocabulary().sequence(id).unwrap_or_default();
            byte_ids.extend(sequence);
            // A subword has at most a few thousand bytes.
            patch_lens.push(sequence.len() as u32);
        }
        let kinds: Vec<Kind> = byte_ids.iter().map(|&id| self.kind(id)).collect();
        let in_words: Vec<Kind> = kinds.iter().map(|kind| kind.in_word()).collect();
        let [mut space_patch_lens, mut word_patch_lens] = [space_patch_lens(&kinds), space_patch_lens(&in_words)];
        for lens in [&mut patch_lens, &mut space_patch_lens, &mut word_patch_lens] {
            lens.truncate(self.patches);
            cut(lens, self.cap);
        }
        byte_ids.truncate(self.cap);
        let suffix_ids = self.suffixes.suffixes(&[], &byte_ids)?;
        Ok(Row { subword_ids, byte_ids, suffix_ids, patch_lens, space_patch_lens, word_patch_lens })
    }

    fn kind(&self, id: u16) -> Kind {
        if [self.bos, self.eos, self.pad].contains(&id) {
            return Kind::Special;
        }
        match id.checked_sub(BYTE_OFFSET.into()).map(u8::try_from) {
            Some(Ok(byte)) => Kind::of_byte(byte),
            _ => Kind::Mark,
        }
    }
}

/// Drops the patches that end after `cap`.
fn cut(lens: &mut Vec<u32>, cap: usize) {
    let mut end = 0;
    let kept = lens.iter().take_while(|&&len| {
        end += len as usize;
        end <= cap
    });
    let kept = kept.count();
    lens.truncate(kept);
}
