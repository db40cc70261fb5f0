//! Targets of a batch, and what the device reports about its logits.

use bolmo_runtime::ids::FUSED_OFFSET;

pub use crate::data::IGNORED;
use crate::layers::Shape;

/// Stands for a missing label on the device; larger than any id.
pub const NO_LABEL: u32 = u32::MAX;

/// Targets of a batch, independent of the model's output.
#[derive(Debug, Clone, Copy)]
pub struct Targets<'a> {
    /// Shape of the batch.
    pub shape: Shape,
    /// The next plain id of each byte, or [`IGNORED`]; `[B, L]`.
    pub labels: &'a [i32],
    /// Whether a patch ends at each byte, `[B, L]`.
    pub truth: &'a [bool],
    /// Bytes of each true patch, 0 for an unused slot, `[B, P]`.
    pub patch_lens: &'a [u32],
    /// True patch of each byte, P after the last one, `[B, L]`.
    pub patch_of: &'a [u32],
}

impl Targets<'_> {
    /// Bytes that have a label.
    pub fn label_count(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }

    /// True patches, without the first of each example.
    pub fn patch_count(&self) -> usize {
        self.patch_lens.chunks(self.shape.patches).map(|lens| lens[1..].iter().filter(|&&len| len != 0).count()).sum()
    }

    /// Labels that include the boundaries of `mask`: the fused id if the next byte is real and ends a patch, otherwise
    /// the plain id, and [`NO_LABEL`] where there is none.
    pub fn fused_labels(&self, mask: &[bool]) -> Vec<u32> {
        let length = self.shape.bytes;
        let of = |(at, &label): (usize, &i32)| {
            let next = (at % length + 1 < length).then_some(at + 1);
            let ends = next.is_some_and(|next| mask[next] && self.labels[next] != IGNORED);
            match label {
                IGNORED => NO_LABEL,
                label => label as u32 + if ends { u32::from(FUSED_OFFSET) } else { 0 },
            }
        };
        self.labels.iter().enumerate().map(of).collect()
    }
}

/// Log-probabilities from the logits of one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likelihood {
    /// Log-probability of the label.
    pub label: f32,
    /// Log-probability that the next id is plain and space-like.
    pub space: f32,
}

/// Derivatives of the total by both parts of a [`Likelihood`], `[B, L, 2]`.
pub type LikelihoodGradient = Vec<[f32; 2]>;
