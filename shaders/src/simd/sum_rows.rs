use super::call::{Call, product};
use super::memory::Fault;
use super::product::{extent, size};
use super::row_sum::{Places, RowSum, STRIP};
use crate::params;

/// Values of a task that has several sums.
const TASK_VALUES: usize = 1 << 13;

/// The sum of every `per` rows of x, or `y +=`; see the [CPU reference](crate::cpu::sum_rows).
pub(super) fn sum_rows(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::SumRows = call.params()?;
    let (rows, columns, per) = (size(p.rows), size(p.columns), size(p.per));
    let (x_offset, x_stride, y_offset) = (size(p.x_offset), size(p.x_stride), size(p.y_offset));
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    if per == 0 {
        return Err(Fault::new("sum_rows: a sum needs at least one row"));
    }
    let sums = rows.div_ceil(per);
    let x = call.read(0, extent(x_offset, x_stride, rows, columns))?;
    let y = call.write(1, extent(y_offset, columns, sums, columns))?;
    let strips = columns.div_ceil(STRIP);
    let share = (TASK_VALUES / product(&[per, columns.min(STRIP)])).max(1);
    call.each(product(&[sums.div_ceil(share), strips]), product(&[rows, columns]), |task| {
        let (first, column) = (task / strips * share, task % strips * STRIP);
        let width = (columns - column).min(STRIP);
        for sum in first..sums.min(first + share) {
            let begin = sum * per;
            let at = y_offset + sum * columns + column;
            // SAFETY: every task has columns of sums of its own.
            let y = unsafe { y.slice(at..at + width) };
            let first = x_offset + begin * x_stride + column;
            let rows = Places::Apart { first, stride: x_stride, count: per.min(rows - begin) };
            call.instructions.run(RowSum { x, rows, y, add: p.add != 0 });
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    fn run(p: &params::SumRows, x: &[f32], y: &[f32]) -> Run {
        let grid = [p.columns.div_ceil(64), p.rows.div_ceil(p.per.max(1)), 1];
        Run::new(KernelId::SumRows, p, vec![words(x), words(y)], grid)
    }

    #[test]
    fn matches_the_reference() {
        for (rows, columns, per, add) in cases([
            (1, 1, 1, 0),
            (19, 5, 9, 1),
            (3, 17, 2, 0),
            (1000, 1, 1000, 1),
            (7, 31, 7, 1),
            (16, 33, 8, 0),
            (65, 1023, 64, 0),
            (40, 1025, 17, 1),
            (300, 700, 1, 1),
            (200, 2500, 64, 0),
        ]) {
            let (x_offset, x_stride, y_offset) = (3, columns + 2, 5);
            let p = params::SumRows { rows, columns, x_offset, x_stride, per, y_offset, add };
            let x = noise(1, (3 + (rows - 1) * x_stride + columns) as usize, 1.0);
            let mut y = noise(2, (y_offset + rows.div_ceil(per) * columns + 1) as usize, 1.0);
            let run = run(&p, &x, &y);
            cpu::sum_rows(&p, &x, &mut y);
            run.all(|found| assert_close(found.f32(1), &y, 2e-6));
        }
    }

    #[test]
    fn roundings_do_not_add_up() {
        let p = params::SumRows { rows: 20_000, columns: 1, x_stride: 1, per: 20_000, ..Default::default() };
        let x: Vec<f32> = noise(1, 20_000, 1.0).iter().map(|v| v.abs()).collect();
        let mut y = vec![0.0];
        let run = run(&p, &x, &y);
        cpu::sum_rows(&p, &x, &mut y);
        if !cfg!(miri) {
            run.all(|found| assert_close(found.f32(1), &y, 3e-6));
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let p = params::SumRows { rows: 3, columns: 18, x_stride: 18, per: 3, ..Default::default() };
        let mut x = vec![1.0; 54];
        (x[17], x[20], x[54 - 14]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        run(&p, &x, &[0.0; 18]).all(|found| {
            let y = found.f32(1);
            assert!(y[17].is_nan() && y[2] == f32::INFINITY && y[4] == f32::NEG_INFINITY && y[3] == 3.0);
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::SumRows { rows: 3, columns: 4, x_offset: 1, x_stride: 5, per: 2, y_offset: 1, add: 0 };
        let fault = |p: &params::SumRows| run(p, &[0.0; 15], &[0.0; 9]).fault();
        assert_eq!(fault(&p), None);
        assert_eq!(fault(&params::SumRows { rows: 0, x_offset: u32::MAX, ..p }), None);
        for p in [
            params::SumRows { rows: 4, ..p },
            params::SumRows { x_offset: 2, ..p },
            params::SumRows { x_stride: 6, ..p },
            params::SumRows { y_offset: 2, ..p },
            params::SumRows { per: 1, ..p },
            params::SumRows { per: 0, ..p },
            params::SumRows { rows: u32::MAX, columns: u32::MAX, x_stride: u32::MAX, per: 1, ..p },
            params::SumRows { rows: u32::MAX, columns: u32::MAX, x_stride: 0, per: u32::MAX, ..p },
        ] {
            assert!(fault(&p).is_some(), "{p:?}");
        }
    }
}
