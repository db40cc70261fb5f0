use super::call::Call;
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// `h = silu(gate) * up`; see the [CPU reference](crate::cpu::silu_mul).
pub(super) fn silu_mul(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::SiluMul = call.params()?;
    let (rows, dim) = (p.rows as usize, 4 * p.dim4 as usize);
    let (gate_up, h) = (call.read(0, 2 * rows * dim)?, call.write(1, rows * dim)?);
    // An exponential takes about as long as 20 multiply-adds.
    call.each(rows, 20 * rows * dim, |row| {
        // SAFETY: every task has a row of its own.
        let h = unsafe { h.slice(row * dim..(row + 1) * dim) };
        call.instructions.run(Row { gate_up: &gate_up[2 * row * dim..2 * (row + 1) * dim], h });
    });
    Ok(())
}

/// One row.
pub(super) struct Row<'a> {
    /// `[dim, 2]`
    pub(super) gate_up: &'a [f32],
    /// `[dim]`
    pub(super) h: &'a mut [f32],
}

impl Task for Row<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (h, gate_up) in self.h.chunks_mut(V::LANES).zip(self.gate_up.chunks(2 * V::LANES)) {
            assert!(gate_up.len() == 2 * h.len());
            let mut pairs = [0.0; 32];
            let whole = h.len() == V::LANES;
            if !whole {
                pairs[..gate_up.len()].copy_from_slice(gate_up);
            }
            // SAFETY: `pairs`, and a slice of a whole vector, have `2 LANES` values, and `h` has `h.len()`.
            unsafe {
                let [gate, up] = V::load_pairs(if whole { gate_up.as_ptr() } else { pairs.as_ptr() });
                gate.mul(gate.sigmoid()).mul(up).store_first(h.as_mut_ptr(), h.len());
            }
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

    #[test]
    fn matches_the_reference() {
        for (rows, dim4) in cases([(1, 1), (2, 3), (3, 16), (5, 33), (40, 250)]) {
            let p = params::SiluMul { rows, dim4 };
            let count = (4 * rows * dim4) as usize;
            let (gate_up, mut h) = (noise(1, 2 * count, 12.0), noise(2, count, 1.0));
            let bindings = vec![words(&gate_up), words(&h)];
            cpu::silu_mul(&p, &gate_up, &mut h);
            Run::new(KernelId::SiluMul, &p, bindings, [dim4, rows, 1]).all(|found| {
                assert_close(found.f32(1), &h, 1e-6);
            });
        }
    }
}
