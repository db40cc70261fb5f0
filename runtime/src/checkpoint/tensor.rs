//! A tensor of a checkpoint: its type and shape, and its elements as f32.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use bolmo_shaders::WeightFormat;
use bolmo_shaders::sizes::QUANT_BLOCK;
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};

use crate::allocate;
use crate::checkpoint::file::{CheckpointFile, slice_at};
use crate::error::{Error, Result};

/// Number of elements to convert at a time.
const CHUNK: usize = 4096;

/// An element type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// bfloat16: the upper half of a single-precision number.
    BF16,
    /// IEEE half precision.
    F16,
    /// Signed bytes, with a scale per 32 elements of a row in a separate tensor; only in quantized checkpoints.
    Q8,
    /// 4-bit numbers, with scales as for `Q8`.
    Q4,
}

impl DType {
    /// Size of `elements` elements in bytes, including scales.
    pub fn bytes(self, elements: u64) -> u64 {
        match self {
            DType::F32 => 4 * elements,
            DType::BF16 | DType::F16 => 2 * elements,
            DType::Q8 => elements + elements / 16,
            DType::Q4 => elements / 2 + elements / 16,
        }
    }

    /// The type that stores weights in a format.
    pub(crate) fn of_format(format: WeightFormat) -> DType {
        match format {
            WeightFormat::F32 => DType::F32,
            WeightFormat::F16 => DType::F16,
            WeightFormat::Q8 => DType::Q8,
            WeightFormat::Q4 => DType::Q4,
        }
    }

    /// The format that represents weights of this type exactly.
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

    /// The type of weights that a type of the file format stands for, if any.
    pub(super) fn from_safetensors(dtype: safetensors::Dtype) -> Option<DType> {
        match dtype {
            safetensors::Dtype::F32 => Some(DType::F32),
            safetensors::Dtype::BF16 => Some(DType::BF16),
            safetensors::Dtype::F16 => Some(DType::F16),
            _ => None,
        }
    }

    /// The type of the file format that stores this type.
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

    /// Parses `f32`, `bf16` or `f16`, in upper or lower case.
    fn from_str(text: &str) -> Result<DType> {
        [DType::F32, DType::BF16, DType::F16]
            .into_iter()
            .find(|dtype| dtype.to_string().eq_ignore_ascii_case(text))
            .ok_or_else(|| Error::invalid(format!("unknown type of weights {text:?}; use f32, f16 or bf16")))
    }
}

/// Fetches `length` bytes of `file` from `start + offset` on.
async fn fetch(file: &dyn CheckpointFile, start: u64, offset: u64, length: u64) -> Result<()> {
    let length = usize::try_from(length)
        .map_err(|_| Error::invalid(format!("cannot fetch {length} bytes at once on this platform")))?;
    match file.fetch(start.saturating_add(offset), length) {
        Some(fetching) => fetching.await,
        None => Ok(()),
    }
}

/// A view of a tensor, whose data stays in the file until it is read.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    /// Full name.
    pub name: &'a str,
    /// Type of the elements in the file.
    pub dtype: DType,
    /// Shape in the model, rows first, independent of how the weights are packed.
    pub shape: &'a [usize],
    pub(super) file: &'a dyn CheckpointFile,
    /// First byte in `file`.
    pub(super) start: u64,
    /// File and first byte of the scales, for types that have scales.
    pub(super) scales: Option<(&'a dyn CheckpointFile, u64)>,
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{:?} in {}", self.name, self.dtype, self.shape, self.file.name())
    }
}

impl<'a> Tensor<'a> {
    /// First byte and length of the weights in their file and, for types that have scales, of the scales in theirs, up
    /// to a whole word.
    pub(crate) fn ranges(&self) -> ((u64, u64), Option<(u64, u64)>) {
        let scales = self.scales.map(|(_, start)| (start, self.scale_bytes().next_multiple_of(4)));
        let weights = self.byte_count() - if scales.is_some() { self.scale_bytes() } else { 0 };
        ((self.start, weights.next_multiple_of(4)), scales)
    }

