//! Repositories of Hugging Face: ids given in place of paths, and folders of its cache.

use std::fs;
use std::path::{Path, PathBuf};

use crate::input::file::read_file;

/// Beginnings of addresses whose rest begins with the id of a repository.
const ADDRESSES: [&str; 4] = ["https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "hf://"];
/// Maximum length of a file with the name of a revision.
const MAX_REVISION_BYTES: u64 = 1024;

/// What to do about a path that does not exist or holds nothing, if it is the id of a repository or a folder of the
/// cache. `file` is the wanted file of the folder, or empty for the folder itself.
pub fn advice(path: &Path, file: &str) -> Option<String> {
    if let Some(snapshot) = snapshot(path) {
        return Some(match snapshot {
            Snapshot::Folder(folder) => {
                let wanted = if file.is_empty() { folder } else { folder.join(file) };
                format!("it is a folder of the Hugging Face cache; use its snapshot {}", wanted.display())
            }
            Snapshot::Several(folder) => {
                format!("it is a folder of the Hugging Face cache; name one of the snapshots in {}", folder.display())
            }
            Snapshot::Missing => "it is a folder of the Hugging Face cache without a complete snapshot; download the \
                                  repository again"
                .to_owned(),
        });
    }
    let id = id(path)?;
    let (_, name) = id.split_once('/')?;
    let then = if file.is_empty() { "name that folder".to_owned() } else { format!("name {name}/{file}") };
    // Bolmo's repositories have the weights twice, the second time in the format of the training code.
    let exclude = if name.starts_with("Bolmo") { " --exclude \"olmo_core/*\"" } else { "" };
    Some(format!(
        "check the path; if it is the id of a Hugging Face repository, run `hf download {id}{exclude} --local-dir \
         {name}` and {then}"
    ))
}

/// The id of a repository, such as `allenai/Bolmo-1B`, if `path` is one and no folder has the owner's name.
fn id(path: &Path) -> Option<String> {
    let text = path.to_str()?;
    let address = ADDRESSES.iter().find_map(|start| text.strip_prefix(start));
    let mut parts = address.unwrap_or(text).trim_end_matches('/').split('/');
    let (owner, name, rest) = (parts.next()?, parts.next()?, parts.next());
    let is_name = |part: &str| {
        part.len() <= 96
            && part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let is_id = is_name(owner) && is_name(name);
    // A path below an existing folder is a mistyped path.
    let is_free = address.is_some() || rest.is_none() && !Path::new(owner).exists() && !has_file_extension(name);
    (is_id && is_free).then(|| format!("{owner}/{name}"))
}

/// Whether a name is that of a file rather than a repository: the names of repositories have dots too.
fn has_file_extension(name: &str) -> bool {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    ["json", "safetensors", "bin", "txt", "gguf", "model", "toml", "zip"].contains(&extension)
}

/// The snapshot of a folder of the cache.
enum Snapshot {
    Folder(PathBuf),
    /// None of the snapshots in this folder is the current one.
    Several(PathBuf),
    Missing,
}

/// The snapshot to use if `path` is a folder of the cache: `models--OWNER--NAME`, or `snapshots` in it.
fn snapshot(path: &Path) -> Option<Snapshot> {
    let repository = if path.file_name()? == "snapshots" { path.parent()? } else { path };
    let snapshots = repository.join("snapshots");
    let named = repository.file_name()?.to_str()?.starts_with("models--");
    if !(named && repository.is_dir() || snapshots.is_dir() && repository.join("refs").is_dir()) {
        return None;
    }
    let holds_files =
        |folder: &PathBuf| folder.is_dir() && fs::read_dir(folder).is_ok_and(|mut all| all.next().is_some());
    let current = read_file(repository.join("refs/main"), MAX_REVISION_BYTES).ok().flatten();
    let current = current.and_then(|text| Some(snapshots.join(std::str::from_utf8(&text).ok()?.trim())));
    if let Some(folder) = current.filter(holds_files) {
        return Some(Snapshot::Folder(folder));
    }
    let mut all =
        fs::read_dir(&snapshots).into_iter().flatten().flatten().map(|entry| entry.path()).filter(holds_files);
    Some(match (all.next(), all.next()) {
        (Some(folder), None) => Snapshot::Folder(folder),
        (Some(_), Some(_)) => Snapshot::Several(snapshots),
        (None, _) => Snapshot::Missing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for (path, id) in [
            ("allenai/Bolmo-1B", "allenai/Bolmo-1B"),
            ("Qwen/Qwen3-0.6B/", "Qwen/Qwen3-0.6B"),
            ("https://huggingface.co/allenai/Bolmo-1B/tree/main", "allenai/Bolmo-1B"),
            ("hf://allenai/Bolmo-1B", "allenai/Bolmo-1B"),
        ] {
            let advice = advice(Path::new(path), "").unwrap_or_else(|| panic!("{path}: nothing"));
            assert!(advice.contains(&format!("`hf download {id} ")), "{advice}");
        }
        // The tests run in the folder of the crate.
        for path in [
            "src/nowhere",
            "model",
            "./a/b",
            "../a/b",
            "/a/b",
            "a/b/c",
            "a/model.safetensors",
            "a b/c",
            "~/a",
            "a\\b",
            "",
        ] {
            assert_eq!(advice(Path::new(path), ""), None, "{path}");
        }
    }

    #[test]
    fn the_snapshot_of_a_cache_folder_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let cache = parent.path().join("models--allenai--Bolmo-1B");
        let said = |path: &Path, words: &str| {
            let advice = advice(path, "").unwrap_or_else(|| panic!("{}: nothing", path.display()));
            assert!(advice.contains(words), "{advice} lacks {words}");
        };
        fs::create_dir_all(cache.join("refs")).unwrap();
        said(&cache, "without a complete snapshot");
        for revision in ["0a1b", "2c3d"] {
            fs::create_dir_all(cache.join("snapshots").join(revision)).unwrap();
        }
        said(&cache, "without a complete snapshot");
        fs::write(cache.join("snapshots/2c3d/config.json"), "{}").unwrap();
        said(&cache, "snapshots/2c3d");
        fs::write(cache.join("snapshots/0a1b/config.json"), "{}").unwrap();
        said(&cache, "one of the snapshots in");
        fs::write(cache.join("refs/main"), "0a1b\n").unwrap();
        said(&cache, "snapshots/0a1b");
        said(&cache.join("snapshots"), "snapshots/0a1b");
        assert!(advice(&cache, "tokenizer.json").unwrap().contains("snapshots/0a1b/tokenizer.json"));
        assert_eq!(advice(&cache.join("snapshots/0a1b"), ""), None);
        assert_eq!(advice(parent.path(), ""), None);
    }
}
