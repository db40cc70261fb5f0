//! Gradients of the kernels over rows: norms, the gated product, the boundary's cosine and rotary positions.

use bolmo_shaders::params::{BoundaryGrad, RmsNormGrad, Rope, SiluMulGrad};
use bolmo_shaders::sizes::WORKGROUP;
use bolmo_shaders::{KernelId, cpu};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;

use super::harness::{EPS, Noise, Rows, UNREAD, Worst, bytes, edges, forms, hold, run, size};
use super::heads::Rotation;

/// Absolute values of what the gradient of a norm adds up, for dx and for dscale: `r |scale dy| + |x| r^3 / n Σ |scale
/// dy x|` and `|dy x| r`.
fn norm_sums(x: &[f32], scale: &[f32], dy: &[f64], eps: f32) -> Vec<[f64; 2]> {
    let values = x.iter().zip(scale).zip(dy);
    let values: Vec<[f64; 3]> =
        values.map(|((&x, &scale), dy)| [f64::from(x).abs(), f64::from(scale).abs(), dy.abs()]).collect();
    let n = values.len() as f64;
    let r = 1.0 / (values.iter().map(|[x, ..]| x * x).sum::<f64>() / n + f64::from(eps)).sqrt();
    let mean = r * r * r / n * values.iter().map(|[x, scale, dy]| x * scale * dy).sum::<f64>();
    values.iter().map(|[x, scale, dy]| [r * scale * dy + x * mean, dy * x * r]).collect()
}

#[derive(Debug, Clone)]
struct Norm {
    rows: usize,
    groups: usize,
    dim4: usize,
    /// Of x, dy and dx.
    offsets4: [usize; 3],
    gaps4: [usize; 3],
    add: bool,
    eps: f32,
    size: f32,
    seed: u64,
}

pub fn rms_norm() {
    let base = Norm {
        rows: 2,
        groups: 2,
        dim4: 5,
        offsets4: [1, 2, 3],
        gaps4: [3, 1, 2],
        add: false,
        eps: 1e-6,
        size: 1.0,
        seed: 1,
    };
    let dims = edges(129).flat_map(|dim4| [false, true].map(|add| Norm { dim4, add, ..base.clone() }));
    let rows = edges(65).map(|rows| Norm { rows, ..base.clone() });
    let groups = edges(65).map(|groups| Norm { groups, ..base.clone() });
    let widest = [255, 256, 257, 1024].map(|dim4| Norm { dim4, groups: 1, ..base.clone() });
    let zeros = [Norm { size: 0.0, ..base.clone() }];
    let drawn = (
        (size(9), size(9), size(140)),
        ([0..3usize, 0..3, 0..3], [0..3usize, 0..3, 0..3]),
        any::<bool>(),
        select(vec![1e-6f32, 1e-5, 0.5]),
        select(vec![1e-3f32, 1.0, 1e3]),
        any::<u64>(),
    )
        .prop_map(|((rows, groups, dim4), (offsets4, gaps4), add, eps, size, seed)| Norm {
            rows,
            groups,
            dim4,
            offsets4,
            gaps4,
            add,
            eps,
            size,
            seed,
        });
    let edges = dims.chain(rows).chain(groups).chain(widest).chain(zeros);
    hold(KernelId::RmsNormGrad, edges.collect::<Vec<_>>(), drawn, rms_norm_case);
}

