//! Writing checkpoint folders: quantized, merged, or with random weights.

pub mod merge;
pub mod quantize;
pub mod random;
