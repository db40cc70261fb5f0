use super::call::Call;
use super::memory::Fault;
use crate::params;

/// Values that a task copies.
const TASK: usize = 1 << 14;

/// `y = x`; see the [CPU reference](crate::cpu::copy).
pub(super) fn copy(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Copy = call.params()?;
    let count = 4 * p.count4 as usize;
    let (x, y) = (call.read(0, count)?, call.write(1, count)?);
    call.each(count.div_ceil(TASK), count, |task| {
        let range = task * TASK..count.min((task + 1) * TASK);
        // SAFETY: tasks have disjoint ranges.
        unsafe { y.slice(range.clone()) }.copy_from_slice(&x[range]);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu::noise::noise;
    use crate::simd::testing::{Run, cases, words};

    #[test]
    fn values_past_count_are_unchanged() {
        for count4 in cases([0, 1, 5, 12_345, 40_000]) {
            let count = 4 * count4 as usize;
            let (x, y) = (noise(1, count + 8, 1.0), noise(2, count + 8, 1.0));
            let run =
                Run::new(KernelId::Copy, &params::Copy { count4 }, vec![words(&x), words(&y)], [count4.max(1), 1, 1]);
            run.all(|found| {
                assert_eq!(found.f32(1)[..count], x[..count]);
                assert_eq!(found.f32(1)[count..], y[count..]);
            });
        }
    }
}
