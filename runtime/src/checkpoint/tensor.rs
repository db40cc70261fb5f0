//! One tensor of a checkpoint: its type and shape, and its elements as f32.

use std::fmt;
use std::str::FromStr;

use bolmo_shaders::WeightFormat;
use bolmo_shaders::table::QUANT_BLOCK;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::checkpoint::file::{CheckpointFile, slice_at};
use crate::error::{Error, Result};

/// Elements that are converted at a time where the data cannot be converted in place.
const PIECE: usize = 4096;

/// The element types that weights may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of a single-precision number.
    BF16,
    /// IEEE half precision.
    F16,
    /// Signed bytes, with a scale for 32 of a row in a tensor beside; only in folders that were quantised ahead.
    Q8,
    /// Half bytes, likewise.
    Q4,
}

impl DType {
    /// Bytes of so many elements, scales included.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            DType::F32 => 4 * elements,
            DType::BF16 | DType::F16 => 2 * elements,
            DType::Q8 => elements + elements / 16,
            DType::Q4 => elements / 2 + elements / 16,
        }
    }

    /// The type of weights in a format.
    pub(crate) fn of_format(format: WeightFormat) -> DType {
        match format {
            WeightFormat::F32 => DType::F32,
            WeightFormat::F16 => DType::F16,
            WeightFormat::Q8 => DType::Q8,
            WeightFormat::Q4 => DType::Q4,
        }
    }

    /// The format of the device that holds weights of this type as they are, or exactly.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn format(self) -> WeightFormat {
        match self {
            DType::F32 | DType::BF16 => WeightFormat::F32,
            DType::F16 => WeightFormat::F16,
            DType::Q8 => WeightFormat::Q8,
            DType::Q4 => WeightFormat::Q4,
        }
    }

    pub(crate) fn has_scales(self) -> bool {
        matches!(self, DType::Q8 | DType::Q4)
    }

    /// The type among those of the file format, if weights may have it.
    pub(super) fn from_safetensors(dtype: safetensors::Dtype) -> Option<DType> {
        match dtype {
            safetensors::Dtype::F32 => Some(DType::F32),
            safetensors::Dtype::BF16 => Some(DType::BF16),
            safetensors::Dtype::F16 => Some(DType::F16),
            _ => None,
        }
    }

    /// The type that the file format knows it as.
    pub(crate) fn stored(self) -> safetensors::Dtype {
        match self {
            DType::F32 => safetensors::Dtype::F32,
            DType::BF16 => safetensors::Dtype::BF16,
            DType::F16 => safetensors::Dtype::F16,
            DType::Q8 => safetensors::Dtype::I8,
            DType::Q4 => safetensors::Dtype::U8,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DType::F32 => "F32",
            DType::BF16 => "BF16",
            DType::F16 => "F16",
            DType::Q8 => "Q8",
            DType::Q4 => "Q4",
        })
    }
}

impl FromStr for DType {
    type Err = Error;

    /// `f32`, `bf16` or `f16`, in either case.
    fn from_str(text: &str) -> Result<DType> {
        [DType::F32, DType::BF16, DType::F16]
            .into_iter()
            .find(|dtype| dtype.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| Error::invalid(format!("the type of weights must be f32, f16 or bf16, found {text:?}")))
    }
}

/// Gets `length` bytes of `file` that lie `offset` behind `start`.
async fn fetch(file: &dyn CheckpointFile, start: u64, offset: u64, length: u64) -> Result<()> {
    let length = usize::try_from(length).map_err(|_| Error::invalid(format!("{length} bytes are too many at once")))?;
    match file.fetch(start.saturating_add(offset), length) {
        Some(fetching) => fetching.await,
        None => Ok(()),
    }
}

/// A view of one tensor; its data stays in the file until it is read.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    /// Full name.
    pub name: &'a str,
    /// Type of the elements in the file.
    pub dtype: DType,
    /// Shape, rows first, in weights: that of the model, however they are packed.
    pub shape: &'a [usize],
    pub(super) file: &'a dyn CheckpointFile,
    /// First byte within `file`.
    pub(super) start: u64,
    /// Where the scales are, in types that have some.
    pub(super) scales: Option<(&'a dyn CheckpointFile, u64)>,
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{:?} in {}", self.name, self.dtype, self.shape, self.file.name())
    }
}

