use super::sizes;
use crate::params;

/// Rotates queries and keys by their positions (rotate-half, SPEC 6) and lays keys and values down in the KV cache.
///
/// `(a, b)` of a head's two halves becomes `(a cos - b sin, b cos + a sin)`. Rows `first ..` of the tables go to rows
/// `kv_row ..` of the segment and to the same rows of q.
/// Shapes: qk `[rows, ...]` at q_offset, k_offset and qk_stride, v `[rows, ...]` at v_offset and v_stride,
/// cos_sin `[rows, half_dim, 2]`, q `[rows, heads, dim]`, kv `[segment rows, 2, kv_heads, dim]`.
pub fn rope(p: &params::Rope, qk: &[f32], v: &[f32], cos_sin: &[f32], q: &mut [f32], kv: &mut [f32]) {
    let [count, first, heads, kv_heads, half_dim] = sizes([p.count, p.first, p.heads, p.kv_heads, p.half_dim]);
    let [q_offset, k_offset, qk_stride] = sizes([p.q_offset, p.k_offset, p.qk_stride]);
    let [v_offset, v_stride, kv_row] = sizes([p.v_offset, p.v_stride, p.kv_row]);
    let dim = 2 * half_dim;
    let kv_dim = kv_heads * dim;
    let rotate = |from: usize, row: usize, i: usize| {
        let [a, b] = [from + i, from + i + half_dim].map(|at| f64::from(qk[at]));
        let [cos, sin] = [0, 1].map(|which| f64::from(cos_sin[(row * half_dim + i) * 2 + which]));
        [(a * cos - b * sin) as f32, (b * cos + a * sin) as f32]
    };
    for t in 0..count {
        let row = first + t;
        let cache = (kv_row + t) * 2 * kv_dim;
        for i in 0..half_dim {
            for head in 0..heads {
                let to = (row * heads + head) * dim + i;
                [q[to], q[to + half_dim]] = rotate(row * qk_stride + q_offset + head * dim, row, i);
            }
            for head in 0..kv_heads {
                let to = cache + head * dim + i;
                [kv[to], kv[to + half_dim]] = rotate(row * qk_stride + k_offset + head * dim, row, i);
            }
        }
        let from = row * v_stride + v_offset;
        kv[cache + kv_dim..cache + 2 * kv_dim].copy_from_slice(&v[from..from + kv_dim]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_turn() {
        // two query heads and one key head of width 2, values in a table of their own; row 1 turns by 90 degrees
        let p = params::Rope {
            count: 2,
            first: 1,
            heads: 2,
            kv_heads: 1,
            half_dim: 1,
            q_offset: 1,
            k_offset: 5,
            qk_stride: 8,
            v_offset: 2,
            v_stride: 4,
            kv_row: 3,
        };
        let qk: Vec<f32> = (0..24).map(|v| v as f32).collect();
        let v: Vec<f32> = (0..12).map(|v| 100.0 + v as f32).collect();
        let cos_sin = [9.0, 9.0, 0.0, 1.0, 1.0, 0.0];
        let mut q = [-1.0; 12];
        let mut kv = [-1.0; 20];
        rope(&p, &qk, &v, &cos_sin, &mut q, &mut kv);
        assert_eq!(q, [-1.0, -1.0, -1.0, -1.0, -10.0, 9.0, -12.0, 11.0, 17.0, 18.0, 19.0, 20.0]);
        assert_eq!(kv[..12], [-1.0; 12]);
        assert_eq!(kv[12..], [-14.0, 13.0, 106.0, 107.0, 21.0, 22.0, 110.0, 111.0]);
    }
}
