use super::sizes;
use crate::params;

/// Gradient of weighted distances by x: `dx = weight (x - y) / max(distance, 1e-12)`, or `dx +=`.
///
/// Shapes: x, y and dx `[rows, dim]` at their own offsets and strides, distance `[rows]` of `row_distance`,
/// weight `[rows]`.
pub fn row_distance_grad(
    p: &params::RowDistanceGrad,
    x: &[f32],
    y: &[f32],
    distance: &[f32],
    weight: &[f32],
    dx: &mut [f32],
) {
    let [rows, dim] = sizes([p.rows, 4 * p.dim4]);
    let [x_offset, x_stride] = sizes([4 * p.x_offset4, 4 * p.x_stride4]);
    let [y_offset, y_stride] = sizes([4 * p.y_offset4, 4 * p.y_stride4]);
    let [dx_offset, dx_stride] = sizes([4 * p.dx_offset4, 4 * p.dx_stride4]);
    for row in 0..rows {
        for i in 0..dim {
            let d = f64::from(x[x_offset + row * x_stride + i]) - f64::from(y[y_offset + row * y_stride + i]);
            let v = d / f64::from(distance[row]).max(1e-12) * f64::from(weight[row]);
            let dx = &mut dx[dx_offset + row * dx_stride + i];
            *dx = (v + if p.add != 0 { f64::from(*dx) } else { 0.0 }) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{central_differences, wide};
    use crate::cpu::noise::{assert_close, noise};
    use crate::cpu::row_distance;

    #[test]
    fn matches_central_differences() {
        let (rows, dim) = (3, 8);
        let [x, y] = [5, 6].map(|seed| noise(seed, rows * dim, 1.0));
        let weight = noise(7, rows, 2.0);
        let (wide_y, cotangent) = (wide(&y), wide(&weight));
        let loss = |x: &[f64]| -> f64 {
            let distance = |(x, y): (&[f64], &[f64])| x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
            x.chunks(dim).zip(wide_y.chunks(dim)).map(distance).zip(&cotangent).map(|(d, c)| d * c).sum()
        };
        let wide = wide(&x);
        let expected: Vec<f32> = (0..rows * dim).map(|i| central_differences(loss, &wide, i) as f32).collect();
        let forward = params::RowDistance { rows: 3, dim4: 2, x_offset4: 0, x_stride4: 2, y_offset4: 0, y_stride4: 2 };
        let mut distance = [0.0; 3];
        row_distance(&forward, &x, &y, &mut distance);
        let p = params::RowDistanceGrad {
            rows: 3,
            dim4: 2,
            x_offset4: 0,
            x_stride4: 2,
            y_offset4: 0,
            y_stride4: 2,
            dx_offset4: 1,
            dx_stride4: 2,
            add: 0,
        };
        let mut dx = vec![1.0; rows * dim + 4];
        row_distance_grad(&p, &x, &y, &distance, &weight, &mut dx);
        assert_close(&dx[4..], &expected, 1e-6);
        assert_eq!(dx[..4], [1.0; 4]);
        row_distance_grad(&params::RowDistanceGrad { add: 1, ..p }, &x, &y, &distance, &weight, &mut dx);
        assert_close(&dx[4..], &expected.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-6);
    }

    #[test]
    fn equal_rows_have_no_gradient() {
        let p = params::RowDistanceGrad { rows: 1, dim4: 1, ..Default::default() };
        let mut dx = [7.0; 4];
        row_distance_grad(&p, &[3.0; 4], &[3.0; 4], &[0.0], &[1e30], &mut dx);
        assert_eq!(dx, [0.0; 4]);
    }
}
