use super::call::{Call, product};
use super::instruction_set::Task;
use super::memory::Fault;
use super::rms_norm::sum_squares;
use super::scratch::with_scratch;
use super::vector::Vector;
use crate::params;

/// Norm and rotary embedding of queries and keys of new positions; see the [CPU reference](crate::cpu::rope).
pub(super) fn rope(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Rope = call.params()?;
    let [first, heads, kv_heads, half_dim] = [p.first, p.heads, p.kv_heads, p.half_dim].map(|n| n as usize);
    let [q_group, k_group, stride, kv_row] = [p.q_group, p.k_group, p.stride, p.kv_row].map(|n| n as usize);
    let offsets = [p.q_offset, p.k_offset, p.v_offset].map(|n| n as usize);
    let rows = call.grid[1] as usize;
    check_groups("rope", &p)?;
    if rows == 0 {
        return Ok(());
    }
    let dim = product(&[2, half_dim]);
    let (q_width, kv_width) = (product(&[heads, dim]), product(&[kv_heads, dim]));
    let ends = [0, 1, 2].map(|i| offsets[i].saturating_add([q_width, kv_width, kv_width][i]));
    let end = ends.into_iter().max().unwrap_or_default();
    let qkv = call.read(0, product(&[first.saturating_add(rows - 1), stride]).saturating_add(end))?;
    // Without norms the bindings of their scales hold something else.
    let scales = if p.norm == 0 {
        [None; 2]
    } else {
        [Some(call.read(1, product(&[q_group, dim]))?), Some(call.read(2, product(&[k_group, dim]))?)]
    };
    let cos_sin = call.read(3, product(&[first.saturating_add(rows), dim]))?;
    let q = call.write(4, product(&[first.saturating_add(rows), q_width]))?;
    let kv = call.write(5, product(&[kv_row.saturating_add(rows), 2, kv_width]))?;
    if dim == 0 {
        return Ok(());
    }

    call.each(rows, 3 * rows * (q_width + 2 * kv_width), |t| {
        if call.halted(t) {
            return;
        }
        let row = first + t;
        let cache = (kv_row + t) * 2 * kv_width;
        // SAFETY: every task has rows of its own in q and kv.
        let (q, kv) = unsafe { (q.slice(row * q_width..(row + 1) * q_width), kv.slice(cache..cache + 2 * kv_width)) };
        let (k, v) = kv.split_at_mut(kv_width);
        let [from_q, from_k, from_v] = offsets.map(|offset| &qkv[row * stride + offset..]);
        v.copy_from_slice(&from_v[..kv_width]);
        with_scratch(dim, |angles| {
            let (cos, sin) = split_pairs(&cos_sin[row * dim..(row + 1) * dim], angles);
            for (from, to, group, scale) in [(from_q, q, q_group, scales[0]), (from_k, k, k_group, scales[1])] {
                let width = product(&[group, dim]);
                for (x, y) in from.chunks(width).zip(to.chunks_exact_mut(width)) {
                    call.instructions.run(Group { x, scale, eps: p.eps, cos, sin, y });
                }
            }
        });
    });
    Ok(())
}

/// Refuses heads that are not whole groups. `stem` is the kernel's.
pub(super) fn check_groups(stem: &str, p: &params::Rope) -> Result<(), Fault> {
    for (heads, group) in [(p.heads, p.q_group), (p.kv_heads, p.k_group)] {
        if group == 0 || heads % group != 0 {
            return Err(Fault::new(format!("{stem}: {heads} heads are not a multiple of {group}")));
        }
    }
    Ok(())
}

/// Cosines and sines from pairs of them, in memory for as many values.
pub(super) fn split_pairs<'a>(cos_sin: &[f32], angles: &'a mut [f32]) -> (&'a [f32], &'a [f32]) {
    let (cos, sin) = angles.split_at_mut(cos_sin.len() / 2);
    for (pair, (cos, sin)) in cos_sin.chunks_exact(2).zip(cos.iter_mut().zip(sin.iter_mut())) {
        (*cos, *sin) = (pair[0], pair[1]);
    }
    (cos, sin)
}

/// Heads that share a norm.
struct Group<'a> {
    /// `[heads, dim]`
    x: &'a [f32],
    /// `[heads, dim]`, if there is a norm
    scale: Option<&'a [f32]>,
    eps: f32,
    /// `[dim / 2]`
    cos: &'a [f32],
    /// `[dim / 2]`
    sin: &'a [f32],
    /// `[heads, dim]`
    y: &'a mut [f32],
}

