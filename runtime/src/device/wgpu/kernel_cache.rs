//! A cache of compiled kernels on disk, for drivers that export them.
//!
//! A file belongs to one adapter, driver and version of this crate. It begins with a checksum, because drivers trust
//! the data they are given. A file that is damaged or has another key is ignored and replaced. The cache never makes a
//! program fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use xxhash_rust::xxh3::xxh3_128;

use crate::device::adapter::AdapterInfo;

const MAGIC: &[u8; 8] = b"bolmopc1";
/// Size above which a file is not read.
const MAX_BYTES: u64 = 256 << 20;

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
            Ok(()) => *held = Some(new),
            // The next program compiles the kernels again.
            Err(error) => log::warn!("{}: compiled kernels could not be saved: {error}", self.file.display()),
        }
    }
}

fn checksum(key: &str, data: &[u8]) -> u128 {
    let mut all = key.as_bytes().to_vec();
    all.extend_from_slice(data);
    xxh3_128(&all)
}

/// The contents of the file, if it is complete and has this key.
fn read(file: &Path, key: &str) -> Option<Vec<u8>> {
    if fs::metadata(file).ok()?.len() > MAX_BYTES {
        return None;
    }
    let all = fs::read(file).ok()?;
    let (sum, data) = all.strip_prefix(MAGIC)?.split_first_chunk::<16>()?;
    (u128::from_le_bytes(*sum) == checksum(key, data)).then(|| data.to_vec())
}

fn write(file: &Path, sum: u128, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // Two programs may write at the same time: each uses a temporary name of its own until the file is complete.
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let written =
        fs::write(&new, [&MAGIC[..], &sum.to_le_bytes(), data].concat()).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
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
}
