//! Models in training.

pub(crate) mod byte_level;
pub(crate) mod subword;
pub(crate) mod teacher;
