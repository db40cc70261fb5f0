//! Writing a folder that appears only when it is complete.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::manifest::{MANIFEST, MARKER, Manifest};
use crate::place::{exchange, must_stay, parent_of, resolve, same_owner};
use crate::space::check_space;
use crate::temporary::{TemporaryFolder, sweep};

/// Name in the temporaries of a run that writes into an existing folder.
const STAGING: &str = "bolmo";
/// What to do about files that a run must not replace.
const ANOTHER: &str = "name a new folder or an empty one";

/// The earlier contents that a run may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaces {
    /// None: the folder must not exist or be empty.
    Nothing,
    /// The files that an earlier run of this kind listed in its [`MANIFEST`], if they have not changed. The new folder
    /// gets a manifest too.
    Listed(&'static str),
    /// Files of these names.
    Named(&'static [&'static str]),
}

/// The path of a folder to write.
pub struct Target {
    /// As the caller gave it, for messages.
    shown: PathBuf,
    /// Without symbolic links.
    path: PathBuf,
    replaces: Replaces,
}

/// What exists at the path of a target.
enum There {
    Nothing,
    Empty,
    /// A folder with these files, which may be replaced.
    Files(Vec<String>),
}

impl Target {
    /// Accepts a folder that does not exist, is empty, or has only files that may be replaced. Symbolic links are
    /// followed, also to a folder that does not exist. Removes the temporary folders of runs that were killed.
    ///
    /// # Errors
    /// `Occupied`, `IsFile`, `NoName`, `Busy` while another run writes into the folder, `Io`.
    pub fn new(folder: &Path, replaces: Replaces) -> Result<Self> {
        let path = resolve(folder).map_err(|e| match e.kind() {
            ErrorKind::NotADirectory => Error::IsFile(folder.to_owned()),
            _ => Error::io(folder, "cannot be resolved", e),
        })?;
        let path = path.filter(|path| path.file_name().is_some()).ok_or_else(|| Error::NoName(folder.to_owned()))?;
        let this = Self { shown: folder.to_owned(), path, replaces };
        sweep(parent_of(&this.path), this.name());
        let live = sweep(&this.path, OsStr::new(STAGING));
        sweep(&this.path, OsStr::new(MARKER));
        sweep(&this.path, OsStr::new(MANIFEST));
        if let Some(temporary) = live.into_iter().next() {
            return Err(Error::Busy { path: this.shown, temporary });
        }
        this.examine(None)?;
        Ok(this)
    }

    fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    fn failed(&self, failed: &'static str) -> impl Fn(io::Error) -> Error {
        let path = self.shown.clone();
        move |e| Error::io(&path, failed, e)
    }

