//! Training of Bolmo models: a subword model is turned into one that reads and writes bytes.

pub mod data;
