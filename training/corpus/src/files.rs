//! A corpus as files: two texts and a manifest.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use bolmo_files::{MARKER, is_temporary, open_regular};
use serde::{Deserialize, Serialize};

use crate::corpus::{Corpus, Kind, Part, SEPARATOR};
use crate::error::{Error, Result};
use crate::hash::Hash;
use crate::stories::vocabulary;

/// Name of the file of the documents to train on.
pub const TRAINING_FILE: &str = "train.txt";
/// Name of the file of the held-out documents.
pub const HELD_OUT_FILE: &str = "held_out.txt";
/// Name of the file of the [`Manifest`].
pub const MANIFEST_FILE: &str = "corpus.json";
/// Maximum length of the manifest; the rest of a longer file is not read.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// Contents of a folder of [`write_files`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Seed of the corpus.
    pub seed: u64,
    /// Requested share of the bytes that are puzzles.
    pub puzzle_share: f64,
    /// Number of different words of the stories.
    pub vocabulary: usize,
    /// The documents to train on.
    pub training: PartOfManifest,
    /// The held-out documents.
    pub held_out: PartOfManifest,
}

/// Contents of one file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartOfManifest {
    /// Name of the file, in the folder of the manifest.
    pub file: String,
    /// Length of the file.
    pub bytes: u64,
    /// Number of documents.
    pub documents: u64,
    /// Number of documents that are puzzles.
    pub puzzles: u64,
    /// 64-bit FNV-1a hash of the file, as sixteen hexadecimal digits.
    pub hash: String,
}

/// Writes the documents of `corpus` to [`TRAINING_FILE`] in `folder`, held-out documents of `held_out_bytes` bytes to
/// [`HELD_OUT_FILE`], and a [`Manifest`] to [`MANIFEST_FILE`]. Creates the folder if necessary. Replaces an earlier
/// corpus in the folder, but no other files.
///
/// Each file appears under its name only when it is complete, the manifest last.
///
/// # Errors
///
/// `Share` for an invalid share, `Occupied` for a folder with other files, and `File` if the files cannot be written.
pub fn write_files(folder: &Path, corpus: &Corpus, held_out_bytes: u64) -> Result<Manifest> {
    let held_out = Corpus { bytes: held_out_bytes, ..*corpus };
    // Checks the options before anything is written.
    held_out.documents(Part::HeldOut)?;
    fs::create_dir_all(folder).map_err(|source| failed("create", folder, source))?;
    // What a run left that was killed is not another file.
    bolmo_files::remove_abandoned(folder, |name| [TRAINING_FILE, HELD_OUT_FILE, MANIFEST_FILE].contains(&name));
    check_folder(folder)?;
    // Until the manifest exists, this says whose the other files are.
    let marker = folder.join(MARKER);
    replace(&marker, 0, |file| writeln!(file, "{{}}"))?;
    let manifest = write_parts(folder, corpus, &held_out);
    if manifest.is_ok() || !folder.join(TRAINING_FILE).is_file() {
        fs::remove_file(&marker).map_err(|source| failed("delete", &marker, source))?;
    }
    manifest
}

/// Writes both texts, then the manifest.
fn write_parts(folder: &Path, corpus: &Corpus, held_out: &Corpus) -> Result<Manifest> {
    let manifest = Manifest {
        seed: corpus.seed,
        puzzle_share: corpus.puzzle_share,
        vocabulary: vocabulary().len(),
        training: write_part(folder, TRAINING_FILE, corpus, Part::Training)?,
        held_out: write_part(folder, HELD_OUT_FILE, held_out, Part::HeldOut)?,
    };
    let path = folder.join(MANIFEST_FILE);
    replace(&path, 0, |file| {
        serde_json::to_writer_pretty(&mut *file, &manifest)?;
        writeln!(file)
    })?;
    Ok(manifest)
}

impl Manifest {
    /// Reads the manifest in `folder`.
    ///
    /// # Errors
    ///
    /// `File` if it cannot be read, and `Manifest` if it is damaged.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST_FILE);
        let mut text = Vec::new();
        open_regular(&path)
            .and_then(|file| file.take(MAX_MANIFEST_BYTES).read_to_end(&mut text))
            .map_err(|source| failed("read", &path, source))?;
        serde_json::from_slice(&text).map_err(|source| Error::Manifest { path, source })
    }

    /// Checks that the files in `folder` match the manifest.
    ///
    /// # Errors
    ///
    /// `File` if a file cannot be read, and `Changed` if it does not match.
    pub fn check(&self, folder: &Path) -> Result<()> {
        for part in [&self.training, &self.held_out] {
            let path = folder.join(&part.file);
            let found = hash_file(&path).map_err(|source| failed("read", &path, source))?;
            if found != part.hash {
                return Err(Error::Changed { path, expected: part.hash.clone(), found });
            }
        }
        Ok(())
    }
}

/// Rejects a folder with files other than an earlier corpus, or a part of one. Temporary files of a run that is alive
/// don't count.
fn check_folder(folder: &Path) -> Result<()> {
    if folder.join(MANIFEST_FILE).exists() {
        return Ok(());
    }
    let was_interrupted = folder.join(MARKER).exists();
    let is_ours = |name: &OsStr| [TRAINING_FILE, HELD_OUT_FILE, MARKER].iter().any(|&ours| name == ours);
    for entry in fs::read_dir(folder).map_err(|source| failed("read", folder, source))? {
        let name = entry.map_err(|source| failed("read", folder, source))?.file_name();
        if !(is_temporary(&name) || was_interrupted && is_ours(&name)) {
            return Err(Error::Occupied(folder.to_owned()));
        }
    }
    Ok(())
}

