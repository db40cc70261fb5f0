use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::{extent, size, size4};
use super::vector::Vector;
use crate::params;

/// Multiply-adds that take as long as one value: there is a division.
const COST: usize = 4;
/// Smallest divisor.
const LEAST: f32 = 1e-12;

/// Gradient of weighted distances by x; see the [CPU reference](crate::cpu::row_distance_grad).
pub(super) fn row_distance_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::RowDistanceGrad = call.params()?;
    let (rows, dim) = (size(p.rows), size4(p.dim4));
    let [x_offset, x_stride, y_offset, y_stride] = [p.x_offset4, p.x_stride4, p.y_offset4, p.y_stride4].map(size4);
    let [dx_offset, dx_stride] = [p.dx_offset4, p.dx_stride4].map(size4);
    if rows == 0 || dim == 0 {
        return Ok(());
    }
    if rows > 1 && dx_stride < dim {
        return Err(Fault::new("row_distance_grad: rows of dx overlap"));
    }
    let x = call.read(0, extent(x_offset, x_stride, rows, dim))?;
    let y = call.read(1, extent(y_offset, y_stride, rows, dim))?;
    let distance = call.read(2, rows)?;
    let weight = call.read(3, rows)?;
    let dx = call.write(4, extent(dx_offset, dx_stride, rows, dim))?;
    call.each(rows, product([rows, dim, COST]), |row| {
        let at = dx_offset + row * dx_stride;
        // SAFETY: every task has a row of its own.
        let dx = unsafe { dx.slice(at..at + dim) };
        let (x, y) = (&x[x_offset + row * x_stride..][..dim], &y[y_offset + row * y_stride..][..dim]);
        // NaN stays NaN.
        let divisor = if distance[row] < LEAST { LEAST } else { distance[row] };
        call.instructions.run(Row { x, y, divisor, weight: weight[row], dx, add: p.add != 0 });
    });
    Ok(())
}