    /// Finds out what exists at the path. `own` is the temporary folder of this run, which doesn't count.
    fn examine(&self, own: Option<&Path>) -> Result<There> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(There::Nothing),
            Err(e) if e.kind() == ErrorKind::NotADirectory => return Err(Error::IsFile(self.shown.clone())),
            Err(e) => return Err(self.failed("cannot be read")(e)),
        };
        let mut names = BTreeSet::new();
        let mut marked = false;
        for entry in entries {
            let entry = entry.map_err(self.failed("cannot be read"))?;
            match entry.file_name() {
                name if name == MARKER => marked = true,
                _ if own == Some(&entry.path()) => {}
                name => drop(names.insert(name.to_string_lossy().into_owned())),
            }
        }
        let occupied =
            |names: Vec<String>, why, remedy| Err(Error::Occupied { path: self.shown.clone(), names, why, remedy });
        if marked {
            // The list of an interrupted run. Only its own files are replaced.
            let list = Manifest::read(&self.path, MARKER).map_err(self.failed("cannot be read"))?;
            let list = list.map(|list| list.files).unwrap_or_default();
            let foreign: Vec<String> = names.iter().filter(|name| !list.contains_key(*name)).cloned().collect();
            return match foreign.is_empty() {
                true => Ok(There::Files(names.into_iter().collect())),
                false => occupied(foreign, ", which an interrupted run did not write", "move them to another place"),
            };
        }
        if names.is_empty() {
            return Ok(There::Empty);
        }
        let all = names.iter().cloned().collect();
        let foreign: Vec<String> = match self.replaces {
            Replaces::Nothing => return occupied(all, "", ANOTHER),
            Replaces::Named(ours) => names.iter().filter(|name| !ours.contains(&name.as_str())).cloned().collect(),
            Replaces::Listed(kind) => {
                let Some(manifest) = Manifest::read(&self.path, MANIFEST).ok().flatten() else {
                    let why = ", and no bolmo-files.json that says which of them an earlier run wrote";
                    return occupied(all, why, ANOTHER);
                };
                if manifest.written_by != kind {
                    return occupied(all, ", which a run of another kind wrote", ANOTHER);
                }
                let ours = |name: &String| manifest.files.contains_key(name) || name == MANIFEST;
                if names.iter().all(ours) {
                    let changed = |name: &&String| *name != MANIFEST && !manifest.unchanged(&self.path, name);
                    let changed: Vec<String> = names.iter().filter(changed).cloned().collect();
                    if !changed.is_empty() {
                        let why = ", which have changed since an earlier run wrote them";
                        return occupied(changed, why, "move them to another place, or name a new folder");
                    }
                }
                names.iter().filter(|name| !ours(name)).cloned().collect()
            }
        };
        if !foreign.is_empty() {
            let why = ", which an earlier run did not write";
            return occupied(foreign, why, "move them to another place, or name a new folder");
        }
        Ok(There::Files(all))
    }

    /// Creates a hidden folder to write to until it is complete: beside the target or, where that cannot be renamed, in
    /// it. `needed` is the number of bytes that will be written, or 0.
    ///
    /// # Errors
    /// `NoSpace` if the file system has less than `needed` bytes free, `Io`.
    pub fn begin(&self, needed: u64) -> Result<PartialFolder> {
        let parent = parent_of(&self.path);
        let space = |place| check_space(place, needed).map_err(|e| e.of(&self.shown));
        let existing = fs::metadata(&self.path).ok();
        if existing.is_none() {
            space(parent)?;
            fs::create_dir_all(parent).map_err(|e| Error::io(parent, "cannot be created", e))?;
        }
        let failed = self.failed("cannot be created");
        if existing.is_none() || !must_stay(&self.path) {
            match TemporaryFolder::create(parent, self.name()) {
                Ok(temporary) => {
                    let ours = fs::metadata(&temporary.path).map_err(&failed)?;
                    // A folder of another user stays that user's only if it is not replaced.
                    if existing.as_ref().is_none_or(|existing| same_owner(existing, &ours)) {
                        space(parent)?;
                        return Ok(PartialFolder { path: temporary.new_folder(), temporary, marked: None });
                    }
                }
                Err(e) if existing.is_some() && cannot_hold(&e) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        space(&self.path)?;
        let temporary = TemporaryFolder::create(&self.path, OsStr::new(STAGING)).map_err(&failed)?;
        let there = self.examine(Some(&temporary.path))?;
        let mut partial = PartialFolder { path: temporary.new_folder(), temporary, marked: None };
        if matches!(there, There::Empty) {
            let list = Manifest { written_by: self.kind().to_owned(), files: Default::default() };
            list.write(&self.path, MARKER).map_err(&failed)?;
            partial.marked = Some(self.path.join(MARKER));
        }
        Ok(partial)
    }

    fn kind(&self) -> &'static str {
        match self.replaces {
            Replaces::Listed(kind) => kind,
            Replaces::Nothing | Replaces::Named(_) => "",
        }
    }

    /// Gives the complete folder its name: renames it, or moves its files into the target where that cannot be renamed.
    ///
    /// # Errors
    /// `Kept` if that fails. Its message names the complete folder, which stays.
    pub fn finish(self, mut partial: PartialFolder) -> Result<()> {
        match self.place(&partial) {
            Ok(()) => {
                partial.marked = None;
                Ok(())
            }
            Err(reason) => {
                let earlier = Some(partial.temporary.old_folder()).filter(|old| old.exists());
                Err(Error::Kept { kept: partial.keep(), earlier, reason: Box::new(reason) })
            }
        }
    }

    fn place(&self, partial: &PartialFolder) -> Result<()> {
        let failed = self.failed("cannot be replaced by the finished folder");
        let new = &partial.path;
        if let Replaces::Listed(kind) = self.replaces {
            Manifest::of(new, kind).and_then(|list| list.write(new, MANIFEST)).map_err(&failed)?;
        }
        // Much time may have passed.
        let there = self.examine(Some(&partial.temporary.path))?;
        if partial.temporary.path.parent() == Some(&self.path) {
            return self.move_in(new, there.files()).map_err(&failed);
        }
        let renamed = match &there {
            There::Nothing => return fs::rename(new, &self.path).map_err(&failed),
            There::Empty => self.replace_empty(new),
            There::Files(_) => self.replace(new, &partial.temporary.old_folder()),
        };
        // What keeps a folder from being renamed may have no sign, for example if it is a mount point.
        let moved = renamed.or_else(|first| match self.path.is_dir() {
            true => self.move_in(new, there.files()),
            false => Err(first),
        });
        moved.map_err(&failed)
    }

    fn replace_empty(&self, new: &Path) -> io::Result<()> {
        fs::set_permissions(new, fs::metadata(&self.path)?.permissions())?;
        // Some systems cannot rename onto a folder, even an empty one.
        if cfg!(windows) {
            fs::remove_dir(&self.path)?;
        }
        fs::rename(new, &self.path)
    }

    /// Replaces the folder. The old one is deleted only after the new one has its name.
    fn replace(&self, new: &Path, old: &Path) -> io::Result<()> {
        fs::set_permissions(new, fs::metadata(&self.path)?.permissions())?;
        match exchange(new, &self.path) {
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            done => return done,
        }
        fs::rename(&self.path, old)?;
        fs::rename(new, &self.path).inspect_err(|_| {
            // The caller reports the first error.
            let _ = fs::rename(old, &self.path);
        })
    }

    /// Moves the files of `new` into the target, in place of the files `old`. The marker says that this is going on.
    fn move_in(&self, new: &Path, old: Vec<String>) -> io::Result<()> {
        let mut list = Manifest::of(new, self.kind())?;
        let names: Vec<String> = list.files.keys().cloned().collect();
        list.files.extend(old.iter().map(|name| (name.clone(), 0)));
        list.write(&self.path, MARKER)?;
        for name in old.iter().filter(|name| !names.contains(name)) {
            match fs::remove_file(self.path.join(name)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        for name in &names {
            move_file(&new.join(name), &self.path.join(name))?;
        }
        fs::remove_file(self.path.join(MARKER))
    }
}

impl There {
    fn files(&self) -> Vec<String> {
        match self {
            There::Nothing | There::Empty => Vec::new(),
            There::Files(names) => names.clone(),
        }
    }
}

/// Whether a folder cannot hold new entries, after an error of creating one.
fn cannot_hold(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Moves a file, also to another file system.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(e) if e.kind() == ErrorKind::CrossesDevices => {
            fs::copy(from, to)?;
            // The copy must be on disk before the original is deleted.
            File::open(to)?.sync_all()
        }
        done => done,
    }
}

/// A folder under construction. Dropping it deletes it with its contents, unless it was finished.
pub struct PartialFolder {
    /// Path of the folder until it is finished.
    pub path: PathBuf,
    temporary: TemporaryFolder,
    /// The marker in the target, which is deleted with the folder.
    marked: Option<PathBuf>,
}

impl PartialFolder {
    /// Leaves the folder for good and returns its path.
    fn keep(&mut self) -> PathBuf {
        self.marked = None;
        self.temporary.keep()
    }
}

impl Drop for PartialFolder {
    fn drop(&mut self) {
        if let Some(marker) = &self.marked {
            // The caller reports the first error.
            let _ = fs::remove_file(marker);
        }
    }
}
