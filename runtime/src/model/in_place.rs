//! Weights that the CPU device uses where the checkpoint has them, without copies: in a memory map, whose pages
//! processes share, or in the program's memory.

use std::fmt;
use std::sync::Arc;

use bolmo_shaders::WeightFormat;

use crate::checkpoint::formats::Formats;
use crate::checkpoint::layout::expected_tensors;
use crate::checkpoint::{Checkpoint, CheckpointFile, DType, Tensor};
use crate::device::{Capabilities, Device, Engine, SharedBytes, Slice};
use crate::error::Result;

/// The names of two matrices whose rows alternate in one product.
const GATE_UP: [&str; 2] = [".mlp.gate_proj.", ".mlp.up_proj."];

/// A tensor that is used in place.
pub(super) struct InPlace {
    pub(super) weights: Slice,
    pub(super) scales: Option<Slice>,
    files: [Option<Arc<dyn CheckpointFile>>; 2],
}

impl InPlace {
    /// The tensor as memory of the device, if the device can use it in place.
    pub(super) fn new(
        device: &Device,
        checkpoint: &Checkpoint,
        tensor: &Tensor<'_>,
        format: WeightFormat,
    ) -> Option<Self> {
        if !is_usable(tensor, format, device.capabilities.in_place_bytes) {
            return None;
        }
        let files = checkpoint.files_of(tensor.name);
        let share = |file: &Arc<dyn CheckpointFile>, (start, bytes): (u64, u64)| {
            device.share(&SharedBytes::new(Contents(file.clone())), start, bytes)
        };
        let (weights, scales) = tensor.ranges();
        let scales = match (scales, files[1]) {
            (Some(range), Some(file)) => Some(share(file, range)?),
            _ => None,
        };
        Some(Self { weights: share(files[0]?, weights)?, scales, files: files.map(|file| file.cloned()) })
    }
}

/// Files whose contents a model uses in place.
#[derive(Default)]
pub(crate) struct Files(Vec<Arc<dyn CheckpointFile>>);

impl Files {
    /// Adds the files of a tensor.
    pub(super) fn keep(&mut self, tensor: &InPlace) {
        for file in tensor.files.iter().flatten() {
            if !self.0.iter().any(|kept| Arc::ptr_eq(kept, file)) {
                self.0.push(file.clone());
            }
        }
    }

    /// Checks that no file was changed.
    ///
    /// # Errors
    /// `BadCheckpoint` if one was.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.0.iter().try_for_each(|file| file.check_unchanged())
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|file| file.name())).finish()
    }
}

/// The contents of a file that is in memory.
struct Contents(Arc<dyn CheckpointFile>);

impl AsRef<[u8]> for Contents {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes().unwrap_or_default()
    }
}

/// Whether kernels can read a tensor as it is stored: it is in memory in the format that they expect, begins at a word
/// and ends in a whole word of the file.
fn is_usable(tensor: &Tensor<'_>, format: WeightFormat, least_bytes: u64) -> bool {
    cfg!(target_endian = "little")
        && tensor.dtype == DType::of_format(format)
        && tensor.byte_count() >= least_bytes
        && tensor.contents().is_some_and(|(weights, scales)| {
            let in_words = |bytes: &[u8]| bytes.as_ptr().cast::<u32>().is_aligned();
            in_words(weights) && scales.is_none_or(in_words)
        })
}

impl Checkpoint {
    /// How many of the bytes of [`device_bytes`](crate::device_bytes) need no memory of their own on the CPU device
    /// with default options: these weights are stored in the wanted format, and are used where the files are mapped.
    /// Other devices copy all weights.
    pub fn mapped_bytes(&self, formats: impl Into<Formats>) -> u64 {
        self.mapped_bytes_from(formats.into(), Capabilities::CPU_IN_PLACE_BYTES)
    }

    /// As [`Self::mapped_bytes`], on the device of `engine` with the options that it was opened with: 0 on a GPU.
    pub fn mapped_bytes_on(&self, engine: &Engine, formats: impl Into<Formats>) -> u64 {
        self.mapped_bytes_from(formats.into(), engine.device.capabilities.in_place_bytes)
    }

    /// As [`Self::mapped_bytes`], for tensors of at least `least_bytes`.
    pub(super) fn mapped_bytes_from(&self, formats: Formats, least_bytes: u64) -> u64 {
        let specs = expected_tensors(self.config());
        let usable = |name: &str, format| self.tensor(name).is_ok_and(|tensor| is_usable(&tensor, format, least_bytes));
        let matrices = specs.iter().filter_map(|spec| match spec.shape.as_slice() {
            &[_, k] => Some((spec, formats.of(spec.part).fitting(k))),
            _ => None,
        });
        let in_place = matrices.filter(|(spec, format)| {
            let [gate, up] = GATE_UP;
            let other = if spec.name.contains(gate) { (gate, up) } else { (up, gate) };
            usable(&spec.name, *format) && usable(&spec.name.replace(other.0, other.1), *format)
        });
        in_place.map(|(spec, _)| formats.tensor_bytes(spec)).sum()
    }
}