impl Task for Group<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (count, half) = (self.y.len(), self.cos.len());
        assert!(self.x.len() == count && self.sin.len() == half && count.is_multiple_of(2 * half));
        assert!(self.scale.is_none_or(|scale| scale.len() == count));
        let root = match self.scale {
            Some(_) => 1.0 / (sum_squares::<V>(self.x) / count as f32 + self.eps).sqrt(),
            None => 1.0,
        };
        let root = V::splat(root);
        for head in (0..count).step_by(2 * half) {
            for i in (0..half).step_by(V::LANES) {
                let lanes = V::LANES.min(half - i);
                let (low, high) = (head + i, head + half + i);
                // SAFETY: the lanes end with a half of a head at the latest, and all slices of heads have `count`
                // values, by the assertions above.
                unsafe {
                    let mut a = V::load_first(self.x.as_ptr().add(low), lanes);
                    let mut b = V::load_first(self.x.as_ptr().add(high), lanes);
                    if let Some(scale) = self.scale {
                        a = a.mul(root.mul(V::load_first(scale.as_ptr().add(low), lanes)));
                        b = b.mul(root.mul(V::load_first(scale.as_ptr().add(high), lanes)));
                    }
                    let cos = V::load_first(self.cos.as_ptr().add(i), lanes);
                    let sin = V::load_first(self.sin.as_ptr().add(i), lanes);
                    let y = self.y.as_mut_ptr();
                    a.mul(cos).sub(b.mul(sin)).store_first(y.add(low), lanes);
                    b.mul(cos).add(a.mul(sin)).store_first(y.add(high), lanes);
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::InstructionSet;
    use crate::simd::testing::{Run, Threads, cases, words};

    /// Rows of the segment before the first position, and before kv.
    pub(in crate::simd) const FIRST: u32 = 2;
    pub(in crate::simd) const KV_ROW: u32 = 3;

    /// Parameters of rows with gaps between their parts. A norm is over all heads if `whole`.
    pub(in crate::simd) fn block(heads: u32, kv_heads: u32, half_dim: u32, whole: bool, norm: u32) -> params::Rope {
        let (q_width, kv_width) = (heads * 2 * half_dim, kv_heads * 2 * half_dim);
        params::Rope {
            first: FIRST,
            heads,
            kv_heads,
            half_dim,
            q_group: if whole { heads } else { 1 },
            k_group: if whole { kv_heads } else { 1 },
            norm,
            q_offset: 1,
            k_offset: 2 + q_width,
            v_offset: 3 + q_width + kv_width,
            stride: 5 + q_width + 2 * kv_width,
            kv_row: KV_ROW,
            eps: 1e-3,
        }
    }

    /// A run with `rows` rows, and q and kv as expected after it.
    fn case(p: &params::Rope, rows: u32) -> (Run, Vec<f32>, Vec<f32>) {
        let dim = 2 * p.half_dim;
        let size = |factors: [u32; 3]| factors.iter().product::<u32>() as usize;
        let qkv = noise(1, size([p.first + rows, p.stride, 1]), 2.0);
        let q_scale = noise(2, size([p.norm * p.q_group, dim, 1]), 2.0);
        let k_scale = noise(3, size([p.norm * p.k_group, dim, 1]), 2.0);
        let cos_sin = noise(4, size([p.first + rows, dim, 1]), 1.0);
        let q = noise(5, size([p.first + rows, p.heads, dim]), 1.0);
        let kv = noise(6, size([p.kv_row + rows + 1, 2 * p.kv_heads, dim]), 1.0);
        let (mut q_expected, mut kv_expected) = (q.clone(), kv.clone());
        let inputs = cpu::RopeInputs { qkv: &qkv, q_scale: &q_scale, k_scale: &k_scale, cos_sin: &cos_sin };
        cpu::rope(p, rows, inputs, &mut q_expected, &mut kv_expected);
        let bindings = [qkv, q_scale, k_scale, cos_sin, q, kv].map(|values| words(&values)).to_vec();
        let groups = p.heads / p.q_group + p.kv_heads / p.k_group + 1;
        (Run::new(KernelId::Rope, p, bindings, [groups, rows, 1]), q_expected, kv_expected)
    }

    #[test]
    fn matches_the_reference() {
        for (heads, kv_heads, half_dim, rows) in
            cases([(1, 1, 1, 1), (2, 1, 2, 3), (4, 2, 10, 2), (3, 3, 32, 5), (16, 4, 64, 20), (2, 2, 17, 4)])
        {
            for (whole, norm) in cases([(false, 0), (false, 1), (true, 0), (true, 1)]) {
                let p = block(heads, kv_heads, half_dim, whole, norm);
                let (run, q, kv) = case(&p, rows);
                run.all(|found| {
                    assert_close(found.f32(4), &q, 2e-6);
                    assert_close(found.f32(5), &kv, 2e-6);
                });
            }
        }
    }

    #[test]
    fn halted_rows_are_skipped() {
        let p = block(2, 1, 4, false, 1);
        let (mut run, q, kv) = case(&p, 2);
        let [q_before, kv_before] = [4, 5].map(|i| bytemuck::cast_slice::<u32, f32>(&run.bindings[i]).to_vec());
        let mut guard = vec![0; 65];
        guard[0] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            assert_eq!(found.f32(4)[..3 * 16], q_before[..3 * 16]);
            assert_close(&found.f32(4)[3 * 16..], &q[3 * 16..], 2e-6);
            assert_eq!(found.f32(5)[..4 * 16], kv_before[..4 * 16]);
            assert_close(&found.f32(5)[4 * 16..], &kv[4 * 16..], 2e-6);
        });
    }

    #[test]
    fn wrong_parameters_are_refused() {
        let p = block(4, 2, 4, true, 1);
        let refused = |run: &Run| run.once(InstructionSet::best(), &Threads(1)).is_err();
        let (run, ..) = case(&p, 2);
        assert!(!refused(&run));
        for binding in 0..6 {
            let (mut short, ..) = case(&p, 2);
            // The cache has one row more than is written.
            let excess = if binding == 5 { 33 } else { 3 };
            let words = &mut short.bindings[binding];
            words.truncate(words.len() - excess);
            assert!(refused(&short), "binding {binding}");
        }
        for wrong in [
            params::Rope { q_group: 0, ..p },
            params::Rope { k_group: 0, ..p },
            params::Rope { q_group: 3, ..p },
            params::Rope { half_dim: u32::MAX, ..p },
            params::Rope { first: u32::MAX, stride: u32::MAX, ..p },
            params::Rope { kv_row: u32::MAX, ..p },
            params::Rope { v_offset: u32::MAX, ..p },
        ] {
            let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, 2).0 };
            assert!(refused(&run), "{wrong:?}");
        }
    }
}
