use super::{Matrix, dot, sizes};
use crate::params;
use crate::variant::Fusion;

/// The inputs of [`matvec`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct MatVecInputs<'a> {
    /// `[n, k]`
    pub w: Matrix<'a>,
    /// `[rows, k]` at x_offset and x_stride.
    pub x: &'a [f32],
    /// `[n]`, the bias.
    pub b: &'a [f32],
    /// `[k]`, the weights of the norm.
    pub scale: &'a [f32],
}

/// `y = x Wᵀ + b` for few rows of x, or `y +=`.
///
/// The number of rows is the width of the kernel's grid and not part of the parameter block.
///
/// With [`Fusion::norm`], x is first `scale * x / sqrt(mean(x^2) + eps)`. With [`Fusion::gated`], rows 2j and 2j + 1 of
/// W give output j, `silu(gate) * up`, and neither the bias nor the old value is added.
///
/// Shapes: y `[rows, n]`, or `[rows, n / 2]` if gated, at y_offset and y_stride.
pub fn matvec(p: &params::MatVec, fusion: Fusion, rows: u32, inputs: MatVecInputs, y: &mut [f32]) {
    let MatVecInputs { w, x, b, scale } = inputs;
    let [rows, n, k] = sizes([rows, p.n, 4 * p.k4]);
    let [x_offset, x_stride] = sizes([4 * p.x_offset4, 4 * p.x_stride4]);
    let [y_offset, y_stride] = sizes([p.y_offset, p.y_stride]);
    for row in 0..rows {
        let x0 = x_offset + row * x_stride;
        let x = &x[x0..x0 + k];
        let mut values: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        if fusion.norm {
            let r = 1.0 / (dot(x, x) / k as f64 + f64::from(p.eps)).sqrt();
            values.iter_mut().zip(scale).for_each(|(value, &scale)| *value *= r * f64::from(scale));
        }
        let product = |column: usize| -> f64 {
            values.iter().enumerate().map(|(i, x)| x * f64::from(w.get(column * k + i))).sum()
        };
        let y = &mut y[y_offset + row * y_stride..];
        if fusion.gated {
            for (j, y) in y[..n / 2].iter_mut().enumerate() {
                let (gate, up) = (product(2 * j), product(2 * j + 1));
                *y = (gate / (1.0 + (-gate).exp()) * up) as f32;
            }
            continue;
        }
        for (column, y) in y[..n].iter_mut().enumerate() {
            let mut v = product(column);
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
    use crate::cpu::noise::assert_close;
    use half::f16;

    const PLAIN: Fusion = Fusion { norm: false, gated: false, tall: false };

    #[test]
    fn offsets_bias_and_add_are_applied() {
        let w = [1.0, 2.0, 3.0, 4.0, 0.0, -1.0, 0.0, 1.0];
        let half = w.map(f16::from_f32);
        let x = [9.0, 9.0, 9.0, 9.0, 1.0, 1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 0.5, 1.0, 0.0, 2.0];
        let mut y = [-1.0; 6];
        let p =
            params::MatVec { n: 2, k4: 1, x_offset4: 1, x_stride4: 2, y_offset: 1, y_stride: 3, ..Default::default() };
        let inputs = MatVecInputs { w: Matrix::F32(&w), x: &x, b: &[], scale: &[] };
        matvec(&p, PLAIN, 2, inputs, &mut y);
        assert_eq!(y, [-1.0, 10.0, 0.0, -1.0, 10.5, 1.0]);
        let inputs = MatVecInputs { w: Matrix::F16(&half), b: &[100.0, 200.0], ..inputs };
        matvec(&params::MatVec { add: 1, bias: 1, ..p }, PLAIN, 2, inputs, &mut y);
        assert_eq!(y, [-1.0, 120.0, 200.0, -1.0, 121.0, 202.0]);
    }

    #[test]
    fn norm_and_gate_are_applied() {
        // The mean square is 3 and eps is 1, so x is halved.
        let w = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let x = [1.0, -1.0, 1.0, 3.0];
        let scale = [2.0, 4.0, 6.0, 0.0];
        let p = params::MatVec { n: 2, k4: 1, x_stride4: 1, y_stride: 2, eps: 1.0, ..Default::default() };
        let mut y = [0.0; 2];
        let inputs = MatVecInputs { w: Matrix::F32(&w), x: &x, b: &[], scale: &scale };
        matvec(&p, Fusion { norm: true, ..PLAIN }, 1, inputs, &mut y);
        assert_close(&y, &[1.0, 1.0], 1e-7);
        matvec(&p, Fusion { norm: true, gated: true, ..PLAIN }, 1, inputs, &mut y);
        assert_close(&y[..1], &[1.0 / (1.0 + (-1f32).exp())], 1e-7);
    }
}
