use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::{extent, size, size4};
use super::vector::Vector;
use crate::params;

/// Euclidean distances between corresponding rows of x and y; see the [CPU reference](crate::cpu::row_distance).
pub(super) fn row_distance(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::RowDistance = call.params()?;
    let (rows, dim) = (size(p.rows), size4(p.dim4));
    let [x_offset, x_stride, y_offset, y_stride] = [p.x_offset4, p.x_stride4, p.y_offset4, p.y_stride4].map(size4);
    let x = call.read(0, extent(x_offset, x_stride, rows, dim))?;
    let y = call.read(1, extent(y_offset, y_stride, rows, dim))?;
    let out = call.write(2, rows)?;
    call.each(rows, product([rows, dim, 2]), |row| {
        if call.halted(row) {
            return;
        }
        // SAFETY: every task has a row of its own.
        let out = unsafe { &mut out.slice(row..row + 1)[0] };
        let (x, y) = (&x[x_offset + row * x_stride..][..dim], &y[y_offset + row * y_stride..][..dim]);
        call.instructions.run(Row { x, y, out });
    });
    Ok(())
}

/// One row.
struct Row<'a> {
    /// `[dim]`
    x: &'a [f32],
    /// `[dim]`
    y: &'a [f32],
    out: &'a mut f32,
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        // Two sums: each waits for its last addition.
        let mut sums = [V::splat(0.0); 2];
        for (x, y) in self.x.chunks(2 * V::LANES).zip(self.y.chunks(2 * V::LANES)) {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = (i * V::LANES).min(x.len());
                let count = V::LANES.min(x.len() - at);
                // SAFETY: both slices have `at + count` values.
                let d =
                    unsafe { V::load_first(x.as_ptr().add(at), count).sub(V::load_first(y.as_ptr().add(at), count)) };
                *sum = d.mul_add(d, *sum);
            }
        }
        *self.out = sums[0].add(sums[1]).sum().sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    fn params(rows: u32, dim4: u32) -> params::RowDistance {
        params::RowDistance { rows, dim4, x_offset4: 1, x_stride4: dim4 + 2, y_offset4: 2, y_stride4: dim4 + 1 }
    }

    fn inputs(p: &params::RowDistance, width: f32) -> [Vec<f32>; 2] {
        let x = noise(1, 4 * (p.x_offset4 + p.rows * p.x_stride4) as usize, width);
        let mut y = noise(2, 4 * (p.y_offset4 + p.rows * p.y_stride4) as usize, width);
        if p.rows > 1 {
            // Two rows in one place.
            let [x0, y0] = [p.x_offset4 + p.x_stride4, p.y_offset4 + p.y_stride4].map(|at| 4 * at as usize);
            let dim = 4 * p.dim4 as usize;
            y[y0..y0 + dim].copy_from_slice(&x[x0..x0 + dim]);
        }
        [x, y]
    }

    fn run(p: &params::RowDistance, x: &[f32], y: &[f32]) -> Run {
        let out = vec![-5f32; p.rows as usize];
        Run::new(KernelId::RowDistance, p, vec![words(x), words(y), words(&out)], [p.rows, 1, 1])
    }

    #[test]
    fn matches_the_reference() {
        for (rows, dim4, width) in
            cases([(2, 5, 1.0), (1, 1, 1.0), (3, 4, 1e-6), (40, 7, 1e3), (9, 17, 1.0), (33, 512, 2.0), (2, 0, 1.0)])
        {
            let p = params(rows, dim4);
            let [x, y] = inputs(&p, width);
            let mut expected = vec![-5.0; rows as usize];
            cpu::row_distance(&p, &x, &y, &mut expected);
            run(&p, &x, &y).all(|found| {
                for (found, expected) in found.f32(2).iter().zip(&expected) {
                    assert!((found - expected).abs() <= 1e-6 * expected, "{found} {expected}, {p:?}");
                }
            });
        }
    }

    #[test]
    fn guard_flags_skip_rows_and_nan_stays_nan() {
        let p = params(4, 5);
        let [mut x, y] = inputs(&p, 1.0);
        (x[4 * 15 + 19], x[4 * 22 + 3]) = (f32::NAN, f32::INFINITY);
        let mut run = run(&p, &x, &y);
        let mut guard = vec![0; 4 * 64];
        guard[64] = 1;
        run.guard = Some(guard);
        run.all(|found| {
            let found = found.f32(2);
            assert!(found[0] > 0.0 && found[1] == -5.0 && found[2].is_nan() && found[3] == f32::INFINITY);
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params(3, 5);
        let [x, y] = inputs(&p, 1.0);
        let full = || run(&p, &x, &y);
        for (binding, words) in cases([(0, 4 * (1 + 2 * 7 + 5)), (1, 4 * (2 + 2 * 6 + 5)), (2, 3)]) {
            let mut run = full();
            run.bindings[binding].truncate(words);
            assert!(run.fault().is_none());
            run.bindings[binding].truncate(words - 1);
            assert!(run.fault().is_some());
        }
        let most = u32::MAX;
        for p in [
            params::RowDistance { rows: most, ..p },
            params::RowDistance { dim4: most, ..p },
            params::RowDistance { x_offset4: most, ..p },
            params::RowDistance { y_stride4: most, ..p },
            params::RowDistance {
                rows: most,
                dim4: most,
                x_offset4: most,
                x_stride4: most,
                y_offset4: most,
                y_stride4: most,
            },
        ] {
            let run = Run { params: bytemuck::bytes_of(&p).to_vec(), ..full() };
            assert!(run.fault().is_some(), "{p:?}");
        }
        let p = params::RowDistance { rows: 0, dim4: most, ..p };
        let run = Run { params: bytemuck::bytes_of(&p).to_vec(), ..full() };
        assert!(run.fault().is_none());
    }
}
