use super::attention_grad_q::Heads;
use crate::params;

/// The inputs of [`attention_grad_kv`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct AttentionGradKvInputs<'a> {
    /// `[rows, heads, dim]`
    pub q: &'a [f32],
    /// `[rows, 2, kv_heads, dim]`
    pub kv: &'a [f32],
    /// `[rows, heads, 2]`: maximum and sum of the scores.
    pub running: &'a [f32],
    /// `[rows, heads, dim]`
    pub d_o: &'a [f32],
    /// `[rows, heads]`
    pub delta: &'a [f32],
}

/// Gradient of causal softmax attention within `sequences` sequences, by keys and values.
///
/// `dk_s = scale Σ ds_ts q_t` and `dv_s = Σ p_ts do_t`, over the queries that see the key, in all heads that share it;
/// see [`attention_grad_q`](super::attention_grad_q), which computes delta. The number of sequences is the depth of the
/// kernel's grid.
///
/// Shapes, with `rows = sequences * count`: dkv `[rows, 2, kv_heads, dim]`.
pub fn attention_grad_kv(p: &params::AttentionGradKv, sequences: u32, inputs: AttentionGradKvInputs, dkv: &mut [f32]) {
    let AttentionGradKvInputs { q, kv, running, d_o, delta } = inputs;
    let heads = Heads::new(p, [q, kv, running, d_o]);
    let mut sums = vec![0.0; heads.items(sequences).len() / p.heads_per_kv as usize * 2 * heads.dim];
    let mut add = |to: std::ops::Range<usize>, factor: f64, values: &[f32]| {
        sums[to].iter_mut().zip(values).for_each(|(sum, &value)| *sum += factor * f64::from(value));
    };
    for item in heads.items(sequences) {
        for key in heads.seen(item) {
            let [weight, product] = heads.pair(item, key);
            let ds = weight * (product - f64::from(delta[item])) * f64::from(p.scale);
            add(heads.key(item, key), ds, &q[heads.at(item)]);
            add(heads.value(item, key), weight, &d_o[heads.at(item)]);
        }
    }
    dkv[..sums.len()].iter_mut().zip(sums).for_each(|(dkv, sum)| *dkv = sum as f32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::attention_grad_q::tests::{Example, HEADS, ROWS, SEQUENCES, example, output};
    use crate::cpu::differences::{gradient, loss, wide};
    use crate::cpu::noise::assert_close;
    use crate::cpu::{AttentionGradQInputs, attention_grad_q};

    #[test]
    fn matches_central_differences() {
        for window in [0, 1, 2, 4, 9] {
            let Example { p, q, kv, running, o, d_o } = example(window);
            let mut delta = vec![f32::NAN; ROWS * HEADS];
            let inputs = AttentionGradQInputs { q: &q, kv: &kv, running: &running, o: &o, d_o: &d_o };
            attention_grad_q(&p, SEQUENCES as u32, inputs, &mut delta, &mut vec![0.0; q.len()]);
            let mut dkv = vec![f32::NAN; kv.len()];
            let inputs = AttentionGradKvInputs { q: &q, kv: &kv, running: &running, d_o: &d_o, delta: &delta };
            attention_grad_kv(&p, SEQUENCES as u32, inputs, &mut dkv);
            assert_close(&dkv, &gradient(|kv| loss(&d_o, &output(window, &wide(&q), kv)), &kv), 3e-6);
        }
    }
}
