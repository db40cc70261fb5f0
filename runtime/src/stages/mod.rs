//! The forward pass, stage by stage: bytes → embed → encoder → boundary → patches → global → depool → decoder → head.
//!
//! A stage records its dispatches. `session` decides their order and submits them.

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