/// One row; all slices are `[dim]`.
struct Row<'a> {
    x: &'a [f32],
    y: &'a [f32],
    divisor: f32,
    weight: f32,
    dx: &'a mut [f32],
    add: bool,
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (divisor, weight) = (V::splat(self.divisor), V::splat(self.weight));
        for ((x, y), dx) in self.x.chunks(V::LANES).zip(self.y.chunks(V::LANES)).zip(self.dx.chunks_mut(V::LANES)) {
            // SAFETY: all three have `x.len()` values, at most `LANES`.
            unsafe {
                let d = V::load_first(x.as_ptr(), x.len()).sub(V::load_first(y.as_ptr(), x.len()));
                // Divided first: weight / distance may overflow.
                let mut v = d.div(divisor).mul(weight);
                if self.add {
                    v = v.add(V::load_first(dx.as_ptr(), x.len()));
                }
                v.store_first(dx.as_mut_ptr(), x.len());
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

    fn params(rows: u32, dim4: u32, add: u32) -> params::RowDistanceGrad {
        params::RowDistanceGrad {
            rows,
            dim4,
            x_offset4: 1,
            x_stride4: dim4 + 2,
            y_offset4: 2,
            y_stride4: dim4 + 1,
            dx_offset4: 3,
            dx_stride4: dim4 + 3,
            add,
        }
    }

    /// x, y, distance, weight and dx. The second row has a distance of 0.
    fn inputs(p: &params::RowDistanceGrad, width: f32) -> [Vec<f32>; 5] {
        let rows = p.rows as usize;
        let size = |offset: u32, stride: u32| 4 * (offset + p.rows * stride) as usize;
        let x = noise(1, size(p.x_offset4, p.x_stride4), width);
        let y = noise(2, size(p.y_offset4, p.y_stride4), width);
        let mut distance: Vec<f32> = noise(3, rows, width).iter().map(|v| v.abs() + width).collect();
        if let Some(distance) = distance.get_mut(1) {
            *distance = 0.0;
        }
        [x, y, distance, noise(4, rows, 2.0), noise(5, size(p.dx_offset4, p.dx_stride4), 1.0)]
    }

    fn run(p: &params::RowDistanceGrad, inputs: &[Vec<f32>; 5]) -> Run {
        let bindings = inputs.iter().map(|values| words(values)).collect();
        Run::new(KernelId::RowDistanceGrad, p, bindings, [p.dim4.div_ceil(64), p.rows, 1])
    }

    #[test]
    fn matches_the_reference() {
        for (rows, dim4, width) in
            cases([(3, 5, 1.0), (1, 1, 1.0), (3, 4, 1e-6), (40, 7, 1e3), (9, 17, 1.0), (33, 512, 2.0), (2, 0, 1.0)])
        {
            for add in [0, 1] {
                let p = params(rows, dim4, add);
                let inputs = inputs(&p, width);
                let [x, y, distance, weight, dx] = &inputs;
                let mut expected = dx.clone();
                cpu::row_distance_grad(&p, x, y, distance, weight, &mut expected);
                run(&p, &inputs).all(|found| {
                    let found = found.f32(4);
                    for (row, at) in (0..rows).map(|row| (row, 4 * (3 + row * (dim4 + 3)) as usize)) {
                        let own = at..at + 4 * dim4 as usize;
                        assert_close(&found[own.clone()], &expected[own.clone()], 1e-6);
                        assert!(found[own.end..].iter().zip(&dx[own.end..]).take(12).all(|(a, b)| a == b), "{row}");
                    }
                    assert_eq!(found[..12], dx[..12]);
                });
            }
        }
    }

    #[test]
    fn equal_rows_have_no_gradient() {
        let p = params::RowDistanceGrad { rows: 1, dim4: 1, ..Default::default() };
        let inputs = [vec![3.0; 4], vec![3.0; 4], vec![0.0], vec![1e30], vec![7.0; 4]];
        run(&p, &inputs).all(|found| assert_eq!(found.f32(4), [0.0; 4]));
    }

    #[test]
    fn nan_stays_nan() {
        for which in cases(0..4) {
            let p = params(2, 3, 0);
            let mut inputs = inputs(&p, 1.0);
            // In the first row.
            inputs[which][[4, 8, 0, 0][which]] = f32::NAN;
            run(&p, &inputs).all(|found| {
                let nan = found.f32(4).iter().filter(|v| v.is_nan()).count();
                assert_eq!(nan, if which < 2 { 1 } else { 12 });
                assert!(found.f32(4)[12].is_nan());
            });
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params(3, 5, 1);
        let inputs = inputs(&p, 1.0);
        let sizes = [4 * (1 + 2 * 7 + 5), 4 * (2 + 2 * 6 + 5), 3, 3, 4 * (3 + 2 * 8 + 5)];
        for (binding, words) in cases(sizes.into_iter().enumerate()) {
            let mut run = run(&p, &inputs);
            run.bindings[binding].truncate(words);
            assert!(run.fault().is_none());
            run.bindings[binding].truncate(words - 1);
            assert!(run.fault().is_some());
        }
        let most = u32::MAX;
        for (p, fits) in [
            (params::RowDistanceGrad { rows: most, ..p }, false),
            (params::RowDistanceGrad { dim4: most, dx_stride4: most, ..p }, false),
            (params::RowDistanceGrad { x_offset4: most, ..p }, false),
            (params::RowDistanceGrad { y_stride4: most, ..p }, false),
            (params::RowDistanceGrad { dx_offset4: most, dx_stride4: most, ..p }, false),
            (params::RowDistanceGrad { dx_stride4: 4, ..p }, false),
            (params::RowDistanceGrad { rows: 1, dx_stride4: 0, ..p }, true),
            (params::RowDistanceGrad { rows: 0, dim4: most, ..p }, true),
            (params::RowDistanceGrad { rows: most, dim4: 0, ..p }, true),
        ] {
            assert_eq!(run(&p, &[vec![], vec![], vec![], vec![], vec![]]).fault().is_none(), fits && p.rows != 1);
            let run = Run { params: bytemuck::bytes_of(&p).to_vec(), ..run(&params(3, 5, 1), &inputs) };
            assert_eq!(run.fault().is_none(), fits, "{p:?}");
        }
    }
}
