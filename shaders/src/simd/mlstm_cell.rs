use super::call::Call;
use super::extent::{product, rows_end};
use super::memory::{Fault, Memory};
use super::mlstm_gates::Recurrence;
use super::mlstm_norm::{self, Head};
use super::mlstm_step::{Shape, Step, step};
use super::scratch::with_scratch;
use crate::params;

/// A whole mLSTM cell for few rows; see the [CPU reference](crate::cpu::mlstm_cell).
pub(super) fn mlstm_cell(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmCell = call.params()?;
    let &params::MlstmCell { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, .. } = &p;
    let block = params::MlstmStep { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale: p.scale };
    let shape = Shape::new(&block);
    let Shape { rows, heads, dk, dv, columns, stride, .. } = shape;
    if rows == 0 || heads == 0 || call.halted(0) {
        return Ok(());
    }
    if dv == 0 {
        return Err(Fault::new("mlstm_cell: a head needs at least one value"));
    }
    let [i_offset, f_offset, o_offset] = [p.i_offset, p.f_offset, p.o_offset].map(|n| n as usize);
    let width = product([heads, dv]);
    let gates_end = rows_end(rows, stride, i_offset.max(f_offset), heads);
    let x = call.read(0, shape.x_end().max(gates_end).max(rows_end(rows, stride, o_offset, width)))?;
    let c = call.write(1, product([heads, dk, columns]))?;
    let m = call.write(2, heads)?;
    let norm = call.read(3, width)?;
    let out = call.write(4, product([rows, width]))?;

    let gates_size = (rows * heads * 4).next_multiple_of(16);
    with_scratch(gates_size + rows * heads * columns, |scratch| {
        let (gates, y) = scratch.split_at_mut(gates_size);
        // SAFETY: every head has one state.
        for (head, state) in unsafe { m.slice(0..heads) }.iter_mut().enumerate() {
            let mut recurrence = Recurrence::new(p.cap, *state);
            for t in 0..rows {
                let row = t * stride + head;
                let at = (t * heads + head) * 4;
                gates[at..at + 4].copy_from_slice(&recurrence.next(x[row + i_offset], x[row + f_offset]));
            }
            *state = recurrence.state();
        }
        let gates = &*gates;
        // SAFETY: the slice is borrowed for as long as `y` is used, only through `y`, and aligned to a cache line
        // because `gates` fills whole lines.
        let y = unsafe { Memory::new(y.as_mut_ptr().cast(), y.len()) };
        let count = rows * heads * columns;
        let sums = y.output(count).ok_or_else(|| Fault::new("mlstm_cell: scratch memory is too small"))?;
        step(call, &Step { shape, x, gates, c, y: sums });
        let y: &[f32] = y.values(count).unwrap_or_default();
        call.each(rows * heads, product([rows, width, mlstm_norm::COST]), |task| {
            let (t, head) = (task / heads, task % heads);
            let o0 = t * stride + o_offset + head * dv;
            // SAFETY: every task has a row and head of its own.
            let out = unsafe { out.slice(task * dv..(task + 1) * dv) };
            call.instructions.run(Head {
                y: &y[task * columns..(task + 1) * columns],
                m: gates[4 * task + 2],
                o: &x[o0..o0 + dv],
                scale: &norm[head * dv..(head + 1) * dv],
                eps: p.eps,
                out,
            });
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KernelId;
    use crate::cpu;
    use crate::cpu::noise::{assert_close, noise};
    use crate::simd::testing::{Run, cases, words};

    #[test]
    fn matches_the_reference_unless_halted() {
        for (rows, heads, dk, dv) in
            cases([(1, 1, 1, 2), (3, 2, 6, 5), (1, 4, 64, 128), (5, 2, 9, 130), (4, 8, 128, 256)])
        {
            let width = heads * (2 * dk + 2 * dv + 2);
            let stride = width + 3;
            let p = params::MlstmCell {
                rows,
                heads,
                dk,
                dv,
                stride,
                q_offset: 1,
                k_offset: 1 + heads * dk,
                v_offset: 2 + 2 * heads * dk,
                i_offset: width - heads,
                f_offset: width - 2 * heads,
                o_offset: 2 + heads * (2 * dk + dv),
                cap: 15.0,
                scale: (dk as f32).powf(-0.5),
                eps: 1e-3,
            };
            let x = noise(1, (rows * stride) as usize, 2.0);
            let c = noise(2, (heads * dk * (dv + 1)) as usize, 1.0);
            let m = noise(3, heads as usize, 1.0);
            let norm = noise(4, (heads * dv) as usize, 1.0);
            let out = vec![0.0; (rows * heads * dv) as usize];
            let bindings = vec![words(&x), words(&c), words(&m), words(&norm), words(&out)];
            let mut run = Run::new(KernelId::MlstmCell, &p, bindings.clone(), [heads, 1, 1]);
            let (mut c, mut m, mut out) = (c, m, out);
            cpu::mlstm_cell(&p, &x, &mut c, &mut m, &norm, &mut out);
            run.all(|found| {
                assert_close(found.f32(1), &c, 2e-6);
                assert_close(found.f32(2), &m, 1e-6);
                assert_close(found.f32(4), &out, 1e-5);
            });
            run.guard = Some(vec![1]);
            run.all(|found| assert!((1..5).all(|i| found.u32(i) == bindings[i])));
        }
    }
}
