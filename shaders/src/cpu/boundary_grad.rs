use super::{dot, sizes};
use crate::params;

/// The lower bound of a norm, as in the forward pass.
const LEAST: f64 = 1e-12;

/// Gradient of the cosine between q of a byte and k of the next byte.
///
/// `dq = dcosine (k / |k| - cosine q / |q|) / |q|`, without the second term where the norm is clamped, and `dk`
/// likewise. Vectors without a partner get 0.
///
/// Shapes: x and dx `[rows + 1, 2, dim]` of q and k, dcosine `[rows]`.
pub fn boundary_grad(p: &params::BoundaryGrad, x: &[f32], dcosine: &[f32], dx: &mut [f32]) {
    let [rows, dim] = sizes([p.rows, 4 * p.dim4]);
    dx[..(rows + 1) * 2 * dim].fill(0.0);
    for (t, &dcosine) in dcosine[..rows].iter().enumerate() {
        let (q0, k0) = (t * 2 * dim, (t * 2 + 3) * dim);
        let (q, k) = (&x[q0..q0 + dim], &x[k0..k0 + dim]);
        let norm = |v: &[f32]| dot(v, v).sqrt();
        let [q_norm, k_norm] = [q, k].map(|v| norm(v).max(LEAST));
        let cosine = dot(q, k) / (q_norm * k_norm);
        let mut write = |to: usize, own: &[f32], own_norm: f64, other: &[f32], other_norm: f64| {
            let turn = if norm(own) > LEAST { cosine } else { 0.0 };
            for i in 0..dim {
                let v = f64::from(other[i]) / other_norm - turn * f64::from(own[i]) / own_norm;
                dx[to + i] = (f64::from(dcosine) * v / own_norm) as f32;
            }
        };
        write(q0, q, q_norm, k, k_norm);
        write(k0, k, k_norm, q, q_norm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{gradient, loss};
    use crate::cpu::noise::{assert_close, noise};

    const ROWS: usize = 4;
    const DIM: usize = 8;

    fn cosines(x: &[f64]) -> Vec<f64> {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let pairs = (0..ROWS).map(|t| (&x[t * 2 * DIM..][..DIM], &x[(t * 2 + 3) * DIM..][..DIM]));
        pairs.map(|(q, k)| dot(q, k) / (dot(q, q).sqrt() * dot(k, k).sqrt())).collect()
    }

    #[test]
    fn matches_central_differences() {
        let p = params::BoundaryGrad { rows: ROWS as u32, dim4: DIM as u32 / 4 };
        let x = noise(1, (ROWS + 1) * 2 * DIM, 1.0);
        let dcosine = noise(2, ROWS, 3.0);
        let mut dx = vec![f32::NAN; x.len()];
        boundary_grad(&p, &x, &dcosine, &mut dx);
        assert_close(&dx, &gradient(|x| loss(&dcosine, &cosines(x)), &x), 1e-6);
        // k of the first byte and q of the last byte have no partner.
        assert_eq!(dx[DIM..2 * DIM], [0.0; DIM]);
        assert_eq!(dx[ROWS * 2 * DIM..(ROWS * 2 + 1) * DIM], [0.0; DIM]);
    }

    #[test]
    fn clamped_norms_make_the_cosine_linear() {
        // q is 0: the cosine is linear in q, with the slope k / |k| / 1e-12.
        let mut x = [0.0; 16];
        x[12..].copy_from_slice(&[0.0, 3.0, 0.0, 4.0]);
        let mut dx = [f32::NAN; 16];
        boundary_grad(&params::BoundaryGrad { rows: 1, dim4: 1 }, &x, &[2.0], &mut dx);
        assert_close(&dx[..4], &[0.0, 1.2e12, 0.0, 1.6e12], 1e-7);
        assert_eq!(dx[4..], [0.0; 12]);
    }
}
