//! Paths: what a name stands for, and where a folder can be replaced by renaming.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Number of symbolic links to follow, as in the kernel.
const MAX_LINKS: usize = 40;

/// Returns the folder of a path.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Returns the path without symbolic links, a trailing slash, `.` and `..`. What it names need not exist: a dangling
/// link is followed to the name that it stands for. `None` if there is no such name.
pub(crate) fn resolve(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::canonicalize(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            found => return found.map(Some),
        }
        // The components leave out a trailing slash, and `.`.
        path = path.components().collect();
        let Some(name) = path.file_name() else { return Ok(None) };
        match fs::read_link(&path) {
            Ok(link) => path = parent_of(&path).join(link),
            Err(_) => {
                return Ok(Some(match fs::canonicalize(parent_of(&path)) {
                    Ok(parent) => parent.join(name),
                    // The folder will be created.
                    Err(_) => path,
                }));
            }
        }
    }
    // As the kernel says of too many links.
    fs::canonicalize(&path).map(Some)
}

/// Whether a folder has to stay where it is: it is a mount point, or the current folder of this process, whose shell
/// would be left in a deleted folder.
pub(crate) fn must_stay(folder: &Path) -> bool {
    let current = std::env::current_dir().and_then(fs::canonicalize);
    current.is_ok_and(|current| current == folder) || is_mount_point(folder)
}

#[cfg(unix)]
fn is_mount_point(folder: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev()).ok();
    device(folder) != device(parent_of(folder)) || is_mount_root(folder)
}

/// Whether something of the same file system is mounted here, which only the kernel knows.
#[cfg(target_os = "linux")]
fn is_mount_root(folder: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

    statx(CWD, folder, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .is_ok_and(|status| status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_mount_root(_folder: &Path) -> bool {
    false
}

#[cfg(not(unix))]
fn is_mount_point(_folder: &Path) -> bool {
    false
}

/// Whether two files belong to the same user and group.
pub(crate) fn same_owner(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        (a.uid(), a.gid()) == (b.uid(), b.gid())
    }
    #[cfg(not(unix))]
    {
        let _ = (a, b);
        true
    }
}

/// Exchanges two folders in one step. `Unsupported` where the system has no such operation.
pub(crate) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;

        renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(|e| match e {
            // Older kernels and some file systems.
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => io::ErrorKind::Unsupported.into(),
            e => e.into(),
        })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = (a, b);
        Err(io::ErrorKind::Unsupported.into())
    }
}
