//! Writing a file.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::place::{parent_of, resolve, same_owner};
use crate::space::check_space;
use crate::temporary::{TemporaryFile, sweep};

/// What a path names.
enum Place {
    /// A regular file or nothing, by its path without symbolic links.
    Regular(PathBuf),
    /// A device, a pipe or a socket, which is opened by its own path.
    Special,
    /// An open file of this process, such as `/dev/stdout`.
    Open(Stream),
}

/// A standard stream.
#[derive(Clone, Copy)]
enum Stream {
    Output,
    Error,
}

/// Checks that [`write`] can write about `bytes` bytes to `path`, before the work whose result they will be.
///
/// # Errors
/// `IsFolder`, `NoFolder` for a file in a folder that does not exist, `Io` for one that must not be written, `NoSpace`
/// if the file system has less than `bytes` bytes free.
pub fn check(path: &Path, bytes: u64) -> Result<()> {
    let failed = |e| Error::io(path, "cannot be written", e);
    if path.is_dir() || path.file_name().is_none() || ends_with_separator(path) {
        return Err(Error::IsFolder(path.to_owned()));
    }
    let Place::Regular(target) = place(path).map_err(failed)? else { return Ok(()) };
    let folder = parent_of(&target);
    if !folder.is_dir() {
        return Err(Error::NoFolder(path.to_owned()));
    }
    check_space(folder, bytes).map_err(|e| e.of(path))?;
    let existing = open_existing(&target).map_err(failed)?;
    match TemporaryFile::beside(folder, name_of(&target)) {
        Err(e) if existing.is_none() || !in_place_instead(&e) => Err(failed(e)),
        _ => Ok(()),
    }
}

/// Writes the file `path` with `fill`, which writes about `bytes` bytes.
///
/// A new or a regular file is written under a temporary name and then renamed, so that nobody sees half of it and an
/// interrupted run leaves the old one. It keeps its mode; a new one gets the mode that the process's mask leaves. A
/// file is written in place if its folder does not allow anything else. Symbolic links are followed, also to a file
/// that does not exist. Anything else, such as a device or a pipe, is opened and written into.
///
/// # Errors
/// Those of the system and of `fill`; `StorageFull` if the file system has less than `bytes` bytes free.
pub fn write(path: &Path, bytes: u64, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let target = match place(path)? {
        Place::Regular(target) => target,
        Place::Special => {
            let mut file = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            fill(&mut file)?;
            return file.flush();
        }
        Place::Open(Stream::Output) => return fill_stream(io::stdout().lock(), fill),
        Place::Open(Stream::Error) => return fill_stream(io::stderr().lock(), fill),
    };
    if ends_with_separator(path) {
        return Err(ErrorKind::IsADirectory.into());
    }
    let folder = parent_of(&target);
    sweep(folder, name_of(&target));
    check_space(folder, bytes).map_err(|e| match e {
        Error::NoSpace { needed, free, .. } => io::Error::new(
            ErrorKind::StorageFull,
            format!("{needed} bytes are needed, but the file system has {free} bytes free; free some space"),
        ),
        e => io::Error::other(e),
    })?;
    let existing = open_existing(&target)?;
    let temporary = match TemporaryFile::beside(folder, name_of(&target)) {
        Ok(temporary) => temporary,
        Err(e) => match existing {
            Some(file) if in_place_instead(&e) => {
                file.set_len(0)?;
                return fill_file(&file, fill);
            }
            _ => return Err(e),
        },
    };
    if let Some(existing) = &existing {
        let metadata = existing.metadata()?;
        let ours = same_owner(&temporary.file.metadata()?, &metadata) || take_owner(&temporary.file, &metadata);
        if !ours {
            // Only in place does the file remain its owner's.
            existing.set_len(0)?;
            return fill_file(existing, fill);
        }
        temporary.file.set_permissions(metadata.permissions())?;
    }
    fill_file(&temporary.file, fill)?;
    match (temporary.rename(&target), existing) {
        (Ok(()), _) => Ok(()),
        // A file may be a mount point.
        (Err((mut temporary, _)), Some(mut existing)) => {
            temporary.file.seek(SeekFrom::Start(0))?;
            let copied = existing
                .set_len(0)
                .and_then(|()| io::copy(&mut temporary.file, &mut existing))
                .and_then(|_| existing.sync_all());
            copied.map_err(|e| match temporary.keep(&target) {
                Ok(kept) => io::Error::new(e.kind(), format!("{e}; the finished file was kept as {}", kept.display())),
                Err(_) => e,
            })
        }
        (Err((_, e)), None) => Err(e),
    }
}

