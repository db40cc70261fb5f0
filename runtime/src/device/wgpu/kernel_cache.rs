//! A cache of compiled kernels on disk, for drivers that export them.
//!
//! A file belongs to one adapter, driver and version of this crate. It begins with a checksum, because drivers trust
//! the data they are given. What is damaged, has another key, is too large or is no regular file is ignored and
//! replaced. The cache never makes a program fail.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::device::adapter::AdapterInfo;

const MAGIC: &[u8; 8] = b"bolmopc1";
/// Size above which a file is not read.
const MAX_BYTES: u64 = 256 << 20;
/// Age from which on an unfinished file belongs to a program that was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The kernel cache of a device.
#[derive(Debug)]
pub(super) struct DiskCache {
    pub(super) cache: wgpu::PipelineCache,
    file: PathBuf,
    key: String,
    /// Checksum of the file's contents, if they are usable.
    held: Mutex<Option<u128>>,
}

impl DiskCache {
    /// Opens the cache in `folder` for a device with the feature `PIPELINE_CACHE`.
    pub(super) fn open(device: &wgpu::Device, folder: &Path, adapter: &AdapterInfo) -> Self {
        let key = format!("{} {} {} {}", env!("CARGO_PKG_VERSION"), adapter.backend, adapter.name, adapter.driver);
        let file = folder.join(format!("kernels-{:032x}.bin", xxh3_128(key.as_bytes())));
        let data = read(&file, &key);
        if data.is_none() && file.exists() {
            log::warn!("{}: damaged or from another driver, replaced", file.display());
        }
        if let Some(data) = &data {
            log::debug!("{}: {} bytes of compiled kernels", file.display(), data.len());
        }
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some("kernels"), data: data.as_deref(), fallback: true };
        // SAFETY: the data comes from such a cache, with this driver and this version of the crate: the key and the
        // checksum of the file were checked.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Self { cache, file, held: Mutex::new(data.as_deref().map(|data| checksum(&key, data))), key }
    }

    /// Writes the file if its contents have changed.
    pub(super) fn save(&self) {
        let Some(data) = self.cache.get_data().filter(|data| !data.is_empty()) else { return };
        let new = checksum(&self.key, &data);
        let mut held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        if *held == Some(new) {
            return;
        }
        match write(&self.file, new, &data) {
            Ok(()) => {
                log::debug!("{}: {} bytes of compiled kernels saved", self.file.display(), data.len());
                *held = Some(new);
            }
            // The next program compiles the kernels again.
            Err(error) => log::warn!("{}: compiled kernels could not be saved: {error}", self.file.display()),
        }
    }
}

fn checksum(key: &str, data: &[u8]) -> u128 {
    let mut sum = Xxh3::new();
    sum.update(key.as_bytes());
    sum.update(data);
    sum.digest128()
}

/// The contents of the file, if it is complete and has this key.
fn read(file: &Path, key: &str) -> Option<Vec<u8>> {
    let opened = bolmo_files::open_regular(file).ok()?;
    let metadata = opened.metadata().ok()?;
    if metadata.len() > MAX_BYTES {
        return None;
    }
    let mut all = Vec::new();
    all.try_reserve_exact(metadata.len() as usize + 1).ok()?;
    // The file may grow meanwhile.
    opened.take(metadata.len()).read_to_end(&mut all).ok()?;
    let (sum, data) = all.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
    if u128::from_le_bytes(*sum) != checksum(key, data) {
        return None;
    }
    all.drain(..MAGIC.len() + 16);
    Some(all)
}

fn write(file: &Path, sum: u128, data: &[u8]) -> io::Result<()> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
        remove_abandoned(folder);
    }
    // Engines and programs may write at the same time: each uses a name of its own until the file is complete.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let new = file.with_extension(format!("{}-{count}.new", std::process::id()));
    let written = write_new(&new, &[MAGIC, &sum.to_le_bytes(), data]).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

/// Writes a file that must not exist.
fn write_new(file: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let create = || OpenOptions::new().write(true).create_new(true).open(file);
    let mut new = create().or_else(|error| match error.kind() {
        // A program with this number was killed.
        io::ErrorKind::AlreadyExists => fs::remove_file(file).and_then(|()| create()),
        _ => Err(error),
    })?;
    parts.iter().try_for_each(|part| new.write_all(part))
}

