#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod error;
mod file;
mod folder;
mod manifest;
mod place;
mod regular;
mod space;
mod temporary;

#[cfg(test)]
mod folder_tests;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};
pub use file::{check, write};
pub use folder::{PartialFolder, Replaces, Target};
pub use manifest::{MANIFEST, MARKER};
pub use regular::open_regular;
pub use space::{check_space, free_bytes, with_free_bytes};
pub use temporary::{is_temporary, remove_abandoned};
