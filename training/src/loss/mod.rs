//! Losses of training (docs/model.md, "Training losses").
//!
//! The device reports a few numbers for each byte and patch. The host computes the losses from them in f64, together with
//! the derivatives by those numbers, which go back to the device.
//!
//! A batch has `B` examples of `L` bytes and `P` patch slots. Values of bytes are `[B, L]` and values of patches `[B, P]`,
//! one example after the other.

pub(crate) mod byte_distillation;
mod options;
mod targets;
mod terms;
#[cfg(test)]
mod tests;

pub use options::{BoundaryCounts, LossOptions, Losses};
pub use targets::{IGNORED, Likelihood, LikelihoodGradient, NO_LABEL, Targets};
pub use terms::{
    boundary, byte_distillation, byte_distillation_weight, cross_entropy, distill, encoder, encoder_weights,
};
