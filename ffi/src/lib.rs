//! The C ABI of the Bolmo runtime. `include/bolmo.h`, which users read, is generated from these files, one group per
//! file.
//!
//! Every function is a thin layer: it checks its arguments (`input`), looks up the objects behind the handles
//! (`handle`), calls the runtime, and converts the result to a status (`status`). Nothing else belongs here.

// Names follow the C header.
#![allow(non_camel_case_types)]
// The header's first page is the contract of every function: pointers are NULL or valid, lengths are true.
#![allow(clippy::missing_safety_doc)]
// Whether a batch may be shared between threads depends on deeply nested types of the graphics library.
#![recursion_limit = "256"]

#[macro_use]
mod input;
mod handle;
mod logging;
mod panics;

pub mod adapters;
pub mod batch;
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
