//! Symmetric quantization of weights, with one f16 scale per [`QUANT_BLOCK`] consecutive weights of a row.
//!
//! A weight is its scale times an integer: -127 .. 127 in q8, -8 .. 7 in q4. q8 stores an integer per byte, q4 two. In
//! q4, byte j of a 32-bit word holds integer j of eight in its low 4 bits and integer 4 + j in its high 4 bits, with 8
//! added to both, so that a mask and a shift yield four consecutive integers each. Scales are packed without gaps,
//! block after block, row after row.

use half::f16;

use crate::sizes::QUANT_BLOCK;
use crate::variant::WeightFormat;

/// The error for a block whose scale is out of the range of f16: the index of its first element among all values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange(pub usize);

/// Quantizes `values`, whole blocks of rows, and appends them to `weights` and `scales`. `format` must have scales.
///
/// # Errors
/// [`OutOfRange`] if the scale of a block is out of the range of f16.
pub fn quantize(
    format: WeightFormat,
    values: &[f32],
    weights: &mut Vec<u8>,
    scales: &mut Vec<f16>,
) -> Result<(), OutOfRange> {
    for (block, values) in values.chunks_exact(QUANT_BLOCK).enumerate() {
        let (scale, integers) = if format == WeightFormat::Q4 { block4(values) } else { block8(values) };
        if !scale.is_finite() {
            return Err(OutOfRange(block * QUANT_BLOCK));
        }
        scales.push(scale);
        if format == WeightFormat::Q4 {
            for eight in integers.chunks_exact(8) {
                weights.extend((0..4).map(|j| (eight[j] + 8) as u8 | ((eight[4 + j] + 8) as u8) << 4));
            }
        } else {
            weights.extend(integers.map(|integer| integer as u8));
        }
    }
    Ok(())
}

/// Returns element `i` of weights packed by [`quantize`].
pub fn weight(format: WeightFormat, weights: &[u8], scales: &[f16], i: usize) -> f32 {
    let integer = match format {
        WeightFormat::Q4 => {
            let byte = weights[i / 8 * 4 + i % 4];
            i32::from(if i % 8 < 4 { byte & 15 } else { byte >> 4 }) - 8
        }
        _ => i32::from(weights[i] as i8),
    };
    scales[i / QUANT_BLOCK].to_f32() * integer as f32
}

type Integers = [i8; QUANT_BLOCK];

fn block8(values: &[f32]) -> (f16, Integers) {
    let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    rounded(values, most / 127.0, -127.0, 127.0)
}

/// Picks the scale with the least squared error from several candidates.
///
/// One candidate maps the value of largest magnitude to -8. The other scales are slightly larger or smaller; a smaller
/// scale clips that value.
fn block4(values: &[f32]) -> (f16, Integers) {
    let most = values.iter().fold(0.0f32, |most, &value| if value.abs() > most.abs() { value } else { most });
    let mut best = rounded(values, most / -8.0, -8.0, 7.0);
    let mut least = squared_error(values, &best);
    for divisor in [-7.5, -7.0, 7.0, 7.5, -8.5, -9.0] {
        let tried = rounded(values, most / divisor, -8.0, 7.0);
        let error = squared_error(values, &tried);
        if error < least {
            (best, least) = (tried, error);
        }
    }
    best
}

fn squared_error(values: &[f32], (scale, integers): &(f16, Integers)) -> f64 {
    let scale = f64::from(scale.to_f32());
    values.iter().zip(integers).map(|(&v, &n)| (f64::from(v) - scale * f64::from(n)).powi(2)).sum()
}

fn rounded(values: &[f32], scale: f32, low: f32, high: f32) -> (f16, Integers) {
    let scale = f16::from_f32(scale);
    let step = scale.to_f32();
    let mut integers = [0; QUANT_BLOCK];
    // Values too small for an f16 scale become 0.
    if step != 0.0 && step.is_finite() {
        for (integer, value) in integers.iter_mut().zip(values) {
            *integer = (value / step).round().clamp(low, high) as i8;
        }
    }
    (scale, integers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, size: f32) -> Vec<f32> {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut uniform = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        // Approximately normal.
        (0..count).map(|_| size * (0..6).map(|_| uniform()).sum::<f32>()).collect()
    }

    fn round_trip(format: WeightFormat, values: &[f32]) -> Vec<f32> {
        let (mut weights, mut scales) = (Vec::new(), Vec::new());
        quantize(format, values, &mut weights, &mut scales).expect("values in range");
        let k = values.len() as u64;
        assert_eq!(weights.len() as u64, format.weight_bytes(1, k));
        assert_eq!((scales.len() as u64 * 2).next_multiple_of(4), format.scale_bytes(1, k));
        (0..values.len()).map(|i| weight(format, &weights, &scales, i)).collect()
    }

    #[test]
    fn errors_stay_within_half_a_step() {
        for size in [1e-3, 1.0, 1e3] {
            let values = noise(3200, size);
            let found = round_trip(WeightFormat::Q8, &values);
            for (values, found) in values.chunks(32).zip(found.chunks(32)) {
                let most = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                for (value, found) in values.iter().zip(found) {
                    // Half a step, plus the rounding error of the scale.
                    assert!((value - found).abs() <= most * (0.501 / 127.0 + 1.0 / 2048.0), "{value} {found}");
                }
            }
        }
    }

    #[test]
    fn root_mean_square_errors_are_small() {
        let values = noise(32_000, 1.0);
        let squares = |v: &[f32]| v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let relative = |format| {
            let found = round_trip(format, &values);
            let errors: Vec<f32> = values.iter().zip(&found).map(|(a, b)| a - b).collect();
            (squares(&errors) / squares(&values)).sqrt()
        };
        assert!(relative(WeightFormat::Q8) < 0.006);
        assert!(relative(WeightFormat::Q4) < 0.09, "{}", relative(WeightFormat::Q4));
    }

    #[test]
    fn integers_are_exact() {
        let eight: Vec<f32> = (0..32).map(|i| (i * 8 - 127) as f32).collect();
        assert_eq!(round_trip(WeightFormat::Q8, &eight), eight);
        let four: Vec<f32> = (0..64).map(|i| (i % 16 - 8) as f32 * 0.5).collect();
        assert_eq!(round_trip(WeightFormat::Q4, &four), four);
    }

    #[test]
    fn zero_tiny_and_huge_values() {
        for format in [WeightFormat::Q8, WeightFormat::Q4] {
            assert_eq!(round_trip(format, &[0.0; 32]), [0.0; 32]);
            assert!(round_trip(format, &noise(32, 1e-12)).iter().all(|v| *v == 0.0));
            assert!(round_trip(format, &noise(32, 1e-5)).iter().any(|v| *v != 0.0));
            let mut values = noise(64, 1.0);
            values[40] = 1e9;
            let found = quantize(format, &values, &mut Vec::new(), &mut Vec::new());
            assert_eq!(found, Err(OutOfRange(32)));
        }
    }
}
