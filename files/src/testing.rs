//! What several tests need.

use std::fs;
use std::path::Path;

/// Names of the entries of a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut all: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}
