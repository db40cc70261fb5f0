use half::f16;

use super::call::Call;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::{check_columns, extent, size, size4};
use super::vector::Vector;
use crate::cpu::Matrix;
use crate::params;
use crate::sizes::QUANT_BLOCK;

/// Rows of a task, about this many values.
const TASK_VALUES: usize = 1 << 14;

/// `y[y_row + t] = w[index[t] - first_row]`, or `+=`; see the [CPU reference](crate::cpu::gather_rows).
pub(super) fn gather_rows(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::GatherRows = call.params()?;
    let (count, dim, rows, y_row) = (size(p.count), size4(p.dim4), size(p.rows), size(p.y_row));
    if count == 0 || dim == 0 {
        return Ok(());
    }
    check_columns(call, dim)?;
    let w = call.matrix(rows.saturating_mul(dim))?;
    let index = call.read_u32(1, count)?;
    let y = call.write(2, extent(y_row.saturating_mul(dim), dim, count, dim))?;
    let share = (TASK_VALUES / dim).max(1);
    // Four bytes of a row cost about as much as a multiply-add: memory is the limit.
    call.each(count.div_ceil(share), count.saturating_mul(dim), |task| {
        for t in (task * share..((task + 1) * share).min(count)).filter(|&t| !call.halted(t)) {
            // An index is data, and may be of a row in another slice of the table.
            let row = index[t].checked_sub(p.first_row).map(size).filter(|&row| row < rows);
            let at = (y_row + t) * dim;
            // SAFETY: every row belongs to one task.
            let y = unsafe { y.slice(at..at + dim) };
            match row {
                Some(row) => call.instructions.run(Row { w, at: row * dim, y, add: p.add != 0 }),
                None if p.add == 0 => y.fill(0.0),
                None => {}
            }
        }
    });
    Ok(())
}

/// One row of the table, from weight `at` on.
struct Row<'a> {
    w: Matrix<'a>,
    at: usize,
    /// `[dim]`
    y: &'a mut [f32],
    add: bool,
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { w, at, y, add } = self;
        let end = at + y.len();
        match w {
            Matrix::F32(w) if add => y.iter_mut().zip(&w[at..end]).for_each(|(y, w)| *y += w),
            Matrix::F32(w) => y.copy_from_slice(&w[at..end]),
            Matrix::F16(w) => {
                for (y, w) in y.chunks_mut(V::LANES).zip(w[at..end].chunks(V::LANES)) {
                    let mut values = [f16::ZERO; 16];
                    values[..w.len()].copy_from_slice(w);
                    // SAFETY: there are 16 values, and `y` has `y.len()`, at most `LANES`.
                    unsafe {
                        let mut v = V::load_f16(values.as_ptr());
                        if add {
                            v = v.add(V::load_first(y.as_ptr(), y.len()));
                        }
                        v.store_first(y.as_mut_ptr(), y.len());
                    }
                }
            }
            Matrix::Q8(w, scales) => {
                let blocks = w[at..end].chunks_exact(QUANT_BLOCK);
                for ((y, w), scale) in y.chunks_exact_mut(QUANT_BLOCK).zip(blocks).zip(&scales[at / QUANT_BLOCK..]) {
                    put(y, std::array::from_fn(|i| w[i] as i8), *scale, add);
                }
            }
            Matrix::Q4(w, scales) => {
                let blocks = w[at / 2..end / 2].chunks_exact(QUANT_BLOCK / 2);
                for ((y, w), scale) in y.chunks_exact_mut(QUANT_BLOCK).zip(blocks).zip(&scales[at / QUANT_BLOCK..]) {
                    // Four bytes have the low halves of four values, then the high halves of the next four.
                    put(
                        y,
                        std::array::from_fn(|i| (w[i / 8 * 4 + i % 4] >> (i / 4 % 2 * 4) & 15) as i8 - 8),
                        *scale,
                        add,
                    );
                }
            }
        }
    }
}

/// Writes or adds a block of integers times their scale.
#[inline(always)]
fn put(y: &mut [f32], integers: [i8; QUANT_BLOCK], scale: f16, add: bool) {
    let scale = scale.to_f32();
    for (y, integer) in y.iter_mut().zip(integers) {
        let v = scale * f32::from(integer);
        *y = if add { *y + v } else { v };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, Table, words};
    use crate::{KernelId, WeightFormat};

    fn check(format: WeightFormat, p: &params::GatherRows, index: &[u32], halted: &[usize]) {
        let table = Table::new(format, 1, (p.rows * 4 * p.dim4) as usize);
        let dim = 4 * p.dim4 as usize;
        let y = noise(2, (p.y_row + p.count) as usize * dim, 1.0);
        let mut expected = y.clone();
        cpu::gather_rows(p, table.matrix(), index, &mut expected);
        for &t in halted {
            let row = (p.y_row as usize + t) * dim..(p.y_row as usize + t + 1) * dim;
            expected[row.clone()].copy_from_slice(&y[row]);
        }
        let bindings = vec![table.weights(), words(index), words(&y)];
        let mut run = Run::new(KernelId::GatherRows, p, bindings, [p.dim4.div_ceil(64), p.count, 1]);
        (run.format, run.scales) = (format, table.scales());
        if !halted.is_empty() {
            let mut flags = vec![0; 64 * p.count as usize];
            halted.iter().for_each(|t| flags[64 * t] = 1);
            run.guard = Some(flags);
        }
        run.all(|found| assert_close(found.f32(2), &expected, 1e-7));
    }

    #[test]
    fn matches_the_reference() {
        for format in WeightFormat::ALL {
            for dim4 in if format.has_scales() { [8, 16, 40] } else { [1, 3, 18] } {
                for (first_row, add, halted) in [(0, 0, &[][..]), (3, 0, &[2]), (3, 1, &[]), (5, 1, &[0, 7])] {
                    let p = params::GatherRows { count: 8, dim4, first_row, rows: 6, add, y_row: 1 };
                    check(format, &p, &[0, 3, 8, 9, 5, u32::MAX, 5, 10], halted);
                }
            }
        }
    }

    #[test]
    fn many_rows_match_the_reference() {
        let index: Vec<u32> = (0..300).map(|t| t * 7 % 100).collect();
        let p = params::GatherRows { count: 300, dim4: 48, first_row: 0, rows: 90, add: 0, y_row: 0 };
        check(WeightFormat::Q4, &p, &index, &[]);
        check(WeightFormat::F16, &p, &index, &[]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::GatherRows { count: 2, dim4: 1, first_row: 0, rows: 2, add: 0, y_row: 0 };
        let run = |p: &params::GatherRows| {
            let run = Run::new(KernelId::GatherRows, p, vec![vec![0; 8], vec![0; 2], vec![0; 8]], [1, 2, 1]);
            run.fault()
        };
        assert_eq!(run(&p), None);
        for p in [
            params::GatherRows { count: 3, ..p },
            params::GatherRows { rows: 3, ..p },
            params::GatherRows { y_row: 1, ..p },
            params::GatherRows { dim4: u32::MAX, rows: u32::MAX, ..p },
            params::GatherRows { dim4: u32::MAX, rows: 0, y_row: u32::MAX, ..p },
        ] {
            assert!(run(&p).is_some(), "{p:?}");
        }
    }
}
