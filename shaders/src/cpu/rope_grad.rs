use super::{norm_grad, sizes};
use crate::params;

/// The inputs of [`rope_grad`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct RopeGradInputs<'a> {
    /// `[rows, ...]` at q_offset, k_offset, v_offset and stride.
    pub qkv: &'a [f32],
    /// `[q_group, dim]`
    pub q_scale: &'a [f32],
    /// `[k_group, dim]`
    pub k_scale: &'a [f32],
    /// `[rows, half_dim, 2]`
    pub cos_sin: &'a [f32],
    /// `[rows, heads, dim]`
    pub dq: &'a [f32],
    /// `[segment rows, 2, kv_heads, dim]`
    pub dkv: &'a [f32],
}

/// Gradient of the norm and rotation of the queries and keys of `rows` positions.
///
/// Gradients of the two halves of a head are rotated back, `(a cos + b sin, b cos - a sin)`, and, if `norm` is 1, go
/// through the norm of their group, which gives `dscale = d x r`. Gradients of values are copied. The number of rows is
/// the height of the kernel's grid.
///
/// Rows are those of [`rope`](super::rope): `first ..` of the tables and of dq, `kv_row ..` of dkv. dscale has the rows
/// of the tables.
///
/// Shapes: dqkv `[rows, ...]` at q_offset, k_offset, v_offset and stride, dscale `[rows, heads + kv_heads, dim]`.
pub fn rope_grad(p: &params::RopeGrad, rows: u32, inputs: RopeGradInputs, dqkv: &mut [f32], dscale: &mut [f32]) {
    let RopeGradInputs { qkv, q_scale, k_scale, cos_sin, dq, dkv } = inputs;
    let [rows, first, heads, kv_heads, half_dim] = sizes([rows, p.first, p.heads, p.kv_heads, p.half_dim]);
    let [q_group, k_group, stride, kv_row] = sizes([p.q_group, p.k_group, p.stride, p.kv_row]);
    let [q_offset, k_offset, v_offset] = sizes([p.q_offset, p.k_offset, p.v_offset]);
    let dim = 2 * half_dim;
    let kv_dim = kv_heads * dim;
    // The gradients of the heads of a row, given the gradient `d` of the rotated heads.
    let mut back = |row: usize, offset: usize, dscale_head: usize, group: usize, scale: &[f32], d: &[f32]| {
        for (first_head, d) in (0..).step_by(group).zip(d.chunks_exact(group * dim)) {
            let turned = |at: usize| {
                let i = at % half_dim;
                let [cos, sin] = [0, 1].map(|which| f64::from(cos_sin[(row * half_dim + i) * 2 + which]));
                let [a, b] = [at / dim * dim + i, at / dim * dim + half_dim + i].map(|at| f64::from(d[at]));
                if at % dim < half_dim { a * cos + b * sin } else { b * cos - a * sin }
            };
            let turned: Vec<f64> = (0..group * dim).map(turned).collect();
            let at = row * stride + offset + first_head * dim;
            if p.norm == 0 {
                dqkv[at..][..group * dim].iter_mut().zip(&turned).for_each(|(to, &d)| *to = d as f32);
                continue;
            }
            let dscale = &mut dscale[(row * (heads + kv_heads) + dscale_head + first_head) * dim..];
            let through = norm_grad(&qkv[at..][..group * dim], &scale[..group * dim], &turned, p.eps);
            for (i, [v, s]) in through.into_iter().enumerate() {
                dqkv[at + i] = v as f32;
                dscale[i] = s as f32;
            }
        }
    };
    for t in 0..rows {
        let row = first + t;
        let cache = (kv_row + t) * 2 * kv_dim;
        back(row, q_offset, 0, q_group, q_scale, &dq[row * heads * dim..][..heads * dim]);
        back(row, k_offset, heads, k_group, k_scale, &dkv[cache..][..kv_dim]);
    }
    for t in 0..rows {
        let values = &dkv[((kv_row + t) * 2 + 1) * kv_dim..][..kv_dim];
        dqkv[(first + t) * stride + v_offset..][..kv_dim].copy_from_slice(values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::differences::{gradient, loss, wide};
    use crate::cpu::noise::{assert_close, noise};

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const HALF: usize = 3;
    const DIM: usize = 2 * HALF;
    const ROWS: usize = 2;
    const FIRST: usize = 1;
    const KV_ROW: usize = 2;
    const EPS: f32 = 0.05;
    /// One unused value lies between queries and keys.
    const K_OFFSET: usize = HEADS * DIM + 1;
    const V_OFFSET: usize = K_OFFSET + KV_HEADS * DIM;
    const STRIDE: usize = V_OFFSET + KV_HEADS * DIM;

    /// The heads in `x`, normalized by group and rotated.
    fn rotated(x: &[f64], scale: Option<&[f64]>, group: usize, cos_sin: &[f32]) -> Vec<f64> {
        let mut y = x.to_vec();
        for y in y.chunks_exact_mut(group * DIM) {
            let r = 1.0 / (y.iter().map(|y| y * y).sum::<f64>() / y.len() as f64 + f64::from(EPS)).sqrt();
            for (y, scale) in y.iter_mut().zip(scale.unwrap_or_default()) {
                *y *= r * scale;
            }
            for y in y.chunks_exact_mut(DIM) {
                let (a, b) = y.split_at_mut(HALF);
                for ((a, b), turn) in a.iter_mut().zip(b).zip(cos_sin.chunks_exact(2)) {
                    let (cos, sin) = (f64::from(turn[0]), f64::from(turn[1]));
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
        y
    }

    /// The loss over the rows from `FIRST` on.
    fn whole(qkv: &[f64], scales: Option<[&[f64]; 2]>, groups: [usize; 2], cos_sin: &[f32], d: [&[f32]; 2]) -> f64 {
        let row_loss = |t: usize| {
            let row = FIRST + t;
            let part = |offset: usize, heads: usize| &qkv[row * STRIDE + offset..][..heads * DIM];
            let turns = &cos_sin[row * DIM..][..DIM];
            let q = rotated(part(0, HEADS), scales.map(|s| s[0]), groups[0], turns);
            let k = rotated(part(K_OFFSET, KV_HEADS), scales.map(|s| s[1]), groups[1], turns);
            let kv = [&k, part(V_OFFSET, KV_HEADS)].concat();
            let dkv = &d[1][(KV_ROW + t) * 2 * KV_HEADS * DIM..][..2 * KV_HEADS * DIM];
            loss(&d[0][row * HEADS * DIM..][..HEADS * DIM], &q) + loss(dkv, &kv)
        };
        (0..ROWS).map(row_loss).sum()
    }

    #[test]
    fn matches_central_differences() {
        let qkv = noise(1, (FIRST + ROWS) * STRIDE, 1.0);
        let dq = noise(2, (FIRST + ROWS) * HEADS * DIM, 1.0);
        let dkv = noise(3, (KV_ROW + ROWS) * 2 * KV_HEADS * DIM, 1.0);
        let angles = noise(4, (FIRST + ROWS) * HALF, 3.0);
        let cos_sin: Vec<f32> = angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect();
        for (norm, groups) in [(false, [1, 1]), (true, [1, 1]), (true, [HEADS, KV_HEADS])] {
            let p = params::RopeGrad {
                first: FIRST as u32,
                heads: HEADS as u32,
                kv_heads: KV_HEADS as u32,
                half_dim: HALF as u32,
                q_group: groups[0] as u32,
                k_group: groups[1] as u32,
                norm: norm.into(),
                q_offset: 0,
                k_offset: K_OFFSET as u32,
                v_offset: V_OFFSET as u32,
                stride: STRIDE as u32,
                kv_row: KV_ROW as u32,
                eps: EPS,
            };
            let scales = groups.map(|group| noise(5, group * DIM, 2.0));
            let mut dqkv = vec![f32::NAN; qkv.len()];
            let mut dscale = vec![f32::NAN; (FIRST + ROWS) * (HEADS + KV_HEADS) * DIM];
            let inputs = RopeGradInputs {
                qkv: &qkv,
                q_scale: &scales[0],
                k_scale: &scales[1],
                cos_sin: &cos_sin,
                dq: &dq,
                dkv: &dkv,
            };
            rope_grad(&p, ROWS as u32, inputs, &mut dqkv, &mut dscale);
            let wide_scales = [wide(&scales[0]), wide(&scales[1])];
            let given = |scales: [&[f64]; 2], qkv: &[f64]| {
                let scales = norm.then_some(scales);
                whole(qkv, scales, groups, &cos_sin, [&dq, &dkv])
            };
            let mut expected = gradient(|qkv| given([&wide_scales[0], &wide_scales[1]], qkv), &qkv);
            // Unused values and rows of other dispatches have no gradient and are not written.
            for (i, (found, expected)) in dqkv.iter_mut().zip(&mut expected).enumerate() {
                if i < FIRST * STRIDE || i % STRIDE == K_OFFSET - 1 {
                    assert!(found.is_nan() && *expected == 0.0, "value {i}");
                    *found = 0.0;
                }
            }
            assert_close(&dqkv, &expected, 1e-6);
            if !norm {
                assert!(dscale.iter().all(|v| v.is_nan()));
                continue;
            }
            let wide_qkv = wide(&qkv);
            let d_scales = [
                gradient(|q_scale| given([q_scale, &wide_scales[1]], &wide_qkv), &scales[0]),
                gradient(|k_scale| given([&wide_scales[0], k_scale], &wide_qkv), &scales[1]),
            ];
            for (which, heads) in [(0, 0..HEADS), (1, HEADS..HEADS + KV_HEADS)] {
                let mut sums = vec![0.0; groups[which] * DIM];
                for row in dscale.chunks_exact((HEADS + KV_HEADS) * DIM).skip(FIRST) {
                    for part in row[heads.start * DIM..heads.end * DIM].chunks_exact(sums.len()) {
                        sums.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
                    }
                }
                assert_close(&sums, &d_scales[which], 1e-6);
            }
        }
    }
}