impl Tensor<'_> {
    /// Product of the shape.
    pub fn element_count(&self) -> u64 {
        // The header was checked: this many elements lie in the file.
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Bytes that the elements take in the file, scales included.
    pub fn byte_count(&self) -> u64 {
        self.dtype.bytes(self.element_count())
    }

    /// Gets elements from a file that is not at hand, for [`Self::read_f32`] to read: `count` of them from `first_element` on, both whole
    /// blocks where there are scales.
    pub async fn fetch(&self, first_element: u64, count: u64) -> Result<()> {
        // What is out of range is found out by the read.
        let Some((file, start)) = self.scales else {
            return fetch(self.file, self.start, self.dtype.bytes(first_element), self.dtype.bytes(count)).await;
        };
        let scale_bytes = |elements: u64| elements / QUANT_BLOCK as u64 * 2;
        let weight_bytes = |elements: u64| self.dtype.bytes(elements) - scale_bytes(elements);
        fetch(self.file, self.start, weight_bytes(first_element), weight_bytes(count)).await?;
        fetch(file, start, scale_bytes(first_element), scale_bytes(count)).await
    }

    /// Fills `out` with the elements from `first_element` on, in row-major order, converted to f32: exactly, or
    /// where they were quantised as number times scale.
    pub fn read_f32(&self, first_element: u64, out: &mut [f32]) -> Result<()> {
        let count = self.element_count();
        if first_element.checked_add(out.len() as u64).is_none_or(|end| end > count) {
            return Err(Error::invalid(format!(
                "tensor `{}`: {} elements from {first_element} on were asked for, but it has {count}",
                self.name,
                out.len()
            )));
        }
        if self.dtype.has_scales() {
            return self.read_quantised(first_element, out);
        }
        // In range, so neither the product nor the sum leaves the file.
        let start = self.start + self.dtype.bytes(first_element);
        let read = match (self.dtype, self.file.bytes()) {
            (DType::F32, _) => self.read_single(start, out),
            (_, Some(bytes)) => slice_at(self.file.name(), bytes, start, 2 * out.len())
                .map(|bytes| convert_half(self.dtype, bytes, out)),
            (_, None) => self.read_half_in_pieces(start, out),
        };
        read.map_err(|e| e.context(format_args!("tensor `{}`", self.name)))
    }

    fn read_single(&self, start: u64, out: &mut [f32]) -> Result<()> {
        self.file.read_at(start, bytemuck::cast_slice_mut(out))?;
        // Nothing to do, and compiled to nothing, on little-endian machines.
        for x in out {
            *x = f32::from_bits(u32::from_le(x.to_bits()));
        }
        Ok(())
    }

    fn read_half_in_pieces(&self, mut start: u64, out: &mut [f32]) -> Result<()> {
        let mut buffer = [0u8; 2 * PIECE];
        for out in out.chunks_mut(PIECE) {
            let bytes = &mut buffer[..2 * out.len()];
            self.file.read_at(start, bytes)?;
            convert_half(self.dtype, bytes, out);
            start += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Converts two-byte elements; `bytes` has two for each of `out`, at any alignment.
pub(crate) fn convert_half(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype == DType::BF16 {
        for (x, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *x = f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
        }
        return;
    }
    // The hardware's conversion wants aligned input, so each piece passes a small buffer.
    let mut buffer = [0u16; PIECE];
    for (out, bytes) in out.chunks_mut(PIECE).zip(bytes.chunks(2 * PIECE)) {
        let halves = &mut buffer[..out.len()];
        bytemuck::cast_slice_mut(halves).copy_from_slice(bytes);
        // Nothing to do, and compiled to nothing, on little-endian machines.
        halves.iter_mut().for_each(|half| *half = u16::from_le(*half));
        halves.reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

/// Refuses NaN and infinity among `values`, which are elements of tensor `name` from `first_element` on.
///
/// `row_len` is the length of a row, for the message.
pub fn check_finite(name: &str, first_element: u64, values: &[f32], row_len: usize) -> Result<()> {
    let is_bad = |x: f32| x.to_bits() & 0x7f80_0000 == 0x7f80_0000;
    // Pieces without an exit inside become vector code; almost always none is bad.
    for (i, piece) in values.chunks(PIECE).enumerate() {
        if !piece.iter().fold(false, |bad, &x| bad | is_bad(x)) {
            continue;
        }
        if let Some((j, &x)) = piece.iter().enumerate().find(|&(_, &x)| is_bad(x)) {
            let element = first_element.saturating_add((i * PIECE + j) as u64);
            let row_len = row_len.max(1) as u64;
            return Err(Error::bad_checkpoint(format!(
                "tensor `{name}`: element [{}, {}] is {x}; every weight must be finite",
                element / row_len,
                element % row_len
            )));
        }
    }
    Ok(())
}
