//! All tests of the built command in one program: `cargo test --test command generate::` runs those of `generate`.

mod bench;
mod common;
mod eval;
mod generate;
mod inspect;
mod memory;
mod merge;
mod mistakes;
mod quantize;
mod score;
mod train;
