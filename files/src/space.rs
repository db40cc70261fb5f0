//! Free space of file systems.

use std::cell::Cell;
use std::path::Path;

use crate::error::{Error, Result};

thread_local! {
    /// What [`free_bytes`] returns on this thread instead of the truth.
    static ASSUMED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Returns the free space of the file system that holds `path`, which need not exist. `None` where it is unknown: on
/// systems other than Unix, and for file systems that don't say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    ASSUMED.get().or_else(|| measured(path))
}

/// Checks that `needed` bytes can be written to `path`.
///
/// # Errors
/// `NoSpace` if the file system is known to have less.
pub fn check_space(path: &Path, needed: u64) -> Result<()> {
    match free_bytes(path) {
        Some(free) if free < needed => Err(Error::NoSpace { path: path.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// Runs `work` as if every file system had `free` bytes left, for checks on this thread. For tests.
#[doc(hidden)]
pub fn with_free_bytes<T>(free: u64, work: impl FnOnce() -> T) -> T {
    struct Reset(Option<u64>);
    impl Drop for Reset {
        fn drop(&mut self) {
            ASSUMED.set(self.0);
        }
    }
    let _reset = Reset(ASSUMED.replace(Some(free)));
    work()
}

#[cfg(unix)]
fn measured(path: &Path) -> Option<u64> {
    // Of a path that does not exist yet, the next folder above it counts.
    let here = Path::new(".");
    let place = path.ancestors().map(|path| if path.as_os_str().is_empty() { here } else { path });
    let found = place.into_iter().find_map(|path| rustix::fs::statvfs(path).ok())?;
    // Some file systems have no notion of size.
    if found.f_blocks == 0 {
        return None;
    }
    // The last blocks are reserved for root.
    let blocks = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
    Some(blocks.saturating_mul(found.f_frsize))
}

#[cfg(not(unix))]
fn measured(_path: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_is_an_error_with_both_numbers() {
        let place = Path::new("somewhere/new");
        let error = with_free_bytes(999, || check_space(place, 1000)).unwrap_err();
        for words in ["somewhere/new", "1000 bytes", "999 bytes free"] {
            assert!(error.to_string().contains(words), "{error} lacks {words}");
        }
        with_free_bytes(1000, || check_space(place, 1000)).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn free_space_is_that_of_the_next_folder_that_exists() {
        let folder = tempfile::tempdir().unwrap();
        let free = free_bytes(&folder.path().join("not/there/yet")).unwrap();
        assert!(free > 0);
        check_space(folder.path(), 1).unwrap();
        assert!(check_space(&folder.path().join("not/there"), u64::MAX).is_err());
        assert!(free_bytes(Path::new("not-there")).is_some());
    }
}
