//! Checkpoint folders made from other folders or from nothing: quantized, merged, with random weights.

pub mod merge;
pub mod quantize;
pub mod random;
