use super::call::Call;
use super::extent::{product, rows_end};
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// The dot products that the gradients of the mLSTM gates are made of; see the
/// [CPU reference](crate::cpu::mlstm_gate_dots).
pub(super) fn mlstm_gate_dots(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmGateDots = call.params()?;
    let [rows, heads, dk, stride] = [p.rows, p.heads, p.dk, p.stride].map(|n| n as usize);
    let offsets = [p.q_offset, p.k_offset].map(|n| n as usize);
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    let width = product([heads, dk]);
    let end = rows_end(rows, stride, offsets[0].max(offsets[1]), width);
    let (x, dx) = (call.read(0, end)?, call.read(1, end)?);
    let dots = call.write(2, product([rows, heads, 2]))?;
    call.each(rows, product([4, rows, width]), |row| {
        // SAFETY: every task has a row of its own.
        let dots = unsafe { dots.slice(2 * row * heads..2 * (row + 1) * heads) };
        for (which, offset) in offsets.into_iter().enumerate() {
            let first = row * stride + offset;
            let (x, dx) = (&x[first..first + width], &dx[first..first + width]);
            call.instructions.run(Dots { x, dx, dots: &mut dots[which..] });
        }
    });
    Ok(())
}

/// The dot products of the heads of a row, written to every second value of `dots`.
struct Dots<'a> {
    /// `[heads, dk]`
    x: &'a [f32],
    /// `[heads, dk]`
    dx: &'a [f32],
    dots: &'a mut [f32],
}

impl Task for Dots<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { x, dx, dots } = self;
        let heads = dots.len().div_ceil(2);
        let dk = x.len() / heads;
        assert!(dx.len() == x.len());
        for (head, dot) in dots.iter_mut().step_by(2).enumerate() {
            // Two sums, so that one addition needn't wait for the other.
            let mut sums = [V::splat(0.0); 2];
            for at in (0..dk).step_by(2 * V::LANES) {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let at = dk.min(at + i * V::LANES);
                    let lanes = V::LANES.min(dk - at);
                    // SAFETY: the lanes end with the head at the latest, and both slices have `heads dk` values.
                    unsafe {
                        let x = V::load_first(x.as_ptr().add(head * dk + at), lanes);
                        *sum = x.mul_add(V::load_first(dx.as_ptr().add(head * dk + at), lanes), *sum);
                    }
                }
            }
            *dot = sums[0].add(sums[1]).sum();
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

    fn block(rows: u32, heads: u32, dk: u32) -> params::MlstmGateDots {
        params::MlstmGateDots { rows, heads, dk, stride: 2 * heads * dk + 4, q_offset: 1, k_offset: heads * dk + 3 }
    }

    /// A run with bindings that are just large enough, and dots as expected after it.
    fn case(p: &params::MlstmGateDots, change: impl Fn(&mut [f32])) -> (Run, Vec<f32>) {
        let count = ((p.rows - 1) * p.stride + p.k_offset + p.heads * p.dk) as usize;
        let (mut x, dx) = (noise(1, count, 1.0), noise(2, count, 1.0));
        change(&mut x);
        let mut dots = vec![7.0; (2 * p.rows * p.heads) as usize];
        let bindings = [&x, &dx, &dots].map(|values| words(values)).to_vec();
        cpu::mlstm_gate_dots(p, &x, &dx, &mut dots);
        (Run::new(KernelId::MlstmGateDots, p, bindings, [1, 1, 1]), dots)
    }

    #[test]
    fn matches_the_reference() {
        let widths = [15, 16, 17, 31, 33, 64].map(|dk| (2, 3, dk));
        let more = [(3, 1, 0), (40, 4, 128), (9, 8, 250)];
        for (rows, heads, dk) in cases([(1, 1, 1), (3, 2, 7)].into_iter().chain(widths).chain(more)) {
            let (run, dots) = case(&block(rows, heads, dk), |_| {});
            run.all(|found| assert_close(found.f32(2), &dots, 2e-6));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri draws the bits of NaN at random")]
    fn nan_stays_nan() {
        let (run, dots) = case(&block(2, 2, 5), |x| (x[1], x[24 + 22]) = (f32::NAN, f32::NAN));
        run.all(|found| {
            for (i, (found, expected)) in found.f32(2).iter().zip(&dots).enumerate() {
                assert_eq!(found.is_nan(), expected.is_nan(), "{i}");
            }
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let p = block(3, 2, 5);
        assert_eq!(case(&p, |_| {}).0.fault(), None);
        for binding in 0..3 {
            let (mut short, _) = case(&p, |_| {});
            short.bindings[binding].pop();
            assert!(short.fault().is_some(), "binding {binding}");
        }
        let max = u32::MAX;
        for wrong in [
            params::MlstmGateDots { rows: max, ..p },
            params::MlstmGateDots { heads: max, ..p },
            params::MlstmGateDots { dk: max, ..p },
            params::MlstmGateDots { stride: max, ..p },
            params::MlstmGateDots { q_offset: max, ..p },
            params::MlstmGateDots { k_offset: max, ..p },
            params::MlstmGateDots { rows: max, heads: max, dk: max, stride: max, q_offset: max, k_offset: max },
        ] {
            let run = Run { params: bytemuck::bytes_of(&wrong).to_vec(), ..case(&p, |_| {}).0 };
            assert!(run.fault().is_some(), "{wrong:?}");
        }
    }
}
