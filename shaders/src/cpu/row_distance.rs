use super::sizes;
use crate::params;

/// Euclidean distances between corresponding rows of x and y.
///
/// Shapes: x `[rows, dim]` at x_offset and x_stride, y the same at y_offset and y_stride, out `[rows]`.
pub fn row_distance(p: &params::RowDistance, x: &[f32], y: &[f32], out: &mut [f32]) {
    let [rows, dim] = sizes([p.rows, 4 * p.dim4]);
    let [x_offset, x_stride] = sizes([4 * p.x_offset4, 4 * p.x_stride4]);
    let [y_offset, y_stride] = sizes([4 * p.y_offset4, 4 * p.y_stride4]);
    for (row, out) in out[..rows].iter_mut().enumerate() {
        let x = &x[x_offset + row * x_stride..][..dim];
        let y = &y[y_offset + row * y_stride..][..dim];
        let squares = x.iter().zip(y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2));
        *out = squares.sum::<f64>().sqrt() as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_integers_are_exact() {
        let x = [9.0, 9.0, 9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 5.0];
        let y = [1.0, 5.0, 3.0, 1.0, 9.0, 9.0, 9.0, 9.0, 5.0, 5.0, 5.0, 5.0];
        let p = params::RowDistance { rows: 2, dim4: 1, x_offset4: 1, x_stride4: 1, y_offset4: 0, y_stride4: 2 };
        let mut out = [7.0; 3];
        row_distance(&p, &x, &y, &mut out);
        assert_eq!(out, [18f32.sqrt(), 0.0, 7.0]);
    }
}
