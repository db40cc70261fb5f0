use super::call::Call;
use super::extent::{apart, product, rows_end};
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// Gradient of a norm over each group of a row, by the values and by the weight; see the
/// [CPU reference](crate::cpu::rms_norm_grad).
pub(super) fn rms_norm_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::RmsNormGrad = call.params()?;
    let [rows, groups] = [p.rows, p.groups].map(|n| n as usize);
    let [dim, x_offset, x_stride, dy_offset, dy_stride, dx_offset, dx_stride] =
        [p.dim4, p.x_offset4, p.x_stride4, p.dy_offset4, p.dy_stride4, p.dx_offset4, p.dx_stride4]
            .map(|n| product([4, n as usize]));
    let width = product([groups, dim]);
    if rows == 0 || width == 0 {
        return Ok(());
    }
    let scale = call.read(0, dim)?;
    let x = call.read(1, rows_end(rows, x_stride, x_offset, width))?;
    let dy = call.read(2, rows_end(rows, dy_stride, dy_offset, width))?;
    let dx = call.write(3, rows_end(rows, dx_stride, dx_offset, width))?;
    let dscale = call.write(4, product([rows, width]))?;
    if !apart(rows, dx_stride, [[dx_offset, width]]) {
        return Err(Fault::new("rms_norm_grad: rows of dx overlap"));
    }
    call.each(rows, product([8, rows, width]), |row| {
        if call.halted(row) {
            return;
        }
        for group in (0..width).step_by(dim) {
            let [x0, dy0, dx0] = [(x_offset, x_stride), (dy_offset, dy_stride), (dx_offset, dx_stride)]
                .map(|(offset, stride)| offset + row * stride + group);
            let dscale0 = row * width + group;
            // SAFETY: every task has a row of its own, and neither groups nor rows overlap.
            let (dx, dscale) = unsafe { (dx.slice(dx0..dx0 + dim), dscale.slice(dscale0..dscale0 + dim)) };
            call.instructions.run(Group {
                scale,
                x: &x[x0..x0 + dim],
                dy: &dy[dy0..dy0 + dim],
                eps: p.eps,
                add: p.add != 0,
                dx,
                dscale,
            });
        }
    });
    Ok(())
}

/// One group of a row; all slices are `[dim]`.
pub(super) struct Group<'a> {
    pub(super) scale: &'a [f32],
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) eps: f32,
    pub(super) add: bool,
    pub(super) dx: &'a mut [f32],
    pub(super) dscale: &'a mut [f32],
}

