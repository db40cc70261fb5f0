use super::sizes;
use crate::params;

/// `y[c, r] = x[r, c]`: the transpose of a matrix.
///
/// Shapes: x `[rows, columns]` at x_offset and x_stride, y `[columns, rows]` at y_offset and y_stride.
pub fn transpose(p: &params::Transpose, x: &[f32], y: &mut [f32]) {
    let [rows, columns] = sizes([p.rows, p.columns]);
    let [x_offset, x_stride, y_offset, y_stride] = sizes([p.x_offset, p.x_stride, p.y_offset, p.y_stride]);
    for r in 0..rows {
        for c in 0..columns {
            y[y_offset + c * y_stride + r] = x[x_offset + r * x_stride + c];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let x = [9.0, 1.0, 2.0, 3.0, 9.0, 4.0, 5.0, 6.0];
        let mut y = [0.0; 9];
        let p = params::Transpose { rows: 2, columns: 3, x_offset: 1, x_stride: 4, y_offset: 1, y_stride: 3 };
        transpose(&p, &x, &mut y);
        assert_eq!(y, [0.0, 1.0, 4.0, 0.0, 2.0, 5.0, 0.0, 3.0, 6.0]);
    }
}
