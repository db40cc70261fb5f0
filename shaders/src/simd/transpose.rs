use super::call::{Call, product};
use super::instruction_set::Task;
use super::memory::{Fault, Output};
use super::product::{extent, size};
use super::scratch::with_scratch;
use super::vector::Vector;
use crate::params;

/// Rows and columns of a task, a multiple of `LANES`. Its values fit in the L1 cache, and its rows in both matrices
/// have several cache lines.
const TILE: usize = 64;
/// Rows of y to load ahead of the one that is written: they are too far apart for the CPU to foresee them.
const AHEAD: usize = 8;
/// Values of a cache line.
const LINE: usize = 16;

/// `y[c, r] = x[r, c]`; see the [CPU reference](crate::cpu::transpose).
pub(super) fn transpose(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Transpose = call.params()?;
    let (rows, columns) = (size(p.rows), size(p.columns));
    let (x_offset, x_stride) = (size(p.x_offset), size(p.x_stride));
    let (y_offset, y_stride) = (size(p.y_offset), size(p.y_stride));
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    if columns > 1 && y_stride < rows {
        return Err(Fault::new("transpose: rows of y overlap"));
    }
    let x = call.read(0, extent(x_offset, x_stride, rows, columns))?;
    let y = call.write(1, extent(y_offset, y_stride, columns, rows))?;
    let across = columns.div_ceil(TILE);
    call.each(product(&[rows.div_ceil(TILE), across]), product(&[rows, columns]), |task| {
        let (row, column) = (task / across * TILE, task % across * TILE);
        with_scratch(TILE * TILE, |turned| {
            call.instructions.run(Tile {
                x: &x[x_offset + row * x_stride + column..],
                x_stride,
                rows: (rows - row).min(TILE),
                columns: (columns - column).min(TILE),
                y,
                begin: y_offset + column * y_stride + row,
                y_stride,
                turned,
            });
        });
    });
    Ok(())
}

/// A tile of a matrix.
///
/// Its transpose is written in the order of its rows. Block by block, lines of y would be written in pieces, and as
/// strides are often powers of two, many of them would have the same place in the caches.
struct Tile<'a> {
    x: &'a [f32],
    x_stride: usize,
    rows: usize,
    columns: usize,
    y: Output<'a>,
    /// Where the tile begins in y.
    begin: usize,
    y_stride: usize,
    /// Transposed blocks of `LANES` x `LANES` values, those with the same columns one after another.
    turned: &'a mut [f32],
}

impl Task for Tile<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, x_stride, rows, columns, y, begin, y_stride, turned } = self;
        let (blocks, size) = (TILE / V::LANES, V::LANES * V::LANES);
        for row in (0..rows).step_by(V::LANES) {
            for column in (0..columns).step_by(V::LANES) {
                let from = &x[row * x_stride + column..];
                let to = &mut turned[(column / V::LANES * blocks + row / V::LANES) * size..][..size];
                let (height, width) = ((rows - row).min(V::LANES), (columns - column).min(V::LANES));
                assert!((height - 1) * x_stride + width <= from.len());
                if height == V::LANES && width == V::LANES {
                    // SAFETY: by the assertion, the rows are within `from`, and `to` has the values of a block.
                    unsafe { V::transpose(from.as_ptr(), x_stride, to.as_mut_ptr()) };
                } else {
                    for (i, to) in to.chunks_exact_mut(V::LANES).take(width).enumerate() {
                        for (j, to) in to[..height].iter_mut().enumerate() {
                            *to = from[j * x_stride + i];
                        }
                    }
                }
            }
        }
        for column in 0..columns {
            let at = begin + column * y_stride;
            if column + AHEAD < columns {
                let ahead = at + AHEAD * y_stride;
                // SAFETY: every task has a tile of its own, and rows of y don't overlap.
                let ahead = unsafe { y.slice(ahead..ahead + rows) };
                for line in ahead.chunks(LINE) {
                    V::prefetch(line.as_ptr().cast());
                }
            }
            // SAFETY: as above.
            let y = unsafe { y.slice(at..at + rows) };
            let first = column / V::LANES * blocks * size + column % V::LANES * V::LANES;
            for (block, y) in y.chunks_mut(V::LANES).enumerate() {
                let from = &turned[first + block * size..][..V::LANES];
                // SAFETY: there are `LANES` values, and `y` has `y.len()`.
                unsafe { V::load(from.as_ptr()).store_first(y.as_mut_ptr(), y.len()) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    fn run(p: &params::Transpose, x: &[f32], y: &[f32]) -> Run {
        let grid = [p.columns.div_ceil(32), p.rows.div_ceil(32), 1];
        Run::new(KernelId::Transpose, p, vec![words(x), words(y)], grid)
    }

    #[test]
    fn matches_the_reference() {
        let edges = [17, 1, 3, 4, 5, 7, 8, 9, 15, 16, 31, 33, 63, 64, 65, 130];
        let sizes = edges.into_iter().flat_map(|n| [(n, 6), (5, n), (n, n)]).chain([(200, 333), (128, 256)]);
        for (rows, columns) in cases(sizes) {
            for gap in [0, 3] {
                let (x_stride, y_stride) = (columns + gap, rows + 2 * gap);
                let p = params::Transpose { rows, columns, x_offset: gap, x_stride, y_offset: 2 * gap, y_stride };
                let x = noise(1, (gap + (rows - 1) * x_stride + columns) as usize, 1.0);
                let mut y = noise(2, (2 * gap + columns * y_stride) as usize, 1.0);
                let run = run(&p, &x, &y);
                cpu::transpose(&p, &x, &mut y);
                run.all(|found| assert_eq!(found.f32(1), y));
            }
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::Transpose { rows: 2, columns: 3, x_offset: 1, x_stride: 4, y_offset: 1, y_stride: 3 };
        let fault = |p: &params::Transpose| run(p, &[0.0; 8], &[0.0; 9]).fault();
        assert_eq!(fault(&p), None);
        assert_eq!(fault(&params::Transpose { columns: 0, x_offset: u32::MAX, ..p }), None);
        for p in [
            params::Transpose { rows: 3, ..p },
            params::Transpose { columns: 4, ..p },
            params::Transpose { x_offset: 2, ..p },
            params::Transpose { x_stride: 5, ..p },
            params::Transpose { y_offset: 2, ..p },
            params::Transpose { y_stride: 4, ..p },
            params::Transpose { y_stride: 1, ..p },
            params::Transpose { rows: u32::MAX, columns: u32::MAX, x_stride: u32::MAX, y_stride: u32::MAX, ..p },
            params::Transpose { rows: u32::MAX, columns: u32::MAX, x_stride: 0, y_stride: 0, ..p },
        ] {
            assert!(fault(&p).is_some(), "{p:?}");
        }
    }
}
