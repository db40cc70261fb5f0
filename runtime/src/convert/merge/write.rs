//! The files of a merged folder: those of the Bolmo model, byte for byte but for the tensors that move.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::checkpoint::output::{encode, io_error};
use crate::checkpoint::{Checkpoint, CheckpointFile, DType, Tensor, check_finite, convert_half};
use crate::convert::merge::Fate;
use crate::error::{Error, ErrorKind, Result};

/// Elements that are computed and written at a time.
const STRIDE: usize = 1 << 20;
/// Bytes that are copied at a time.
const PIECE: u64 = 4 << 20;
/// Ends of the names of files that belong to a model and hold no weights: configurations, tokenizers, chat templates, code.
const COMPANIONS: [&str; 5] = ["json", "txt", "model", "jinja", "py"];
/// The index of shards, which have the same names and tensors afterwards.
const INDEX: &str = "model.safetensors.index.json";

/// Copies the files besides the weights from `from` to `to`.
pub(super) fn companions(from: &Path, to: &Path) -> Result<()> {
    let entries = fs::read_dir(from).map_err(|e| io_error(from, "cannot be listed", &e))?;
    for entry in entries {
        let path = entry.map_err(|e| io_error(from, "cannot be listed", &e))?.path();
        let (Some(file_name), Some(name)) = (path.file_name(), path.file_name().and_then(|name| name.to_str())) else {
            continue;
        };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        // An index of another kind of files names some that don't come along.
        let other_index = name.ends_with(".index.json") && name != INDEX;
        if !COMPANIONS.contains(&extension) || name.starts_with('.') || other_index || !path.is_file() {
            continue;
        }
        // Contents only: the original may be read-only.
        let target = to.join(file_name);
        let mut source = File::open(&path).map_err(|e| io_error(&path, "cannot be opened", &e))?;
        let mut copy = File::create(&target).map_err(|e| io_error(&target, "cannot be written", &e))?;
        std::io::copy(&mut source, &mut copy).map_err(|e| io_error(&target, "cannot be written", &e))?;
    }
    Ok(())
}

/// A tensor that moves. The folders' names are for messages.
pub(super) struct Move<'a> {
    /// Its place in the report.
    pub place: usize,
    pub tensor: Tensor<'a>,
    /// Where its elements are the first of.
    pub base: (&'a str, Tensor<'a>),
    pub post: (&'a str, Tensor<'a>),
}

/// What lasts from file to file: where the run stands, and its buffers.
pub(super) struct Writer<'a> {
    bolmo: &'a Checkpoint,
    alpha: f32,
    progress: &'a mut dyn FnMut(u64, u64) -> bool,
    done: u64,
    total: u64,
    /// Elements before, of the base model, of the post-trained one, and afterwards.
    values: [Vec<f32>; 4],
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(bolmo: &'a Checkpoint, alpha: f32, progress: &'a mut dyn FnMut(u64, u64) -> bool) -> Self {
        let total = bolmo.files().iter().map(|file| file.len()).sum();
        Self { bolmo, alpha, progress, done: 0, total, values: Default::default(), bytes: Vec::new() }
    }

    /// Writes every file to `dir` and tells `became` what became of each tensor that moves, by its place. The result is the bytes written.
    pub fn write(&mut self, dir: &Path, moves: &[Move<'_>], mut became: impl FnMut(usize, Fate)) -> Result<u64> {
        let mut by_file: Vec<Vec<(u64, &Move<'_>)>> = self.bolmo.files().iter().map(|_| Vec::new()).collect();
        for one in moves {
            let place = self.bolmo.place(one.tensor.name);
            let Some((moves, start)) = place.and_then(|(file, start)| Some((by_file.get_mut(file)?, start))) else {
                return Err(Error::internal(format!("tensor `{}` has no place", one.tensor.name)));
            };
            moves.push((start, one));
        }
        for (file, mut moves) in self.bolmo.files().iter().zip(by_file) {
            moves.sort_by_key(|(start, _)| *start);
            let name = Path::new(file.name()).file_name().unwrap_or_default();
            self.file(&dir.join(name), file.as_ref(), &moves, &mut became)?;
        }
        Ok(self.done)
    }

    fn file(
        &mut self,
        path: &Path,
        source: &dyn CheckpointFile,
        moves: &[(u64, &Move<'_>)],
        became: &mut dyn FnMut(usize, Fate),
    ) -> Result<()> {
        let failed = |e: std::io::Error| io_error(path, "cannot be written", &e);
        let mut file = File::create(path).map_err(failed)?;
        let mut write = |bytes: &[u8]| file.write_all(bytes).map_err(failed);
        let mut at = 0;
        for &(start, one) in moves {
            self.copy(source, at, start, &mut write)?;
            became(one.place, self.tensor(one, &mut write)?);
            at = start + one.tensor.byte_count();
        }
        self.copy(source, at, source.len(), &mut write)?;
        // Some systems tell of a full disk only here.
        file.sync_all().map_err(failed)
    }

    /// The bytes of a file from `at` up to `end`, as they are: headers and what stays.
    fn copy(
        &mut self,
        source: &dyn CheckpointFile,
        mut at: u64,
        end: u64,
        write: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        while at < end {
            let count = (end - at).min(PIECE);
            self.bytes.resize(count as usize, 0);
            source.read_at(at, &mut self.bytes)?;
            write(&self.bytes)?;
            at += count;
            self.tell(count)?;
        }
        Ok(())
    }

    /// The elements of a tensor that moves, in their new places.
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
                // Adding 0 to the negative zero would change its sign.
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
                        "tensor `{name}`: element [{}, {}] would be beyond the range of {}; take a smaller alpha",
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
            self.tell(self.bytes.len() as u64)?;
        }
        Ok(Fate::Moved { largest, rms: (squares / count.max(1) as f64).sqrt() })
    }

    /// So many more bytes are written.
    fn tell(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        // With the last byte there is nothing left to cancel.
        if !(self.progress)(self.done, self.total) && self.done < self.total {
            return Err(Error::new(ErrorKind::Cancelled, "merging was cancelled"));
        }
        Ok(())
    }
}
