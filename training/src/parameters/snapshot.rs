//! Snapshots of a run: a folder with parameters, moments and progress.
//!
//! A snapshot is written under a temporary name and renamed when it is complete. A run that is killed at any moment
//! therefore resumes from the last complete snapshot, with the same bits.
//!
//! `state.json` has the length and the checksum of the file of tensors, and a checksum of itself, so that damage to
//! either file is found when the run resumes. Snapshots of older versions have no checksums and are accepted.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bolmo_runtime::files::json::{self as bounded_json, Limits, Refusal};
use bolmo_runtime::files::{CheckpointFile, MappedFile, read_file};
use bolmo_runtime::unstable::output::{HeaderItem, Replaces, Target, header, io_error};
use bolmo_runtime::unstable::{Device, Recorder, Slice};
use bolmo_runtime::{Error, ErrorKind, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::Arena;

/// Bytes that are transferred at a time.
const CHUNK: u64 = 64 << 20;
const TENSORS: &str = "state.safetensors";
const PROGRESS: &str = "state.json";
/// Names of all files of a snapshot.
const FILES: &[&str] = &[TENSORS, PROGRESS];
/// Limits of the file with the progress.
const PROGRESS_LIMITS: Limits = Limits { bytes: 16 << 20, values: 1 << 20 };
/// What to do about a damaged snapshot.
const OLDER: &str = "delete this snapshot's folder to resume from the one before, or from the start if there is none";
/// Keys of `state.json`: the checksum of its other keys, and what is known of the file of tensors.
const CHECKSUM: &str = "checksum";
const FILE: &str = "tensors";

/// Buffers of the arenas by name: the weights, and the moments of trained groups.
fn buffers(arenas: &[Arena]) -> Vec<(String, Slice)> {
    let mut all = Vec::new();
    for (i, arena) in arenas.iter().enumerate() {
        all.push((format!("arena.{i}.weights"), arena.weights.clone()));
        if let Some(trained) = &arena.trained {
            for (moment, slice) in trained.moments.iter().enumerate() {
                all.push((format!("arena.{i}.moment.{}", moment + 1), slice.clone()));
            }
        }
    }
    all
}

/// Writes the snapshot `dir/step-…`, in place of one of the same name, and deletes all but the last `keep` snapshots.
pub(crate) async fn write(
    dir: &Path,
    step: u64,
    progress: &Value,
    (recorder, arenas): (&mut Recorder, &[Arena]),
    keep: usize,
) -> Result<PathBuf> {
    let path = dir.join(name(step));
    let target = Target::new(&path, Replaces::Named(FILES))?;
    let buffers = buffers(arenas);
    let partial = target.begin(buffers.iter().map(|(_, slice)| slice.size()).sum())?;
    let tensors = partial.path.join(TENSORS);
    let failed = |e: std::io::Error| io_error(&tensors, "cannot be written", &e);
    let mut file = File::create(&tensors).map_err(failed)?;
    let shapes: Vec<[usize; 1]> = buffers.iter().map(|(_, slice)| [slice.size() as usize / 4]).collect();
    let items: Vec<HeaderItem<'_>> =
        buffers.iter().zip(&shapes).map(|((name, _), shape)| HeaderItem { name, dtype: Dtype::F32, shape }).collect();
    let mut sum = Sum::default();
    let header = header(&items);
    sum.add(&header);
    file.write_all(&header).map_err(failed)?;
    for (name, slice) in &buffers {
        let mut at = 0;
        while at < slice.size() {
            let size = CHUNK.min(slice.size() - at);
            let chunk = recorder.read(&[slice.part(at, size)?]).await?;
            if !is_finite(&chunk) {
                return Err(Error::invalid(format!(
                    "step {step}: {name} has values that are not finite, so the run has diverged and this step gets no \
                     snapshot; lower `optimiser.rate` or raise `optimiser.warmup`"
                )));
            }
            sum.add(&chunk);
            file.write_all(&chunk).map_err(failed)?;
            at += size;
        }
    }
    // The contents must be on disk before the rename, in case the machine loses power.
    file.sync_all().map_err(failed)?;
    write_progress(&partial.path.join(PROGRESS), progress, &sum)?;
    target.finish(partial)?;
    prune(dir, keep)?;
    Ok(path)
}

/// Length and checksum of a file, computed as it is written or read.
#[derive(Default)]
struct Sum {
    bytes: u64,
    hash: Xxh3,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn to_json(&self) -> Value {
        json!({ "bytes": self.bytes, "xxh3": digits(self.hash.digest()) })
    }
}

/// A checksum as in `state.json`.
fn digits(sum: u64) -> String {
    format!("{sum:016x}")
}

/// Whether all f32 values are finite.
fn is_finite(bytes: &[u8]) -> bool {
    let exponent = f32::INFINITY.to_bits();
    // Without an early exit the loop is vectorized.
    !bytes
        .as_chunks::<4>()
        .0
        .iter()
        .fold(false, |wrong, value| wrong | (u32::from_le_bytes(*value) & exponent == exponent))
}

/// Writes `state.json` with the checksums.
fn write_progress(path: &Path, progress: &Value, sum: &Sum) -> Result<()> {
    let mut state = progress.clone();
    state[FILE] = sum.to_json();
    state[CHECKSUM] = digits(xxh3_64(state.to_string().as_bytes())).into();
    let text = format!("{state:#}\n");
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e| io_error(path, "cannot be written", &e))
}

fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Complete snapshots in `dir`, oldest first.
///
/// # Errors
/// `Io` for a folder that cannot be listed. A missing folder has no snapshots.
pub(crate) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            // The file is `dir` itself or the folder of the run.
            let file = dir.parent().filter(|parent| parent.is_file()).unwrap_or(dir);
            return Err(Error::io(format!("{}: is a file; name a folder with `out`", file.display())));
        }
        Err(e) => return Err(io_error(dir, "cannot be examined", &e)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| io_error(dir, "cannot be examined", &e))?.path();
        let step = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("step-"));
        if let Some(step) = step.and_then(|step| step.parse().ok()).filter(|_| path.join(PROGRESS).exists()) {
            all.push((step, path));
        }
    }
    all.sort();
    Ok(all)
}

fn prune(dir: &Path, keep: usize) -> Result<()> {
    let all = list(dir)?;
    for (_, path) in &all[..all.len().saturating_sub(keep.max(1))] {
        delete(path).map_err(|e| io_error(path, "cannot be deleted", &e))?;
    }
    bolmo_files::remove_abandoned(dir, |target| target.starts_with("step-"));
    Ok(())
}

/// Deletes the files of a snapshot, and its folder unless that has other files.
fn delete(path: &Path) -> std::io::Result<()> {
    for name in FILES {
        match fs::remove_file(path.join(name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() != std::io::ErrorKind::DirectoryNotEmpty => Err(e),
        _ => Ok(()),
    }
}

/// Contents of `state.json` of a snapshot.
///
/// # Errors
/// `Io`, and `BadCheckpoint` for a damaged file.
pub(crate) fn progress(path: &Path) -> Result<Value> {
    let file = path.join(PROGRESS);
    let text = read_file(&file, PROGRESS_LIMITS.bytes as u64)?
        .ok_or_else(|| Error::io(format!("{}: does not exist; {OLDER}", file.display())))?;
    let mut state = bounded_json::parse(&text, &PROGRESS_LIMITS).map_err(|refusal| match refusal {
        Refusal::Syntax(e) => Error::bad_checkpoint(format!("{}: not valid JSON: {e}; {OLDER}", file.display())),
        other => Error::bad_checkpoint(format!("{}: {other}; {OLDER}", file.display())),
    })?;
    // The checksum covers the other keys in their order.
    let recorded = state.as_object_mut().and_then(|keys| keys.shift_remove(CHECKSUM));
    match recorded {
        Some(recorded) if recorded == digits(xxh3_64(state.to_string().as_bytes())) => Ok(state),
        None if state.get(FILE).is_none() => Ok(state),
        _ => Err(damaged(&file)),
    }
}

fn damaged(file: &Path) -> Error {
    Error::bad_checkpoint(format!(
        "{}: the contents don't match the checksum that was written with them, so the file is damaged; {OLDER}",
        file.display()
    ))
}

/// Loads the arenas from a snapshot, and checks the file's length and checksum.
///
/// # Errors
/// `Io`, and `BadCheckpoint` for a snapshot that is damaged or belongs to another model. The arenas are then partly
/// loaded.
pub(crate) async fn restore(path: &Path, device: &Device, arenas: &[Arena]) -> Result<()> {
    let file = path.join(TENSORS);
    let recorded = progress(path)?[FILE].clone();
    let mapped = MappedFile::open(&file).map_err(|e| Error::new(e.kind(), format!("{}; {OLDER}", e.message())))?;
    let bytes = mapped.bytes().unwrap_or_default();
    if let Some(expected) = recorded["bytes"].as_u64().filter(|&expected| expected != bytes.len() as u64) {
        return Err(Error::bad_checkpoint(format!(
            "{}: expected {expected} bytes, found {}; {OLDER}",
            file.display(),
            bytes.len()
        )));
    }
    let sum = match load(&file, bytes, device, arenas).await {
        Ok(sum) => sum,
        // Damage explains everything that is wrong with the tensors.
        Err(error) if error.kind() == ErrorKind::BadCheckpoint && recorded.is_object() => {
            let mut sum = Sum::default();
            sum.add(bytes);
            return Err(if sum.to_json() == recorded { error } else { damaged(&file) });
        }
        Err(error) => return Err(error),
    };
    if recorded.is_object() && sum.to_json() != recorded { Err(damaged(&file)) } else { Ok(()) }
}

/// Loads the arenas from a file of tensors, whose checksum is returned.
async fn load(file: &Path, bytes: &[u8], device: &Device, arenas: &[Arena]) -> Result<Sum> {
    let invalid = |e: &dyn std::fmt::Display| {
        Error::bad_checkpoint(format!("{}: not a valid safetensors file: {e}; {OLDER}", file.display()))
    };
    let (header, _) = SafeTensors::read_metadata(bytes).map_err(|e| invalid(&e))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| invalid(&e))?;
    let buffers = buffers(arenas);
    if tensors.len() != buffers.len() {
        return Err(other_model(file, format!("expected {} buffers, found {}", buffers.len(), tensors.len())));
    }
    let mut sum = Sum::default();
    sum.add(&bytes[..8 + header]);
    for (name, slice) in &buffers {
        let tensor = tensors.tensor(name).map_err(|e| other_model(file, format!("{name}: {e}")))?;
        if tensor.dtype() != Dtype::F32 || tensor.data().len() as u64 != slice.size() {
            return Err(other_model(
                file,
                format!(
                    "expected {} bytes of f32 in {name}, found {} of {:?}",
                    slice.size(),
                    tensor.data().len(),
                    tensor.dtype()
                ),
            ));
        }
        for (i, chunk) in tensor.data().chunks(CHUNK as usize).enumerate() {
            if !is_finite(chunk) {
                return Err(Error::bad_checkpoint(format!(
                    "{}: {name} has values that are not finite; {OLDER}",
                    file.display()
                )));
            }
            sum.add(chunk);
            device.write(slice, i as u64 * CHUNK, chunk)?;
            device.flush().await?;
        }
    }
    Ok(sum)
}

fn other_model(file: &Path, what: String) -> Error {
    Error::bad_checkpoint(format!(
        "{}: the snapshot belongs to another model or adapter: {what}; start a new run from an exported model",
        file.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_not_finite_are_found_anywhere() {
        let mut values = vec![0.0f32, -1.5, f32::MAX, f32::MIN_POSITIVE, 1e-40, -0.0, 3.0];
        assert!(is_finite(bytemuck::cast_slice(&values)) && is_finite(&[]));
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..values.len() {
                let before = std::mem::replace(&mut values[at], wrong);
                assert!(!is_finite(bytemuck::cast_slice(&values)), "{wrong} at {at}");
                values[at] = before;
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_the_progress_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(PROGRESS);
        let state = json!({ "step": 4, "seconds": 0.1 + 0.2, "cursor": { "row": 1 }, "config": { "rate": 1e-3 } });
        write_progress(&file, &state, &Sum::default()).unwrap();
        let text = fs::read(&file).unwrap();
        let read = progress(dir.path()).unwrap();
        assert_eq!((&read["step"], &read["seconds"]), (&state["step"], &state["seconds"]));
        for bit in 0..8 * text.len() {
            let mut flipped = text.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&file, &flipped).unwrap();
            match progress(dir.path()) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::BadCheckpoint, "{error}"),
                // Digits that make no difference to the number.
                Ok(state) => assert_eq!(state, read, "bit {bit}"),
            }
        }
        // As older versions wrote it.
        fs::write(&file, state.to_string()).unwrap();
        assert_eq!(progress(dir.path()).unwrap(), state);
    }
}
