use super::call::Call;
use super::extent::{product, rows_end};
use super::memory::Fault;
use crate::params;

/// Multiply-adds that take as long as the gates of a row and head: six functions in f64.
const COST: usize = 300;

/// Gates of the mLSTM and their stabilizer, row after row; see the [CPU reference](crate::cpu::mlstm_gates).
pub(super) fn mlstm_gates(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::MlstmGates = call.params()?;
    let [rows, heads, stride, period] = [p.rows, p.heads, p.stride, p.period].map(|n| n as usize);
    if rows == 0 || heads == 0 {
        return Ok(());
    }
    if p.chunk == 0 || period == 0 {
        return Err(Fault::new("mlstm_gates: chunks and sequences need at least one row"));
    }
    let sequences = rows.div_ceil(period);
    let [i_offset, f_offset] = [p.i_offset, p.f_offset].map(|n| n as usize);
    let x = call.read(0, rows_end(rows, stride, i_offset.max(f_offset), heads))?;
    let m = call.write(1, product([sequences, heads]))?;
    let gates = call.write(2, product([rows, heads, 4]))?;
    call.each(sequences * heads, product([rows, heads, COST]), |task| {
        let (first, head) = (task / heads * period, task % heads);
        // SAFETY: every task has a sequence and head of its own.
        let state = unsafe { &mut m.slice(task..task + 1)[0] };
        let mut recurrence = Recurrence::new(p.cap, *state);
        for t in first..first.saturating_add(period).min(rows) {
            if (t - first) % p.chunk as usize == 0 {
                recurrence.start_chunk();
            }
            let row = t * stride + head;
            let at = (t * heads + head) * 4;
            // SAFETY: as above.
            let gate = unsafe { gates.slice(at..at + 4) };
            gate.copy_from_slice(&recurrence.next(x[row + i_offset], x[row + f_offset]));
        }
        *state = recurrence.state();
    });
    Ok(())
}

/// The gates of a head from row to row. Like the reference it computes in f64: there are few values.
pub(super) struct Recurrence {
    cap: f64,
    m: f64,
    g: f64,
}

impl Recurrence {
    /// Starts at the carried state `m`. `cap` is the soft cap of both pre-activations, or 0.
    pub(super) fn new(cap: f32, m: f32) -> Self {
        Self { cap: cap.into(), m: m.into(), g: 0.0 }
    }

    /// Makes the next row the first one of a chunk.
    fn start_chunk(&mut self) {
        self.g = 0.0;
    }

    /// The gates `f, i, m, g` of the next row, whose pre-activations are `i` and `f`.
    pub(super) fn next(&mut self, i: f32, f: f32) -> [f32; 4] {
        let i = self.capped(i);
        let decayed = log_sigmoid(self.capped(f)) + self.m;
        // Rounded as the state is between calls, so that a sequence has the same bits however it is cut.
        self.m = f64::from(decayed.max(i) as f32);
        let lost = decayed - self.m;
        self.g += lost;
        [lost.exp(), (i - self.m).exp(), self.m, self.g].map(|v| v as f32)
    }

    /// The state to carry on.
    pub(super) fn state(&self) -> f32 {
        self.m as f32
    }

    fn capped(&self, x: f32) -> f64 {
        let x = f64::from(x);
        if self.cap == 0.0 { x } else { self.cap * (x / self.cap).tanh() }
    }
}

/// `log(1 / (1 + e^-z))`
fn log_sigmoid(z: f64) -> f64 {
    z.min(0.0) - (-z.abs()).exp().ln_1p()
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
        for (rows, heads, chunk, period) in
            cases([(1, 1, 64, 1), (9, 2, 4, 9), (200, 4, 64, 200), (300, 3, 64, 128), (7, 2, 3, 100), (20, 8, 5, 6)])
        {
            for cap in [15.0, 0.0] {
                let stride = 2 * heads + 3;
                let p =
                    params::MlstmGates { rows, heads, stride, i_offset: 1, f_offset: heads + 2, chunk, cap, period };
                let x = noise(1, (rows * stride) as usize, 8.0);
                let start = noise(2, (rows.div_ceil(period) * heads) as usize, 2.0);
                let (mut m, mut gates) = (start.clone(), vec![0.0; (4 * rows * heads) as usize]);
                let bindings = vec![words(&x), words(&start), words(&gates)];
                cpu::mlstm_gates(&p, &x, &mut m, &mut gates);
                Run::new(KernelId::MlstmGates, &p, bindings, [heads, rows.div_ceil(period), 1]).all(|found| {
                    assert_close(found.f32(1), &m, 1e-6);
                    assert_close(found.f32(2), &gates, 1e-6);
                });
            }
        }
    }
}
