use super::{Matrix, sizes};
use crate::params;

/// `y = x Wᵀ + b` for few rows of x, or added to y. The block doesn't hold the number of rows, which is the height of the
/// kernel's grid, so the twin takes it beside the block.
///
/// Shapes: w `[n, k]`, x `[rows, k]` at x_offset and x_stride, b `[n]`, y `[rows, n]` at y_offset and y_stride.
pub fn matvec(p: &params::MatVec, rows: u32, w: Matrix, x: &[f32], b: &[f32], y: &mut [f32]) {
    let [rows, n, k] = sizes([rows, p.n, 4 * p.k4]);
    let [x_offset, x_stride] = sizes([4 * p.x_offset4, 4 * p.x_stride4]);
    let [y_offset, y_stride] = sizes([p.y_offset, p.y_stride]);
    for row in 0..rows {
        let x0 = x_offset + row * x_stride;
        let x = &x[x0..x0 + k];
        let y0 = y_offset + row * y_stride;
        for (column, y) in y[y0..y0 + n].iter_mut().enumerate() {
            let mut v: f64 = x.iter().enumerate().map(|(i, &x)| f64::from(x) * f64::from(w.get(column * k + i))).sum();
            if p.bias != 0 {
                v += f64::from(b[column]);
            }
            if p.add != 0 {
                v += f64::from(*y);
            }
            *y = v as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn offsets_bias_and_add() {
        let w = [1.0, 2.0, 3.0, 4.0, 0.0, -1.0, 0.0, 1.0];
        let half = w.map(f16::from_f32);
        let x = [9.0, 9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 0.5, 1.0, 0.0, 2.0];
        let mut y = [-1.0; 6];
        let p =
            params::MatVec { n: 2, k4: 1, x_offset4: 1, x_stride4: 2, y_offset: 1, y_stride: 3, ..Default::default() };
        matvec(&p, 2, Matrix::F32(&w), &x, &[], &mut y);
        assert_eq!(y, [-1.0, 10.0, 0.0, -1.0, 10.5, 1.0]);
        matvec(&params::MatVec { add: 1, bias: 1, ..p }, 2, Matrix::F16(&half), &x, &[100.0, 200.0], &mut y);
        assert_eq!(y, [-1.0, 120.0, 200.0, -1.0, 121.0, 202.0]);
    }
}
