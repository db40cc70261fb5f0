//! Regular files, opened without waiting and read with a bound.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind as IoKind, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::input::foreign::{START_BYTES, foreign};

/// Opens a regular file. Returns `None` if the path does not exist.
///
/// A FIFO or a device is refused before it is opened: opening it may wait forever, and reading it may never end.
///
/// # Errors
/// `Io` for a folder, a FIFO, a socket or a device, and for a file that cannot be opened; `NotFound` for a link to a
/// file that does not exist.
pub fn open_file(path: impl AsRef<Path>) -> Result<Option<File>> {
    let path = path.as_ref();
    let error = match bolmo_files::open_regular(path) {
        Ok(file) => return Ok(Some(file)),
        Err(error) => error,
    };
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::io(format!("{}: must be a file, found {}; check the path", path.display(), kind(&metadata))))
        }
        _ if error.kind() == IoKind::NotFound => match fs::read_link(path) {
            Ok(target) => Err(Error::not_found(format!(
                "{}: is a link to {}, which does not exist; fetch the file again",
                path.display(),
                target.display()
            ))),
            Err(_) => Ok(None),
        },
        _ => {
            Err(Error::io(format!("{}: cannot be opened: {error}; check the path and its permissions", path.display())))
        }
    }
}

/// Whether a path exists or is a link to something that does not: a missing file is reported otherwise than a broken
/// link.
pub fn exists_or_is_link(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Reads a regular file of at most `max_bytes`. Returns `None` if the path does not exist.
///
/// # Errors
/// Those of [`open_file`], `Io` if reading fails, and `BadCheckpoint` for a longer file.
pub fn read_file(path: impl AsRef<Path>, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let path = path.as_ref();
    let Some(mut file) = open_file(path)? else { return Ok(None) };
    let failed = |error| Error::io(format!("{}: cannot be read: {error}", path.display()));
    let length = file.metadata().map_err(failed)?.len();
    let mut contents = Vec::new();
    // The beginning tells what a file is that is too long. The limit also applies while reading: the length of a file
    // that grows, or of one that the kernel makes up, says nothing.
    let bound = if length > max_bytes { START_BYTES as u64 } else { max_bytes.saturating_add(1) };
    Read::by_ref(&mut file).take(bound).read_to_end(&mut contents).map_err(failed)?;
    if length.max(contents.len() as u64) <= max_bytes {
        return Ok(Some(contents));
    }
    let what = foreign(&contents)
        .unwrap_or_else(|| format!("is longer than {max_bytes} bytes, the maximum of such a file; check the path"));
    Err(Error::bad_checkpoint(format!("{}: {what}", path.display())))
}

/// What the path of `metadata` is, with its article.
pub fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    match (kind.is_file(), kind.is_dir()) {
        (true, _) => "a file",
        (_, true) => "a folder",
        _ => "neither a file nor a folder",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn files_are_read_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(read_file(&path, 10).unwrap().is_none());
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_file(&path, 10).unwrap().unwrap(), b"0123456789");
        let error = read_file(&path, 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadCheckpoint);
        assert!(error.message().contains("longer than 9 bytes"), "{error}");
        fs::write(&path, "GGUF, and so on").unwrap();
        assert!(read_file(&path, 9).unwrap_err().message().contains("GGUF"));
        let error = read_file(folder.path(), 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.message().contains("must be a file, found a folder"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn fifos_devices_and_broken_links_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let fifo = std::ffi::CString::new(path("fifo").to_str().unwrap()).unwrap();
        // SAFETY: the path is a string with a final NUL.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
        std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("fifo"), path("link to fifo")).unwrap();
        for (path, kind, words) in [
            (path("fifo"), ErrorKind::Io, "found a FIFO"),
            (path("link to fifo"), ErrorKind::Io, "found a FIFO"),
            (path("socket"), ErrorKind::Io, "found a socket"),
            ("/dev/zero".into(), ErrorKind::Io, "found a device"),
            (path("link"), ErrorKind::NotFound, "nowhere, which does not exist"),
        ] {
            let error = read_file(&path, 10).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(words), "{error}");
        }
    }
}
