//! Snapshots of a run: a folder with parameters, moments and progress.
//!
//! A snapshot is written under a temporary name and renamed when it is complete. A run that is killed at any moment
//! therefore resumes from the last complete snapshot, with the same bits.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bolmo_runtime::files::json::{self, Limits, Refusal};
use bolmo_runtime::files::{CheckpointFile, MappedFile, read_file};
use bolmo_runtime::unstable::output::{HeaderItem, Target, header, io_error, write_json};
use bolmo_runtime::unstable::{Device, Recorder, Slice};
use bolmo_runtime::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::Arena;

/// Bytes that are transferred at a time.
const CHUNK: u64 = 64 << 20;
const TENSORS: &str = "state.safetensors";
const PROGRESS: &str = "state.json";
/// Limits of the file with the progress.
const PROGRESS_LIMITS: Limits = Limits { bytes: 16 << 20, values: 1 << 20 };
/// What to do about a damaged snapshot.
const OLDER: &str = "delete this snapshot's folder to resume from the one before";

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
    let target = Target::replacing(&path, |path| path.join(PROGRESS).exists())?;
    let partial = target.begin()?;
    write_json(&partial.path.join(PROGRESS), progress)?;
    let tensors = partial.path.join(TENSORS);
    let failed = |e: std::io::Error| io_error(&tensors, "cannot be written", &e);
    let mut file = File::create(&tensors).map_err(failed)?;
    let buffers = buffers(arenas);
    let shapes: Vec<[usize; 1]> = buffers.iter().map(|(_, slice)| [slice.size() as usize / 4]).collect();
    let items: Vec<HeaderItem<'_>> =
        buffers.iter().zip(&shapes).map(|((name, _), shape)| HeaderItem { name, dtype: Dtype::F32, shape }).collect();
    file.write_all(&header(&items)).map_err(failed)?;
    for (_, slice) in &buffers {
        let mut at = 0;
        while at < slice.size() {
            let size = CHUNK.min(slice.size() - at);
            file.write_all(&recorder.read(&[slice.part(at, size)?]).await?).map_err(failed)?;
            at += size;
        }
    }
    // The contents must be on disk before the rename, in case the machine loses power.
    file.sync_all().map_err(failed)?;
    target.finish(partial)?;
    prune(dir, keep)?;
    Ok(path)
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
        fs::remove_dir_all(path).map_err(|e| io_error(path, "cannot be deleted", &e))?;
    }
    // Partial snapshots of killed runs.
    if let Ok(entries) = fs::read_dir(dir) {
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(".step-") && name.contains(".partial-") {
                fs::remove_dir_all(&path).map_err(|e| io_error(&path, "cannot be deleted", &e))?;
            }
        }
    }
    Ok(())
}

/// Contents of `state.json` of a snapshot.
pub(crate) fn progress(path: &Path) -> Result<Value> {
    let file = path.join(PROGRESS);
    let text = read_file(&file, PROGRESS_LIMITS.bytes as u64)?
        .ok_or_else(|| Error::io(format!("{}: does not exist; {OLDER}", file.display())))?;
    json::parse(&text, &PROGRESS_LIMITS).map_err(|refusal| match refusal {
        Refusal::Syntax(e) => Error::bad_checkpoint(format!("{}: not valid JSON: {e}; {OLDER}", file.display())),
        other => Error::bad_checkpoint(format!("{}: {other}; {OLDER}", file.display())),
    })
}

/// Loads the arenas from a snapshot.
pub(crate) async fn restore(path: &Path, device: &Device, arenas: &[Arena]) -> Result<()> {
    let file = path.join(TENSORS);
    let mapped = MappedFile::open(&file)?;
    let bytes = mapped.bytes().ok_or_else(|| Error::internal("a mapped file has no bytes"))?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| {
        Error::bad_checkpoint(format!("{}: not a valid safetensors file: {e}; {OLDER}", file.display()))
    })?;
    let buffers = buffers(arenas);
    if tensors.len() != buffers.len() {
        return Err(other_model(&file, format!("expected {} buffers, found {}", buffers.len(), tensors.len())));
    }
    for (name, slice) in &buffers {
        let tensor = tensors.tensor(name).map_err(|e| other_model(&file, format!("{name}: {e}")))?;
        if tensor.dtype() != Dtype::F32 || tensor.data().len() as u64 != slice.size() {
            return Err(other_model(
                &file,
                format!(
                    "expected {} bytes of f32 in {name}, found {} of {:?}",
                    slice.size(),
                    tensor.data().len(),
                    tensor.dtype()
                ),
            ));
        }
        for (i, chunk) in tensor.data().chunks(CHUNK as usize).enumerate() {
            device.write(slice, i as u64 * CHUNK, chunk)?;
            device.flush().await?;
        }
    }
    Ok(())
}

fn other_model(file: &Path, what: String) -> Error {
    Error::bad_checkpoint(format!(
        "{}: the snapshot belongs to another model or adapter: {what}; start a new run from an exported model",
        file.display()
    ))
}
