//! Settings from the environment.

use std::path::PathBuf;

use bolmo_runtime::{Error, ErrorKind, Result, Tiles};

/// Folder of compiled kernels: the one in `BOLMO_KERNEL_CACHE`, none if that is empty, else a folder in the user's
/// cache.
pub fn kernel_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(folder) = set("BOLMO_KERNEL_CACHE") {
        return (!folder.as_os_str().is_empty()).then_some(folder);
    }
    let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
    let caches = if cfg!(target_os = "windows") {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        absolute("HOME").map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("bolmo"))
}

/// How lanes cooperate on tiles: as `BOLMO_TILES` says, else the best way for the adapter.
pub fn tiles() -> Result<Option<Tiles>> {
    let Some(name) = std::env::var_os("BOLMO_TILES").filter(|name| !name.is_empty()) else { return Ok(None) };
    name.to_str().and_then(Tiles::from_name).map(Some).ok_or_else(|| {
        let names = Tiles::ALL.map(Tiles::name).join(", ");
        Error::new(ErrorKind::InvalidArgument, format!("BOLMO_TILES: expected one of {names}, found {name:?}"))
    })
}
