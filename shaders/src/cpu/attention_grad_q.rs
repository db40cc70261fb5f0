use std::ops::Range;

use super::{dot, sizes};
use crate::params;

/// The inputs of [`attention_grad_q`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGradQInputs<'a> {
    /// `[rows, heads, dim]`
    pub q: &'a [f32],
    /// `[rows, 2, kv_heads, dim]`
    pub kv: &'a [f32],
    /// `[rows, heads, 2]`: maximum and sum of the scores.
    pub running: &'a [f32],
    /// `[rows, heads, dim]`
    pub o: &'a [f32],
    /// `[rows, heads, dim]`
    pub d_o: &'a [f32],
}

/// Gradient of causal softmax attention within `sequences` sequences, by the queries.
///
/// `dq_t = scale Σ_s ds_ts k_s` with `ds_ts = p_ts (do_t · v_s - delta_t)`, `p_ts = exp(scale q_t · k_s - max_t) /
/// sum_t` and `delta_t = do_t · o_t`. Query t of a sequence sees the keys up to t, or the last `window` of them if
/// `window` is not 0. The number of sequences is the depth of the kernel's grid.
///
/// Shapes, with `rows = sequences * count`: delta `[rows, heads]`, dq `[rows, heads, dim]`.
pub fn attention_grad_q(
    p: &params::AttentionGradQ,
    sequences: u32,
    inputs: AttentionGradQInputs,
    delta: &mut [f32],
    dq: &mut [f32],
) {
    let AttentionGradQInputs { q, kv, running, o, d_o } = inputs;
    let heads = Heads::new(p, [q, kv, running, d_o]);
    for item in heads.items(sequences) {
        let at = heads.at(item);
        delta[item] = dot(&o[at.clone()], &d_o[at.clone()]) as f32;
        let mut sums = vec![0.0; heads.dim];
        for key in heads.seen(item) {
            let [weight, product] = heads.pair(item, key);
            let ds = weight * (product - f64::from(delta[item])) * f64::from(p.scale);
            sums.iter_mut().zip(&kv[heads.key(item, key)]).for_each(|(sum, &k)| *sum += ds * f64::from(k));
        }
        dq[at].iter_mut().zip(sums).for_each(|(dq, sum)| *dq = sum as f32);
    }
}

/// The iteration shared by both gradients of attention: items (a row and a head), and the keys that an item sees.
pub(super) struct Heads<'a> {
    count: usize,
    heads: usize,
    heads_per_kv: usize,
    pub(super) dim: usize,
    window: usize,
    scale: f64,
    inputs: [&'a [f32]; 4],
}

