//! Compression: merges patches step by step, so that the model learns to work with fewer of them.

use bolmo_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::merges::{bpe_merges, entropy_merges, merge_patches, space_patches};
use super::random::{Purpose, below, generator};

/// Order in which adjacent patches of a row are merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompressionKind {
    /// The most frequent pair of subwords of the row first.
    #[default]
    Bpe,
    /// The pair with the lowest sum of entropies of a small language model first.
    Entropy,
    /// The same with cross-entropies, which depend on the true subwords.
    CrossEntropy,
    /// No merges: patch ends are replaced by ends before whitespace and around punctuation.
    Space,
    /// No merges: patch ends are replaced by ends before whitespace alone. The reference has no such kind.
    Words,
}

impl CompressionKind {
    /// Whether [`Compression::apply`] needs the entropies of a small language model.
    pub fn needs_entropies(self) -> bool {
        matches!(self, Self::Entropy | Self::CrossEntropy)
    }
}

/// Schedule of the bytes per patch, from the tokenizer's own ratio to a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compression {
    /// Order of the merges.
    pub kind: CompressionKind,
    /// Bytes per patch at step 0.
    pub start: f64,
    /// Bytes per patch from step `steps` on.
    pub target: f64,
    /// Number of steps from `start` to `target`.
    pub steps: u64,
    /// Seed of the choice between ties.
    pub seed: u64,
}

impl Compression {
    /// Bytes per patch at a step.
    pub fn ratio(&self, step: u64) -> f64 {
        if step >= self.steps {
            return self.target;
        }
        self.start + (self.target - self.start) * (step as f64 / self.steps as f64)
    }

    /// Merges patches of a batch until it has the ratio of this step. The bytes stay; patch lengths and the values that
    /// depend on them change.
    ///
    /// `entropies` holds the small language model's value for each subword, `[rows, patches]`, for the kinds that need
    /// it.
    ///
    /// # Errors
    /// Entropies that are missing, not finite, or not one for each subword.
    pub fn apply(&self, batch: &mut Batch, step: u64, entropies: Option<&[f32]>) -> Result<()> {
        let entropies = match entropies {
            _ if !self.kind.needs_entropies() => &[][..],
            Some(entropies) if entropies.len() == batch.rows * batch.patches => entropies,
            found => {
                return Err(Error::invalid(format!(
                    "merges by entropy need a value for each of the {} subwords of a batch, found {}",
                    batch.rows * batch.patches,
                    found.map_or(0, <[f32]>::len)
                )));
            }
        };
        let ratio = self.ratio(step);
        let mut merged = Vec::with_capacity(batch.rows);
        for row in 0..batch.rows {
            // Steps and rows are far below these limits.
            let mut generator = generator(self.seed, Purpose::Merges, (step << 24) | row as u64);
            let choose = |n| below(&mut generator, n);
            let slots = row * batch.patches..(row + 1) * batch.patches;
            let bytes = batch.labels_of(row);
            let lens = filled(&batch.patch_lens[slots.clone()]);
            let merges = match self.kind {
                CompressionKind::Bpe => bpe_merges(&batch.subword_ids[slots], choose),
                CompressionKind::Entropy | CompressionKind::CrossEntropy => {
                    entropy_merges(&entropies[slots], choose)
                        .map_err(|error| error.context(format_args!("row {row}")))?
                }
                CompressionKind::Space => {
                    merged.push(space_patches(lens, filled(&batch.space_patch_lens[slots]), bytes, ratio, choose));
                    continue;
                }
                CompressionKind::Words => {
                    merged.push(space_patches(lens, filled(&batch.word_patch_lens[slots]), bytes, ratio, choose));
                    continue;
                }
            };
            merged.push(merge_patches(lens, &merges, bytes, ratio));
        }
        for (row, lens) in merged.iter().enumerate() {
            batch.set_patches(row, lens);
        }
        batch.compressed = true;
        Ok(())
    }
}

/// The patches that have bytes. Empty slots come last.
fn filled(lens: &[u32]) -> &[u32] {
    &lens[..lens.iter().position(|&len| len == 0).unwrap_or(lens.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_moves_along_a_line_and_stays() {
        let mut compression = Compression { kind: CompressionKind::Bpe, start: 4.0, target: 8.0, steps: 1000, seed: 0 };
        let ratios = [0, 250, 500, 999, 1000, u64::MAX].map(|step| compression.ratio(step));
        assert_eq!(ratios, [4.0, 5.0, 6.0, 4.0 + 4.0 * 0.999, 8.0, 8.0]);
        compression.steps = 0;
        assert_eq!(compression.ratio(0), 8.0);
    }

    #[test]
    fn kinds_have_the_names_of_the_reference_and_one_more() {
        let names = ["bpe", "entropy", "cross_entropy", "space", "words"];
        let kinds: Vec<CompressionKind> =
            names.iter().map(|name| serde_json::from_str(&format!("{name:?}")).unwrap()).collect();
        assert_eq!(
            kinds.iter().map(|kind| kind.needs_entropies()).collect::<Vec<_>>(),
            [false, true, true, false, false]
        );
    }
}
