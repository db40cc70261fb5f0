//! The CPU reference of every kernel.
//!
//! A CPU reference is the same computation over the whole grid in plain Rust, with the names and indexing of the
//! kernel. Kernels are tested against it. Where a kernel sums in f32, its reference sums in f64, so the reference is
//! the more accurate of the two.
//!
//! A reference takes the parameter block and one slice per storage binding, in the order of the [table](crate::table).
//! Kernels with many bindings take their inputs as a struct. Vectors of the shader are flat slices here, so offsets and
//! strides that the block counts in vectors are multiplied by 4. A slice that is too short for the block panics.

mod adamw;
mod attention;
mod attention_grad_kv;
mod attention_grad_q;
mod boundary;
mod boundary_grad;
mod copy;
mod entropy;
mod gather_rows;
mod gather_rows_grad;
mod log_softmax;
mod log_softmax_grad;
mod matmul;
mod matvec;
mod mlstm_cell;
mod mlstm_chunk_out;
mod mlstm_chunk_out_grad;
mod mlstm_chunk_scan;
mod mlstm_chunk_scan_grad;
mod mlstm_chunk_scores;
mod mlstm_chunk_state;
mod mlstm_chunk_state_grad;
mod mlstm_gate_dots;
mod mlstm_gates;
mod mlstm_gates_grad;
mod mlstm_norm;
mod mlstm_norm_grad;
mod mlstm_step;
mod next_ids;
mod rms_norm;
mod rms_norm_grad;
mod rope;
mod rope_grad;
mod round_f16;
mod row_distance;
mod row_distance_grad;
mod sample;
mod silu_mul;
mod silu_mul_grad;
mod soft_labels;
mod sum_rows;
mod sum_squares;
mod transpose;

pub use adamw::adamw;
pub use attention::attention;
pub use attention_grad_kv::{AttentionGradKvInputs, attention_grad_kv};
pub use attention_grad_q::{AttentionGradQInputs, attention_grad_q};
pub use boundary::boundary;
pub use boundary_grad::boundary_grad;
pub use copy::copy;
pub use entropy::entropy;
pub use gather_rows::gather_rows;
pub use gather_rows_grad::gather_rows_grad;
pub use log_softmax::log_softmax;
pub use log_softmax_grad::log_softmax_grad;
pub use matmul::matmul;
pub use matvec::{MatVecInputs, matvec};
pub use mlstm_cell::mlstm_cell;
pub use mlstm_chunk_out::mlstm_chunk_out;
pub use mlstm_chunk_out_grad::{MlstmChunkOutGradInputs, mlstm_chunk_out_grad};
pub use mlstm_chunk_scan::mlstm_chunk_scan;
pub use mlstm_chunk_scan_grad::mlstm_chunk_scan_grad;
pub use mlstm_chunk_scores::mlstm_chunk_scores;
pub use mlstm_chunk_state::mlstm_chunk_state;
pub use mlstm_chunk_state_grad::mlstm_chunk_state_grad;
pub use mlstm_gate_dots::mlstm_gate_dots;
pub use mlstm_gates::mlstm_gates;
pub use mlstm_gates_grad::mlstm_gates_grad;
pub use mlstm_norm::mlstm_norm;
pub use mlstm_norm_grad::{MlstmNormGradInputs, mlstm_norm_grad};
pub use mlstm_step::mlstm_step;
pub use next_ids::next_ids;
pub use rms_norm::rms_norm;
pub use rms_norm_grad::rms_norm_grad;
pub use rope::{RopeInputs, rope};
pub use rope_grad::{RopeGradInputs, rope_grad};
pub use round_f16::round_f16;
pub use row_distance::row_distance;
pub use row_distance_grad::row_distance_grad;
pub use sample::{SampleInputs, sample};
pub use silu_mul::silu_mul;
pub use silu_mul_grad::silu_mul_grad;
pub use soft_labels::soft_labels;
pub use sum_rows::sum_rows;
pub use sum_squares::sum_squares;
pub use transpose::transpose;

use half::f16;

use crate::quant;
use crate::variant::WeightFormat;

