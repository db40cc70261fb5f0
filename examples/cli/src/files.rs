//! Files that commands write where the user says.

use std::fs;
use std::path::{Path, PathBuf};

use bolmo_runtime::{Error, ErrorKind, Result};

/// Refuses a place that cannot be written to, before the long work.
pub fn check_target(path: &Path) -> Result<()> {
    if path.is_dir() || path.file_name().is_none() {
        return Err(invalid(format!("{}: is a folder; name a file", path.display())));
    }
    let folder = folder_of(path);
    if !folder.is_dir() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{}: its folder does not exist; make it first", path.display()),
        ));
    }
    Ok(())
}

/// Lets `write` write a file beside `path`, which then takes its name in one step: nobody ever finds half of it there.
pub fn write<E: std::error::Error>(path: &Path, write: impl FnOnce(&Path) -> std::result::Result<(), E>) -> Result<()> {
    let partial = partial_name(path);
    let written = write(&partial)
        .map_err(|e| failed(path, "cannot be written", &e))
        .and_then(|()| fs::rename(&partial, path).map_err(|e| failed(path, "cannot be given its name", &e)));
    if written.is_err() {
        // The error that led here is the one to report.
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

/// A hidden name in the same folder, so that giving the file its name is one step. Two runs at once have two names.
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
