//! The native half of `dev.bolmo`: JNI over the C ABI of the Bolmo runtime.
//!
//! Every native method calls one function of `bolmo.h` and converts its arguments and its result. Objects of the
//! library are `long` values in Java, the handles of the C ABI. Text is UTF-8 in a `byte[]`. A status that is not
//! BOLMO_OK becomes a `BolmoException`. Everything else is written in Kotlin.

#[macro_use]
mod native;
mod callback;
mod env;

mod batch;
mod checkpoint;
mod constraint;
mod engine;
mod generate;
mod library;
mod merge;
mod model;
mod score;
mod session;
mod text;
mod training;
