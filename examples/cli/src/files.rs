//! Files that commands write.

use std::fs;
use std::path::{Path, PathBuf};

use bolmo_runtime::{Error, ErrorKind, Result};

/// Rejects a path that cannot be written, before the long work begins.
pub fn check_target(path: &Path) -> Result<()> {
    if path.is_dir() || path.file_name().is_none() {
        return Err(invalid(format!("{}: is a folder; give the name of a file", path.display())));
    }
    // A device or a broken symbolic link must not be replaced by a file.
    if fs::symlink_metadata(path).is_ok() && !path.is_file() {
        return Err(invalid(format!("{}: is not a regular file; give the name of a file", path.display())));
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
/// A symbolic link stays, and its target is replaced.
pub fn write<E: std::error::Error>(path: &Path, write: impl FnOnce(&Path) -> std::result::Result<(), E>) -> Result<()> {
    let target = target(path);
    let partial = partial_name(&target);
    let written = write(&partial).map_err(|e| failed(path, "cannot be written", &e)).and_then(|()| {
        fs::rename(&partial, &target).map_err(|e| failed(path, "cannot be renamed from its temporary name", &e))
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// The file that `path` names: the target of a symbolic link, else `path` itself.
pub fn target(path: &Path) -> PathBuf {
    match fs::canonicalize(path) {
        Ok(target) if path.is_symlink() => target,
        _ => path.to_owned(),
    }
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_stays_and_its_target_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check_target(&link).unwrap();
        write(&link, |partial| fs::write(partial, "after")).unwrap();
        assert!(link.is_symlink() && !file.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), "after");
    }

    #[test]
    fn only_regular_files_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let nothing = folder.path().join("nothing");
        std::os::unix::fs::symlink(folder.path().join("nowhere"), &nothing).unwrap();
        for path in [Path::new("/dev/null"), link.as_path(), nothing.as_path()] {
            let error = check_target(path).unwrap_err();
            assert!(error.message().contains("is not a regular file"), "{}", error.message());
        }
        check_target(&folder.path().join("new")).unwrap();
    }
}
