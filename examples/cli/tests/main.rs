//! All tests of the built command in one program: `cargo test --test command generate::` runs those of `generate`.

mod bench;
mod common;
mod configurations;
mod eval;
#[cfg(unix)]
mod files;
mod generate;
mod inputs;
mod inspect;
mod interrupt;
mod memory;
mod merge;
mod mistakes;
mod options;
mod quantize;
mod score;
mod train;
