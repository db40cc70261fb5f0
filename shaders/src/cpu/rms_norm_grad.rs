use super::{norm_grad, sizes};
use crate::params;

/// Gradient of `y = scale * x * r` with `r = 1 / sqrt(mean(x^2) + eps)` over each group of a row.
///
/// `dx = r dy scale - x r^3 / dim Σ dy scale x`, or `dx +=`, and `dscale = dy x r` for each group separately.
///
/// Shapes: scale `[dim]`, x, dy and dx `[rows, groups, dim]` at their own offsets and strides,
/// dscale `[rows, groups, dim]`.
pub fn rms_norm_grad(
    p: &params::RmsNormGrad,
    scale: &[f32],
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
    dscale: &mut [f32],
) {
    let [rows, groups, dim] = sizes([p.rows, p.groups, 4 * p.dim4]);
    let [x_offset, x_stride] = sizes([4 * p.x_offset4, 4 * p.x_stride4]);
    let [dy_offset, dy_stride] = sizes([4 * p.dy_offset4, 4 * p.dy_stride4]);
    let [dx_offset, dx_stride] = sizes([4 * p.dx_offset4, 4 * p.dx_stride4]);
    for row in 0..rows {
        for group in 0..groups {
            let x = &x[x_offset + row * x_stride + group * dim..][..dim];
            let dy = &dy[dy_offset + row * dy_stride + group * dim..][..dim];
            let dx = &mut dx[dx_offset + row * dx_stride + group * dim..][..dim];
            let dscale = &mut dscale[(row * groups + group) * dim..][..dim];
            let dy: Vec<f64> = dy.iter().map(|&dy| f64::from(dy)).collect();
            for (i, [v, s]) in norm_grad(x, &scale[..dim], &dy, p.eps).into_iter().enumerate() {
                dx[i] = (v + if p.add != 0 { f64::from(dx[i]) } else { 0.0 }) as f32;
                dscale[i] = s as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{gradient, loss, wide};
    use crate::cpu::noise::{assert_close, noise};

    const ROWS: usize = 2;
    const GROUPS: usize = 3;
    const DIM: usize = 8;
    const EPS: f32 = 0.1;

    fn norm(scale: &[f64], x: &[f64]) -> Vec<f64> {
        let groups = x.chunks_exact(DIM).map(|x| {
            let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / DIM as f64 + f64::from(EPS)).sqrt();
            x.iter().zip(scale).map(move |(x, scale)| x * r * scale)
        });
        groups.flatten().collect()
    }

    #[test]
    fn matches_central_differences() {
        let p = params::RmsNormGrad {
            rows: ROWS as u32,
            groups: GROUPS as u32,
            dim4: DIM as u32 / 4,
            x_stride4: (GROUPS * DIM) as u32 / 4,
            dy_stride4: (GROUPS * DIM) as u32 / 4,
            dx_offset4: 1,
            dx_stride4: (GROUPS * DIM) as u32 / 4,
            eps: EPS,
            ..Default::default()
        };
        let scale = noise(1, DIM, 2.0);
        let x = noise(2, ROWS * GROUPS * DIM, 1.5);
        let dy = noise(3, x.len(), 1.0);
        let mut dx = vec![f32::NAN; 4 + x.len()];
        let mut dscale = vec![f32::NAN; x.len()];
        rms_norm_grad(&p, &scale, &x, &dy, &mut dx, &mut dscale);
        assert!(dx[..4].iter().all(|v| v.is_nan()));
        let expected = gradient(|x| loss(&dy, &norm(&wide(&scale), x)), &x);
        assert_close(&dx[4..], &expected, 1e-6);
        let sums: Vec<f32> = (0..DIM).map(|i| dscale.iter().skip(i).step_by(DIM).sum()).collect();
        assert_close(&sums, &gradient(|scale| loss(&dy, &norm(scale, &wide(&x))), &scale), 1e-6);
        rms_norm_grad(&params::RmsNormGrad { add: 1, ..p }, &scale, &x, &dy, &mut dx, &mut dscale);
        let twice: Vec<f32> = expected.iter().map(|v| 2.0 * v).collect();
        assert_close(&dx[4..], &twice, 1e-6);
    }
}
