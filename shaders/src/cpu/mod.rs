//! The CPU twin of every kernel: the same computation over the whole grid in plain Rust, with the kernel's own names and
//! indexing, the oracle of the kernels' tests.
//!
//! A twin takes its parameter block and one slice for each storage binding, in the order of the [table](crate::table). Vectors
//! of the shader are flat here: offsets and strides that the block gives in fours are multiplied out. Where a kernel sums in
//! f32, its twin sums in f64, so that the twin is the more exact of the two. A twin trusts its caller: a slice that is too
//! short for the block panics.

mod adamw;
mod attention;
mod boundary;
mod copy;
mod gather_rows;
mod gather_rows_grad;
mod log_softmax;
mod log_softmax_grad;
mod matmul;
mod matvec;
mod mlstm_cell;
mod mlstm_chunk_out;
mod mlstm_chunk_scan;
mod mlstm_chunk_state;
mod mlstm_gates;
mod mlstm_norm;
mod mlstm_step;
mod rms_norm;
mod rope;
mod row_distance;
mod row_distance_grad;
mod sample;
mod silu_mul;
mod sum_rows;
mod sum_squares;
mod transpose;

pub use adamw::adamw;
pub use attention::attention;
pub use boundary::boundary;
pub use copy::copy;
pub use gather_rows::gather_rows;
pub use gather_rows_grad::gather_rows_grad;
pub use log_softmax::log_softmax;
pub use log_softmax_grad::log_softmax_grad;
pub use matmul::matmul;
pub use matvec::matvec;
pub use mlstm_cell::mlstm_cell;
pub use mlstm_chunk_out::mlstm_chunk_out;
pub use mlstm_chunk_scan::mlstm_chunk_scan;
pub use mlstm_chunk_state::mlstm_chunk_state;
pub use mlstm_gates::mlstm_gates;
pub use mlstm_norm::mlstm_norm;
pub use mlstm_step::mlstm_step;
pub use rms_norm::rms_norm;
pub use rope::rope;
pub use row_distance::row_distance;
pub use row_distance_grad::row_distance_grad;
pub use sample::sample;
pub use silu_mul::silu_mul;
pub use sum_rows::sum_rows;
pub use sum_squares::sum_squares;
pub use transpose::transpose;

use half::f16;

use crate::quant;
use crate::table::WeightFormat;

/// A matrix in one of the [weight formats](crate::WeightFormat), row-major.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// Kept as f32.
    F32(&'a [f32]),
    /// Kept as f16.
    F16(&'a [f16]),
    /// Kept as signed bytes with scales, as [`crate::quant::quantise`] makes them.
    Q8(&'a [u8], &'a [f16]),
    /// Kept as half bytes with scales, likewise.
    Q4(&'a [u8], &'a [f16]),
}

impl Matrix<'_> {
    /// Weight `i` in row-major order.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            Matrix::F32(w) => w[i],
            Matrix::F16(w) => w[i].to_f32(),
            Matrix::Q8(w, scales) => quant::weight(WeightFormat::Q8, w, scales, i),
            Matrix::Q4(w, scales) => quant::weight(WeightFormat::Q4, w, scales, i),
        }
    }
}

/// Fields of a parameter block as indices.
fn sizes<const N: usize>(fields: [u32; N]) -> [usize; N] {
    fields.map(|field| field as usize)
}

/// The dot product of two slices of one length.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Gates `f, i, m, g` of a row and head, `at` counted in fours.
fn gate(gates: &[f32], at: usize) -> [f64; 4] {
    [0, 1, 2, 3].map(|which| f64::from(gates[4 * at + which]))
}

#[cfg(test)]
mod noise {
    /// `count` reproducible values between -`size` and `size`.
    pub fn noise(seed: u64, count: usize, size: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..count).map(|_| size * next()).collect()
    }

    /// Holds two slices against each other, relative to the largest expected value.
    pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len());
        let size = expected.iter().fold(f32::MIN_POSITIVE, |size, v| size.max(v.abs()));
        for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= tolerance * size, "value {i}: found {found}, expected {expected}");
        }
    }

    /// The derivative of `f` by value `i` of `x`, from `f` on both sides of it.
    pub fn central_differences(f: impl Fn(&[f64]) -> f64, x: &[f64], i: usize) -> f64 {
        // The error of the formula goes with the square of the step, that of rounding with its inverse.
        let step = 1e-5 * x[i].abs().max(1.0);
        let at = |x_i: f64| {
            let mut x = x.to_vec();
            x[i] = x_i;
            f(&x)
        };
        (at(x[i] + step) - at(x[i] - step)) / (2.0 * step)
    }

    /// The same values in f64.
    pub fn widen(values: &[f32]) -> Vec<f64> {
        values.iter().map(|&v| v.into()).collect()
    }
}
