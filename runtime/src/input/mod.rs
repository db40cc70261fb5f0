//! Inputs that users name: regular files of a bounded length, JSON texts, and what is often given in their place.

#[cfg(not(target_family = "wasm"))]
pub mod file;
pub mod foreign;
#[cfg(not(target_family = "wasm"))]
pub mod hub;
pub mod json;
pub mod shorten;