    /// The bytes of [`Self::ranges`], if the files are in memory and have them.
    pub(crate) fn contents(&self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let part = |file: &'a dyn CheckpointFile, (start, length): (u64, u64)| {
            slice_at(file.name(), file.bytes()?, start, usize::try_from(length).ok()?).ok()
        };
        let (weights, scales) = self.ranges();
        match (self.scales, scales) {
            (Some((file, _)), Some(range)) => Some((part(self.file, weights)?, Some(part(file, range)?))),
            _ => Some((part(self.file, weights)?, None)),
        }
    }

    /// The weights and scales of some rows, if the files are in memory.
    pub(crate) fn row_contents(&self, rows: Range<usize>) -> Option<(&'a [u8], &'a [u8])> {
        let (weights, scales) = self.contents()?;
        let k = self.shape.get(1).copied().unwrap_or(0) as u64;
        let part = |bytes: &'a [u8], per_row: u64| {
            let [begin, end] = [rows.start, rows.end].map(|row| usize::try_from(row as u64 * per_row));
            bytes.get(begin.ok()?..end.ok()?)
        };
        let scale_bytes = k / QUANT_BLOCK as u64 * 2;
        match scales {
            Some(scales) => Some((part(weights, self.dtype.bytes(k) - scale_bytes)?, part(scales, scale_bytes)?)),
            None => Some((part(weights, self.dtype.bytes(k))?, &[])),
        }
    }

    /// Checks that the weights of some rows, or their scales, are finite, where the files are in memory.
    ///
    /// # Errors
    /// `BadCheckpoint`; the errors of the file if it is not in memory.
    pub(crate) fn check_rows(&self, rows: Range<usize>) -> Result<()> {
        // Loops without an early exit compile to vector code, and almost never is a value bad.
        let halves = |bytes: &[u8]| bytes.chunks_exact(2).fold(false, |bad, half| bad | (half[1] & 0x7c == 0x7c));
        let is_bad = match (self.dtype, self.row_contents(rows.clone())) {
            (DType::Q8 | DType::Q4, Some((_, scales))) => halves(scales),
            (DType::F16, Some((weights, _))) => halves(weights),
            (DType::F32, Some((weights, _))) => {
                let is_bad = |x: &[u8]| x[3] & 0x7f == 0x7f && x[2] & 0x80 != 0;
                weights.chunks_exact(4).fold(false, |bad, x| bad | is_bad(x))
            }
            _ => true,
        };
        if !is_bad {
            return Ok(());
        }
        // Reading says where it is.
        if self.dtype.has_scales() {
            return self.read_rows(rows.start, rows.len(), &mut Vec::new(), &mut Vec::new());
        }
        let k = self.shape.get(1).copied().unwrap_or(0);
        let mut values = allocate::zeros(k, self.name)?;
        for row in rows {
            let first = row as u64 * k as u64;
            self.read_f32(first, &mut values)?;
            check_finite(self.name, first, &values, k)?;
        }
        Ok(())
    }

    fn scale_bytes(&self) -> u64 {
        self.element_count() / QUANT_BLOCK as u64 * 2
    }
}