/// Removes unfinished files of programs that were killed.
fn remove_abandoned(folder: &Path) {
    let is_abandoned = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with("kernels-") && name.ends_with(".new"));
        let age = || entry.metadata().ok().filter(fs::Metadata::is_file)?.modified().ok()?.elapsed().ok();
        ours && age().is_some_and(|age| age > ABANDONED)
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().filter(is_abandoned) {
        // Another program may remove it at the same time.
        let _ = fs::remove_file(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_files_with_this_key_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("deeper").join("kernels.bin");
        let data: Vec<u8> = (0..100).collect();
        assert_eq!(read(&file, "a driver"), None);
        write(&file, checksum("a driver", &data), &data).expect("a file");
        assert_eq!(read(&file, "a driver").as_deref(), Some(&data[..]));
        assert_eq!(read(&file, "another driver"), None);
        let whole = fs::read(&file).expect("the file");
        for at in [0, 8, 20, 24, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&file, &damaged).expect("a file");
            assert_eq!(read(&file, "a driver"), None, "byte {at}");
        }
        for length in [0, 7, 8, 23, 24, whole.len() - 1] {
            fs::write(&file, &whole[..length]).expect("a file");
            assert_eq!(read(&file, "a driver"), None, "{length} bytes");
        }
        assert_eq!(
            fs::read_dir(file.parent().expect("a folder")).expect("a folder").count(),
            1,
            "no other file is left"
        );
    }
    #[test]
    fn unfinished_files_are_removed_once_they_are_old() {
        let dir = tempfile::tempdir().expect("a folder");
        let [old, new, other] = ["kernels-1.7-0.new", "kernels-1.8-0.new", "notes.new"].map(|n| dir.path().join(n));
        for file in [&old, &new, &other] {
            fs::write(file, "x").expect("a file");
        }
        let age = |file: &Path| {
            let long_ago = std::time::SystemTime::now() - 2 * ABANDONED;
            fs::File::options()
                .write(true)
                .open(file)
                .and_then(|file| file.set_modified(long_ago))
                .expect("an old file");
        };
        age(&old);
        age(&other);
        write(&dir.path().join("kernels-1.bin"), 1, b"data").expect("a file");
        assert_eq!([&old, &new, &other].map(|file| file.exists()), [false, true, true]);
    }

    #[test]
    fn what_was_left_under_the_temporary_name_is_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("kernels.new");
        fs::write(&file, "longer than what follows").expect("a file");
        write_new(&file, &[b"a", b"b"]).expect("a file");
        assert_eq!(fs::read(&file).expect("the file"), b"ab");
    }

    /// Calls `read` on another thread, and fails if it does not return.
    #[cfg(unix)]
    fn read_in_time(file: &Path) -> Option<Vec<u8>> {
        let (sender, receiver) = std::sync::mpsc::channel();
        let file = file.to_path_buf();
        std::thread::spawn(move || sender.send(read(&file, "a driver")));
        receiver.recv_timeout(Duration::from_secs(20)).expect("reading ends")
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().expect("a folder");
        let data = vec![7; 1000];
        let sum = checksum("a driver", &data);
        let write_and_read = |file: &Path| {
            write(file, sum, &data).expect("a file");
            assert_eq!(read_in_time(file).as_deref(), Some(&data[..]), "{}", file.display());
        };
        let fifo = dir.path().join("fifo");
        let name = std::ffi::CString::new(fifo.as_os_str().as_bytes()).expect("a name");
        // SAFETY: the name ends with a NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0, "a FIFO");
        assert_eq!(read_in_time(&fifo), None, "a FIFO");
        write_and_read(&fifo);

        for device in ["/dev/zero", "/dev/null"] {
            let link = dir.path().join("link");
            symlink(device, &link).expect("a link");
            assert_eq!(read_in_time(&link), None, "a link to {device}");
            write_and_read(&link);
            assert!(!fs::metadata(device).expect("the device").is_file(), "{device} is still a device");
            fs::remove_file(&link).expect("the file");
        }
        // A link to a file of the user is replaced, and the user's file stays as it is.
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "a user's file").expect("a file");
        symlink(&target, &link).expect("a link");
        write_and_read(&link);
        assert_eq!(fs::read(&target).expect("the file"), b"a user's file");

        let huge = dir.path().join("huge");
        fs::File::create(&huge).and_then(|file| file.set_len(MAX_BYTES + 1)).expect("a sparse file");
        assert_eq!(read_in_time(&huge), None, "a huge file");
        write_and_read(&huge);

        let folder = dir.path().join("folder");
        fs::create_dir_all(folder.join("full")).expect("a folder");
        assert_eq!(read_in_time(&folder), None, "a folder");
        write(&folder, sum, &data).expect_err("a folder that is not empty");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 5, "no other file is left");
    }
}
