use super::call::Call;
use super::extent::product;
use super::memory::Fault;
use super::mlstm_chunk_scan::{BLOCK, Carry};
use super::scratch::with_scratch;
use crate::params;

/// Gradient of the chunkwise mLSTM, step 2 of 4: the gradients of the states at the chunk ends; see the
/// [CPU reference](crate::cpu::mlstm_chunk_scan_grad).
pub(super) fn mlstm_chunk_scan_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmChunkScanGrad = call.params()?;
    let [rows, heads, size, chunk, period] = [p.rows, p.heads, p.size, p.chunk, p.period].map(|n| n as usize);
    if rows == 0 || heads == 0 || size == 0 {
        return Ok(());
    }
    if chunk == 0 || period == 0 {
        return Err(Fault::new("mlstm_chunk_scan_grad: chunks and sequences need at least one row"));
    }
    let sequences = rows.div_ceil(period);
    if sequences > 1 && period % chunk != 0 {
        return Err(Fault::new("mlstm_chunk_scan_grad: sequences share a chunk"));
    }
    let chunks = rows.div_ceil(chunk);
    let gates = call.read(0, product([rows, heads, 4]))?;
    let dstates = call.write(1, product([chunks, heads, size]))?;
    let blocks = size.div_ceil(BLOCK);
    call.each(product([sequences, heads, blocks]), product([chunks, heads, size]), |task| {
        let (which, first) = (task / blocks, task % blocks * BLOCK);
        let (sequence, head) = (which / heads, which % heads);
        let width = (size - first).min(BLOCK);
        let limit = (sequence * period).saturating_add(period).min(rows);
        with_scratch(width, |state| {
            // Nothing comes after the sequence.
            state.fill(0.0);
            for begin in (sequence * period..limit).step_by(chunk).rev() {
                let end = begin.saturating_add(chunk).min(limit);
                let at = (begin / chunk * heads + head) * size + first;
                // SAFETY: the elements belong to this task, because no chunk belongs to two sequences.
                let added = unsafe { dstates.slice(at..at + width) };
                let g_end = gates[((end - 1) * heads + head) * 4 + 3];
                call.instructions.run(Carry { keep: f64::from(g_end).exp() as f32, state, added });
            }
        });
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

    fn run([rows, heads, size, chunk, period]: [u32; 5], change: impl Fn(&mut [f32])) -> (Run, Vec<f32>) {
        let p = params::MlstmChunkScanGrad { rows, heads, size, chunk, period };
        let mut gates = noise(1, (4 * rows * heads) as usize, 1.0);
        change(&mut gates);
        let mut dstates = noise(2, (rows.div_ceil(chunk.max(1)) * heads * size) as usize, 1.0);
        let run = Run::new(KernelId::MlstmChunkScanGrad, &p, vec![words(&gates), words(&dstates)], [1, heads, 1]);
        if chunk > 0 && period > 0 {
            cpu::mlstm_chunk_scan_grad(&p, &gates, &mut dstates);
        }
        (run, dstates)
    }

    #[test]
    fn matches_the_reference() {
        for sizes in cases([
            [1, 1, 1, 64, 1],
            [130, 2, 33, 64, 130],
            [9, 3, 5000, 4, 8],
            [7, 2, 12, 3, 100],
            [20, 2, 2100, 5, 5],
            [11, 1, 17, 2, 6],
        ]) {
            let (run, expected) = run(sizes, |_| {});
            run.all(|found| assert_close(found.f32(1), &expected, 1e-6));
        }
    }

    #[test]
    fn nan_stays_nan() {
        let (run, expected) = run([9, 1, 5, 3, 9], |gates| gates[4 * 5 + 3] = f32::NAN);
        assert!(expected[0].is_nan());
        run.all(|found| {
            assert!(found.f32(1).iter().zip(&expected).all(|(found, expected)| found.is_nan() == expected.is_nan()));
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        // Chunks and sequences without rows, sequences that share a chunk.
        for (chunk, period) in cases([(0, 4), (4, 0), (4, 6)]) {
            assert!(run([12, 1, 3, chunk, period], |_| {}).0.fault().is_some());
        }
        for binding in 0..2 {
            let (mut run, _) = run([9, 2, 5, 3, 9], |_| {});
            run.bindings[binding].pop();
            assert!(run.fault().is_some());
        }
        for sizes in [[u32::MAX, 1, 1, 1, u32::MAX], [1, u32::MAX, u32::MAX, 64, 1], [u32::MAX; 5]] {
            let (mut run, _) = run([1, 1, 1, 1, 1], |_| {});
            run.params = bytemuck::cast_slice(&sizes).to_vec();
            assert!(run.fault().is_some());
        }
    }
}
