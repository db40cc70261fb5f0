use super::sizes;
use crate::params;

const CANDIDATES: usize = 257;
const END: usize = 256;
const END_ID: u32 = 1;
const BPE_END_ID: u32 = 3;
const OFFSET: u32 = 4;
const FUSED: u32 = 260;
const RULED_OUT: f64 = -1e38;
const NONE: u32 = u32::MAX;

fn id_of(candidate: usize) -> u32 {
    if candidate == END { END_ID } else { OFFSET + candidate as u32 }
}

fn log_add_exp(a: f64, b: f64) -> f64 {
    a.max(b) + (a.min(b) - a.max(b)).exp().ln_1p()
}

/// The inputs of [`sample`], named after the kernel's bindings.
#[derive(Debug, Clone, Copy)]
pub struct SampleInputs<'a> {
    /// `[520]`
    pub logits: &'a [f32],
    /// `[257]`
    pub bias: &'a [f32],
    /// `[steps, 2]`
    pub random: &'a [f32],
    /// `[1 + 2 count + bytes]`
    pub stops: &'a [u32],
    /// `[nodes + 1]` first edges, `[nodes]` terminals, `[edges]` labels.
    pub trie: &'a [u32],
}

/// Samples the next id from the logits and prepares the inputs of the next byte (docs/model.md, "Decoding").
///
/// Shapes: control `[8 + steps]`, history `[ring]`, next `[65]`.
pub fn sample(p: &params::Sample, inputs: SampleInputs, control: &mut [u32], history: &mut [u32], next: &mut [u32]) {
    let SampleInputs { logits, bias, random, stops, trie } = inputs;
    if control[0] != 0 {
        return;
    }
    let (step, taken, ids) = (control[1] as usize, control[2], control[4]);
    let faulty = logits.iter().any(|logit| logit.is_nan() || *logit == f32::INFINITY);
    let pairs = adjusted(p, logits, bias, &seen(p, history, ids));
    let id = match p.temperature {
        0.0 => greedy(&pairs),
        _ => draw(p, &pairs, [2 * step, 2 * step + 1].map(|at| f64::from(random[at]))),
    };
    let Some(mut id) = id.filter(|_| !faulty) else {
        control[0] = 1;
        control[5] = 1;
        return;
    };
    if p.flags != 0 {
        id = id % FUSED + if p.flags == 2 { FUSED } else { 0 };
    }
    let plain = id % FUSED;
    control[8 + step] = id;
    control[1] += 1;
    if plain == END_ID {
        control[0] = 1;
        return;
    }
    history[(ids % p.ring) as usize] = plain;
    control[2] += 1;
    control[4] += 1;
    let past = |back: u32| history[((ids - back) % p.ring) as usize];
    let stopped = (0..stops[0] as usize).any(|stop| {
        let [at, length] = [1, 2].map(|which| stops[2 * stop + which]);
        length <= taken + 1 && (0..length).all(|i| past(i) == OFFSET + stops[(at + length - 1 - i) as usize])
    });
    if id >= FUSED || taken + 1 >= control[3] || stopped {
        control[0] = 1;
    }
    next[0] = plain;
    if p.nodes != 0 {
        next[64] = suffix(p, trie, (0..(ids + 1).min(p.ring)).map(past));
        if next[64] == NONE {
            control[0] = 1;
            control[5] = 2;
        }
    }
}

/// The bytes that the repetition penalty applies to.
fn seen(p: &params::Sample, history: &[u32], ids: u32) -> [bool; 256] {
    let mut seen = [false; 256];
    for back in 0..p.window.min(ids) {
        let id = history[((ids - 1 - back) % p.ring) as usize];
        if id >= OFFSET {
            seen[(id - OFFSET) as usize] = true;
        }
    }
    seen
}

/// The adjusted logits of the plain and the fused id of every candidate.
fn adjusted(p: &params::Sample, logits: &[f32], bias: &[f32], seen: &[bool; 256]) -> Vec<[f64; 2]> {
    let raw = |id: u32| f64::from(logits[id as usize].max(-3e38));
    let most = logits.iter().copied().fold(-3e38, f32::max);
    let total = f64::from(most) + logits.iter().map(|&l| f64::from(l - most).exp()).sum::<f64>().ln();
    let pair = |candidate: usize| {
        let id = id_of(candidate);
        let (plain, fused) = (raw(id), raw(id + FUSED));
        let bias = f64::from(bias[candidate]);
        if bias <= RULED_OUT {
            return [-3e38; 2];
        }
        let mut shift = 0.0;
        let both = log_add_exp(plain, fused);
        if candidate < END && seen[candidate] && both > RULED_OUT {
            shift = (both - total) * f64::from(p.penalty);
        }
        [plain + bias + shift, fused + bias + f64::from(p.boundary_bias) + shift]
    };
    (0..CANDIDATES).map(pair).collect()
}

fn greedy(pairs: &[[f64; 2]]) -> Option<u32> {
    let mut best = None;
    for (candidate, pair) in pairs.iter().enumerate() {
        for (value, offset) in pair.iter().zip([0, FUSED]) {
            let this = (*value, id_of(candidate) + offset);
            let better = |(most, id)| this.0 > most || (this.0 == most && this.1 < id);
            if *value > RULED_OUT && best.is_none_or(better) {
                best = Some(this);
            }
        }
    }
    best.map(|(_, id)| id)
}

