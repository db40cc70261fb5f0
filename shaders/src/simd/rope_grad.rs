use super::call::Call;
use super::extent::{apart, product};
use super::instruction_set::Task;
use super::memory::Fault;
use super::rms_norm_grad;
use super::rope::{check_groups, split_pairs};
use super::scratch::with_scratch;
use super::vector::Vector;
use crate::params;

/// Gradient of norm and rotary embedding of queries and keys; see the [CPU reference](crate::cpu::rope_grad).
pub(super) fn rope_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::RopeGrad = call.params()?;
    let [first, heads, kv_heads, half_dim] = [p.first, p.heads, p.kv_heads, p.half_dim].map(|n| n as usize);
    let [q_group, k_group, stride, kv_row] = [p.q_group, p.k_group, p.stride, p.kv_row].map(|n| n as usize);
    let [q_offset, k_offset, v_offset] = [p.q_offset, p.k_offset, p.v_offset].map(|n| n as usize);
    let rows = call.grid[1] as usize;
    check_groups("rope_grad", &p)?;
    let dim = product([2, half_dim]);
    let (q_width, kv_width) = (product([heads, dim]), product([kv_heads, dim]));
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    let parts = [[q_offset, q_width], [k_offset, kv_width], [v_offset, kv_width]];
    let end = |parts: &[[usize; 2]]| {
        let ends = parts.iter().map(|[offset, width]| offset.saturating_add(*width));
        product([first.saturating_add(rows - 1), stride]).saturating_add(ends.max().unwrap_or_default())
    };
    let last = first.saturating_add(rows);
    // Without norms, the bindings of their inputs and of their gradient hold something else.
    let norms = if p.norm == 0 {
        None
    } else {
        let qkv = call.read(0, end(&parts[..2]))?;
        let scales = [call.read(1, product([q_group, dim]))?, call.read(2, product([k_group, dim]))?];
        let dscale_width = q_width.saturating_add(kv_width);
        Some((qkv, scales, dscale_width, call.write(7, product([last, dscale_width]))?))
    };
    let cos_sin = call.read(3, product([last, dim]))?;
    let dq = call.read(4, product([last, q_width]))?;
    let dkv = call.read(5, product([kv_row.saturating_add(rows), 2, kv_width]))?;
    let dqkv = call.write(6, end(&parts))?;
    if !apart(rows, stride, parts) {
        return Err(Fault::new("rope_grad: parts of dqkv overlap"));
    }

    let turned_width = if p.norm == 0 { 0 } else { product([q_group.max(k_group), dim]) };
    call.each(rows, product([8, rows, q_width.saturating_add(kv_width)]), |t| {
        let row = first + t;
        let cache = (kv_row + t) * 2 * kv_width;
        let (dk, dv) = dkv[cache..cache + 2 * kv_width].split_at(kv_width);
        let to = row * stride + v_offset;
        // SAFETY: every task has a row of its own, and neither rows nor their parts overlap.
        unsafe { dqkv.slice(to..to + kv_width) }.copy_from_slice(dv);
        with_scratch(dim + turned_width, |scratch| {
            let (angles, turned) = scratch.split_at_mut(dim);
            let (cos, sin) = split_pairs(&cos_sin[row * dim..(row + 1) * dim], angles);
            let dq = &dq[row * q_width..(row + 1) * q_width];
            for (key, d, group, offset) in [(0, dq, q_group, q_offset), (1, dk, k_group, k_offset)] {
                let width = product([group, dim]);
                for (i, d) in d.chunks_exact(width).enumerate() {
                    let at = row * stride + offset + i * width;
                    // SAFETY: as above, and groups don't overlap.
                    let dx = unsafe { dqkv.slice(at..at + width) };
                    let Some((qkv, scales, dscale_width, dscale)) = &norms else {
                        call.instructions.run(Group { d, cos, sin, turned: dx, norm: None });
                        continue;
                    };
                    let at_scale = row * dscale_width + key * q_width + i * width;
                    // SAFETY: as above.
                    let dscale = unsafe { dscale.slice(at_scale..at_scale + width) };
                    let norm = Some(Norm { x: &qkv[at..at + width], scale: scales[key], eps: p.eps, dx, dscale });
                    call.instructions.run(Group { d, cos, sin, turned: &mut turned[..width], norm });
                }
            }
        });
    });
    Ok(())
}

