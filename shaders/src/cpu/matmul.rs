use super::{MatVecInputs, Matrix, matvec, sizes};
use crate::params;
use crate::variant::Fusion;

/// `y = x Wᵀ + b` for many rows of x, or `y +=`.
///
/// The kernel differs from `matvec` in the distribution of the work, and it can split a product into `parts` sums over
/// `4 part4` columns each, stored one after another, without a bias.
///
/// Shapes: w `[n, k]`, x `[rows, k]` at x_offset and x_stride, b `[n]`, y `[parts, rows, n]` at y_offset, y_part and
/// y_stride.
pub fn matmul(p: &params::MatMul, w: Matrix, x: &[f32], b: &[f32], y: &mut [f32]) {
    let &params::MatMul { rows, n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias, part4, y_part } = p;
    let whole = params::MatVec { n, k4, x_offset4, x_stride4, y_offset, y_stride, add, bias, eps: 0.0 };
    if part4 == 0 {
        return matvec(&whole, Fusion::default(), rows, MatVecInputs { w, x, b, scale: &[] }, y);
    }
    let [x_rows, k, part, x_offset, x_stride] = sizes([rows, 4 * k4, 4 * part4, 4 * x_offset4, 4 * x_stride4]);
    for (i, begin) in (0..k).step_by(part).enumerate() {
        // The sum over a part of the columns equals the whole sum for an x that is 0 elsewhere.
        let mut masked = vec![0.0; x.len()];
        for at in (0..x_rows).map(|row| x_offset + row * x_stride + begin) {
            let here = at..at + part.min(k - begin);
            masked[here.clone()].copy_from_slice(&x[here]);
        }
        let p = params::MatVec { y_offset: y_offset + i as u32 * y_part, ..whole };
        matvec(&p, Fusion::default(), rows, MatVecInputs { w, x: &masked, b, scale: &[] }, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shift_matrix_moves_columns() {
        // w[c, i] = 1 where i = c + 1, so column c of y is column c + 1 of x.
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

    #[test]
    fn parts_add_up_to_the_whole() {
        let (rows, n, k) = (2, 3, 20);
        let w: Vec<f32> = (0..n * k).map(|v| (v % 7) as f32).collect();
        let x: Vec<f32> = (0..rows * k).map(|v| (v % 5) as f32).collect();
        let whole = params::MatMul {
            rows: rows as u32,
            n: n as u32,
            k4: k as u32 / 4,
            x_stride4: k as u32 / 4,
            y_stride: n as u32,
            ..Default::default()
        };
        let mut y = vec![0.0; rows * n];
        matmul(&whole, Matrix::F32(&w), &x, &[], &mut y);
        // 8, 8 and 4 columns.
        let parts = params::MatMul { part4: 2, y_part: (rows * n) as u32, ..whole };
        let mut sums = vec![0.0; 3 * rows * n];
        matmul(&parts, Matrix::F32(&w), &x, &[], &mut sums);
        for (at, &y) in y.iter().enumerate() {
            assert_eq!(y, sums[at] + sums[at + rows * n] + sums[at + 2 * rows * n]);
        }
        assert!(sums.iter().all(|&sum| sum != 0.0));
    }
}
