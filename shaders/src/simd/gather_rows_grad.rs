use super::call::{Call, product};
use super::memory::Fault;
use super::product::{size, size4};
use super::row_sum::{Places, RowSum, STRIP};
use crate::params;

/// Values of dw that a task writes, about.
const TASK_VALUES: usize = 1 << 13;

/// The gradient of `gather_rows` by the table; see the [CPU reference](crate::cpu::gather_rows_grad).
pub(super) fn gather_rows_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::GatherRowsGrad = call.params()?;
    let (count, dim, rows) = (size(p.segments), size4(p.dim4), size(p.rows));
    if count == 0 || dim == 0 || rows == 0 {
        return Ok(());
    }
    // How much of these two is read depends on the segments.
    let dy = call.read(0, call.bindings[0].words())?;
    let order = call.read_u32(1, call.bindings[1].words())?;
    let segments: &[[u32; 4]] = bytemuck::cast_slice(call.read_u32(2, product(&[count, 4]))?);
    let dw = call.write(3, product(&[rows, dim]))?;
    // The row in this slice of the table, and its positions; none of other slices.
    let own = |&[row, first, count, _]: &[u32; 4]| {
        let row = row.checked_sub(p.first_row).map(size).filter(|&row| row < rows)?;
        Some((row, size(first)..size(first).saturating_add(size(count))))
    };
    let (mut ascending, mut next, mut summed) = (true, 0, 0_usize);
    for (row, places) in segments.iter().filter_map(own) {
        let Some(positions) = order.get(places) else {
            return Err(Fault::new("gather_rows_grad: a segment has more places than the order"));
        };
        if positions.iter().max().is_some_and(|&last| size(last) >= dy.len() / dim) {
            return Err(Fault::new("gather_rows_grad: a position has no row in dy"));
        }
        ascending &= row >= next;
        next = row + 1;
        summed = summed.saturating_add(positions.len());
    }
    // Only if rows ascend is it certain that no two segments have the same one. Otherwise, tasks divide columns only.
    let share = if ascending { (TASK_VALUES / dim.min(STRIP)).max(1) } else { count };
    let strips = dim.div_ceil(STRIP);
    call.each(product(&[count.div_ceil(share), strips]), product(&[summed, dim]), |task| {
        let (first, column) = (task / strips * share, task % strips * STRIP);
        let width = (dim - column).min(STRIP);
        for (row, places) in segments[first..count.min(first + share)].iter().filter_map(own) {
            let at = row * dim + column;
            // SAFETY: every task has rows or columns of its own.
            let y = unsafe { dw.slice(at..at + width) };
            let rows = Places::Listed { first: column, stride: dim, numbers: &order[places] };
            call.instructions.run(RowSum { x: dy, rows, y, add: p.add != 0 });
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

    fn run(p: &params::GatherRowsGrad, dy: &[f32], order: &[u32], segments: &[[u32; 4]], dw: &[f32]) -> Run {
        let bindings = vec![words(dy), words(order), words(segments), words(dw)];
        Run::new(KernelId::GatherRowsGrad, p, bindings, [p.dim4.div_ceil(64), p.segments, 1])
    }

    /// Positions that gather rows below `rows`, grouped by row.
    fn grouped(positions: u32, rows: u32) -> (Vec<u32>, Vec<[u32; 4]>) {
        let row = |position: u32| position.wrapping_mul(2_654_435_761) % rows;
        let mut order: Vec<u32> = (0..positions).collect();
        order.sort_by_key(|&position| row(position));
        let mut segments: Vec<[u32; 4]> = Vec::new();
        for (at, &position) in order.iter().enumerate() {
            match segments.last_mut() {
                Some(last) if last[0] == row(position) => last[2] += 1,
                _ => segments.push([row(position), at as u32, 1, 0]),
            }
        }
        (order, segments)
    }

    #[test]
    fn matches_the_reference() {
        for (positions, dim4, first_row, rows, add) in cases([
            (1, 1, 0, 1, 0),
            (40, 3, 1, 2, 1),
            (9, 7, 0, 3, 1),
            (70, 257, 2, 4, 0),
            (500, 16, 5, 200, 1),
            (200, 300, 0, 150, 0),
        ]) {
            let (order, mut segments) = grouped(positions, first_row + rows + 2);
            // A row as far away as can be, whose positions are not read.
            segments.push([u32::MAX, u32::MAX, u32::MAX, 0]);
            let p = params::GatherRowsGrad { segments: segments.len() as u32, dim4, first_row, rows, add };
            let dy = noise(1, (positions * 4 * dim4) as usize, 1.0);
            let mut dw = noise(2, (rows * 4 * dim4 + 3) as usize, 1.0);
            let run = run(&p, &dy, &order, &segments, &dw);
            cpu::gather_rows_grad(&p, &dy, &order, &segments, &mut dw);
            run.all(|found| assert_close(found.f32(3), &dw, 5e-7));
        }
    }

    #[test]
    fn segments_of_the_same_row_come_one_after_another() {
        let segments = [[2, 0, 2, 0], [0, 2, 1, 0], [2, 3, 1, 0], [1, 4, 0, 0]];
        let order = [0, 1, 2, 3, 7];
        let dim4 = 600;
        let dy = noise(1, 4 * 4 * dim4 as usize, 1.0);
        for add in [0, 1] {
            let p = params::GatherRowsGrad { segments: 4, dim4, first_row: 0, rows: 3, add };
            let mut dw = noise(2, 3 * 4 * dim4 as usize, 1.0);
            let run = run(&p, &dy, &order, &segments, &dw);
            cpu::gather_rows_grad(&p, &dy, &order, &segments, &mut dw);
            run.all(|found| assert_close(found.f32(3), &dw, 5e-7));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::GatherRowsGrad { segments: 2, dim4: 1, first_row: 1, rows: 2, add: 0 };
        let (order, segments) = ([1, 0, 1], [[1, 0, 2, 0], [2, 2, 1, 0]]);
        let fault = |p: &params::GatherRowsGrad, order: &[u32], segments: &[[u32; 4]]| {
            run(p, &[0.0; 8], order, segments, &[0.0; 8]).fault()
        };
        assert_eq!(fault(&p, &order, &segments), None);
        assert_eq!(fault(&params::GatherRowsGrad { segments: 0, dim4: u32::MAX, ..p }, &order, &segments), None);
        for p in [
            params::GatherRowsGrad { segments: 3, ..p },
            params::GatherRowsGrad { dim4: 2, ..p },
            params::GatherRowsGrad { rows: 3, ..p },
            params::GatherRowsGrad { segments: u32::MAX, dim4: u32::MAX, rows: u32::MAX, ..p },
        ] {
            assert!(fault(&p, &order, &segments).is_some(), "{p:?}");
        }
        for (order, last) in [
            ([1, 0, 2], [2, 2, 1, 0]),
            ([1, 0, u32::MAX], [2, 2, 1, 0]),
            ([1, 0, 1], [2, 2, 2, 0]),
            ([1, 0, 1], [2, 3, 1, 0]),
            ([1, 0, 1], [2, u32::MAX, u32::MAX, 0]),
        ] {
            assert!(fault(&p, &order, &[segments[0], last]).is_some(), "{order:?} {last:?}");
        }
        // What other slices of the table have is not looked at.
        assert_eq!(fault(&p, &order, &[segments[0], [3, u32::MAX, 1, 0]]), None);
    }
}
