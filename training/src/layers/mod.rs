//! Layers of a model in training: forward passes that save activations, and backward passes.

pub(crate) mod activations;
pub(crate) mod backward;
pub(crate) mod global;
pub(crate) mod local;
pub(crate) mod segments;

pub use activations::Shape;
