//! Rows of a matrix in the format of the device, and what is wrong with those that it cannot hold.

use std::ops::Range;

use bolmo_shaders::WeightFormat;
use bolmo_shaders::quant::{OutOfRange, quantise};
use bolmo_shaders::table::QUANT_BLOCK;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::Error;
use crate::parallel::by_shares;

/// Values that are worth a thread.
pub(crate) const LEAST_SHARE: usize = 1 << 15;

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
                let halves = |range: Range<usize>| {
                    let mut halves = vec![f16::ZERO; range.len()];
                    halves.convert_from_f32_slice(&values[range]);
                    let is_bad = |h: &f16| h.to_bits() & 0x7c00 == 0x7c00;
                    // Without an exit inside it becomes vector code; almost always none is bad.
                    match halves.iter().fold(false, |bad, h| bad | is_bad(h)) {
                        true => Err(halves.iter().position(is_bad).unwrap_or_default()),
                        false => Ok(halves),
                    }
                };
                for (range, halves) in by_shares(values.len(), 1, LEAST_SHARE, halves) {
                    let halves = halves.map_err(|at| range.start + at)?;
                    self.weights.extend_from_slice(bytemuck::cast_slice(&halves));
                }
            }
            WeightFormat::Q8 | WeightFormat::Q4 => {
                self.quantise(format, values).map_err(|OutOfRange(at)| {
                    let block = &values[at..at + QUANT_BLOCK];
                    let largest = |&(_, a): &(usize, &f32), &(_, b): &(usize, &f32)| a.abs().total_cmp(&b.abs());
                    at + block.iter().enumerate().max_by(largest).map_or(0, |(i, _)| i)
                })?;
            }
        }
        Ok(())
    }

    /// Quantises `values`, by as many threads as there are cores: the search for a block's best scale takes most of the time of loading.
    fn quantise(&mut self, format: WeightFormat, values: &[f32]) -> std::result::Result<(), OutOfRange> {
        let pack = |range: Range<usize>| {
            let (mut weights, mut scales) = (Vec::new(), Vec::with_capacity(range.len() / QUANT_BLOCK));
            quantise(format, &values[range], &mut weights, &mut scales).map(|()| (weights, scales))
        };
        for (range, packed) in by_shares(values.len(), QUANT_BLOCK, LEAST_SHARE, pack) {
            let (weights, scales) = packed.map_err(|OutOfRange(at)| OutOfRange(range.start + at))?;
            self.weights.extend_from_slice(&weights);
            self.scales.extend_from_slice(bytemuck::cast_slice(&scales));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919) % 4001) as f32 / 2000.0 - 1.0).collect()
    }

    #[test]
    fn threads_pack_what_one_would() {
        for count in [LEAST_SHARE, 2 * LEAST_SHARE + 96, 5 * LEAST_SHARE] {
            let values = values(count);
            for format in [WeightFormat::Q8, WeightFormat::Q4] {
                let mut packed = Packed::default();
                packed.pack(format, &values).unwrap();
                let (mut weights, mut scales) = (Vec::new(), Vec::new());
                quantise(format, &values, &mut weights, &mut scales).unwrap();
                assert!(
                    packed.weights == weights && packed.scales == bytemuck::cast_slice::<_, u8>(&scales),
                    "{format:?}"
                );
            }
        }
    }

    #[test]
    fn the_first_value_out_of_range_is_named_whoever_finds_it() {
        let mut values = values(5 * LEAST_SHARE);
        for at in [4 * LEAST_SHARE + 100, 2 * LEAST_SHARE + 77] {
            values[at] = 1e9;
            assert_eq!(Packed::default().pack(WeightFormat::Q8, &values), Err(at));
        }
    }
}