fn fill_file(file: &File, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut buffered = BufWriter::with_capacity(1 << 16, file);
    fill(&mut buffered)?;
    buffered.flush()?;
    // Some systems report a full disk only here.
    file.sync_all()
}

fn fill_stream(mut stream: impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    fill(&mut stream)?;
    stream.flush()
}

/// Opens the file for writing, if there is one, without changing it. A file that must not be written is not replaced
/// either.
fn open_existing(target: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).open(target) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a file that exists is written in place after this error about a new one beside it.
fn in_place_instead(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Gives a new file to the owner of the one that it will replace.
fn take_owner(file: &File, of: &fs::Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};

        fchown(file, Some(of.uid()), Some(of.gid())).is_ok()
    }
    #[cfg(not(unix))]
    {
        let _ = (file, of);
        true
    }
}

fn name_of(target: &Path) -> &OsStr {
    target.file_name().unwrap_or_default()
}

fn ends_with_separator(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().last().is_some_and(|&last| std::path::is_separator(char::from(last)))
}

/// Finds out what a path names.
fn place(path: &Path) -> io::Result<Place> {
    match process_file(path) {
        Some(number) if number == "1" => return Ok(Place::Open(Stream::Output)),
        Some(number) if number == "2" => return Ok(Place::Open(Stream::Error)),
        // Its former name may belong to another file by now.
        Some(_) => return Ok(Place::Special),
        None => {}
    }
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() && !metadata.is_dir() => Ok(Place::Special),
        _ => resolve(path)?.map(Place::Regular).ok_or_else(|| ErrorKind::IsADirectory.into()),
    }
}

/// The number of an open file of this process, if the path leads to one, as `/dev/stdout` and `/dev/fd/3` do.
#[cfg(unix)]
fn process_file(path: &Path) -> Option<std::ffi::OsString> {
    let folders = ["/proc/self/fd", "/dev/fd"].map(|folder| fs::canonicalize(folder).ok());
    let mut path = path.to_owned();
    // As many links as the kernel follows.
    for _ in 0..40 {
        let folder = fs::canonicalize(parent_of(&path)).ok();
        if folder.is_some() && folders.contains(&folder) {
            return path.file_name().map(OsStr::to_owned);
        }
        path = parent_of(&path).join(fs::read_link(&path).ok()?);
    }
    None
}

