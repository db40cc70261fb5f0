//! The C ABI of the Bolmo runtime. `include/bolmo.h` is made from these files, group by group, and is what users read.
//!
//! Every function is a thin edge: it checks what came in (`input`), finds the objects behind the handles (`handle`), calls the
//! runtime, and turns the outcome into a status (`status`). Nothing else belongs here.

// The names are those of the C header.
#![allow(non_camel_case_types)]
// The contract of every function is the header's first page: pointers are NULL or valid, lengths are true.
#![allow(clippy::missing_safety_doc)]

#[macro_use]
mod input;
mod handle;
mod panics;

pub mod adapters;
pub mod checkpoint;
pub mod constraint;
pub mod engine;
pub mod generate;
pub mod library;
pub mod merge;
pub mod model;
pub mod options;
pub mod sampler;
pub mod score;
pub mod session;
pub mod status;
pub mod text;
#[cfg(feature = "training")]
pub mod training;