fn rms_norm_case(worst: &Worst, case: &Norm) -> TestCaseResult {
    let &Norm { rows, groups, dim4, offsets4, gaps4, add, eps, size, seed } = case;
    let mut noise = Noise::new(seed);
    let dim = 4 * dim4;
    let strides4 = gaps4.map(|gap| groups * dim4 + gap);
    let [x_rows, dy_rows, dx_rows] =
        [0, 1, 2].map(|i| Rows { rows, width: groups * dim, offset: 4 * offsets4[i], stride: 4 * strides4[i] });
    let p = RmsNormGrad {
        rows: rows as u32,
        groups: groups as u32,
        dim4: dim4 as u32,
        x_offset4: offsets4[0] as u32,
        x_stride4: strides4[0] as u32,
        dy_offset4: offsets4[1] as u32,
        dy_stride4: strides4[1] as u32,
        dx_offset4: offsets4[2] as u32,
        dx_stride4: strides4[2] as u32,
        add: add.into(),
        eps,
    };
    let scale = noise.rows(Rows::dense(1, dim), 2.0);
    let x = noise.rows(x_rows, size);
    let dy = noise.rows(dy_rows, 1.0);
    let mut dx = dx_rows.output();
    if add {
        noise.fill(&mut dx, dx_rows, 1.0);
    }
    let dscale = Rows::dense(rows, groups * dim).output();
    let (mut dx_expected, mut dscale_expected) = (dx.clone(), dscale.clone());
    cpu::rms_norm_grad(&p, &scale, &x, &dy, &mut dx_expected, &mut dscale_expected);
    // Both sums run over dim / 256 values a lane and 16 steps from lane to lane; root, quotients and products are a few
    // units more.
    let roundings = dim4 as f64 / 64.0 + 24.0;
    let (mut dx_bound, mut dscale_bound) = (vec![0.0; dx.len()], vec![0.0; dscale.len()]);
    for (row, group) in (0..rows).flat_map(|row| (0..groups).map(move |group| (row, group))) {
        let at = |part: Rows| part.offset + row * part.stride + group * dim;
        let group_dy: Vec<f64> = dy[at(dy_rows)..][..dim].iter().map(|&dy| f64::from(dy)).collect();
        let sums = norm_sums(&x[at(x_rows)..][..dim], &scale[..dim], &group_dy, eps);
        for (i, [v, s]) in sums.into_iter().enumerate() {
            let old = if add { f64::from(dx[at(dx_rows) + i].abs()) } else { 0.0 };
            dx_bound[at(dx_rows) + i] = roundings * EPS * (v + old);
            dscale_bound[(row * groups + group) * dim + i] = roundings * EPS * s;
        }
    }
    for form in forms(KernelId::RmsNormGrad) {
        let bindings = [bytes(&scale), bytes(&x), bytes(&dy), bytes(&dx), bytes(&dscale)];
        let found = run(form, KernelId::RmsNormGrad, &p, &bindings, [groups, rows, 1])?;
        worst.compare("dx", &found[3], &dx_expected, |i| dx_bound[i])?;
        worst.compare("dscale", &found[4], &dscale_expected, |i| dscale_bound[i])?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Gated {
    rows: usize,
    dim4: usize,
    size: f32,
    seed: u64,
}

pub fn silu_mul() {
    let all = edges(129).flat_map(|size| {
        [Gated { rows: size, dim4: 2, size: 8.0, seed: 2 }, Gated { rows: 3, dim4: size, size: 8.0, seed: 3 }]
    });
    let drawn = (size(20), size(140), select(vec![0.1f32, 2.0, 20.0, 200.0]), any::<u64>())
        .prop_map(|(rows, dim4, size, seed)| Gated { rows, dim4, size, seed });
    hold(KernelId::SiluMulGrad, all.collect::<Vec<_>>(), drawn, silu_mul_case);
}

fn silu_mul_case(worst: &Worst, case: &Gated) -> TestCaseResult {
    let &Gated { rows, dim4, size, seed } = case;
    let mut noise = Noise::new(seed);
    let p = SiluMulGrad { rows: rows as u32, dim4: dim4 as u32 };
    let gate_up = noise.rows(Rows::dense(rows, 8 * dim4), size);
    let dh = noise.rows(Rows::dense(rows, 4 * dim4), 1.0);
    let d_gate_up = Rows::dense(rows, 8 * dim4).output();
    let mut expected = d_gate_up.clone();
    cpu::silu_mul_grad(&p, &gate_up, &dh, &mut expected);
    // One row more than there is, which the kernel must leave out.
    let grid = [dim4.div_ceil(WORKGROUP as usize), rows + 1, 1];
    for form in forms(KernelId::SiluMulGrad) {
        let found = run(form, KernelId::SiluMulGrad, &p, &[bytes(&gate_up), bytes(&dh), bytes(&d_gate_up)], grid)?;
        worst.compare("d_gate_up", &found[2], &expected, |i| {
            let [gate, up, dh] = [gate_up[i / 2 * 2], gate_up[i / 2 * 2 + 1], dh[i / 2]].map(|v| f64::from(v).abs());
            let t = (-gate).exp();
            let sigmoid = if gate_up[i / 2 * 2] < 0.0 { t } else { 1.0 } / (1.0 + t);
            // what is added up for the gate, and what is a product for the other one
            let sum = if i % 2 == 0 { up * (sigmoid + gate * t / ((1.0 + t) * (1.0 + t))) } else { gate * sigmoid };
            // A device's exp(x) may be off by 3 + 2 |x| units, and where it comes near 1e-38 it may be 0.
            (12.0 + 2.0 * gate) * EPS * dh * sum + 1e-30
        })?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
struct Cosine {
    rows: usize,
    dim4: usize,
    size: f32,
    seed: u64,
}

pub fn boundary() {
    let all = edges(129).flat_map(|size| {
        [Cosine { rows: size, dim4: 3, size: 1.0, seed: 4 }, Cosine { rows: 3, dim4: size, size: 1.0, seed: 5 }]
    });
    let widest = [255, 256, 257, 1024].map(|dim4| Cosine { rows: 2, dim4, size: 1.0, seed: 6 });
    let drawn = (size(20), size(140), select(vec![0.0f32, 1e-3, 1.0, 1e3]), any::<u64>())
        .prop_map(|(rows, dim4, size, seed)| Cosine { rows, dim4, size, seed });
    hold(KernelId::BoundaryGrad, all.chain(widest).collect::<Vec<_>>(), drawn, boundary_case);
}

fn boundary_case(worst: &Worst, case: &Cosine) -> TestCaseResult {
    let &Cosine { rows, dim4, size, seed } = case;
    let mut noise = Noise::new(seed);
    let dim = 4 * dim4;
    let p = BoundaryGrad { rows: rows as u32, dim4: dim4 as u32 };
    let mut x = noise.rows(Rows::dense(rows + 1, 2 * dim), size);
    // k of the first byte and q of the last one don't count.
    x[dim..2 * dim].fill(UNREAD);
    x[rows * 2 * dim..(rows * 2 + 1) * dim].fill(UNREAD);
    // Some pairs are parallel, and some have a q or a k of zero.
    for t in (0..rows).step_by(3) {
        let (q, k) = (t * 2 * dim, (t * 2 + 3) * dim);
        match t % 4 {
            0 => (0..dim).for_each(|i| x[k + i] = 2.0 * x[q + i]),
            1 => x[q..q + dim].fill(0.0),
            2 => x[k..k + dim].fill(0.0),
            _ => {}
        }
    }
    let dcosine = noise.rows(Rows::dense(rows, 1), 2.0);
    let dx = Rows::dense(rows + 1, 2 * dim).output();
    let mut expected = dx.clone();
    cpu::boundary_grad(&p, &x, &dcosine, &mut expected);
    // The cosine has three sums over dim / 256 values a lane and 16 steps from lane to lane; roots, quotients and
    // products follow.
    let roundings = dim4 as f64 / 64.0 + 32.0;
    let mut bounds = vec![0.0; dx.len()];
    for (t, &dcosine) in dcosine[..rows].iter().enumerate() {
        let parts = [t * 2 * dim, (t * 2 + 3) * dim];
        let norms =
            parts.map(|at| x[at..at + dim].iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12));
        for i in 0..dim {
            let [q, k] = [0, 1].map(|which| f64::from(x[parts[which] + i]).abs() / norms[which]);
            let sum = f64::from(dcosine).abs() * (q + k);
            for (at, norm) in parts.into_iter().zip(norms) {
                bounds[at + i] = roundings * EPS * sum / norm;
            }
        }
    }
    for form in forms(KernelId::BoundaryGrad) {
        let found = run(form, KernelId::BoundaryGrad, &p, &[bytes(&x), bytes(&dcosine), bytes(&dx)], [rows + 1, 1, 1])?;
        worst.compare("dx", &found[2], &expected, |i| bounds[i])?;
    }
    Ok(())
}

pub fn rope() {
    let (edges, drawn) = Rotation::cases(7);
    hold(KernelId::RopeGrad, edges, drawn, rope_case);
}

fn rope_case(worst: &Worst, case: &Rotation) -> TestCaseResult {
    let &Rotation { count, first, per_kv, kv_heads, half_dim, norm, gaps, kv_row, seed } = case;
    let mut noise = Noise::new(seed);
    let heads = per_kv * kv_heads;
    let dim = 2 * half_dim;
    let (q_width, kv_width) = (heads * dim, kv_heads * dim);
    let p = case.params();
    let [k_offset, stride] = [p.k_offset, p.stride].map(|n| n as usize);
    let [q_group, k_group] = [p.q_group, p.k_group].map(|n| n as usize);
    // Rows before the first one belong to another dispatch.
    let part = |offset: usize, width: usize, stride: usize| Rows {
        rows: count,
        width,
        offset: first * stride + offset,
        stride,
    };
    let mut qkv = part(0, 0, stride).array(UNREAD);
    if norm.is_some() {
        // Values have nothing to do with their gradients, nor have the others without a norm.
        noise.fill(&mut qkv, part(gaps[0], q_width, stride), 1.0);
        noise.fill(&mut qkv, part(k_offset, kv_width, stride), 1.0);
    }
    let normed = usize::from(norm.is_some());
    let [q_scale, k_scale] = [q_group, k_group].map(|group| noise.rows(Rows::dense(normed, group * dim), 2.0));
    let mut cos_sin = part(0, dim, dim).array(UNREAD);
    for pair in cos_sin[first * dim..(first + count) * dim].chunks_exact_mut(2) {
        let angle = noise.value(3.2);
        pair.copy_from_slice(&[angle.cos(), angle.sin()]);
    }
    let dq = noise.rows(part(0, q_width, q_width), 1.0);
    let mut dkv = Rows { rows: kv_row + count, ..Rows::dense(0, 2 * kv_width) }.array(UNREAD);
    noise.fill(&mut dkv, Rows { offset: kv_row * 2 * kv_width, ..Rows::dense(count, 2 * kv_width) }, 1.0);
    let dqkv = part(0, 0, stride).output();
    let dscale = part(0, 0, q_width + kv_width).output();
    let (mut dqkv_expected, mut dscale_expected) = (dqkv.clone(), dscale.clone());
    let rows = count as u32;
    let inputs =
        cpu::RopeGradInputs { qkv: &qkv, q_scale: &q_scale, k_scale: &k_scale, cos_sin: &cos_sin, dq: &dq, dkv: &dkv };
    cpu::rope_grad(&p, rows, inputs, &mut dqkv_expected, &mut dscale_expected);

    let [dqkv_bound, dscale_bound] = rope_bounds(
        case,
        &RopeInputs { p: &p, qkv: &qkv, q_scale: &q_scale, k_scale: &k_scale, cos_sin: &cos_sin, dq: &dq, dkv: &dkv },
        [dqkv.len(), dscale.len()],
    );
    let grid = [heads / q_group + kv_heads / k_group + 1, count, 1];
    for form in forms(KernelId::RopeGrad) {
        let bindings = [
            bytes(&qkv),
            bytes(&q_scale),
            bytes(&k_scale),
            bytes(&cos_sin),
            bytes(&dq),
            bytes(&dkv),
            bytes(&dqkv),
            bytes(&dscale),
        ];
        let found = run(form, KernelId::RopeGrad, &p, &bindings, grid)?;
        worst.compare("dqkv", &found[6], &dqkv_expected, |i| dqkv_bound[i])?;
        worst.compare("dscale", &found[7], &dscale_expected, |i| dscale_bound[i])?;
    }
    Ok(())
}

struct RopeInputs<'a> {
    p: &'a Rope,
    qkv: &'a [f32],
    q_scale: &'a [f32],
    k_scale: &'a [f32],
    cos_sin: &'a [f32],
    dq: &'a [f32],
    dkv: &'a [f32],
}

/// How far the gradients of the rotation's input and of its norms' scales may be off, in arrays of these lengths.
fn rope_bounds(case: &Rotation, inputs: &RopeInputs<'_>, lengths: [usize; 2]) -> [Vec<f64>; 2] {
    let &Rotation { count, first, per_kv, kv_heads, half_dim, norm, gaps, kv_row, .. } = case;
    let &RopeInputs { p, qkv, q_scale, k_scale, cos_sin, dq, dkv } = inputs;
    let dim = 2 * half_dim;
    let (q_width, kv_width) = (per_kv * kv_heads * dim, kv_heads * dim);
    let [k_offset, stride, q_group, k_group] = [p.k_offset, p.stride, p.q_group, p.k_group].map(|n| n as usize);
    // Turning back takes two products and their sum, of values up to 1. A norm's sums have a lane's share of steps.
    // Values are copied.
    let roundings = if norm.is_some() { 32.0 + q_width as f64 / 32.0 } else { 2.0 };
    let [mut dqkv_bound, mut dscale_bound] = lengths.map(|length| vec![0.0; length]);
    for row in first..first + count {
        let cache = (kv_row + row - first) * 2 * kv_width;
        let sides = [
            (gaps[0], 0, q_group, q_scale, &dq[row * q_width..][..q_width]),
            (k_offset, q_width, k_group, k_scale, &dkv[cache..][..kv_width]),
        ];
        for (offset, dscale_at, group, scale, d) in sides {
            let width = group * dim;
            for start in (0..d.len()).step_by(width) {
                let turned = |at: usize| {
                    let pair = at / dim * dim + at % half_dim;
                    let turn = (row * half_dim + at % half_dim) * 2;
                    let [a, b, cos, sin] =
                        [d[pair], d[pair + half_dim], cos_sin[turn], cos_sin[turn + 1]].map(|v| f64::from(v).abs());
                    if at % dim < half_dim { a * cos + b * sin } else { b * cos + a * sin }
                };
                let turned: Vec<f64> = (start..start + width).map(turned).collect();
                let at = row * stride + offset + start;
                let sums = match norm {
                    Some(_) => norm_sums(&qkv[at..at + width], scale, &turned, p.eps),
                    None => turned.into_iter().map(|d| [d, 0.0]).collect(),
                };
                for (i, sum) in sums.into_iter().enumerate() {
                    let [v, s] = sum.map(|sum| roundings * EPS * sum);
                    dqkv_bound[at + i] = v;
                    dscale_bound[row * (q_width + kv_width) + dscale_at + start + i] = s;
                }
            }
        }
    }
    [dqkv_bound, dscale_bound]
}
