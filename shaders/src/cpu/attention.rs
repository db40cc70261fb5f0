use super::{dot, sizes};
use crate::params;

/// The maximum of an empty set of scores, as in the kernel. It is finite, since shaders need not support infinities.
const LOWEST: f64 = -3.0e38f32 as f64;

/// Softmax attention over one segment of the KV cache (docs/model.md, "Attention and rotary embeddings").
///
/// The running maximum, sum and output are carried from segment to segment: `o = Σ exp(s - top) v` with
/// `s = scale * q · k` of every key that the query sees, divided by `sum = Σ exp(s - top)` at the last segment.
///
/// Query t of a sequence is at position `query_first + t`. It sees the keys up to that position, or the last `window`
/// of them if `window` is not 0.
///
/// Shapes: q `[sequences, count, heads, dim]`, kv `[sequences, keys, 2, kv_heads, dim]`,
/// running `[sequences, count, heads, 2]`, o `[sequences, count, heads, dim]`.
pub fn attention(p: &params::Attention, sequences: u32, q: &[f32], kv: &[f32], running: &mut [f32], o: &mut [f32]) {
    let [count, heads, heads_per_kv, dim] = sizes([p.count, p.heads, p.heads_per_kv, 4 * p.dim4]);
    let (queries, keys) = (count * heads * dim, 2 * p.keys as usize * heads / heads_per_kv * dim);
    for i in 0..sequences as usize {
        let (own, maxima) = (i * queries..(i + 1) * queries, 2 * i * count * heads..2 * (i + 1) * count * heads);
        attention_of_sequence(p, &q[own.clone()], &kv[i * keys..(i + 1) * keys], &mut running[maxima], &mut o[own]);
    }
}

fn attention_of_sequence(p: &params::Attention, q: &[f32], kv: &[f32], running: &mut [f32], o: &mut [f32]) {
    let [count, heads, heads_per_kv, dim] = sizes([p.count, p.heads, p.heads_per_kv, 4 * p.dim4]);
    let [query_first, key_first, keys, window] = sizes([p.query_first, p.key_first, p.keys, p.window]);
    let kv_dim = heads / heads_per_kv * dim;
    for row in 0..count {
        let position = query_first + row;
        for head in 0..heads {
            let kv_head = head / heads_per_kv * dim;
            let at = (row * heads + head) * dim;
            let at_running = (row * heads + head) * 2;
            let mut top = LOWEST;
            let mut sum = 0.0;
            let mut out = vec![0.0; dim];
            if p.begin == 0 {
                top = f64::from(running[at_running]);
                sum = f64::from(running[at_running + 1]);
                out.iter_mut().zip(&o[at..at + dim]).for_each(|(out, &o)| *out = f64::from(o));
            }
            for key in 0..keys {
                let there = key_first + key;
                if there > position || (window != 0 && there + window <= position) {
                    continue;
                }
                let k0 = key * 2 * kv_dim + kv_head;
                let v0 = (key * 2 + 1) * kv_dim + kv_head;
                let s = dot(&q[at..at + dim], &kv[k0..k0 + dim]) * f64::from(p.scale);
                let new_top = s.max(top);
                let keep = (top - new_top).exp();
                let weight = (s - new_top).exp();
                top = new_top;
                sum = sum * keep + weight;
                for (out, &v) in out.iter_mut().zip(&kv[v0..v0 + dim]) {
                    *out = *out * keep + weight * f64::from(v);
                }
            }
            running[at_running] = top as f32;
            running[at_running + 1] = sum as f32;
            let d = if p.end != 0 { sum } else { 1.0 };
            o[at..at + dim].iter_mut().zip(&out).for_each(|(o, &out)| *o = (out / d) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::{assert_close, noise};

    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const DIM: usize = 8;
    const QUERIES: usize = 5;
    const KEYS: usize = 23;

    fn block(window: u32) -> params::Attention {
        params::Attention {
            count: QUERIES as u32,
            heads: HEADS as u32,
            heads_per_kv: (HEADS / KV_HEADS) as u32,
            dim4: DIM as u32 / 4,
            query_first: (KEYS - QUERIES) as u32,
            key_first: 0,
            keys: KEYS as u32,
            window,
            begin: 1,
            end: 1,
            scale: 0.7,
        }
    }

    /// Plain softmax attention over all scores.
    fn naive(window: usize, q: &[f32], kv: &[f32]) -> Vec<f32> {
        let mut o = Vec::new();
        for t in 0..QUERIES {
            for head in 0..HEADS {
                let last = KEYS - QUERIES + t;
                let seen = if window == 0 { 0 } else { (last + 1).saturating_sub(window) }..=last;
                let of = |key: usize, which: usize, d: usize| {
                    f64::from(kv[((key * 2 + which) * KV_HEADS + head * KV_HEADS / HEADS) * DIM + d])
                };
                let query = |d: usize| f64::from(q[(t * HEADS + head) * DIM + d]);
                let weight =
                    |key: usize| (0.7f32 as f64 * (0..DIM).map(|d| query(d) * of(key, 0, d)).sum::<f64>()).exp();
                let sum: f64 = seen.clone().map(weight).sum();
                for d in 0..DIM {
                    o.push((seen.clone().map(|key| weight(key) * of(key, 1, d)).sum::<f64>() / sum) as f32);
                }
            }
        }
        o
    }

    #[test]
    fn one_and_two_segments_match_plain_softmax() {
        let q = noise(1, QUERIES * HEADS * DIM, 2.0);
        let kv = noise(2, KEYS * 2 * KV_HEADS * DIM, 2.0);
        for window in [0, 1, 4, 9, 100] {
            let expected = naive(window, &q, &kv);
            let p = block(window as u32);
            let mut running = vec![f32::NAN; QUERIES * HEADS * 2];
            let mut o = vec![f32::NAN; expected.len()];
            attention(&p, 1, &q, &kv, &mut running, &mut o);
            assert_close(&o, &expected, 1e-6);
            // The cut lies before, inside and after the windows.
            for cut in [3, 19, 21] {
                let (left, right) = kv.split_at(cut * 2 * KV_HEADS * DIM);
                o.fill(f32::NAN);
                attention(&params::Attention { keys: cut as u32, end: 0, ..p }, 1, &q, left, &mut running, &mut o);
                let second = params::Attention { key_first: cut as u32, keys: (KEYS - cut) as u32, begin: 0, ..p };
                attention(&second, 1, &q, right, &mut running, &mut o);
                assert_close(&o, &expected, 1e-6);
            }
        }
    }
}
