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
