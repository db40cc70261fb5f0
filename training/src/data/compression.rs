//! Wider patches step by step, so that a model learns to do with fewer of them.

use bolmo_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::merges::{bpe_merges, entropy_merges, merge_patches, space_patches};
use super::random::{Purpose, below, generator};

/// Which neighbouring patches of a row are merged first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompressionKind {
    /// The pair of subwords that is the most frequent in the row.
    #[default]
    Bpe,
    /// The pair with the lowest sum of a small language model's entropies.
    Entropy,
    /// The pair with the lowest sum of its cross-entropies, which the true subwords decide.
    CrossEntropy,
    /// None: ends of patches are exchanged for ends in front of blanks.
    Space,
}

impl CompressionKind {
    /// Whether [`Compression::apply`] needs numbers of a small language model.
    pub fn needs_entropies(self) -> bool {
        matches!(self, Self::Entropy | Self::CrossEntropy)
    }
}

/// A schedule of bytes a patch, from the tokenizer's own number to a target, and how rows are brought there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compression {
    /// Which patches are merged.
    pub kind: CompressionKind,
    /// Bytes a patch at step 0.
    pub start: f64,
    /// Bytes a patch from step `steps` on.
    pub target: f64,
    /// Steps from the one to the other.
    pub steps: u64,
    /// Decides between equals.
    pub seed: u64,
}

impl Compression {
    /// Bytes a patch at a step.
    pub fn ratio(&self, step: u64) -> f64 {
        if step >= self.steps {
            return self.target;
        }
        self.start + (self.target - self.start) * (step as f64 / self.steps as f64)
    }

    /// Widens the patches of a batch to what this step asks for. The bytes stay; patch lengths and what follows from them change.
    ///
    /// `entropies` has a number of the small language model for each subword, `[rows, patches]`, for those kinds that need them.
    ///
    /// # Errors
    /// Numbers that are missing, infinite or none, or not as many as there are subwords.
    pub fn apply(&self, batch: &mut Batch, step: u64, entropies: Option<&[f32]>) -> Result<()> {
        let entropies = match entropies {
            _ if !self.kind.needs_entropies() => &[][..],
            Some(entropies) if entropies.len() == batch.rows * batch.patches => entropies,
            found => {
                return Err(Error::invalid(format!(
                    "merges by entropy need a number for each of the {} subwords of a batch, found {}",
                    batch.rows * batch.patches,
                    found.map_or(0, <[f32]>::len)
                )));
            }
        };
        let ratio = self.ratio(step);
        let mut wider = Vec::with_capacity(batch.rows);
        for row in 0..batch.rows {
            // Steps and rows are far fewer than that.
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
                    wider.push(space_patches(lens, filled(&batch.space_patch_lens[slots]), bytes, ratio, choose));
                    continue;
                }
            };
            wider.push(merge_patches(lens, &merges, bytes, ratio));
        }
        for (row, lens) in wider.iter().enumerate() {
            batch.set_patches(row, lens);
        }
        batch.compressed = true;
        Ok(())
    }
}

/// The patches that have bytes; empty slots follow them.
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
    fn kinds_have_the_names_of_the_reference() {
        let names = ["bpe", "entropy", "cross_entropy", "space"];
        let kinds: Vec<CompressionKind> =
            names.iter().map(|name| serde_json::from_str(&format!("{name:?}")).unwrap()).collect();
        assert_eq!(kinds.iter().map(|kind| kind.needs_entropies()).collect::<Vec<_>>(), [false, true, true, false]);
    }
}
