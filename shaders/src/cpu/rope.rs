use super::{dot, sizes};
use crate::params;

/// The inputs of [`rope`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct RopeInputs<'a> {
    /// `[rows, ...]` at q_offset, k_offset, v_offset and stride.
    pub qkv: &'a [f32],
    /// `[q_group, dim]`
    pub q_scale: &'a [f32],
    /// `[k_group, dim]`
    pub k_scale: &'a [f32],
    /// `[rows, half_dim, 2]`
    pub cos_sin: &'a [f32],
}

/// Norm and rotary embedding of the queries and keys of `rows` new positions (docs/model.md, "Attention and rotary
/// embeddings").
///
/// If `norm` is 1, `rms(x) * scale` over each group of heads; then the rotation (rotate-half)
/// `(a cos - b sin, b cos + a sin)` of the two halves of a head. Keys and values go to the cache. The number of rows is
/// the height of the kernel's grid.
///
/// Rows `first ..` of the tables go to rows `kv_row ..` of the segment and to the same rows of q.
///
/// Shapes: q `[rows, heads, dim]`, kv `[segment rows, 2, kv_heads, dim]`.
pub fn rope(p: &params::Rope, rows: u32, inputs: RopeInputs, q: &mut [f32], kv: &mut [f32]) {
    let RopeInputs { qkv, q_scale, k_scale, cos_sin } = inputs;
    let [rows, first, heads, kv_heads, half_dim] = sizes([rows, p.first, p.heads, p.kv_heads, p.half_dim]);
    let [q_group, k_group, stride, kv_row] = sizes([p.q_group, p.k_group, p.stride, p.kv_row]);
    let [q_offset, k_offset, v_offset] = sizes([p.q_offset, p.k_offset, p.v_offset]);
    let dim = 2 * half_dim;
    let kv_dim = kv_heads * dim;
    // The heads of a row, normalized and rotated.
    let rotated = |row: usize, offset: usize, heads: usize, group: usize, scale: &[f32]| -> Vec<f32> {
        let from = row * stride + offset;
        let mut to = vec![0.0; heads * dim];
        for first_head in (0..heads).step_by(group) {
            let x = &qkv[from + first_head * dim..][..group * dim];
            let r = 1.0 / (dot(x, x) / (group * dim) as f64 + f64::from(p.eps)).sqrt();
            let value = |at: usize| f64::from(x[at]) * if p.norm == 0 { 1.0 } else { r * f64::from(scale[at]) };
            for at in (0..group * dim).filter(|at| at % dim < half_dim) {
                let [cos, sin] = [0, 1].map(|which| f64::from(cos_sin[(row * half_dim + at % dim) * 2 + which]));
                let (a, b) = (value(at), value(at + half_dim));
                to[first_head * dim + at] = (a * cos - b * sin) as f32;
                to[first_head * dim + at + half_dim] = (b * cos + a * sin) as f32;
            }
        }
        to
    };
    for t in 0..rows {
        let row = first + t;
        let queries = rotated(row, q_offset, heads, q_group, q_scale);
        q[row * heads * dim..][..heads * dim].copy_from_slice(&queries);
        let keys = rotated(row, k_offset, kv_heads, k_group, k_scale);
        let cache = (kv_row + t) * 2 * kv_dim;
        kv[cache..cache + kv_dim].copy_from_slice(&keys);
        kv[cache + kv_dim..cache + 2 * kv_dim].copy_from_slice(&qkv[row * stride + v_offset..][..kv_dim]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    #[test]
    fn quarter_turn_swaps_the_halves() {
        // Two query heads and one key head of width 2; row 1 is rotated by 90 degrees.
        let p = params::Rope {
            first: 1,
            heads: 2,
            kv_heads: 1,
            half_dim: 1,
            q_group: 1,
            k_group: 1,
            q_offset: 1,
            k_offset: 5,
            v_offset: 8,
            stride: 10,
            kv_row: 3,
            ..Default::default()
        };
        let qkv: Vec<f32> = (0..30).map(|v| v as f32).collect();
        let cos_sin = [9.0, 9.0, 0.0, 1.0, 1.0, 0.0];
        let mut q = [-1.0; 12];
        let mut kv = [-1.0; 20];
        let inputs = RopeInputs { qkv: &qkv, q_scale: &[], k_scale: &[], cos_sin: &cos_sin };
        rope(&p, 2, inputs, &mut q, &mut kv);
        assert_eq!(q, [-1.0, -1.0, -1.0, -1.0, -12.0, 11.0, -14.0, 13.0, 21.0, 22.0, 23.0, 24.0]);
        assert_eq!(kv[..12], [-1.0; 12]);
        assert_eq!(kv[12..], [-16.0, 15.0, 18.0, 19.0, 25.0, 26.0, 28.0, 29.0]);
    }

    #[test]
    fn norms_are_per_group() {
        // Two query heads in one group of mean square 4, a key head of mean square 1, no rotation.
        let p = params::Rope {
            heads: 2,
            kv_heads: 1,
            half_dim: 1,
            q_group: 2,
            k_group: 1,
            norm: 1,
            q_offset: 0,
            k_offset: 4,
            v_offset: 6,
            stride: 8,
            ..Default::default()
        };
        let qkv = [2.0, -2.0, 2.0, 2.0, 1.0, -1.0, 7.0, 8.0];
        let (mut q, mut kv) = ([0.0; 4], [0.0; 4]);
        let inputs =
            RopeInputs { qkv: &qkv, q_scale: &[1.0, 2.0, 3.0, 4.0], k_scale: &[5.0, 6.0], cos_sin: &[1.0, 0.0] };
        rope(&p, 1, inputs, &mut q, &mut kv);
        assert_close(&q, &[1.0, -2.0, 3.0, 4.0], 1e-7);
        assert_close(&kv, &[5.0, -6.0, 7.0, 8.0], 1e-7);
    }
}
