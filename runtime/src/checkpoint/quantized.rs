//! Quantized checkpoints: how a tensor is stored, and how its rows are read.
//!
//! `docs/quantised-checkpoints.md` describes the layout. A matrix `NAME` is stored in the format of its part, or in the
//! next larger format that its rows fit ([`bolmo_shaders::WeightFormat::fitting`]):
//!
//! | format | `NAME` | `NAME.scales` |
//! |---|---|---|
//! | f32 | F32 `[n, k]` | |
//! | f16 | F16 `[n, k]` | |
//! | q8 | I8 `[n, k]` | F16 `[n, k / 32]` |
//! | q4 | U8 `[n, k / 2]` | F16 `[n, k / 32]` |
//!
//! The bytes are the ones that kernels read ([`bolmo_shaders::quant`]). Norms and biases are F32.

use bolmo_shaders::sizes::QUANT_BLOCK;
use bolmo_shaders::{WeightFormat, quant};
use half::f16;

use crate::checkpoint::formats::Formats;
use crate::checkpoint::header::HeaderEntry;
use crate::checkpoint::layout::TensorSpec;
use crate::checkpoint::{DType, Tensor, shown_shape};
use crate::error::{Error, Result};

/// Suffix that makes the name of a tensor the name of its scales.
pub(super) const SCALES: &str = ".scales";
/// Number of blocks to convert at a time.
const BLOCKS: usize = 128;

/// How a tensor is stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Name and shape of the scales, for types that have scales.
    pub(crate) scales: Option<(String, Vec<usize>)>,
}

impl Stored {
    /// Returns how the tensor is stored in a checkpoint of these formats.
    pub(crate) fn new(spec: &TensorSpec, formats: Formats) -> Self {
        let &[n, k] = spec.shape.as_slice() else {
            return Self { dtype: DType::F32, shape: spec.shape.clone(), scales: None };
        };
        let dtype = DType::of_format(formats.of(spec.part).fitting(k));
        let shape = if dtype == DType::Q4 { vec![n, k / 2] } else { vec![n, k] };
        let scales = dtype.has_scales().then(|| (format!("{}{SCALES}", spec.name), vec![n, k / QUANT_BLOCK]));
        Self { dtype, shape, scales }
    }

    /// Size in the file in bytes, including scales.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn byte_count(&self, spec: &TensorSpec) -> u64 {
        self.dtype.bytes(spec.element_count())
    }

    /// Checks the header entry of the tensor.
    pub(super) fn check(&self, file: &str, name: &str, entry: &HeaderEntry) -> Result<()> {
        check_entry(file, name, entry, self.dtype.stored(), &self.shape)
    }

    /// Checks the header entry of the scales.
    pub(super) fn check_scales(&self, file: &str, entry: &HeaderEntry) -> Result<()> {
        match &self.scales {
            Some((name, shape)) => check_entry(file, name, entry, safetensors::Dtype::F16, shape),
            None => Ok(()),
        }
    }
}

fn check_entry(file: &str, name: &str, entry: &HeaderEntry, dtype: safetensors::Dtype, shape: &[usize]) -> Result<()> {
    if entry.dtype != dtype || entry.shape != shape {
        return Err(Error::bad_checkpoint(format!(
            "{file}: tensor `{name}` must be {dtype} of shape {shape:?}, as `config.json` implies, found {} of \
             shape {}",
            entry.dtype,
            shown_shape(&entry.shape)
        )));
    }
    Ok(())
}

impl Tensor<'_> {
    /// Appends packed rows of a q8 or q4 tensor to `weights`, and their scales to `scales`. Scales must be finite.
    pub(crate) fn read_rows(
        &self,
        first_row: usize,
        rows: usize,
        weights: &mut Vec<u8>,
        scales: &mut Vec<u8>,
    ) -> Result<()> {
        let blocks = self.shape.get(1).copied().unwrap_or(0) / QUANT_BLOCK;
        self.read_blocks(first_row as u64 * blocks as u64, rows * blocks, weights, scales)
    }

    /// Appends packed blocks, counted over all rows, as [`Self::read_rows`] does.
    fn read_blocks(&self, first: u64, count: usize, weights: &mut Vec<u8>, scales: &mut Vec<u8>) -> Result<()> {
        let (n, k) = (self.shape.first().copied().unwrap_or(0), self.shape.get(1).copied().unwrap_or(0));
        let row_blocks = k / QUANT_BLOCK;
        let (Some((scale_file, scale_start)), true) = (self.scales, row_blocks > 0) else {
            return Err(Error::internal(format!("tensor `{}` has no scales", self.name)));
        };
        let all = n as u64 * row_blocks as u64;
        if first.checked_add(count as u64).is_none_or(|end| end > all) {
            return Err(Error::invalid(format!(
                "tensor `{}`: cannot read {count} blocks from {first} on: it has {all}",
                self.name
            )));
        }
        let block_bytes = self.block_bytes();
        let named = |e: Error| e.context(format_args!("tensor `{}`", self.name));
        let at = weights.len();
        weights.resize(at + count * block_bytes, 0);
        self.file.read_at(self.start + first * block_bytes as u64, &mut weights[at..]).map_err(named)?;
        let at = scales.len();
        scales.resize(at + 2 * count, 0);
        scale_file.read_at(scale_start + 2 * first, &mut scales[at..]).map_err(named)?;
        let bad = scales[at..].chunks_exact(2).position(|pair| !f16::from_le_bytes([pair[0], pair[1]]).is_finite());
        if let Some(i) = bad {
            let (block, pair) = (first + i as u64, &scales[at + 2 * i..at + 2 * i + 2]);
            return Err(Error::bad_checkpoint(format!(
                "tensor `{}{SCALES}`: element [{}, {}] is {}, but scales must be finite; fetch the checkpoint again",
                self.name,
                block / row_blocks as u64,
                block % row_blocks as u64,
                f16::from_le_bytes([pair[0], pair[1]])
            )));
        }
        Ok(())
    }

    fn block_bytes(&self) -> usize {
        if self.dtype == DType::Q4 { QUANT_BLOCK / 2 } else { QUANT_BLOCK }
    }

    /// Implements [`Tensor::read_f32`] for elements that are in range.
    pub(super) fn read_quantized(&self, first_element: u64, out: &mut [f32]) -> Result<()> {
        let format = if self.dtype == DType::Q4 { WeightFormat::Q4 } else { WeightFormat::Q8 };
        let block_len = QUANT_BLOCK as u64;
        let (mut weights, mut scales) = (Vec::new(), Vec::new());
        let (mut at, mut done) = (first_element, 0);
        while done < out.len() {
            let (first, skipped) = (at / block_len, (at % block_len) as usize);
            let blocks = BLOCKS.min((skipped + out.len() - done).div_ceil(QUANT_BLOCK));
            weights.clear();
            scales.clear();
            self.read_blocks(first, blocks, &mut weights, &mut scales)?;
            let scales: Vec<f16> = scales.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]])).collect();
            let count = (blocks * QUANT_BLOCK - skipped).min(out.len() - done);
            for (i, x) in (skipped..).zip(&mut out[done..done + count]) {
                *x = quant::weight(format, &weights, &scales, i);
            }
            done += count;
            at += count as u64;
        }
        Ok(())
    }
}
