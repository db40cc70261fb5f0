//! Files that commands write.

use std::fs;
use std::path::{Path, PathBuf};

use bolmo_runtime::{Error, ErrorKind, Result};

/// Rejects a path that cannot be written, before the long work begins.
pub fn check_target(path: &Path) -> Result<()> {
    if path.is_dir() || path.file_name().is_none() {
        return Err(invalid(format!("{}: is a folder; give the name of a file", path.display())));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{}: the folder does not exist; create it first", path.display()),
        ));
    }
    Ok(())
}

/// Lets `write` write a temporary file beside `path` and renames it to `path`, so that nobody ever sees half a file.
pub fn write<E: std::error::Error>(path: &Path, write: impl FnOnce(&Path) -> std::result::Result<(), E>) -> Result<()> {
    let partial = partial_name(path);
    let written = write(&partial).map_err(|e| failed(path, "cannot be written", &e)).and_then(|()| {
        fs::rename(&partial, path).map_err(|e| failed(path, "cannot be renamed from its temporary name", &e))
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A hidden name in the same folder, so that renaming is one step. Two simultaneous runs have two names.
fn partial_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.partial-{}", std::process::id()))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}

fn failed(path: &Path, what: &str, error: &dyn std::error::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{}: {what}: {error}", path.display()))
}
