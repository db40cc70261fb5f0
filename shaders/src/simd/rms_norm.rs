use super::call::Call;
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// `y = scale * x / sqrt(mean(x^2) + eps)` over each group of a row, or `y +=`; see the
/// [CPU reference](crate::cpu::rms_norm).
pub(super) fn rms_norm(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::RmsNorm = call.params()?;
    let [rows, groups, dim] = [p.rows, p.groups, 4 * p.dim4].map(|n| n as usize);
    let [x_offset, x_stride, y_offset, y_stride] =
        [p.x_offset4, p.x_stride4, p.y_offset4, p.y_stride4].map(|n| 4 * n as usize);
    if rows == 0 || groups == 0 {
        return Ok(());
    }
    let scale = call.read(0, dim)?;
    let x = call.read(1, x_offset + (rows - 1) * x_stride + groups * dim)?;
    let y = call.write(2, y_offset + (rows - 1) * y_stride + groups * dim)?;
    call.each(rows, 4 * rows * groups * dim, |row| {
        if call.halted(row) {
            return;
        }
        for group in 0..groups {
            let (x0, y0) = (x_offset + row * x_stride + group * dim, y_offset + row * y_stride + group * dim);
            // SAFETY: every task has a row of its own, and groups don't overlap.
            let y = unsafe { y.slice(y0..y0 + dim) };
            call.instructions.run(Group { scale, x: &x[x0..x0 + dim], y, eps: p.eps, add: p.add != 0 });
        }
    });
    Ok(())
}

/// One group of a row; all slices are `[dim]`.
pub(super) struct Group<'a> {
    pub(super) scale: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) y: &'a mut [f32],
    pub(super) eps: f32,
    pub(super) add: bool,
}

impl Task for Group<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let root = V::splat(1.0 / (sum_squares::<V>(self.x) / self.x.len() as f32 + self.eps).sqrt());
        for ((x, scale), y) in self.x.chunks(V::LANES).zip(self.scale.chunks(V::LANES)).zip(self.y.chunks_mut(V::LANES))
        {
            // SAFETY: all three have `x.len()` values, at most `LANES`.
            unsafe {
                let (x, scale) = (V::load_first(x.as_ptr(), x.len()), V::load_first(scale.as_ptr(), x.len()));
                let mut v = x.mul(root).mul(scale);
                if self.add {
                    v = v.add(V::load_first(y.as_ptr(), y.len()));
                }
                v.store_first(y.as_mut_ptr(), y.len());
            }
        }
    }
}

/// The sum of the squares of `x`.
#[inline(always)]
pub(super) fn sum_squares<V: Vector>(x: &[f32]) -> f32 {
    let mut sum = V::splat(0.0);
    for x in x.chunks(V::LANES) {
        // SAFETY: the chunk has that many values.
        let x = unsafe { V::load_first(x.as_ptr(), x.len()) };
        sum = x.mul_add(x, sum);
    }
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    #[test]
    fn matches_the_reference() {
        for (dim4, groups, add) in cases([(1, 1, 0), (2, 3, 1), (3, 2, 0), (16, 1, 1), (33, 2, 0)]) {
            let rows = 3;
            let p = params::RmsNorm {
                rows,
                groups,
                dim4,
                x_offset4: 1,
                x_stride4: groups * dim4 + 1,
                y_offset4: 2,
                y_stride4: groups * dim4 + 2,
                add,
                eps: 1e-3,
            };
            let size = |offset: u32, stride: u32| (4 * (offset + rows * stride)) as usize;
            let scale = noise(1, 4 * dim4 as usize, 2.0);
            let x = noise(2, size(p.x_offset4, p.x_stride4), 3.0);
            let y = noise(3, size(p.y_offset4, p.y_stride4), 1.0);
            let mut expected = y.clone();
            cpu::rms_norm(&p, &scale, &x, &mut expected);
            let run = Run::new(KernelId::RmsNorm, &p, vec![words(&scale), words(&x), words(&y)], [groups, rows, 1]);
            run.all(|found| assert_close(found.f32(2), &expected, 1e-6));
        }
    }
}
