//! The metrics file of a run: one JSON object per line.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::record::Record;

/// A metrics file, open for appending.
#[derive(Debug)]
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    /// Length of the complete lines, to truncate the file to after a failed write.
    length: u64,
}

impl MetricsFile {
    /// Creates an empty file for a new run.
    ///
    /// # Errors
    ///
    /// An existing file is left unchanged, since it may be all that is left of a run.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::create_new(path).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::Exists { path: path.to_owned() },
            _ => Error::io(path, "cannot be created", e),
        })?;
        Ok(Self { path: path.to_owned(), file, length: 0 })
    }

    /// Opens the file of a run that resumes after `last_step`. Drops the records of later steps, which the run will
    /// make again, and an incomplete last line. A missing file is created, so that a run survives the loss of its
    /// metrics.
    ///
    /// # Errors
    ///
    /// A line that is not a record leaves the file unchanged, unless it is an incomplete last line.
    pub fn resume(path: impl AsRef<Path>, last_step: u64) -> Result<Self> {
        let path = path.as_ref();
        let bytes = match read_regular(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::create(path),
            bytes => bytes.map_err(|e| Error::io(path, "cannot be read", e))?,
        };
        let mut kept = Vec::with_capacity(bytes.len());
        for (record, line) in records(path, &bytes)? {
            if record.step <= last_step {
                kept.extend_from_slice(line);
                kept.push(b'\n');
            }
        }
        replace(path, &kept)?;
        let opened =
            File::options().write(true).open(path).and_then(|mut file| Ok((file.seek(SeekFrom::End(0))?, file)));
        let (length, file) = opened.map_err(|e| Error::io(path, "cannot be opened for writing", e))?;
        Ok(Self { path: path.to_owned(), file, length })
    }

    /// Appends one record, a [`Record`] or any value that serializes to the same form, and flushes it.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let not_a_record = |e: serde_json::Error| Error::NotARecord { path: self.path.clone(), reason: e.to_string() };
        let mut line = serde_json::to_vec(record).map_err(not_a_record)?;
        Record::parse(&line).map_err(not_a_record)?;
        line.push(b'\n');
        if let Err(e) = self.file.write_all(&line).and_then(|()| self.file.flush()) {
            // An incomplete line would swallow the next record. If even the truncation fails, the first error is
            // reported.
            let _ = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(Error::io(&self.path, "cannot be appended to", e));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads all records of a file in order, without an incomplete last line.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>> {
    let path = path.as_ref();
    let bytes = read_regular(path).map_err(|e| Error::io(path, "cannot be read", e))?;
    Ok(records(path, &bytes)?.into_iter().map(|(record, _)| record).collect())
}

fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bolmo_files::open_regular(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The records in `bytes`, each with its line.
fn records<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(Record, &'a [u8])>> {
    let mut records = Vec::new();
    for (index, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        match Record::parse(text) {
            Ok(record) => records.push((record, text)),
            // Only the last line can be incomplete. No proper prefix of an object is valid JSON, so a valid value that
            // is not a record is damage.
            Err(e) if !line.ends_with(b"\n") && (e.is_eof() || e.is_syntax()) => {}
            Err(e) => {
                return Err(Error::Damaged { path: path.to_owned(), line: index + 1, reason: e.to_string() });
            }
        }
    }
    Ok(records)
}

/// Writes a file so that readers see either the old or the new one.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let written = bolmo_files::write(path, contents.len() as u64, |file| file.write_all(contents));
    written.map_err(|e| Error::io(path, "cannot be written", e))
}

#[cfg(test)]
mod tests;
