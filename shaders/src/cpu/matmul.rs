use super::{Matrix, matvec};
use crate::params;
use crate::table::Fusion;

/// `y = x Wᵀ + b` for many rows of x, or added to y. The kernel differs from `matvec` only in how it cuts the work.
///
/// Shapes: w `[n, k]`, x `[rows, k]` at x_offset and x_stride, b `[n]`, y `[rows, n]` at y_offset and y_stride.
pub fn matmul(p: &params::MatMul, w: Matrix, x: &[f32], b: &[f32], y: &mut [f32]) {
    let &params::MatMul { rows, n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias } = p;
    let p = params::MatVec { n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias, eps: 0.0 };
    matvec(&p, Fusion::default(), rows, w, x, b, &[], y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_moves_columns() {
        // w[c, i] = 1 where i = c + 1, so column c of y is column c + 1 of x
        let (rows, k) = (3, 8);
        let n = k - 1;
        let mut w = vec![0.0; n * k];
        for c in 0..n {
            w[c * k + c + 1] = 1.0;
        }
        let x: Vec<f32> = (0..rows * k).map(|v| v as f32).collect();
        let b: Vec<f32> = (0..n).map(|c| 0.5 * c as f32).collect();
        let p = params::MatMul {
            rows: rows as u32,
            n: n as u32,
            k4: k as u32 / 4,
            x_stride4: k as u32 / 4,
            y_stride: n as u32,
            bias: 1,
            ..Default::default()
        };
        let mut y = vec![0.0; rows * n];
        matmul(&p, Matrix::F32(&w), &x, &b, &mut y);
        for (at, &y) in y.iter().enumerate() {
            assert_eq!(y, x[at / n * k + at % n + 1] + 0.5 * (at % n) as f32);
        }
    }
}