fn write_part(folder: &Path, name: &str, corpus: &Corpus, part: Part) -> Result<PartOfManifest> {
    let mut written = PartOfManifest { file: name.to_owned(), bytes: 0, documents: 0, puzzles: 0, hash: String::new() };
    let mut hash = Hash::new();
    let documents = corpus.documents(part)?;
    replace(&folder.join(name), corpus.bytes, |file| {
        for document in documents {
            for piece in [&*document, SEPARATOR] {
                file.write_all(piece.as_bytes())?;
                hash.add(piece.as_bytes());
                written.bytes += piece.len() as u64;
            }
            written.documents += 1;
            written.puzzles += u64::from(document.kind != Kind::Story);
        }
        Ok(())
    })?;
    written.hash = digits(hash);
    Ok(written)
}

/// Writes a file of about `bytes` bytes with `fill`, so that readers see either the old or the new one.
fn replace(path: &Path, bytes: u64, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    bolmo_files::write(path, bytes, fill).map_err(|source| failed("write", path, source))
}

fn hash_file(path: &Path) -> io::Result<String> {
    let mut file = open_regular(path)?;
    let mut hash = Hash::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digits(hash)),
            count => hash.add(&piece[..count]),
        }
    }
}

fn digits(hash: Hash) -> String {
    format!("{:016x}", hash.sum())
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: Corpus = Corpus { seed: 4, bytes: 60_000, puzzle_share: 0.2 };

    #[test]
    fn files_match_the_manifest() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("new").join("corpus");
        let manifest = write_files(&folder, &CORPUS, 10_000).expect("written");
        assert_eq!(Manifest::read(&folder).expect("read"), manifest);
        manifest.check(&folder).expect("unchanged");
        for (part, written, bytes) in
            [(Part::Training, &manifest.training, 60_000), (Part::HeldOut, &manifest.held_out, 10_000)]
        {
            let text = fs::read_to_string(folder.join(&written.file)).expect("text");
            assert_eq!(text.len() as u64, written.bytes);
            assert!(written.bytes >= bytes);
            let made = Corpus { bytes, ..CORPUS }.documents(part).expect("a share").map(|document| document.text);
            let read: Vec<&str> = text.split_terminator(SEPARATOR).collect();
            assert_eq!(read, made.collect::<Vec<_>>());
            assert_eq!(read.len() as u64, written.documents);
            assert!(written.puzzles > 0 && written.puzzles < written.documents);
        }
        let mut names: Vec<_> =
            fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        assert_eq!(names, [MANIFEST_FILE, HELD_OUT_FILE, TRAINING_FILE]);
    }

    #[test]
    fn a_corpus_replaces_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = write_files(folder.path(), &CORPUS, 5_000).expect("written");
        let second = write_files(folder.path(), &Corpus { seed: 5, ..CORPUS }, 5_000).expect("written");
        assert_ne!(first.training.hash, second.training.hash);
        second.check(folder.path()).expect("unchanged");
        let error = first.check(folder.path()).expect_err("other files");
        assert!(error.to_string().contains(&second.training.hash), "{error}");
        // The same corpus again has the same bytes.
        assert_eq!(write_files(folder.path(), &CORPUS, 5_000).expect("written"), first);
    }

    #[test]
    fn other_files_are_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let mine = folder.path().join(TRAINING_FILE);
        fs::write(&mine, "mine").expect("written");
        let error = write_files(folder.path(), &CORPUS, 5_000).expect_err("the folder is not empty");
        assert!(matches!(error, Error::Occupied(_)), "{error}");
        assert_eq!(fs::read_to_string(&mine).expect("text"), "mine");
    }

    #[test]
    fn temporary_files_of_a_run_that_was_killed_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(".train.txt.partial-00ff"), "half").expect("written");
        write_files(folder.path(), &CORPUS, 5_000).expect("written");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }

    #[test]
    fn a_run_that_was_killed_between_its_files_is_repeated() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(TRAINING_FILE), "whole").expect("written");
        assert!(matches!(write_files(folder.path(), &CORPUS, 5_000), Err(Error::Occupied(_))));
        fs::write(folder.path().join(MARKER), "{}").expect("written");
        let manifest = write_files(folder.path(), &CORPUS, 5_000).expect("written");
        manifest.check(folder.path()).expect("complete");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }

    #[test]
    fn errors_name_the_file_and_leave_none_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = Manifest::read(folder.path()).expect_err("there is none");
        assert!(error.to_string().contains(MANIFEST_FILE), "{error}");
        fs::write(folder.path().join(MANIFEST_FILE), "{}").expect("written");
        assert!(matches!(Manifest::read(folder.path()), Err(Error::Manifest { .. })));

        // A file cannot replace a folder of the same name.
        let taken = folder.path().join(TRAINING_FILE);
        fs::create_dir_all(taken.join("inside")).expect("made");
        let error = write_files(folder.path(), &CORPUS, 5_000).expect_err("the name is taken");
        assert!(error.to_string().contains(TRAINING_FILE), "{error}");
        let left = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 2, "the manifest and the folder");

        let nowhere = folder.path().join("nowhere");
        let error = write_files(&nowhere, &Corpus { puzzle_share: 2.0, ..CORPUS }, 5_000).expect_err("no share");
        assert!(matches!(error, Error::Share(_)) && !nowhere.exists(), "{error}");
    }
}
