//! A run's state as a folder: parameters, moments and where the run stood, written under a temporary name and renamed when complete, so
//! that a run that is killed at any moment goes on from the last one bit by bit.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use bolmo_runtime::checkpoint::{CheckpointFile, MappedFile};
use bolmo_runtime::internals::output::{HeaderItem, Target, header, io_error, write_json};
use bolmo_runtime::internals::{Gpu, Recorder, Slice};
use bolmo_runtime::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::parameters::Arena;

/// Bytes that are read from the device and written at a time.
const PIECE: u64 = 64 << 20;
const TENSORS: &str = "state.safetensors";
const PROGRESS: &str = "state.json";

/// The arenas' buffers by name, those of a group that is not trained without gradients and moments.
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

/// Writes `dir/step-…` for the step that `progress` is about, and deletes the oldest but `keep`. What is there under this name is replaced.
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
            let size = PIECE.min(slice.size() - at);
            file.write_all(&recorder.read(&[slice.part(at, size)?]).await?).map_err(failed)?;
            at += size;
        }
    }
    // A machine that loses power after the renaming must find the contents too.
    file.sync_all().map_err(failed)?;
    target.finish(partial)?;
    prune(dir, keep)?;
    Ok(path)
}

fn name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Complete snapshots in `dir`, the oldest first.
pub fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
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
    // What killed runs have begun and not finished.
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

/// What `state.json` of a snapshot says.
pub(crate) fn progress(path: &Path) -> Result<Value> {
    let file = path.join(PROGRESS);
    let text = fs::read(&file).map_err(|e| io_error(&file, "cannot be read", &e))?;
    serde_json::from_slice(&text)
        .map_err(|e| Error::bad_checkpoint(format!("{}: not a JSON document: {e}", file.display())))
}

/// Fills the arenas from a snapshot.
pub(crate) async fn restore(path: &Path, gpu: &Gpu, arenas: &[Arena]) -> Result<()> {
    let file = path.join(TENSORS);
    let mapped = MappedFile::open(&file)?;
    let bytes = mapped.bytes().ok_or_else(|| Error::internal("a mapped file without its bytes"))?;
    let tensors = SafeTensors::deserialize(bytes)
        .map_err(|e| Error::bad_checkpoint(format!("{}: not a safetensors file: {e}", file.display())))?;
    let buffers = buffers(arenas);
    if tensors.len() != buffers.len() {
        return Err(other_model(&file, format!("{} buffers, expected {}", tensors.len(), buffers.len())));
    }
    for (name, slice) in &buffers {
        let tensor = tensors.tensor(name).map_err(|e| other_model(&file, format!("{name}: {e}")))?;
        if tensor.dtype() != Dtype::F32 || tensor.data().len() as u64 != slice.size() {
            return Err(other_model(
                &file,
                format!("{name} has {} bytes, expected {}", tensor.data().len(), slice.size()),
            ));
        }
        for (i, piece) in tensor.data().chunks(PIECE as usize).enumerate() {
            gpu.write(slice, i as u64 * PIECE, piece)?;
            gpu.flush().await?;
        }
    }
    Ok(())
}

fn other_model(file: &Path, what: String) -> Error {
    Error::bad_checkpoint(format!(
        "{}: is of another model or adapter: {what}; begin a new run from the exported model",
        file.display()
    ))
}
