use super::call::Call;
use super::extent::product;
use super::instruction_set::Task;
use super::memory::Fault;
use super::vector::Vector;
use crate::params;

/// Elements of a task. Its part of c stays in the L1 cache from chunk to chunk.
pub(super) const BLOCK: usize = 2048;

/// Chunkwise mLSTM, step 2 of 3: the states at the chunk starts; see the [CPU reference](crate::cpu::mlstm_chunk_scan).
pub(super) fn mlstm_chunk_scan(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmChunkScan = call.params()?;
    let [rows, heads, size, chunk, period] = [p.rows, p.heads, p.size, p.chunk, p.period].map(|n| n as usize);
    if rows == 0 || heads == 0 || size == 0 {
        return Ok(());
    }
    if chunk == 0 || period == 0 {
        return Err(Fault::new("mlstm_chunk_scan: chunks and sequences need at least one row"));
    }
    let sequences = rows.div_ceil(period);
    if sequences > 1 && period % chunk != 0 {
        return Err(Fault::new("mlstm_chunk_scan: sequences share a chunk"));
    }
    let chunks = rows.div_ceil(chunk);
    let gates = call.read(0, product([rows, heads, 4]))?;
    let c = call.write(1, product([sequences, heads, size]))?;
    let states = call.write(2, product([chunks, heads, size]))?;
    let blocks = size.div_ceil(BLOCK);
    call.each(product([sequences, heads, blocks]), product([chunks, heads, size]), |task| {
        let (which, first) = (task / blocks, task % blocks * BLOCK);
        let (sequence, head) = (which / heads, which % heads);
        let width = (size - first).min(BLOCK);
        let own = which * size + first;
        // SAFETY: the elements belong to this task.
        let state = unsafe { c.slice(own..own + width) };
        let limit = (sequence * period).saturating_add(period).min(rows);
        for begin in (sequence * period..limit).step_by(chunk) {
            let end = begin.saturating_add(chunk).min(limit);
            let at = (begin / chunk * heads + head) * size + first;
            // SAFETY: as above; no chunk belongs to two sequences.
            let added = unsafe { states.slice(at..at + width) };
            let g_end = gates[((end - 1) * heads + head) * 4 + 3];
            call.instructions.run(Carry { keep: f64::from(g_end).exp() as f32, state, added });
        }
    });
    Ok(())
}

/// Replaces `added` by `state`, and `state` by `keep state + added`.
pub(super) struct Carry<'a> {
    pub(super) keep: f32,
    pub(super) state: &'a mut [f32],
    pub(super) added: &'a mut [f32],
}

impl Task for Carry<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let keep = V::splat(self.keep);
        for (state, added) in self.state.chunks_mut(V::LANES).zip(self.added.chunks_mut(V::LANES)) {
            let count = state.len().min(added.len());
            // SAFETY: both chunks have that many values.
            unsafe {
                let before = V::load_first(state.as_ptr(), count);
                keep.mul_add(before, V::load_first(added.as_ptr(), count)).store_first(state.as_mut_ptr(), count);
                before.store_first(added.as_mut_ptr(), count);
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
    use crate::simd::InstructionSet;
    use crate::simd::testing::{Run, Threads, cases, words};

    fn run(rows: u32, heads: u32, size: u32, chunk: u32, period: u32) -> (Run, Vec<f32>, [Vec<f32>; 2]) {
        let p = params::MlstmChunkScan { rows, heads, size, chunk, period };
        let gates = noise(1, (4 * rows * heads) as usize, 1.0);
        let c = noise(2, (rows.div_ceil(period.max(1)) * heads * size) as usize, 1.0);
        let states = noise(3, (rows.div_ceil(chunk.max(1)) * heads * size) as usize, 1.0);
        let run = Run::new(KernelId::MlstmChunkScan, &p, vec![words(&gates), words(&c), words(&states)], [1, heads, 1]);
        (run, gates, [c, states])
    }

    #[test]
    fn matches_the_reference() {
        for (rows, heads, size, chunk, period) in cases([
            (1, 1, 1, 64, 1),
            (130, 2, 33, 64, 130),
            (9, 3, 5000, 4, 8),
            (7, 2, 12, 3, 100),
            (20, 2, 2100, 5, 5),
        ]) {
            let (run, gates, [mut c, mut states]) = run(rows, heads, size, chunk, period);
            let p = params::MlstmChunkScan { rows, heads, size, chunk, period };
            cpu::mlstm_chunk_scan(&p, &gates, &mut c, &mut states);
            run.all(|found| {
                assert_close(found.f32(1), &c, 1e-6);
                assert_close(found.f32(2), &states, 1e-6);
            });
        }
    }

    #[test]
    fn refuses_sequences_that_share_a_chunk() {
        for (chunk, period) in cases([(0, 4), (4, 0), (4, 6)]) {
            let (run, ..) = run(12, 1, 3, chunk, period);
            assert!(run.once(InstructionSet::best(), &Threads(1)).is_err());
        }
    }
}
