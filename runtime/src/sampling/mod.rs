//! Choosing the next id from the logits, on the host and on the device.

pub(crate) mod device;
pub mod host;
pub(crate) mod logprobs;