#[cfg(not(unix))]
fn process_file(_path: &Path) -> Option<std::ffi::OsString> {
    None
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::testing::names;

    fn put(path: &Path, text: &str) -> io::Result<()> {
        write(path, text.len() as u64, |file| file.write_all(text.as_bytes()))
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        put(&file, "before").unwrap();
        put(&file, "now").unwrap();
        let failed = write(&file, 3, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "now");
        let error = crate::with_free_bytes(5, || put(&file, "longer")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        for words in ["6 bytes are needed", "5 bytes free"] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), names(folder.path())), ("now", vec!["file".into()]));
    }

    #[test]
    fn temporaries_of_killed_runs_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for dead in [".file.partial-4711", ".file.partial-00ff00ff00ff00ff"] {
            fs::write(folder.path().join(dead), "gigabytes").unwrap();
        }
        put(&folder.path().join("file"), "x").unwrap();
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn folders_and_files_in_missing_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let slash = format!("{}/new/", folder.path().display());
        for path in [folder.path(), Path::new(".."), Path::new("/"), Path::new(&slash)] {
            assert!(matches!(check(path, 0), Err(Error::IsFolder(_))), "{}", path.display());
            assert!(put(path, "x").is_err());
        }
        let missing = folder.path().join("missing/file");
        assert!(matches!(check(&missing, 0), Err(Error::NoFolder(path)) if path == missing));
        assert_eq!(put(&missing, "x").unwrap_err().kind(), ErrorKind::NotFound);
        check(&folder.path().join("new"), 0).unwrap();
        assert!(names(folder.path()).is_empty());
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

        use super::*;

        fn mode(path: &Path) -> u32 {
            fs::metadata(path).unwrap().permissions().mode() & 0o7777
        }

        #[test]
        fn symbolic_links_stay_and_lead_to_the_file() {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("deep")).unwrap();
            fs::write(at("deep/file"), "before").unwrap();
            symlink("deep/file", at("link")).unwrap();
            symlink("deep/new", at("dangling")).unwrap();
            symlink(at("dangling"), at("twice")).unwrap();
            for (link, file) in [("link", "deep/file"), ("dangling", "deep/new"), ("twice", "deep/new")] {
                check(&at(link), 0).unwrap();
                put(&at(link), link).unwrap();
                assert!(at(link).is_symlink() && !at(file).is_symlink());
                assert_eq!(fs::read_to_string(at(file)).unwrap(), link);
            }
            symlink("nowhere/new", at("lost")).unwrap();
            assert!(matches!(check(&at("lost"), 0), Err(Error::NoFolder(_))));
            symlink("circle", at("circle")).unwrap();
            assert!(check(&at("circle"), 0).is_err() && put(&at("circle"), "x").is_err());
        }

        #[test]
        fn an_existing_file_keeps_its_mode_and_its_owner() {
            let folder = tempfile::tempdir().unwrap();
            let (plain, file) = (folder.path().join("plain"), folder.path().join("file"));
            fs::write(&plain, "as other programs do").unwrap();
            put(&file, "new").unwrap();
            assert_eq!(mode(&file), mode(&plain));
            fs::set_permissions(&file, fs::Permissions::from_mode(0o642)).unwrap();
            // Only root can give files away.
            let given = std::os::unix::fs::chown(&file, Some(12), Some(34)).is_ok();
            put(&file, "again").unwrap();
            assert_eq!(mode(&file), 0o642);
            if given {
                let metadata = fs::metadata(&file).unwrap();
                assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
            }
        }

        #[test]
        fn devices_and_pipes_are_written_into() {
            let folder = tempfile::tempdir().unwrap();
            let link = folder.path().join("link");
            symlink("/dev/null", &link).unwrap();
            for device in [Path::new("/dev/null"), &link] {
                check(device, 0).unwrap();
                put(device, "x").unwrap();
                assert!(fs::metadata(device).unwrap().file_type().is_char_device());
            }
            let pipe = folder.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
            assert!(made.success());
            check(&pipe, 0).unwrap();
            let text = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    let mut text = String::new();
                    File::open(&pipe).unwrap().read_to_string(&mut text).unwrap();
                    text
                });
                put(&pipe, "through the pipe").unwrap();
                reader.join().unwrap()
            });
            assert_eq!(text, "through the pipe");
            assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
            assert_eq!(names(folder.path()), ["link", "pipe"]);
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn a_full_device_is_an_error() {
            check(Path::new("/dev/full"), 0).unwrap();
            assert_eq!(put(Path::new("/dev/full"), "x").unwrap_err().kind(), ErrorKind::StorageFull);
            assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn open_files_are_told_from_files_by_name() {
            for (path, number) in [("/dev/stdout", "1"), ("/dev/stderr", "2"), ("/proc/self/fd/7", "7")] {
                assert_eq!(process_file(Path::new(path)).unwrap(), number);
            }
            assert!(matches!(place(Path::new("/dev/stdout")), Ok(Place::Open(Stream::Output))));
            assert!(process_file(Path::new("/dev/null")).is_none() && process_file(Path::new("file")).is_none());
        }

        /// The folder does not allow new files, but the file may be written. Root may write everywhere.
        #[test]
        fn a_file_in_a_folder_without_permission_is_written_in_place() {
            let folder = tempfile::tempdir().unwrap();
            let (file, new) = (folder.path().join("file"), folder.path().join("new"));
            fs::write(&file, "a long text before").unwrap();
            let inode = fs::metadata(&file).unwrap().ino();
            let allow = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            allow(0o555);
            let root = File::create(folder.path().join("probe")).is_ok();
            let (checked, put, refused) = (check(&file, 0), put(&file, "now"), check(&new, 0));
            allow(0o755);
            if root {
                println!("skipped: this user may write everywhere");
                return;
            }
            checked.unwrap();
            put.unwrap();
            assert!(refused.is_err());
            assert_eq!(
                (fs::read_to_string(&file).unwrap().as_str(), fs::metadata(&file).unwrap().ino()),
                ("now", inode)
            );
        }
    }
}
