//! The lock of a run's folder: two runs must not write to it at the same time.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use bolmo_runtime::unstable::output::io_error;
use bolmo_runtime::{Error, ErrorKind, Result};

/// Name of the locked file. It holds the id of the process.
const FILE: &str = "run.lock";
/// Longest content that is read: the id of another process.
const LONGEST: u64 = 32;
/// Number of times that the file may turn out to be deleted while it is opened.
const ATTEMPTS: usize = 100;

/// A lock of the operating system on a file in a run's folder. It ends with the process, however that ends. Readers of
/// the other files don't need it.
#[derive(Debug)]
pub(super) struct RunLock {
    /// The locked file, or nothing if the file system has no locks.
    file: Option<File>,
    path: PathBuf,
    /// Folders that were created for the run, the innermost first.
    created: Vec<PathBuf>,
}

impl RunLock {
    /// Locks the folder `out`, which is created if necessary.
    ///
    /// # Errors
    /// `Busy` if another run holds the lock, and `Io`.
    pub(super) fn acquire(out: &Path) -> Result<Self> {
        let missing = out.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let mut this = Self { file: None, path: out.join(FILE), created: missing.map(Path::to_owned).collect() };
        fs::create_dir_all(out).map_err(|e| io_error(out, "cannot be created", &e))?;
        for _ in 0..ATTEMPTS {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            let mut file = options.open(&this.path).map_err(|e| io_error(&this.path, "cannot be opened", &e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(busy(out, &file)),
                // Some network file systems have no locks. A run there is worth more than the lock.
                Err(TryLockError::Error(_)) => return Ok(this),
            }
            // A run that ended in the meantime has deleted the file that was opened.
            if !is_at(&file, &this.path) {
                continue;
            }
            // Only a message of another run reads the id.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            this.file = Some(file);
            return Ok(this);
        }
        Err(Error::io(format!("{}: cannot be locked: other runs keep deleting it; try again", this.path.display())))
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        // The file is deleted while it is locked. Where that is impossible it stays, without an id.
        let _ = file.set_len(0);
        let _ = fs::remove_file(&self.path);
        drop(file);
        // A run that did not begin leaves no folder. One with files in it is not removed.
        for folder in &self.created {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }
}

/// The error of a folder that another run uses.
fn busy(out: &Path, file: &File) -> Error {
    let mut text = String::new();
    // Some systems don't let others read a locked file.
    let _ = file.take(LONGEST).read_to_string(&mut text);
    let process = match text.trim().parse::<u32>() {
        Ok(id) => format!("process {id}"),
        Err(_) => "another process".to_owned(),
    };
    Error::new(
        ErrorKind::Busy,
        format!(
            "{}: the run is in use by {process}; wait for it or end it, or name another folder with `out`",
            out.display()
        ),
    )
}

/// Whether an open file is the one at a path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Whether an open file is the one at a path.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_run_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("runs/first");
        let lock = RunLock::acquire(&out).unwrap();
        let error = RunLock::acquire(&out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        let named = format!("in use by process {}", std::process::id());
        assert!(cfg!(windows) || error.message().contains(&named), "{error}");
        assert!(error.message().starts_with(&out.display().to_string()), "{error}");
        // The same folder under another name.
        let again = out.join("../first");
        assert_eq!(RunLock::acquire(&again).unwrap_err().kind(), ErrorKind::Busy);
        // Another folder is free.
        RunLock::acquire(&dir.path().join("runs/second")).unwrap();
        assert!(!dir.path().join("runs/second").exists() && out.exists());
        fs::write(out.join("metrics.jsonl"), "").unwrap();
        drop(lock);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
        RunLock::acquire(&out).unwrap();
        assert!(out.exists());
    }

    #[test]
    fn the_id_of_a_killed_run_does_not_lock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "123456789012345678901234567890\n").unwrap();
        let _lock = RunLock::acquire(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE));
        assert!(cfg!(windows) || text.unwrap() == format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_run_that_did_not_begin_leaves_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        drop(RunLock::acquire(&dir.path().join("a/b/c")).unwrap());
        assert!(!dir.path().join("a").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_replaced_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        let other = File::create(&path).unwrap();
        assert!(is_at(&other, &path) && !is_at(&file, &path));
    }

    /// Runs that start and end all the time never overlap, although each deletes the file.
    #[test]
    fn runs_in_turn_never_overlap() {
        let dir = tempfile::tempdir().unwrap();
        let holders = std::sync::atomic::AtomicU32::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        if let Ok(lock) = RunLock::acquire(dir.path()) {
                            assert_eq!(holders.fetch_add(1, order), 0);
                            std::thread::sleep(std::time::Duration::from_micros(50));
                            holders.fetch_sub(1, order);
                            drop(lock);
                        }
                    }
                });
            }
        });
    }
}
