//! Writing the files of a merged folder: copies of the Bolmo model's files, except for the tensors that move.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::checkpoint::output::{encode, io_error};
use crate::checkpoint::{Checkpoint, CheckpointFile, DType, Tensor, check_finite, convert_half};
use crate::convert::merge::Fate;
use crate::error::{Error, ErrorKind, Result};
use crate::input::file::open_file;

/// Number of elements to compute and write at a time.
const STRIDE: usize = 1 << 20;
/// Number of bytes to copy at a time.
const COPY_BYTES: u64 = 4 << 20;
/// Extensions of the files of a model without weights: configurations, tokenizers, chat templates, code.
const COMPANIONS: [&str; 5] = ["json", "txt", "model", "jinja", "py"];
/// File name of the index of shards, which stays valid: names and tensors of the shards don't change.
const INDEX: &str = "model.safetensors.index.json";

/// Copies the files without weights from `from` to `to`.
pub(super) fn companions(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).map_err(|e| io_error(from, "cannot be listed", &e))?;
    for entry in entries {
        let path = entry.map_err(|e| io_error(from, "cannot be listed", &e))?.path();
        let (Some(file_name), Some(name)) = (path.file_name(), path.file_name().and_then(|name| name.to_str())) else {
            continue;
        };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        // The index of weights in another format names files that are not copied.
        let other_index = name.ends_with(".index.json") && name != INDEX;
        // The list of what a run wrote is not true of the copy.
        let list = name == bolmo_files::MANIFEST;
        if !COMPANIONS.contains(&extension) || name.starts_with('.') || other_index || list || !path.is_file() {
            continue;
        }
        // Copies only the contents, not the permissions: the original may be read-only.
        let target = to.join(file_name);
        // A file that was deleted meanwhile is left out.
        let Some(mut source) = open_file(&path)? else { continue };
        let mut copy = File::create(&target).map_err(|e| io_error(&target, "cannot be written", &e))?;
        std::io::copy(&mut source, &mut copy).map_err(|e| io_error(&target, "cannot be written", &e))?;
    }
    Ok(())
}

/// A tensor that moves.
pub(super) struct Move<'a> {
    /// Index in the report.
    pub index: usize,
    pub tensor: Tensor<'a>,
    /// Name of the base folder, for messages, and the tensor there; it may have further rows.
    pub base: (&'a str, Tensor<'a>),
    /// The same for the post-trained model.
    pub post: (&'a str, Tensor<'a>),
}

