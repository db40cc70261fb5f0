use super::*;
use crate::KernelId;
use crate::cpu;
use crate::cpu::noise::{assert_close, noise};
use crate::params;
use crate::simd::testing::{Run, cases, words};

fn run([rows, heads, dk, dv]: [u32; 4], change: impl Fn(&mut [f32], &mut [f32])) -> (Run, Vec<f32>) {
    let stride = heads * (2 * dk + dv) + 3;
    let [q_offset, k_offset, v_offset] = [1, 1 + heads * dk, 2 + 2 * heads * dk];
    let scale = (dk.max(1) as f32).powf(-0.5);
    let p = params::MlstmChunkOutGrad { rows, heads, dk, dv, stride, q_offset, k_offset, v_offset, scale };
    let mut x = noise(1, (rows * stride) as usize, 2.0);
    let mut gates = noise(2, (4 * rows * heads) as usize, 1.0);
    // g falls from row to row.
    gates.chunks_exact_mut(4).enumerate().for_each(|(i, gate)| gate[3] -= (i / heads as usize % CHUNK) as f32);
    change(&mut x, &mut gates);
    let size = (rows.div_ceil(64) * heads * dk * (dv + 1)) as usize;
    let (states, dstates) = (noise(3, size, 1.0), noise(4, size, 1.0));
    let dy = noise(5, (rows * heads * (dv + 1)) as usize, 1.0);
    // The scores of later sources are not read.
    let scores = |seed: u64| {
        let mut scores = noise(seed, rows as usize * heads as usize * CHUNK, 1.0);
        for (at, scores) in scores.chunks_exact_mut(CHUNK).enumerate() {
            scores[at / heads as usize % CHUNK + 1..].fill(f32::NAN);
        }
        scores
    };
    let (a, b) = (scores(6), scores(7));
    let mut dx = vec![7.0; x.len()];
    let bindings = [&x, &gates, &states, &dstates, &dy, &a, &b, &dx].map(|values| words(values));
    let inputs = cpu::MlstmChunkOutGradInputs {
        x: &x,
        gates: &gates,
        states: &states,
        dstates: &dstates,
        dy: &dy,
        a: &a,
        b: &b,
    };
    cpu::mlstm_chunk_out_grad(&p, inputs, &mut dx);
    (Run::new(KernelId::MlstmChunkOutGrad, &p, bindings.to_vec(), [1, heads, 1]), dx)
}

#[test]
fn matches_the_reference() {
    for sizes in cases([
        [1, 1, 1, 1],
        [3, 2, 6, 5],
        [130, 2, 16, 33],
        [70, 3, 9, 130],
        [64, 2, 128, 256],
        [97, 1, 130, 8],
        [5, 2, 0, 40],
        [5, 2, 3, 0],
    ]) {
        let (run, expected) = run(sizes, |_, _| {});
        run.all(|found| assert_close(found.f32(7), &expected, 2e-6));
    }
}

#[test]
fn nan_stays_nan() {
    let (run, expected) = run([20, 1, 4, 9], |x, gates| {
        gates[4 * 12 + 3] = f32::NAN;
        x[15 * 20 + 3] = f32::NAN;
        gates[4 * 17 + 3] = f32::NEG_INFINITY;
    });
    run.all(|found| {
        let missed = |(found, expected): (&f32, &f32)| !expected.is_finite() && found.is_finite();
        assert!(!found.f32(7).iter().zip(&expected).any(missed));
    });
}

#[test]
fn sizes_that_do_not_fit_are_faults() {
    // x and dx have values that are not used at the end of each row.
    run([9, 2, 5, 3], |_, _| {}).0.refuses_what_does_not_fit(2, 8);
}

#[test]
fn refuses_gradients_that_overlap() {
    // The stride and the offsets of k and v.
    for (field, value) in [(4, 25), (6, 10), (7, 20)] {
        let (mut run, _) = run([9, 2, 5, 3], |_, _| {});
        run.params[4 * field..4 * (field + 1)].copy_from_slice(&u32::to_ne_bytes(value));
        assert!(run.fault().is_some());
    }
}
