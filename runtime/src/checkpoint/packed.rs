//! Packing rows of a matrix in a format of the device, and errors for values that it cannot represent.

use std::ops::Range;

use bolmo_shaders::WeightFormat;
use bolmo_shaders::quant::{OutOfRange, quantize};
use bolmo_shaders::sizes::QUANT_BLOCK;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::allocate;
use crate::error::{Error, Result};
use crate::parallel::map_chunks;

/// Minimum number of values that are worth a thread.
pub(crate) const MIN_CHUNK: usize = 1 << 15;

/// Packed rows, as they are copied to the device.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) weights: Vec<u8>,
    /// Scales in f16, for formats that have scales.
    pub(crate) scales: Vec<u8>,
}

/// Why values were not packed.
#[derive(Debug)]
pub(crate) enum Unpacked {
    /// The value at this index is out of range.
    OutOfRange(usize),
    /// There is not enough memory.
    Memory(Error),
}

impl From<Error> for Unpacked {
    fn from(error: Error) -> Self {
        Self::Memory(error)
    }
}

/// What the memory of packed rows is for.
const WHAT: &str = "packed weights";

impl Packed {
    pub(crate) fn clear(&mut self) {
        self.weights.clear();
        self.scales.clear();
    }

    /// Packs `values`.
    pub(crate) fn pack(&mut self, format: WeightFormat, values: &[f32]) -> Result<(), Unpacked> {
        self.clear();
        let count = values.len() as u64;
        allocate::reserve(&mut self.weights, format.weight_bytes(1, count) as usize, WHAT)?;
        // The loader fills half a word after the last scale.
        allocate::reserve(&mut self.scales, format.scale_bytes(1, count) as usize + 2, WHAT)?;
        match format {
            WeightFormat::F32 => self.weights.extend_from_slice(bytemuck::cast_slice(values)),
            WeightFormat::F16 => {
                let pack = |range: Range<usize>| {
                    let first = range.start;
                    let mut halves: Vec<f16> = allocate::zeros(range.len(), WHAT)?;
                    halves.convert_from_f32_slice(&values[range]);
                    let is_bad = |h: &f16| h.to_bits() & 0x7c00 == 0x7c00;
                    // A loop without an early exit compiles to vector code, and almost never is a value bad.
                    match halves.iter().fold(false, |bad, h| bad | is_bad(h)) {
                        true => Err(Unpacked::OutOfRange(first + halves.iter().position(is_bad).unwrap_or_default())),
                        false => Ok(halves),
                    }
                };
                for (_, halves) in map_chunks(values.len(), 1, MIN_CHUNK, pack) {
                    self.weights.extend_from_slice(bytemuck::cast_slice(&halves?));
                }
            }
            WeightFormat::Q8 | WeightFormat::Q4 => self.quantize(format, values)?,
        }
        Ok(())
    }

    /// Quantizes `values` on all cores: the search for the best scale of each block takes most of the loading time.
    fn quantize(&mut self, format: WeightFormat, values: &[f32]) -> Result<(), Unpacked> {
        let pack = |range: Range<usize>| {
            let (first, count) = (range.start, range.len());
            let (mut weights, mut scales) = (Vec::new(), Vec::new());
            allocate::reserve(&mut weights, format.weight_bytes(1, count as u64) as usize, WHAT)?;
            allocate::reserve(&mut scales, count / QUANT_BLOCK, WHAT)?;
            quantize(format, &values[range], &mut weights, &mut scales).map_err(|OutOfRange(at)| {
                let block = &values[first + at..first + at + QUANT_BLOCK];
                let largest = |&(_, a): &(usize, &f32), &(_, b): &(usize, &f32)| a.abs().total_cmp(&b.abs());
                let in_block = block.iter().enumerate().max_by(largest).map_or(0, |(i, _)| i);
                Unpacked::OutOfRange(first + at + in_block)
            })?;
            Ok::<_, Unpacked>((weights, scales))
        };
        for (_, packed) in map_chunks(values.len(), QUANT_BLOCK, MIN_CHUNK, pack) {
            let (weights, scales) = packed?;
            self.weights.extend_from_slice(&weights);
            self.scales.extend_from_slice(bytemuck::cast_slice(&scales));
        }
        Ok(())
    }
}

/// The error for a `value` of tensor `name` that [`Packed::pack`] found out of range, at a row and column.
pub(crate) fn out_of_range(format: WeightFormat, name: &str, (row, column): (usize, usize), value: f32) -> Error {
    let what = if format == WeightFormat::F16 { "is" } else { "is in a block whose scale is" };
    Error::unsupported(format!(
        "tensor {name}: {value} at row {row}, column {column} {what} beyond the range of f16; load its part of the \
         model in f32"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919) % 4001) as f32 / 2000.0 - 1.0).collect()
    }

    #[test]
    fn threads_pack_the_same_as_a_single_one() {
        for count in [MIN_CHUNK, 2 * MIN_CHUNK + 96, 5 * MIN_CHUNK] {
            let values = values(count);
            for format in [WeightFormat::Q8, WeightFormat::Q4] {
                let mut packed = Packed::default();
                packed.pack(format, &values).unwrap();
                let (mut weights, mut scales) = (Vec::new(), Vec::new());
                quantize(format, &values, &mut weights, &mut scales).unwrap();
                assert!(
                    packed.weights == weights && packed.scales == bytemuck::cast_slice::<_, u8>(&scales),
                    "{format:?}"
                );
            }
        }
    }

    #[test]
    fn the_first_value_out_of_range_is_reported() {
        let mut values = values(5 * MIN_CHUNK);
        for at in [4 * MIN_CHUNK + 100, 2 * MIN_CHUNK + 77] {
            values[at] = 1e9;
            let found = Packed::default().pack(WeightFormat::Q8, &values);
            assert!(matches!(found, Err(Unpacked::OutOfRange(found)) if found == at), "{found:?}");
        }
    }
}
