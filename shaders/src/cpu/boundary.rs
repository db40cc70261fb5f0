use super::{dot, sizes};
use crate::params;

/// The cosine between q of a byte and k of the next byte, which decides whether the byte ends a patch (docs/model.md,
/// "Boundary predictor").
///
/// Shapes: x `[rows + 1, 2, dim]` of q and k, cosine `[rows]`.
pub fn boundary(p: &params::Boundary, x: &[f32], cosine: &mut [f32]) {
    let [rows, dim] = sizes([p.rows, 4 * p.dim4]);
    for (t, cosine) in cosine[..rows].iter_mut().enumerate() {
        let q0 = t * 2 * dim;
        let k0 = (t * 2 + 3) * dim;
        let (q, k) = (&x[q0..q0 + dim], &x[k0..k0 + dim]);
        *cosine = (dot(q, k) / (dot(q, q).sqrt().max(1e-12) * dot(k, k).sqrt().max(1e-12))) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_are_with_the_next_byte() {
        // q and k of four bytes; k of the first byte and q of the last byte are not used.
        let x = [
            [[1.0, 1.0, 1.0, 1.0], [9.0, 9.0, 9.0, 9.0]],
            [[3.0, 4.0, 0.0, 0.0], [-2.0, -2.0, -2.0, -2.0]],
            [[1.0, 0.0, 0.0, 0.0], [8.0, -6.0, 0.0, 0.0]],
            [[9.0, 9.0, 9.0, 9.0], [0.0, 0.0, 0.0, 0.0]],
        ];
        let mut cosine = [5.0; 3];
        boundary(&params::Boundary { rows: 3, dim4: 1 }, x.as_flattened().as_flattened(), &mut cosine);
        assert_eq!(cosine, [-1.0, 0.0, 0.0]);
        boundary(
            &params::Boundary { rows: 1, dim4: 1 },
            &[0.0, 2.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 0.0, 3.0, 0.0, 4.0],
            &mut cosine,
        );
        assert_eq!(cosine[0], 0.6);
    }
}