/// The norm of a group; all slices are `[heads, dim]`.
struct Norm<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    eps: f32,
    dx: &'a mut [f32],
    dscale: &'a mut [f32],
}

/// Heads that share a norm.
struct Group<'a> {
    /// Gradient of the rotated heads, `[heads, dim]`
    d: &'a [f32],
    /// `[dim / 2]`
    cos: &'a [f32],
    /// `[dim / 2]`
    sin: &'a [f32],
    /// Gradient of the heads before the rotation, `[heads, dim]`
    turned: &'a mut [f32],
    norm: Option<Norm<'a>>,
}

impl Task for Group<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { d, cos, sin, turned, norm } = self;
        turn_back::<V>(d, [cos, sin], turned);
        if let Some(Norm { x, scale, eps, dx, dscale }) = norm {
            rms_norm_grad::Group { scale, x, dy: turned, eps, add: false, dx, dscale }.run::<V>();
        }
    }
}

/// Rotates the gradients of heads back.
#[inline(always)]
fn turn_back<V: Vector>(d: &[f32], [cos, sin]: [&[f32]; 2], turned: &mut [f32]) {
    let (count, half) = (turned.len(), cos.len());
    assert!(d.len() == count && sin.len() == half && count.is_multiple_of(2 * half));
    for head in (0..count).step_by(2 * half) {
        for i in (0..half).step_by(V::LANES) {
            let lanes = V::LANES.min(half - i);
            let (low, high) = (head + i, head + half + i);
            // SAFETY: the lanes end with a half of a head at the latest, and the slices of heads have `count` values,
            // by the assertion above.
            unsafe {
                let (a, b) = (V::load_first(d.as_ptr().add(low), lanes), V::load_first(d.as_ptr().add(high), lanes));
                let cos = V::load_first(cos.as_ptr().add(i), lanes);
                let sin = V::load_first(sin.as_ptr().add(i), lanes);
                a.mul(cos).add(b.mul(sin)).store_first(turned.as_mut_ptr().add(low), lanes);
                b.mul(cos).sub(a.mul(sin)).store_first(turned.as_mut_ptr().add(high), lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::rope::tests::{FIRST, KV_ROW, block};
    use crate::simd::testing::{Run, cases, words};

    /// A run with bindings that are just large enough, and dqkv and dscale as expected after it. `change` may change
    /// qkv, dq and dkv.
    fn case(p: &params::RopeGrad, rows: u32, change: impl Fn([&mut [f32]; 3])) -> (Run, [Vec<f32>; 2]) {
        let dim = 2 * p.half_dim;
        let (q_width, kv_width) = (p.heads * dim, p.kv_heads * dim);
        let last = FIRST + rows;
        let mut qkv = noise(1, ((last - 1) * p.stride + p.k_offset + kv_width) as usize, 2.0);
        let [q_scale, k_scale] = [p.q_group, p.k_group].map(|group| noise(2, (p.norm * group * dim) as usize, 2.0));
        let cos_sin = noise(4, (last * dim) as usize, 1.0);
        let mut dq = noise(5, (last * q_width) as usize, 1.0);
        let mut dkv = noise(6, ((KV_ROW + rows) * 2 * kv_width) as usize, 1.0);
        change([&mut qkv, &mut dq, &mut dkv]);
        let dqkv = vec![7.0; ((last - 1) * p.stride + p.v_offset + kv_width) as usize];
        let dscale = vec![7.0; (p.norm * last * (q_width + kv_width)) as usize];
        // Without norms, nothing of qkv is read.
        let x = if p.norm == 0 { &[] } else { &qkv[..] };
        let bindings = [x, &q_scale, &k_scale, &cos_sin, &dq, &dkv, &dqkv, &dscale].map(words);
        let inputs = cpu::RopeGradInputs {
            qkv: &qkv,
            q_scale: &q_scale,
            k_scale: &k_scale,
            cos_sin: &cos_sin,
            dq: &dq,
            dkv: &dkv,
        };
        let mut expected = [dqkv, dscale];
        let [dqkv, dscale] = &mut expected;
        cpu::rope_grad(p, rows, inputs, dqkv, dscale);
        let groups = p.heads / p.q_group + p.kv_heads / p.k_group + 1;
        (Run::new(KernelId::RopeGrad, p, bindings.to_vec(), [groups, rows, 1]), expected)
    }

    #[test]
    fn matches_the_reference() {
        for (heads, kv_heads, half_dim, rows) in
            cases([(1, 1, 1, 1), (2, 1, 2, 3), (4, 2, 10, 2), (3, 3, 16, 5), (16, 4, 64, 20), (2, 2, 17, 4)])
        {
            for (whole, norm) in cases([(false, 0), (true, 1), (true, 0), (false, 1)]) {
                let (run, [dqkv, dscale]) = case(&block(heads, kv_heads, half_dim, whole, norm), rows, |_| {});
                run.all(|found| {
                    assert_close(found.f32(6), &dqkv, 3e-6);
                    if norm == 1 {
                        assert_close(found.f32(7), &dscale, 3e-6);
                    }
                });
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn nan_stays_nan() {
        for (whole, norm) in cases([(false, 0), (true, 1), (false, 1)]) {
            let p = block(4, 2, 3, whole, norm);
            let (run, expected) = case(&p, 3, |[qkv, dq, dkv]| {
                // A query of the first row, a gradient of one in the second row, and of a key and a value in the third.
                qkv[2 * p.stride as usize + 1] = f32::NAN;
                dq[3 * 24 + 7] = f32::NAN;
                (dkv[5 * 24 + 6], dkv[5 * 24 + 20]) = (f32::NAN, f32::NAN);
            });
            run.all(|found| {
                for (binding, expected) in (6..8).zip(&expected) {
                    for (i, (&found, &expected)) in found.f32(binding).iter().zip(expected).enumerate() {
                        assert_eq!(found.is_nan(), expected.is_nan(), "{binding}, {i}: {found} {expected}");
                    }
                }
            });
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        for norm in [0, 1] {
            let p = block(4, 2, 4, true, norm);
            assert_eq!(case(&p, 2, |_| {}).0.fault(), None);
            for binding in (0..8).filter(|binding| norm == 1 || (3..7).contains(binding)) {
                let (mut short, _) = case(&p, 2, |_| {});
                short.bindings[binding].pop();
                assert!(short.fault().is_some(), "binding {binding}");
            }
            let max = u32::MAX;
            for wrong in [
                params::RopeGrad { q_group: 0, ..p },
                params::RopeGrad { k_group: 0, ..p },
                params::RopeGrad { q_group: 3, ..p },
                params::RopeGrad { k_offset: p.k_offset - 2, ..p },
                params::RopeGrad { stride: p.stride - 4, ..p },
                params::RopeGrad { heads: max, q_group: max, ..p },
                params::RopeGrad { kv_heads: max, k_group: max, ..p },
                params::RopeGrad { half_dim: max, ..p },
                params::RopeGrad { first: max, ..p },
                params::RopeGrad { first: max, stride: max, ..p },
                params::RopeGrad { kv_row: max, ..p },
                params::RopeGrad { q_offset: max, ..p },
                params::RopeGrad { k_offset: max, ..p },
                params::RopeGrad { v_offset: max, ..p },
            ] {
                let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, 2, |_| {}).0 };
                assert!(run.fault().is_some(), "{wrong:?}");
            }
        }
    }
}