impl<'a> Heads<'a> {
    /// Creates the iteration. `inputs` are q, kv, running and d_o.
    pub(super) fn new(p: &params::AttentionGradQ, inputs: [&'a [f32]; 4]) -> Self {
        let [count, heads, heads_per_kv, dim, window] = sizes([p.count, p.heads, p.heads_per_kv, 4 * p.dim4, p.window]);
        Self { count, heads, heads_per_kv, dim, window, scale: f64::from(p.scale), inputs }
    }

    pub(super) fn items(&self, sequences: u32) -> Range<usize> {
        0..sequences as usize * self.count * self.heads
    }

    /// The rows of the keys that an item sees.
    pub(super) fn seen(&self, item: usize) -> Range<usize> {
        let row = item / self.heads;
        let first = row / self.count * self.count;
        let hidden = if self.window == 0 { 0 } else { (row + 1 - first).saturating_sub(self.window) };
        first + hidden..row + 1
    }

    /// The range of an item in q, o and their gradients.
    pub(super) fn at(&self, item: usize) -> Range<usize> {
        item * self.dim..(item + 1) * self.dim
    }

    /// The range of the key in `row` for an item.
    pub(super) fn key(&self, item: usize, row: usize) -> Range<usize> {
        let kv_heads = self.heads / self.heads_per_kv;
        let first = (row * 2 * kv_heads + item % self.heads / self.heads_per_kv) * self.dim;
        first..first + self.dim
    }

    /// The range of the value in `row` for an item.
    pub(super) fn value(&self, item: usize, row: usize) -> Range<usize> {
        let kv_dim = self.heads / self.heads_per_kv * self.dim;
        let Range { start, end } = self.key(item, row);
        start + kv_dim..end + kv_dim
    }

    /// The attention weight of an item for a key, and the dot product of the gradient of its output and the value.
    pub(super) fn pair(&self, item: usize, row: usize) -> [f64; 2] {
        let [q, kv, running, d_o] = self.inputs;
        let score = self.scale * dot(&q[self.at(item)], &kv[self.key(item, row)]);
        let [top, sum] = [running[2 * item], running[2 * item + 1]].map(f64::from);
        [(score - top).exp() / sum, dot(&d_o[self.at(item)], &kv[self.value(item, row)])]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cpu::attention;
    use crate::cpu::differences::{gradient, loss, wide};
    use crate::cpu::noise::{assert_close, noise};

    pub const HEADS: usize = 4;
    pub const KV_HEADS: usize = 2;
    pub const DIM: usize = 4;
    pub const COUNT: usize = 5;
    pub const SEQUENCES: usize = 2;
    pub const ROWS: usize = SEQUENCES * COUNT;

    /// Inputs with the results of the forward pass.
    pub struct Example {
        pub p: params::AttentionGradQ,
        pub q: Vec<f32>,
        pub kv: Vec<f32>,
        pub running: Vec<f32>,
        pub o: Vec<f32>,
        pub d_o: Vec<f32>,
    }

    pub fn example(window: usize) -> Example {
        let p = params::AttentionGradQ {
            count: COUNT as u32,
            heads: HEADS as u32,
            heads_per_kv: (HEADS / KV_HEADS) as u32,
            dim4: DIM as u32 / 4,
            window: window as u32,
            scale: 0.7,
        };
        let q = noise(1, ROWS * HEADS * DIM, 2.0);
        let kv = noise(2, ROWS * 2 * KV_HEADS * DIM, 2.0);
        let mut running = vec![f32::NAN; ROWS * HEADS * 2];
        let mut o = vec![f32::NAN; q.len()];
        let forward = params::Attention {
            count: p.count,
            heads: p.heads,
            heads_per_kv: p.heads_per_kv,
            dim4: p.dim4,
            keys: p.count,
            window: p.window,
            begin: 1,
            end: 1,
            scale: p.scale,
            ..Default::default()
        };
        attention(&forward, SEQUENCES as u32, &q, &kv, &mut running, &mut o);
        let d_o = noise(3, q.len(), 1.0);
        Example { p, q, kv, running, o, d_o }
    }

    /// Plain softmax attention.
    pub fn output(window: usize, q: &[f64], kv: &[f64]) -> Vec<f64> {
        let mut o = Vec::new();
        for (row, head) in (0..ROWS).flat_map(|row| (0..HEADS).map(move |head| (row, head))) {
            let of = |key: usize, which: usize, d: usize| {
                kv[((key * 2 + which) * KV_HEADS + head * KV_HEADS / HEADS) * DIM + d]
            };
            let seen = |key: &usize| key / COUNT == row / COUNT && (window == 0 || key + window > row);
            let weight = |key| {
                (0.7f32 as f64 * (0..DIM).map(|d| q[(row * HEADS + head) * DIM + d] * of(key, 0, d)).sum::<f64>()).exp()
            };
            let keys: Vec<(usize, f64)> = (0..=row).filter(seen).map(|key| (key, weight(key))).collect();
            let sum: f64 = keys.iter().map(|(_, weight)| weight).sum();
            o.extend((0..DIM).map(|d| keys.iter().map(|&(key, weight)| weight * of(key, 1, d)).sum::<f64>() / sum));
        }
        o
    }

    #[test]
    fn matches_central_differences() {
        for window in [0, 1, 2, 4, 9] {
            let Example { p, q, kv, running, o, d_o } = example(window);
            let mut delta = vec![f32::NAN; ROWS * HEADS];
            let mut dq = vec![f32::NAN; q.len()];
            let inputs = AttentionGradQInputs { q: &q, kv: &kv, running: &running, o: &o, d_o: &d_o };
            attention_grad_q(&p, SEQUENCES as u32, inputs, &mut delta, &mut dq);
            let products: Vec<f64> =
                output(window, &wide(&q), &wide(&kv)).iter().zip(&d_o).map(|(o, &d_o)| o * f64::from(d_o)).collect();
            let expected: Vec<f32> = products.chunks_exact(DIM).map(|item| item.iter().sum::<f64>() as f32).collect();
            assert_close(&delta, &expected, 1e-6);
            let expected = gradient(|q| loss(&d_o, &output(window, q, &wide(&kv))), &q);
            if window == 1 {
                // One key has all the weight, whatever the query.
                assert!(dq.iter().chain(&expected).all(|v| v.abs() < 1e-6));
            } else {
                assert_close(&dq, &expected, 3e-6);
            }
        }
    }
}
