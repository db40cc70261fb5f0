use half::f16;

use super::call::Call;
use super::instruction_set::Task;
use super::memory::Fault;
use super::product::size4;
use super::vector::Vector;
use crate::params;

/// Values of a task.
const BLOCK: usize = 1 << 14;

/// `y = x` rounded to f16; see the [CPU reference](crate::cpu::round_f16).
pub(super) fn round_f16(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::RoundF16 = call.params()?;
    let count = size4(p.count4);
    // A word has two values of f16.
    let (x, y) = (call.read(0, count)?, call.write_u32(1, count / 2)?);
    call.each(count.div_ceil(BLOCK), count, |task| {
        let (begin, end) = (task * BLOCK, count.min((task + 1) * BLOCK));
        // SAFETY: every task has a block of its own.
        let y = unsafe { y.slice(begin / 2..end / 2) };
        call.instructions.run(Round { x: &x[begin..end], y: bytemuck::cast_slice_mut(y) });
    });
    Ok(())
}

/// Rounds x to y, which has the same length.
struct Round<'a> {
    x: &'a [f32],
    y: &'a mut [f16],
}

impl Task for Round<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (x, y) = (self.x.chunks_exact(V::LANES), self.y.chunks_exact_mut(V::LANES));
        let rest = x.remainder();
        for (x, y) in x.zip(y) {
            // SAFETY: both chunks have `LANES` values.
            unsafe { V::load(x.as_ptr()).store_f16(y.as_mut_ptr()) };
        }
        let mut last = [f16::ZERO; 16];
        // SAFETY: the chunk has that many values, and there is room for `LANES` of them.
        unsafe { V::load_first(rest.as_ptr(), rest.len()).store_f16(last.as_mut_ptr()) };
        let done = self.y.len() - rest.len();
        self.y[done..].copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::simd::testing::{Run, cases, words};

    fn check(x: &[f32]) {
        let count4 = (x.len() / 4) as u32;
        let p = params::RoundF16 { count4 };
        let mut y = vec![f16::ONE; x.len() + 2];
        let run = Run::new(KernelId::RoundF16, &p, vec![words(x), words(&y)], [count4.div_ceil(64), 1, 1]);
        cpu::round_f16(&p, x, &mut y);
        run.all(|found| {
            for ((&found, &expected), x) in bytemuck::cast_slice::<u32, f16>(found.u32(1)).iter().zip(&y).zip(x) {
                let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(same, "{x} became {found}, expected {expected}");
            }
        });
    }

    #[test]
    fn every_f16_and_what_lies_between() {
        let step = if cfg!(miri) { 3000 } else { 1 };
        let all = (0..=u16::MAX).step_by(step).map(f16::from_bits);
        let near = all.flat_map(|v| {
            let (v, next) = (v.to_f32(), f16::from_bits(v.to_bits().wrapping_add(1)).to_f32());
            let middle = v + (next - v) / 2.0;
            [v, middle, f32::from_bits(middle.to_bits() - 1), f32::from_bits(middle.to_bits() + 1)]
        });
        let mut x: Vec<f32> = near.collect();
        x.extend([65_519.0, 65_520.0, 65_536.0, 1e30, f32::INFINITY, f32::NEG_INFINITY, -1e30, -65_520.0]);
        x.extend([f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(1), -0.0, 0.0, 1e-40, -1e-40]);
        check(&x);
    }

    #[test]
    fn every_length_is_rounded() {
        for count4 in cases([1, 3, 0, 2, 4, 5, 33, 4097, 9000]) {
            check(&crate::cpu::noise::noise(1, 4 * count4, 10.0));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        let fault = |count4: u32| {
            let p = params::RoundF16 { count4 };
            move |x: usize, y: usize| Run::new(KernelId::RoundF16, &p, vec![vec![0; x], vec![0; y]], [1, 1, 1]).fault()
        };
        assert_eq!(fault(3)(12, 6), None);
        assert!(fault(3)(11, 6).is_some() && fault(3)(12, 5).is_some() && fault(u32::MAX)(12, 6).is_some());
    }
}
