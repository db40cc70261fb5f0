//! The forward pass, stage by stage: bytes → embed → encoder → boundary → patches → global → depool → decoder → head → sample.
//!
//! A stage records its dispatches; what order they run in and when they are submitted is the business of `session`.

pub(crate) mod boundary;
pub(crate) mod decoder;
pub(crate) mod depool;
pub(crate) mod embed;
pub(crate) mod encoder;
pub(crate) mod global;
pub(crate) mod head;
pub(crate) mod local_layer;
pub(crate) mod ops;
pub(crate) mod patches;

pub(crate) use local_layer::{LaneStates, Over};
pub(crate) use ops::{Context, Norm, Rows};

// TEMPORARY: old paths
pub use crate::sampling::host as sample;
pub use crate::text::ids as bytes;