impl Task for Group<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { scale, x, dy, eps, add, dx, dscale } = self;
        let dim = x.len();
        assert!([scale.len(), dy.len(), dx.len(), dscale.len()] == [dim; 4]);
        let (mut squares, mut products) = (V::splat(0.0), V::splat(0.0));
        for at in (0..dim).step_by(V::LANES) {
            let lanes = V::LANES.min(dim - at);
            // SAFETY: all slices have `dim` values.
            let [scale, x, dy] = unsafe { [scale, x, dy].map(|v| V::load_first(v.as_ptr().add(at), lanes)) };
            squares = x.mul_add(x, squares);
            products = dy.mul(scale).mul_add(x, products);
        }
        let root = 1.0 / (squares.sum() / dim as f32 + eps).sqrt();
        let (mean, root) = (V::splat(products.sum() * root / dim as f32), V::splat(root));
        for at in (0..dim).step_by(V::LANES) {
            let lanes = V::LANES.min(dim - at);
            // SAFETY: as above.
            unsafe {
                let [scale, x, dy] = [scale, x, dy].map(|v| V::load_first(v.as_ptr().add(at), lanes));
                let unit = x.mul(root);
                dy.mul(unit).store_first(dscale.as_mut_ptr().add(at), lanes);
                let mut v = root.mul(dy.mul(scale).sub(unit.mul(mean)));
                if add {
                    v = v.add(V::load_first(dx.as_ptr().add(at), lanes));
                }
                v.store_first(dx.as_mut_ptr().add(at), lanes);
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
    use crate::simd::testing::{Run, cases, words};

    fn block(rows: u32, groups: u32, dim4: u32, add: u32) -> params::RmsNormGrad {
        params::RmsNormGrad {
            rows,
            groups,
            dim4,
            x_offset4: 1,
            x_stride4: groups * dim4 + 1,
            dy_offset4: 2,
            dy_stride4: groups * dim4,
            dx_offset4: 0,
            dx_stride4: groups * dim4 + 2,
            add,
            eps: 1e-3,
        }
    }

    /// A run with bindings that are just large enough, and dx and dscale as expected after it.
    fn case(p: &params::RmsNormGrad, change: impl Fn(&mut [f32])) -> (Run, [Vec<f32>; 2]) {
        let width = p.groups * p.dim4;
        let size = |offset: u32, stride: u32| (4 * (offset + (p.rows - 1) * stride + width)) as usize;
        let scale = noise(1, 4 * p.dim4 as usize, 2.0);
        let mut x = noise(2, size(p.x_offset4, p.x_stride4), 3.0);
        change(&mut x);
        let dy = noise(3, size(p.dy_offset4, p.dy_stride4), 1.0);
        let dx = noise(4, size(p.dx_offset4, p.dx_stride4), 1.0);
        let dscale = noise(5, size(0, width), 1.0);
        let bindings = [&scale, &x, &dy, &dx, &dscale].map(|values| words(values)).to_vec();
        let mut expected = [dx, dscale];
        let [dx, dscale] = &mut expected;
        cpu::rms_norm_grad(p, &scale, &x, &dy, dx, dscale);
        (Run::new(KernelId::RmsNormGrad, p, bindings, [p.groups, p.rows, 1]), expected)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, groups, dim4, add) in cases([
            (1, 1, 1, 0),
            (2, 3, 1, 1),
            (3, 2, 5, 0),
            (1, 1, 4, 1),
            (2, 1, 3, 0),
            (40, 1, 65, 1),
            (5, 1, 700, 0),
        ]) {
            let (run, [dx, dscale]) = case(&block(rows, groups, dim4, add), |_| {});
            run.all(|found| {
                assert_close(found.f32(3), &dx, 2e-6);
                assert_close(found.f32(4), &dscale, 2e-6);
            });
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn halted_rows_are_skipped_and_nan_stays_nan() {
        let p = block(3, 1, 5, 0);
        // In the last row.
        let (mut run, [dx, dscale]) = case(&p, |x| *x.last_mut().expect("values") = f32::NAN);
        let [dx_before, dscale_before] = [3, 4].map(|i| bytemuck::cast_slice::<u32, f32>(&run.bindings[i]).to_vec());
        let mut guard = vec![0; 129];
        guard[0] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            assert_eq!(found.f32(3)[..28], dx_before[..28]);
            assert_eq!(found.f32(4)[..20], dscale_before[..20]);
            assert_close(&found.f32(3)[28..56], &dx[28..56], 2e-6);
            assert_close(&found.f32(4)[20..40], &dscale[20..40], 2e-6);
            assert!(found.f32(3)[56..].iter().chain(&found.f32(4)[40..]).all(|v| v.is_nan()));
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = block(3, 2, 3, 1);
        assert_eq!(case(&p, |_| {}).0.fault(), None);
        for binding in 0..5 {
            let (mut short, _) = case(&p, |_| {});
            short.bindings[binding].pop();
            assert!(short.fault().is_some(), "binding {binding}");
        }
        let max = u32::MAX;
        for wrong in [
            params::RmsNormGrad { dx_stride4: 5, ..p },
            params::RmsNormGrad { rows: max, ..p },
            params::RmsNormGrad { groups: max, ..p },
            params::RmsNormGrad { dim4: max, ..p },
            params::RmsNormGrad { rows: max, groups: max, dim4: max, ..p },
            params::RmsNormGrad { x_offset4: max, x_stride4: max, ..p },
            params::RmsNormGrad { dy_offset4: max, ..p },
            params::RmsNormGrad { dx_offset4: max, dx_stride4: max, ..p },
        ] {
            let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, |_| {}).0 };
            assert!(run.fault().is_some(), "{wrong:?}");
        }
        let nothing = params::RmsNormGrad { rows: max, groups: max, dim4: 0, ..p };
        let run = Run { params: bytemuck::bytes_of(&nothing).to_vec(), ..case(&p, |_| {}).0 };
        assert_eq!(run.fault(), None);
    }
}
