use super::call::Call;
use super::extent::{product, rows_end};
use super::memory::Fault;
use super::mlstm_chunk_state::{Last, Side, Sums, Weight};
use crate::params;

/// Gradient of the chunkwise mLSTM, step 1 of 4: the contribution of each chunk to the gradient of the state at its
/// start; see the [CPU reference](crate::cpu::mlstm_chunk_state_grad).
pub(super) fn mlstm_chunk_state_grad(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmChunkStateGrad = call.params()?;
    let [rows, heads, dk, dv] = [p.rows, p.heads, p.dk, p.dv].map(|n| n as usize);
    let [stride, q_offset, chunk] = [p.stride, p.q_offset, p.chunk].map(|n| n as usize);
    if rows == 0 || heads == 0 || dk == 0 {
        return Ok(());
    }
    if chunk == 0 {
        return Err(Fault::new("mlstm_chunk_state_grad: a chunk needs at least one row"));
    }
    let columns = dv.saturating_add(1);
    let x = call.read(0, rows_end(rows, stride, q_offset, product([heads, dk])))?;
    let gates = call.read(1, product([rows, heads, 4]))?;
    let dy = call.read(2, product([rows, heads, columns]))?;
    let states = call.write(3, product([rows.div_ceil(chunk), heads, dk, columns]))?;
    let left = Side { values: x, stride, offset: q_offset, step: dk, width: dk };
    let right = Side { values: dy, stride: heads * columns, offset: 0, step: columns, width: dv };
    let weight = Weight::FromStart(p.scale);
    Sums { rows, heads, chunk, gates, weight, left, right, last: Last::Next, states }.run(call);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    fn run([rows, heads, dk, dv, chunk]: [u32; 5], change: impl Fn(&mut [f32], &mut [f32])) -> (Run, Vec<f32>) {
        let stride = heads * dk + 3;
        let scale = (dk.max(1) as f32).powf(-0.5);
        let p = params::MlstmChunkStateGrad { rows, heads, dk, dv, stride, q_offset: 2, chunk, scale };
        let mut x = noise(1, (rows * stride) as usize, 2.0);
        let mut gates = noise(2, (4 * rows * heads) as usize, 1.0);
        change(&mut x, &mut gates);
        let dy = noise(3, (rows * heads * (dv + 1)) as usize, 1.0);
        let mut dstates = vec![0.0; (rows.div_ceil(chunk.max(1)) * heads * dk * (dv + 1)) as usize];
        let bindings = vec![words(&x), words(&gates), words(&dy), words(&dstates)];
        if chunk > 0 {
            cpu::mlstm_chunk_state_grad(&p, &x, &gates, &dy, &mut dstates);
        }
        (Run::new(KernelId::MlstmChunkStateGrad, &p, bindings, [1, heads, 1]), dstates)
    }

    #[test]
    fn matches_the_reference() {
        for sizes in cases([
            [1, 1, 1, 1, 64],
            [3, 2, 6, 5, 2],
            [130, 2, 16, 33, 64],
            [70, 3, 9, 130, 64],
            [150, 1, 7, 20, 140],
            [64, 2, 128, 256, 64],
            [65, 1, 130, 8, 64],
            [5, 1, 3, 0, 4],
        ]) {
            let (run, expected) = run(sizes, |_, _| {});
            run.all(|found| assert_close(found.f32(3), &expected, 2e-6));
        }
    }

    #[test]
    fn nan_stays_nan() {
        let (run, expected) = run([20, 1, 4, 9, 8], |x, gates| {
            gates[4 * 3 + 3] = f32::NAN;
            x[12 * 7 + 3] = f32::NAN;
        });
        run.all(|found| {
            assert!(found.f32(3).iter().zip(&expected).all(|(found, expected)| found.is_nan() == expected.is_nan()));
        });
    }

    #[test]
    fn sizes_that_do_not_fit_are_faults() {
        assert!(run([5, 1, 3, 2, 0], |_, _| {}).0.fault().is_some());
        // x has a value that is not read at the end of each row.
        run([9, 2, 5, 3, 4], |_, _| {}).0.refuses_what_does_not_fit(2, 6);
    }
}