/// The state that files share: progress and buffers.
pub(super) struct Writer<'a> {
    bolmo: &'a Checkpoint,
    alpha: f32,
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
    /// Elements of the Bolmo model, the base model, the post-trained model and the result.
    values: [Vec<f32>; 4],
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(bolmo: &'a Checkpoint, alpha: f32, progress: &'a mut dyn FnMut(u64, u64) -> bool) -> Self {
        let total = bolmo.files().iter().map(|file| file.len()).sum();
        Self { bolmo, alpha, progress, done: 0, total, values: Default::default(), bytes: Vec::new() }
    }

    /// Writes all files to `dir` and returns their size in bytes. `record` receives the index and the fate of each
    /// tensor that moves.
    pub fn write(&mut self, dir: &Path, moves: &[Move<'_>], mut record: impl FnMut(usize, Fate)) -> Result<u64> {
        let mut by_file: Vec<Vec<(u64, &Move<'_>)>> = self.bolmo.files().iter().map(|_| Vec::new()).collect();
        for one in moves {
            let place = self.bolmo.place(one.tensor.name);
            let Some((moves, start)) = place.and_then(|(file, start)| Some((by_file.get_mut(file)?, start))) else {
                return Err(Error::internal(format!("tensor `{}` is in no file", one.tensor.name)));
            };
            moves.push((start, one));
        }
        for (file, mut moves) in self.bolmo.files().iter().zip(by_file) {
            moves.sort_by_key(|(start, _)| *start);
            let name = Path::new(file.name()).file_name().unwrap_or_default();
            self.file(&dir.join(name), file.as_ref(), &moves, &mut record)?;
        }
        Ok(self.done)
    }

    fn file(
        &mut self,
        path: &Path,
        source: &dyn CheckpointFile,
        moves: &[(u64, &Move<'_>)],
        record: &mut dyn FnMut(usize, Fate),
    ) -> Result<()> {
        let failed = |e: std::io::Error| io_error(path, "cannot be written", &e);
        let mut file = File::create(path).map_err(failed)?;
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(failed);
        let mut at = 0;
        for &(start, one) in moves {
            self.copy(source, at, start, &mut write)?;
            record(one.index, self.tensor(one, &mut write)?);
            at = start + one.tensor.byte_count();
        }
        self.copy(source, at, source.len(), &mut write)?;
        // Some systems report a full disk only here.
        file.sync_all().map_err(failed)
    }

    /// Copies the bytes of a file from `at` up to `end`: headers and unchanged tensors.
    fn copy(
        &mut self,
        source: &dyn CheckpointFile,
        mut at: u64,
        end: u64,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while at < end {
            let count = (end - at).min(COPY_BYTES);
            self.bytes.resize(count as usize, 0);
            source.read_at(at, &mut self.bytes)?;
            write(&self.bytes)?;
            at += count;
            self.report(count)?;
        }
        Ok(())
    }

    /// Computes and writes the elements of a tensor that moves.
    fn tensor(&mut self, one: &Move<'_>, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Fate> {
        let (name, count) = (one.tensor.name, one.tensor.element_count());
        let row = one.tensor.shape.last().copied().unwrap_or(1).max(1);
        let sources = [(self.bolmo.origin(), one.tensor), one.base, one.post];
        let (mut largest, mut squares) = (0f64, 0f64);
        let mut first = 0;
        while first < count {
            let elements = (count - first).min(STRIDE as u64);
            self.values.iter_mut().for_each(|values| values.resize(elements as usize, 0.0));
            for ((origin, tensor), values) in sources.iter().zip(&mut self.values) {
                tensor.read_f32(first, values)?;
                check_finite(tensor.name, first, values, row).map_err(|e| e.context(origin))?;
            }
            let [old, base, post, new] = &mut self.values;
            for (new, ((&old, &base), &post)) in new.iter_mut().zip(old.iter().zip(&*base).zip(&*post)) {
                let change = self.alpha * (post - base);
                // Adding 0 would change the sign of a negative zero.
                *new = if change == 0.0 { old } else { old + change };
            }
            self.bytes.clear();
            encode(one.tensor.dtype, new, &mut self.bytes);
            if one.tensor.dtype != DType::F32 {
                convert_half(one.tensor.dtype, &self.bytes, new);
            }
            for (at, (&new, &old)) in new.iter().zip(&*old).enumerate() {
                if !new.is_finite() {
                    let element = first as usize + at;
                    return Err(Error::unsupported(format!(
                        "tensor `{name}`: element [{}, {}] would be beyond the range of {}; use a smaller alpha",
                        element / row,
                        element % row,
                        one.tensor.dtype
                    )));
                }
                let change = (f64::from(new) - f64::from(old)).abs();
                largest = largest.max(change);
                squares += change * change;
            }
            write(&self.bytes)?;
            first += elements;
            self.report(self.bytes.len() as u64)?;
        }
        Ok(Fate::Moved { largest, rms: (squares / count.max(1) as f64).sqrt() })
    }

    /// Reports `bytes` more bytes as written.
    fn report(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        // After the last byte, there is nothing left to cancel.
        if !(self.progress)(self.done, self.total) && self.done < self.total {
            return Err(Error::new(ErrorKind::Cancelled, "the merge was cancelled"));
        }
        Ok(())
    }
}
