//! Temporary files and folders: hidden names beside their target, locked while their run is alive.
//!
//! The lock is advisory and ends with the process, however that ends. A temporary whose lock is free was left by a run
//! that was killed. Where a file system has no locks, temporaries are not locked and none are removed.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Part of the names between the target's name and a number.
const INFIX: &str = ".partial-";
/// Longest part of a target's name in the name of a temporary, so that it stays within the limits of file systems.
const LONGEST_NAME: usize = 180;
/// Name of the lock in a temporary folder.
const LOCK: &str = "lock";
/// Name of the folder under construction in a temporary folder.
const NEW: &str = "new";
/// Name of the replaced folder in a temporary folder.
const OLD: &str = "old";
/// Name of a file that says that the temporary folder must not be removed.
const KEPT: &str = "kept";

/// The beginning of the names of temporaries for this target.
fn prefix(target: &OsStr) -> String {
    let name = target.to_string_lossy();
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!(".{}{INFIX}", name.get(..end).unwrap_or_default())
}

/// A name that was never used before. Otherwise a check that a locked file is still at its path could find another
/// file.
fn new_path(parent: &Path, target: &OsStr) -> PathBuf {
    parent.join(format!("{}{:016x}", prefix(target), RandomState::new().hash_one(0)))
}

/// Whether the name is the prefix and a hexadecimal number.
fn matches(name: &OsStr, prefix: &str) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(prefix));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether a name is that of a temporary of some target.
pub fn is_temporary(name: &OsStr) -> bool {
    target_of(name).is_some()
}

/// The name of the target in the name of a temporary.
fn target_of(name: &OsStr) -> Option<&str> {
    let (target, _) = name.to_str()?.strip_prefix('.')?.rsplit_once(INFIX)?;
    matches(name, &format!(".{target}{INFIX}")).then_some(target)
}

/// Takes the lock of a new file. Returns `false` if another run removes the file.
fn take(file: &File, path: &Path) -> bool {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => false,
        // Another run may have found the file before it was locked. Without locks, nobody removes it.
        Ok(()) | Err(TryLockError::Error(_)) => path.exists(),
    }
}

/// A temporary file. Dropping it removes it, unless it was renamed.
pub(crate) struct TemporaryFile {
    path: PathBuf,
    pub file: File,
    armed: bool,
}