/// A matrix in one of the [weight formats](crate::WeightFormat), row-major.
#[derive(Debug, Clone, Copy)]
pub enum Matrix<'a> {
    /// Stored as f32.
    F32(&'a [f32]),
    /// Stored as f16.
    F16(&'a [f16]),
    /// Stored as signed bytes and scales, as packed by [`crate::quant::quantize`].
    Q8(&'a [u8], &'a [f16]),
    /// Stored as 4-bit integers and scales, as packed by [`crate::quant::quantize`].
    Q4(&'a [u8], &'a [f16]),
}

impl Matrix<'_> {
    /// Returns weight `i` in row-major order.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            Matrix::F32(w) => w[i],
            Matrix::F16(w) => w[i].to_f32(),
            Matrix::Q8(w, scales) => quant::weight(WeightFormat::Q8, w, scales, i),
            Matrix::Q4(w, scales) => quant::weight(WeightFormat::Q4, w, scales, i),
        }
    }
}

/// Converts fields of a parameter block to indices.
fn sizes<const N: usize>(fields: [u32; N]) -> [usize; N] {
    fields.map(|field| field as usize)
}

/// The dot product of two slices of equal length.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Gradient of a norm `y = scale * x * r`, `r = 1 / sqrt(mean(x^2) + eps)`: `dx` and `dscale` of each value.
fn norm_grad(x: &[f32], scale: &[f32], dy: &[f64], eps: f32) -> Vec<[f64; 2]> {
    let n = x.len() as f64;
    let r = 1.0 / (dot(x, x) / n + f64::from(eps)).sqrt();
    let products = x.iter().zip(scale).zip(dy).map(|((&x, &scale), &dy)| f64::from(x) * f64::from(scale) * dy);
    let mean = r * r * r / n * products.sum::<f64>();
    let values = x.iter().zip(scale).zip(dy).map(|((&x, &scale), &dy)| (f64::from(x), f64::from(scale), dy));
    values.map(|(x, scale, dy)| [r * scale * dy - x * mean, dy * x * r]).collect()
}

/// The gates `f, i, m, g` of row and head number `at`.
fn gate(gates: &[f32], at: usize) -> [f64; 4] {
    [0, 1, 2, 3].map(|which| f64::from(gates[4 * at + which]))
}

#[cfg(test)]
mod differences {
    /// The derivative of `f` by value `i` of `x`, by central differences.
    pub fn central_differences(f: impl Fn(&[f64]) -> f64, x: &[f64], i: usize) -> f64 {
        let step = 1e-5 * x[i].abs().max(1.0);
        let mut moved = x.to_vec();
        moved[i] = x[i] + step;
        let above = f(&moved);
        moved[i] = x[i] - step;
        (above - f(&moved)) / (2.0 * step)
    }

    /// The derivatives of `f` by all values of `x`.
    pub fn gradient<T: Copy + Into<f64>>(f: impl Fn(&[f64]) -> f64, x: &[T]) -> Vec<f32> {
        let x: Vec<f64> = x.iter().map(|&x| x.into()).collect();
        (0..x.len()).map(|i| central_differences(&f, &x, i) as f32).collect()
    }

    /// Converts values to f64.
    pub fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| f64::from(x)).collect()
    }

    /// The loss whose gradient by `y` is `cotangent`.
    pub fn loss(cotangent: &[f32], y: &[f64]) -> f64 {
        assert_eq!(cotangent.len(), y.len());
        cotangent.iter().zip(y).map(|(&c, &y)| f64::from(c) * y).sum()
    }
}

#[cfg(test)]
pub(crate) mod noise {
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

    /// Asserts that two slices are equal up to `tolerance` times the largest expected value.
    pub fn assert_close(found: &[f32], expected: &[f32], tolerance: f32) {
        assert_eq!(found.len(), expected.len());
        let size = expected.iter().fold(f32::MIN_POSITIVE, |size, v| size.max(v.abs()));
        for (i, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() <= tolerance * size, "value {i}: found {found}, expected {expected}");
        }
    }
}
