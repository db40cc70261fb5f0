use super::call::Call;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::size4;
use super::vector::Vector;
use crate::params;

/// Sums next to each other, enough to keep multiply-adds busy.
const SUMS: usize = 8;
/// Values of a lane of a sum. A sum of all values in one go would have more roundings.
const DEPTH: usize = 32;

/// The sum of squares over each block of x; see the [CPU reference](crate::cpu::sum_squares).
pub(super) fn sum_squares(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::SumSquares = call.params()?;
    let (count, per) = (size4(p.count4), size4(p.per4));
    if count == 0 {
        return Ok(());
    }
    if per == 0 {
        return Err(Fault::new("sum_squares: a block needs at least one value"));
    }
    let blocks = count.div_ceil(per);
    let (x, out) = (call.read(0, count)?, call.write(1, blocks)?);
    call.each(blocks, count, |block| {
        if call.halted(block) {
            return;
        }
        let begin = block * per;
        // SAFETY: every task has a block of its own.
        let out = unsafe { out.slice(block..block + 1) };
        call.instructions.run(Squares { x: &x[begin..count.min(begin.saturating_add(per))], sum: &mut out[0] });
    });
    Ok(())
}

/// The sum of the squares of x.
struct Squares<'a> {
    x: &'a [f32],
    sum: &'a mut f32,
}

impl Task for Squares<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let zero = V::splat(0.0);
        let mut total = zero;
        for x in self.x.chunks(DEPTH * SUMS * V::LANES) {
            let mut sums = [zero; SUMS];
            let whole = x.chunks_exact(SUMS * V::LANES);
            let rest = whole.remainder();
            for x in whole {
                for (i, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the chunk has `SUMS` times `LANES` values.
                    let v = unsafe { V::load(x.as_ptr().add(i * V::LANES)) };
                    *sum = v.mul_add(v, *sum);
                }
            }
            for (x, sum) in rest.chunks(V::LANES).zip(&mut sums) {
                // SAFETY: the chunk has that many values.
                let v = unsafe { V::load_first(x.as_ptr(), x.len()) };
                *sum = v.mul_add(v, *sum);
            }
            let [a, b, c, d, e, f, g, h] = sums;
            total = total.add(a.add(b).add(c.add(d)).add(e.add(f).add(g.add(h))));
        }
        *self.sum = total.sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    fn run(p: &params::SumSquares, x: &[f32], out: &[f32]) -> Run {
        let grid = [p.count4.div_ceil(p.per4.max(1)), 1, 1];
        Run::new(KernelId::SumSquares, p, vec![words(x), words(out)], grid)
    }

    #[test]
    fn matches_the_reference() {
        for (count4, per4) in
            cases([(1, 1), (5, 2), (33, 40), (100, 31), (129, 32), (1000, 65), (3000, 1025), (9000, 2048)])
        {
            let p = params::SumSquares { count4, per4 };
            let x = noise(1, 4 * count4 as usize, 3.0);
            let mut out = vec![5.0; count4.div_ceil(per4) as usize + 1];
            let run = run(&p, &x, &out);
            cpu::sum_squares(&p, &x, &mut out);
            run.all(|found| {
                for (found, expected) in found.f32(1).iter().zip(&out) {
                    assert_close(&[*found], &[*expected], 1e-6);
                }
            });
        }
    }

    #[test]
    fn halted_blocks_are_skipped() {
        let p = params::SumSquares { count4: 5, per4: 2 };
        let mut run = run(&p, &[1.0; 20], &[-1.0; 3]);
        let mut guard = vec![0; 129];
        guard[64] = 1;
        run.guard = Some(guard);
        run.all(|found| assert_eq!(found.f32(1), [8.0, -1.0, 4.0]));
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let p = params::SumSquares { count4: 300, per4: 100 };
        let mut x = vec![1.0; 1200];
        (x[399], x[401], x[1000]) = (f32::NAN, f32::NEG_INFINITY, 1e30);
        run(&p, &x, &[0.0; 3]).all(|found| {
            let out = found.f32(1);
            assert!(out[0].is_nan() && out[1..] == [f32::INFINITY; 2], "{out:?}");
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = params::SumSquares { count4: 5, per4: 2 };
        let fault = |p: &params::SumSquares| run(p, &[0.0; 20], &[0.0; 3]).fault();
        assert_eq!(fault(&p), None);
        assert_eq!(fault(&params::SumSquares { count4: 0, per4: 0 }), None);
        for (count4, per4) in [(6, 2), (5, 1), (5, 0), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
            let p = params::SumSquares { count4, per4 };
            assert!(fault(&p).is_some(), "{p:?}");
        }
    }
}
