//! Rows of a matrix in the format of the device, and what is wrong with those that it cannot hold.

use bolmo_shaders::WeightFormat;
use bolmo_shaders::quant::{OutOfRange, quantise};
use bolmo_shaders::table::QUANT_BLOCK;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::Error;

/// Rows as they go to the device.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) weights: Vec<u8>,
    /// f16, in formats that have scales.
    pub(crate) scales: Vec<u8>,
}

impl Packed {
    pub(crate) fn clear(&mut self) {
        self.weights.clear();
        self.scales.clear();
    }

    /// Packs `values`; an error is the place of one that is out of range.
    pub(crate) fn pack(&mut self, format: WeightFormat, values: &[f32]) -> std::result::Result<(), usize> {
        self.clear();
        match format {
            WeightFormat::F32 => self.weights.extend_from_slice(bytemuck::cast_slice(values)),
            WeightFormat::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                if let Some(at) = halves.iter().position(|h| !h.is_finite()) {
                    return Err(at);
                }
                self.weights.extend_from_slice(bytemuck::cast_slice(&halves));
            }
            WeightFormat::Q8 | WeightFormat::Q4 => {
                let mut scales = Vec::with_capacity(values.len() / QUANT_BLOCK + 1);
                quantise(format, values, &mut self.weights, &mut scales).map_err(|OutOfRange(at)| {
                    let block = &values[at..at + QUANT_BLOCK];
                    let largest = |&(_, a): &(usize, &f32), &(_, b): &(usize, &f32)| a.abs().total_cmp(&b.abs());
                    at + block.iter().enumerate().max_by(largest).map_or(0, |(i, _)| i)
                })?;
                self.scales.extend_from_slice(bytemuck::cast_slice(&scales));
            }
        }
        Ok(())
    }
}

/// What is wrong with `value`, at a row and column of tensor `name`: [`Packed::pack`] found it out of range.
pub(crate) fn out_of_range(format: WeightFormat, name: &str, (row, column): (usize, usize), value: f32) -> Error {
    let what = if format == WeightFormat::F16 { "is" } else { "is in a block whose scale is" };
    Error::unsupported(format!(
        "tensor {name}: {value} at row {row}, column {column} {what} beyond the range of f16; keep its part in f32 weights"
    ))
}