impl Tensor<'_> {
    /// Number of elements.
    pub fn element_count(&self) -> u64 {
        // Cannot overflow: the header was checked, so the file has this many elements.
        self.shape.iter().map(|&size| size as u64).product()
    }

    /// Size in the file in bytes, including scales.
    pub fn byte_count(&self) -> u64 {
        self.dtype.bytes(self.element_count())
    }

    /// Fetches `count` elements from `first_element` on, for a following [`Self::read_f32`].
    ///
    /// For types with scales, both numbers must be multiples of a block.
    ///
    /// # Errors
    /// Those of the file's [`CheckpointFile::fetch`].
    pub async fn fetch(&self, first_element: u64, count: u64) -> Result<()> {
        // Ranges are not checked here: reading checks them.
        let Some((file, start)) = self.scales else {
            return fetch(self.file, self.start, self.dtype.bytes(first_element), self.dtype.bytes(count)).await;
        };
        let scale_bytes = |elements: u64| elements / QUANT_BLOCK as u64 * 2;
        let weight_bytes = |elements: u64| self.dtype.bytes(elements) - scale_bytes(elements);
        fetch(self.file, self.start, weight_bytes(first_element), weight_bytes(count)).await?;
        fetch(file, start, scale_bytes(first_element), scale_bytes(count)).await
    }

    /// Fills `out` with the elements from `first_element` on, in row-major order, as f32.
    ///
    /// The conversion is exact; a quantized element is its number times its scale.
    ///
    /// # Errors
    /// `InvalidArgument` if the tensor has fewer elements, `BadCheckpoint` for a scale that is not finite, and the
    /// errors of the file.
    pub fn read_f32(&self, first_element: u64, out: &mut [f32]) -> Result<()> {
        let count = self.element_count();
        if first_element.checked_add(out.len() as u64).is_none_or(|end| end > count) {
            return Err(Error::invalid(format!(
                "tensor `{}`: cannot read {} elements from {first_element} on: it has {count}",
                self.name,
                out.len()
            )));
        }
        if self.dtype.has_scales() {
            return self.read_quantized(first_element, out);
        }
        // Cannot overflow: the elements are in the file.
        let start = self.start + self.dtype.bytes(first_element);
        let read = match (self.dtype, self.file.bytes()) {
            (DType::F32, _) => self.read_single(start, out),
            (_, Some(bytes)) => slice_at(self.file.name(), bytes, start, 2 * out.len())
                .map(|bytes| convert_half(self.dtype, bytes, out)),
            (_, None) => self.read_half_in_chunks(start, out),
        };
        read.map_err(|e| e.context(format_args!("tensor `{}`", self.name)))
    }

    fn read_single(&self, start: u64, out: &mut [f32]) -> Result<()> {
        self.file.read_at(start, bytemuck::cast_slice_mut(out))?;
        // No operation on little-endian machines.
        for x in out {
            *x = f32::from_bits(u32::from_le(x.to_bits()));
        }
        Ok(())
    }

    fn read_half_in_chunks(&self, mut start: u64, out: &mut [f32]) -> Result<()> {
        let mut buffer = [0u8; 2 * CHUNK];
        for out in out.chunks_mut(CHUNK) {
            let bytes = &mut buffer[..2 * out.len()];
            self.file.read_at(start, bytes)?;
            convert_half(self.dtype, bytes, out);
            start += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Converts `bytes` to `out`: two bytes per element, at any alignment.
pub(crate) fn convert_half(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype == DType::BF16 {
        for (x, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *x = f32::from_bits(u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16);
        }
        return;
    }
    // The hardware conversion needs aligned input, so each chunk is copied to a small buffer.
    let mut buffer = [0u16; CHUNK];
    for (out, bytes) in out.chunks_mut(CHUNK).zip(bytes.chunks(2 * CHUNK)) {
        let halves = &mut buffer[..out.len()];
        bytemuck::cast_slice_mut(halves).copy_from_slice(bytes);
        // No operation on little-endian machines.
        halves.iter_mut().for_each(|half| *half = u16::from_le(*half));
        halves.reinterpret_cast::<f16>().convert_to_f32_slice(out);
    }
}

/// Rejects NaN and infinity among `values`, the elements of tensor `name` from `first_element` on.
///
/// `row_len` is the length of a row, for the message.
///
/// # Errors
/// `BadCheckpoint` with the row and column of the first such element.
pub fn check_finite(name: &str, first_element: u64, values: &[f32], row_len: usize) -> Result<()> {
    let is_bad = |x: f32| x.to_bits() & 0x7f80_0000 == 0x7f80_0000;
    // A loop without an early exit compiles to vector code, and almost never is a value bad.
    for (i, chunk) in values.chunks(CHUNK).enumerate() {
        if !chunk.iter().fold(false, |bad, &x| bad | is_bad(x)) {
            continue;
        }
        if let Some((j, &x)) = chunk.iter().enumerate().find(|&(_, &x)| is_bad(x)) {
            let element = first_element.saturating_add((i * CHUNK + j) as u64);
            let row_len = row_len.max(1) as u64;
            return Err(Error::bad_checkpoint(format!(
                "tensor `{name}`: element [{}, {}] is {x}, but weights must be finite; fetch the checkpoint again",
                element / row_len,
                element % row_len
            )));
        }
    }
    Ok(())
}