impl TemporaryFile {
    /// Creates a file beside `target`, whose run holds its lock.
    pub fn beside(parent: &Path, target: &OsStr) -> io::Result<Self> {
        loop {
            let path = new_path(parent, target);
            match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
                Ok(file) if take(&file, &path) => return Ok(Self { path, file, armed: true }),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Renames the file to `target`. The lock is held until then.
    pub fn rename(mut self, target: &Path) -> Result<(), (Self, io::Error)> {
        match fs::rename(&self.path, target) {
            Ok(()) => {
                self.armed = false;
                Ok(())
            }
            Err(e) => Err((self, e)),
        }
    }

    /// Leaves the file for good, under a name that no run removes.
    pub fn keep(mut self, target: &Path) -> io::Result<PathBuf> {
        let number = RandomState::new().hash_one(0);
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let kept = target.with_file_name(format!("{name}.kept-{number:016x}"));
        fs::rename(&self.path, &kept)?;
        self.armed = false;
        Ok(kept)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if self.armed {
            // The caller reports the first error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A temporary folder with a lock and the folder under construction. Dropping it removes it with its contents.
pub(crate) struct TemporaryFolder {
    pub path: PathBuf,
    _lock: Option<File>,
    armed: bool,
}

impl TemporaryFolder {
    /// Creates a temporary folder for the target `name` in `parent`, and the folder under construction in it.
    pub fn create(parent: &Path, name: &OsStr) -> io::Result<Self> {
        loop {
            let path = new_path(parent, name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e),
            }
            let lock = OpenOptions::new().read(true).write(true).create_new(true).open(path.join(LOCK));
            match lock {
                Ok(file) if take(&file, &path.join(LOCK)) => {
                    let this = Self { path, _lock: Some(file), armed: true };
                    fs::create_dir(this.new_folder())?;
                    return Ok(this);
                }
                // Another run removed the folder before it was locked.
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => {
                    let _ = fs::remove_dir(&path);
                    return Err(e);
                }
            }
        }
    }

    /// Path of the folder under construction.
    pub fn new_folder(&self) -> PathBuf {
        self.path.join(NEW)
    }

    /// Path for the folder that is replaced.
    pub fn old_folder(&self) -> PathBuf {
        self.path.join(OLD)
    }

    /// Leaves the folder where it is, for good, and returns the path of the folder under construction.
    pub fn keep(&mut self) -> PathBuf {
        self.armed = false;
        // Without this file, the next run would take the folder for one of a run that was killed.
        let _ = fs::write(self.path.join(KEPT), "This folder is complete, but could not be moved to its target.\n");
        self.new_folder()
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if self.armed {
            // The lock is held until the folder is gone: a run that has just created it must not take the lock of a
            // folder that is being removed. The caller reports the first error.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the temporaries of runs that were killed from the folder `parent`: those of the targets for whose names
/// `of` returns `true`. Errors are ignored: what cannot be removed is left to a later run.
pub fn remove_abandoned(parent: &Path, of: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if target_of(&name).is_some_and(&of) {
            remove(&entry.path(), None);
        }
    }
}

/// Removes the temporaries of runs that were killed for the target `name` in `parent`, and returns those that are in
/// use. A run that was killed while it replaced a folder is completed.
pub(crate) fn sweep(parent: &Path, name: &OsStr) -> Vec<PathBuf> {
    let prefix = prefix(name);
    let mut left = Vec::new();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if matches(&entry.file_name(), &prefix) {
            let path = entry.path();
            remove(&path, Some(&parent.join(name)));
            if path.exists() && !path.join(KEPT).exists() {
                left.push(path);
            }
        }
    }
    left
}

/// Removes a temporary, unless its run is alive.
fn remove(path: &Path, target: Option<&Path>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let lock = if metadata.is_dir() { path.join(LOCK) } else { path.to_owned() };
    if !metadata.is_dir() && !metadata.is_file() || path.join(KEPT).exists() {
        return;
    }
    let held = match OpenOptions::new().read(true).write(true).open(&lock) {
        Ok(file) if file.try_lock().is_ok() => Some(file),
        Err(e) if e.kind() == ErrorKind::NotFound && metadata.is_dir() => {
            // An empty folder may be one whose lock is about to be created. Its run then takes another name. A folder
            // with contents has lost its lock to a removal that was interrupted, or is of a version without locks.
            if fs::remove_dir(path).is_ok() || lock.exists() {
                return;
            }
            None
        }
        _ => return,
    };
    if metadata.is_file() {
        // The name is removed, not the file: it may have been renamed to its target in the meantime.
        let _ = fs::remove_file(path);
        return;
    }
    if let Some(target) = target.filter(|target| path.join(OLD).exists() && !target.exists()) {
        // The run was killed between two renames, so the new folder is complete.
        if fs::rename(path.join(NEW), target).is_err() && fs::rename(path.join(OLD), target).is_err() {
            return;
        }
    }
    drop(TemporaryFolder { path: path.to_owned(), _lock: held, armed: true });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::names;

    #[test]
    fn only_temporaries_of_dead_runs_and_of_this_target_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path();
        let name = OsStr::new("out");
        let live = TemporaryFile::beside(parent, name).unwrap();
        let mut live_folder = TemporaryFolder::create(parent, name).unwrap();
        fs::write(live_folder.new_folder().join("x"), "x").unwrap();
        // As a killed run leaves them.
        for dead in [".out.partial-12ab", ".other.partial-12ab", ".out.partial-notes", ".out.partial-"] {
            fs::write(parent.join(dead), "x").unwrap();
        }
        for dead in [".out.partial-0", ".out.partial-77", ".out.partial-88"] {
            fs::create_dir(parent.join(dead)).unwrap();
        }
        fs::write(parent.join(".out.partial-77/lock"), "").unwrap();
        fs::create_dir(parent.join(".out.partial-77/new")).unwrap();
        fs::write(parent.join(".out.partial-77/new/model"), "x").unwrap();
        fs::write(parent.join(".out.partial-88/model"), "x").unwrap();
        let mut left = sweep(parent, name);
        left.sort();
        let mut alive = [live.path.clone(), live_folder.path.clone()];
        alive.sort();
        assert_eq!(left, alive);
        assert_eq!(names(parent).len(), 5, "{:?}", names(parent));
        assert!(live_folder.new_folder().join("x").exists());
        // A folder that was kept stays.
        let kept = live_folder.keep();
        drop(live);
        drop(live_folder);
        assert!(sweep(parent, name).is_empty());
        assert!(kept.join("x").exists());
        remove_abandoned(parent, |target| target == "other");
        assert_eq!(names(parent).len(), 3, "{:?}", names(parent));
    }

    #[test]
    fn a_replacement_that_was_killed_between_two_renames_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path();
        for (inside, expected) in [(&["old", "new"][..], "new"), (&["old"], "old")] {
            let dead = parent.join(".out.partial-1");
            for name in inside {
                fs::create_dir_all(dead.join(name)).unwrap();
                fs::write(dead.join(name).join(name), "x").unwrap();
            }
            fs::write(dead.join("lock"), "").unwrap();
            sweep(parent, OsStr::new("out"));
            assert_eq!(names(parent), ["out"]);
            assert_eq!(names(&parent.join("out")), [expected]);
            fs::remove_dir_all(parent.join("out")).unwrap();
        }
    }

    #[test]
    fn runs_that_start_together_never_take_each_others_temporaries() {
        let folder = tempfile::tempdir().unwrap();
        let name = OsStr::new("out");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        sweep(folder.path(), name);
                        let file = TemporaryFile::beside(folder.path(), name).unwrap();
                        let whole = TemporaryFolder::create(folder.path(), name).unwrap();
                        sweep(folder.path(), name);
                        assert!(file.path.exists() && whole.new_folder().exists());
                    }
                });
            }
        });
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn a_long_name_still_has_a_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let name = "é".repeat(125);
        drop(TemporaryFile::beside(folder.path(), OsStr::new(&name)).unwrap());
    }
}
