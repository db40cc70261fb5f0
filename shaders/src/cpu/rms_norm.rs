use super::{dot, sizes};
use crate::params;

/// `y = scale * x / sqrt(mean(x^2) + eps)` over each group of a row, or `y +=` (docs/model.md, "Global blocks").
///
/// Shapes: scale `[dim]`, x `[rows, groups, dim]` at x_offset and x_stride, y the same at y_offset and y_stride.
pub fn rms_norm(p: &params::RmsNorm, scale: &[f32], x: &[f32], y: &mut [f32]) {
    let [rows, groups, dim] = sizes([p.rows, p.groups, 4 * p.dim4]);
    let [x_offset, x_stride] = sizes([4 * p.x_offset4, 4 * p.x_stride4]);
    let [y_offset, y_stride] = sizes([4 * p.y_offset4, 4 * p.y_stride4]);
    for row in 0..rows {
        for group in 0..groups {
            let x0 = x_offset + row * x_stride + group * dim;
            let y0 = y_offset + row * y_stride + group * dim;
            let x = &x[x0..x0 + dim];
            let r = 1.0 / (dot(x, x) / dim as f64 + f64::from(p.eps)).sqrt();
            for (i, y) in y[y0..y0 + dim].iter_mut().enumerate() {
                let v = f64::from(x[i]) * r * f64::from(scale[i]);
                *y = (v + if p.add != 0 { f64::from(*y) } else { 0.0 }) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn groups_offsets_and_add_are_applied() {
        // The mean squares are 12.25 and 0.25.
        let x = [9.0, 9.0, 9.0, 9.0, 3.5, -3.5, 3.5, 3.5, 0.5, 0.5, -0.5, 0.5];
        let p = params::RmsNorm {
            rows: 1,
            groups: 2,
            dim4: 1,
            x_offset4: 1,
            x_stride4: 2,
            y_offset4: 1,
            y_stride4: 2,
            add: 0,
            eps: 0.0,
        };
        let scale = [1.0, 2.0, 3.0, 4.0];
        let mut y = [7.0; 12];
        rms_norm(&p, &scale, &x, &mut y);
        assert_close(&y, &[7.0, 7.0, 7.0, 7.0, 1.0, -2.0, 3.0, 4.0, 1.0, 2.0, -3.0, 4.0], 1e-7);
        // With eps, the root of the second group is 1 and the root of the first group is sqrt(13).
        rms_norm(&params::RmsNorm { add: 1, eps: 0.75, ..p }, &scale, &x, &mut y);
        assert_close(&y[8..], &[1.5, 3.0, -4.5, 6.0], 1e-7);
        assert_close(&y[4..5], &[1.0 + 3.5 / 13f32.sqrt()], 1e-7);
    }
}
