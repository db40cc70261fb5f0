//! The runtime behind the npm package `bolmo-web`: loading, sessions, generating, scoring, with promises for futures.
//!
//! This crate is the border between Rust and JavaScript, and nothing else. Options and results that are more than a
//! number or bytes cross it as JSON text, errors as JavaScript errors with a `kind` (`error.rs`). Every function takes
//! `&self` and moves what it needs into its promise, so that no borrow of an object lasts across an await. The classes
//! that web developers see are in `../src`.

#![cfg(target_family = "wasm")]

mod console;
mod error;
mod folder;
mod generate;
mod model;
mod options;
mod probe;
mod session;

use wasm_bindgen::prelude::wasm_bindgen;

/// Prints warnings to the console, and panics, which are bugs in this library, with their location.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
    console::receive_warnings();
}

/// The library's version.
#[wasm_bindgen]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