fn draw(p: &params::Sample, pairs: &[[f64; 2]], numbers: [f64; 2]) -> Option<u32> {
    let weights = pairs.iter().enumerate().map(|(candidate, &[plain, fused])| (candidate, log_add_exp(plain, fused)));
    let mut kept: Vec<(usize, f64)> = weights.filter(|(_, weight)| *weight > RULED_OUT).collect();
    kept.sort_by(|(a, a_weight), (b, b_weight)| b_weight.total_cmp(a_weight).then(id_of(*a).cmp(&id_of(*b))));
    let &(_, most) = kept.first()?;
    kept.truncate(p.top_k as usize);
    for (_, weight) in &mut kept {
        *weight = ((*weight - most) / f64::from(p.temperature)).exp();
    }
    if p.top_p < 1.0 {
        let wanted = f64::from(p.top_p) * kept.iter().map(|(_, share)| share).sum::<f64>();
        let mut sum = 0.0;
        kept.retain(|(_, share)| {
            let wants = sum < wanted;
            sum += share;
            wants
        });
    }
    kept.retain(|(_, share)| *share >= f64::from(p.min_p));
    let mut rest = numbers[0] * kept.iter().map(|(_, share)| share).sum::<f64>();
    let reached = kept.iter().find(|(_, share)| {
        rest -= share;
        rest < 0.0
    });
    let &(candidate, _) = reached.or(kept.last())?;
    let [plain, fused] = pairs[candidate];
    let is_fused = numbers[1] < 1.0 / (1.0 + (plain - fused).exp());
    Some(id_of(candidate) + if is_fused { FUSED } else { 0 })
}

/// The longest entry of the trie that the ids end with. `backwards` yields the ids last first.
fn suffix(p: &params::Sample, trie: &[u32], backwards: impl Iterator<Item = u32>) -> u32 {
    let [nodes, max_len] = sizes([p.nodes, p.max_len]);
    let (first_edges, rest) = trie.split_at(nodes + 1);
    let (terminals, labels) = rest.split_at(nodes);
    let (mut node, mut longest) = (0, NONE);
    for label in backwards.filter(|&id| id != BPE_END_ID).take(max_len) {
        let [first, end] = [first_edges[node], first_edges[node + 1]].map(|edge| edge as usize);
        match labels[first..end].iter().position(|&l| l == label) {
            Some(edge) => node = first + edge + 1,
            None => break,
        }
        if terminals[node] != NONE {
            longest = terminals[node];
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: params::Sample = params::Sample {
        temperature: 0.0,
        top_p: 1.0,
        min_p: 0.0,
        penalty: 0.0,
        boundary_bias: 0.0,
        top_k: 257,
        window: 8,
        flags: 0,
        nodes: 3,
        max_len: 2,
        ring: 8,
    };
    /// Entries "a" (7) and "ba" (9): the root, a, and b before a.
    const TRIE: [u32; 9] = [0, 1, 2, 2, NONE, 7, 9, OFFSET + 97, OFFSET + 98];

    fn run(p: &params::Sample, logits: &[(usize, f32)], numbers: [f32; 2], stops: &[u32]) -> ([u32; 10], [u32; 65]) {
        let mut all = [-9.0; 520];
        logits.iter().for_each(|&(id, logit)| all[id] = logit);
        let mut control = [0, 0, 1, 5, 2, 0, 0, 0, 0, 0];
        let mut history = [1, OFFSET + 98, 0, 0, 0, 0, 0, 0];
        let mut next = [0; 65];
        let inputs = SampleInputs { logits: &all, bias: &[0.0; 257], random: &numbers, stops, trie: &TRIE };
        sample(p, inputs, &mut control, &mut history, &mut next);
        (control, next)
    }

    #[test]
    fn greedy_choice_sets_suffix_and_halt() {
        let a = OFFSET as usize + 97;
        let (control, next) = run(&OFF, &[(a, 1.0), (a + 260, 0.9)], [0.0; 2], &[0]);
        assert_eq!(control, [0, 1, 2, 5, 3, 0, 0, 0, a as u32, 0]);
        assert_eq!((next[0], next[64]), (a as u32, 9));
        let (control, _) = run(&OFF, &[(a, 1.0), (a + 260, 1.1)], [0.0; 2], &[0]);
        assert_eq!((control[0], control[8]), (1, a as u32 + 260));
        // The stop string "ba", whose first byte was there before.
        let (control, _) = run(&OFF, &[(a, 1.0)], [0.0; 2], &[1, 3, 2, 98, 97]);
        assert_eq!(control[..5], [1, 1, 2, 5, 3]);
        let (control, _) = run(&OFF, &[(1, 1.0)], [0.0; 2], &[0]);
        assert_eq!((&control[..5], control[8]), (&[1, 1, 1, 5, 2][..], 1));
        // No entry ends with z.
        let (control, _) = run(&OFF, &[(OFFSET as usize + 122, 1.0)], [0.0; 2], &[0]);
        assert_eq!((control[0], control[5]), (1, 2));
        let (control, _) = run(&OFF, &[(a, f32::NAN)], [0.0; 2], &[0]);
        assert_eq!((control[0], control[1], control[5]), (1, 0, 1));
    }

    #[test]
    fn candidates_are_drawn_by_probability() {
        let p = params::Sample { temperature: 1.0, top_k: 2, ..OFF };
        let (a, b) = (OFFSET as usize + 97, OFFSET as usize + 98);
        // a and b have weights 3 : 1; plain and fused are equally likely.
        let logits = [(a, 3f32.ln()), (a + 260, 3f32.ln()), (b, 0.0), (b + 260, 0.0)];
        let id = |numbers| run(&p, &logits, numbers, &[0]).0[8] as usize;
        assert_eq!(id([0.74, 0.6]), a);
        assert_eq!(id([0.74, 0.4]), a + 260);
        assert_eq!(id([0.76, 0.6]), b);
    }
}
