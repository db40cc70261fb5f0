use super::call::Call;
use super::memory::Fault;
use crate::params;
use crate::sizes::SAMPLE_CONTROL;

const IDS: usize = 520;
const CANDIDATES: usize = 257;
const END: usize = 256;
const END_ID: u32 = 1;
const BPE_END_ID: u32 = 3;
const OFFSET: u32 = 4;
const FUSED: u32 = 260;
const LOWEST: f64 = -3e38;
const RULED_OUT: f64 = -1e38;
const NONE: u32 = u32::MAX;
/// Words of `next`, and the one with the suffix.
const NEXT: usize = 65;
const SUFFIX: usize = 64;
/// Candidates whose share is below e to this power don't change a sum in f64.
const NEGLIGIBLE: f64 = -60.0;

/// Samples the next id from the logits and prepares the inputs of the next byte; see the
/// [CPU reference](crate::cpu::sample).
pub(super) fn sample(call: &Call<'_>) -> Result<(), Fault> {
    let p: params::Sample = call.params()?;
    let whole = |i: usize| call.bindings[i].words();
    let inputs = Inputs {
        p,
        logits: call.read(0, IDS)?,
        bias: call.read(1, CANDIDATES)?,
        random: call.read(2, whole(2))?,
        stops: call.read_u32(3, whole(3))?,
        trie: call.read_u32(4, whole(4))?,
    };
    let first_id = SAMPLE_CONTROL as usize;
    let controls = call.write_u32(5, whole(5).max(first_id))?;
    let histories = call.write_u32(6, p.ring as usize)?;
    let next_words = if p.nodes == 0 { 1 } else { NEXT };
    let next = call.write_u32(7, next_words)?;
    // SAFETY: this is the only task, and the bindings don't overlap.
    let (control, history, next) =
        unsafe { (controls.slice(0..whole(5)), histories.slice(0..p.ring as usize), next.slice(0..next_words)) };
    if history.is_empty() {
        return Err(Fault::new("sample: the history has no room"));
    }
    if control[0] != 0 {
        return Ok(());
    }
    let (step, taken, ids) = (control[1] as usize, control[2], control[4]);
    if step >= control.len() - first_id {
        return Err(fault("number of choices"));
    }
    let Some(id) = inputs.choose(history, ids, step)? else {
        (control[0], control[5]) = (1, 1);
        return Ok(());
    };
    let id = match p.flags {
        0 => id,
        flags => id % FUSED + if flags == 2 { FUSED } else { 0 },
    };
    let plain = id % FUSED;
    if plain != END_ID {
        let text = Text { history, ids, newest: plain };
        let halts = id >= FUSED || taken.saturating_add(1) >= control[3] || inputs.stopped(&text, taken)?;
        let suffix = if p.nodes == 0 { None } else { Some(inputs.suffix(&text)?) };
        // Nothing is written before all checks are done.
        history[ids as usize % history.len()] = plain;
        control[2] = taken.wrapping_add(1);
        control[4] = ids.wrapping_add(1);
        next[0] = plain;
        if let Some(suffix) = suffix {
            next[SUFFIX] = suffix;
        }
        if suffix == Some(NONE) {
            (control[0], control[5]) = (1, 2);
        } else if halts {
            control[0] = 1;
        }
    } else {
        control[0] = 1;
    }
    control[first_id + step] = id;
    control[1] += 1;
    Ok(())
}

fn fault(what: &str) -> Fault {
    Fault::new(format!("sample: {what} out of range"))
}

fn id_of(candidate: usize) -> u32 {
    if candidate == END { END_ID } else { OFFSET + candidate as u32 }
}

fn log_add_exp(a: f64, b: f64) -> f64 {
    a.max(b) + (1.0 + (a.min(b) - a.max(b)).exp()).ln()
}

/// The ids so far.
struct Text<'a> {
    history: &'a [u32],
    /// Their number without the newest one.
    ids: u32,
    newest: u32,
}

impl Text<'_> {
    /// The id `back` positions before the newest one.
    fn past(&self, back: u32) -> u32 {
        // As many positions back as the history has, the newest one has replaced the oldest.
        match back as usize % self.history.len() {
            0 => self.newest,
            _ => self.history[self.ids.wrapping_sub(back) as usize % self.history.len()],
        }
    }
}

struct Inputs<'a> {
    p: params::Sample,
    /// `[520]`
    logits: &'a [f32],
    /// `[257]`
    bias: &'a [f32],
    /// `[steps, 2]`
    random: &'a [f32],
    /// `[1 + 2 count + bytes]`
    stops: &'a [u32],
    /// `[nodes + 1]` first edges, `[nodes]` terminals, `[edges]` labels.
    trie: &'a [u32],
}

impl Inputs<'_> {
    /// The id that the logits and random numbers of a step give, if any.
    fn choose(&self, history: &[u32], ids: u32, step: usize) -> Result<Option<u32>, Fault> {
        if self.logits.iter().any(|&logit| logit.is_nan() || logit == f32::INFINITY) {
            return Ok(None);
        }
        let shift = self.shift(history, ids)?;
        if self.p.temperature == 0.0 {
            return Ok(self.greedy(&shift));
        }
        let numbers = step.checked_mul(2).and_then(|at| self.random.get(at..)?.first_chunk::<2>());
        let numbers = numbers.ok_or_else(|| fault("random number"))?;
        Ok(self.draw(&shift, numbers.map(f64::from)))
    }

    fn raw(&self, candidate: usize) -> [f64; 2] {
        let id = id_of(candidate);
        [id, id + FUSED].map(|id| f64::from(self.logits[id as usize]).max(LOWEST))
    }

    /// What the repetition penalty adds to the logits of each byte.
    fn shift(&self, history: &[u32], ids: u32) -> Result<[f64; CANDIDATES], Fault> {
        let mut shift = [0.0; CANDIDATES];
        let window = (self.p.window.min(ids) as usize).min(history.len());
        if self.p.penalty == 0.0 || window == 0 {
            return Ok(shift);
        }
        let mut seen = [false; END];
        for back in 0..window {
            let id = history[(ids - 1 - back as u32) as usize % history.len()];
            if let Some(byte) = id.checked_sub(OFFSET) {
                *seen.get_mut(byte as usize).ok_or_else(|| fault("id in history"))? = true;
            }
        }
        let most = f64::from(self.logits.iter().copied().fold(LOWEST as f32, f32::max));
        let total = most + self.logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum::<f64>().ln();
        for byte in (0..END).filter(|&byte| seen[byte]) {
            let [plain, fused] = self.raw(byte);
            let both = log_add_exp(plain, fused);
            if both > RULED_OUT {
                shift[byte] = (both - total) * f64::from(self.p.penalty);
            }
        }
        Ok(shift)
    }

    /// The adjusted logits of a candidate's plain and fused id.
    fn adjusted(&self, candidate: usize, shift: &[f64; CANDIDATES]) -> [f64; 2] {
        let bias = f64::from(self.bias[candidate]);
        if bias <= RULED_OUT {
            return [LOWEST; 2];
        }
        let [plain, fused] = self.raw(candidate);
        let shift = shift[candidate];
        [plain + bias + shift, fused + bias + f64::from(self.p.boundary_bias) + shift]
    }

    fn greedy(&self, shift: &[f64; CANDIDATES]) -> Option<u32> {
        let (mut most, mut best) = (RULED_OUT, NONE);
        // In the order of ids, so that the lowest one wins ties; fused ids follow all plain ones.
        let candidates = || std::iter::once(END).chain(0..END);
        for (which, offset) in [0, FUSED].into_iter().enumerate() {
            for candidate in candidates() {
                let value = self.adjusted(candidate, shift)[which];
                if value > most {
                    (most, best) = (value, id_of(candidate) + offset);
                }
            }
        }
        (best != NONE).then_some(best)
    }

    fn draw(&self, shift: &[f64; CANDIDATES], numbers: [f64; 2]) -> Option<u32> {
        let mut pairs = [[0.0; 2]; CANDIDATES];
        let mut order = [(0.0, 0); CANDIDATES];
        let mut count = 0;
        let mut most = f64::NEG_INFINITY;
        for (candidate, pair) in pairs.iter_mut().enumerate() {
            *pair = self.adjusted(candidate, shift);
            let weight = log_add_exp(pair[0], pair[1]);
            if weight > RULED_OUT {
                order[count] = (weight, candidate);
                count += 1;
                most = most.max(weight);
            }
        }
        let temperature = f64::from(self.p.temperature);
        // Shares that are negligible need no order.
        let mut kept = 0;
        for i in 0..count {
            if (order[i].0 - most) / temperature >= NEGLIGIBLE {
                order.swap(i, kept);
                kept += 1;
            }
        }
        let kept = &mut order[..kept];
        kept.sort_unstable_by(|(a_weight, a), (b_weight, b)| {
            b_weight.total_cmp(a_weight).then(id_of(*a).cmp(&id_of(*b)))
        });
        let top_k = kept.len().min(self.p.top_k as usize);
        let kept = &mut kept[..top_k];
        for (share, _) in kept.iter_mut() {
            *share = ((*share - most) / temperature).exp();
        }
        let candidate = pick(kept, f64::from(self.p.top_p), f64::from(self.p.min_p), numbers[0])?;
        let [plain, fused] = pairs[candidate];
        let is_fused = numbers[1] < 1.0 / (1.0 + (plain - fused).exp());
        Some(id_of(candidate) + if is_fused { FUSED } else { 0 })
    }

    /// Whether a stop string ends with the newest id, all of its bytes generated.
    fn stopped(&self, text: &Text<'_>, taken: u32) -> Result<bool, Fault> {
        let word = |at: usize| self.stops.get(at).copied().ok_or_else(|| fault("stop string"));
        for stop in 0..word(0)? as usize {
            let (at, length) = (word(1 + 2 * stop)? as usize, word(2 + 2 * stop)?);
            if length > taken.saturating_add(1) {
                continue;
            }
            let mut same = true;
            for i in 0..length {
                let byte = word(at.saturating_add((length - 1 - i) as usize))?;
                same = text.past(i) == byte.wrapping_add(OFFSET);
                if !same {
                    break;
                }
            }
            if same {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The row of the longest entry of the trie that the text ends with, or [`NONE`].
    fn suffix(&self, text: &Text<'_>) -> Result<u32, Fault> {
        let nodes = self.p.nodes as usize;
        let split = |at: usize, words: &[u32]| -> Option<usize> { (at <= words.len()).then_some(at) };
        let bad = || fault("edge of the trie");
        let first_edges = self.trie.get(..nodes.saturating_add(1)).ok_or_else(bad)?;
        let rest = &self.trie[first_edges.len()..];
        let (terminals, labels) = rest.split_at(split(nodes, rest).ok_or_else(bad)?);
        let (mut node, mut longest, mut depth) = (0, NONE, 0);
        for back in 0..text.ids.saturating_add(1).min(text.history.len() as u32) {
            let label = text.past(back);
            if label == BPE_END_ID {
                continue;
            }
            if depth == self.p.max_len {
                break;
            }
            depth += 1;
            // The children of a node are in the order of their labels, and nodes in that of the edges to them.
            let edges = first_edges.get(node..).and_then(|edges| edges.first_chunk::<2>()).ok_or_else(bad)?;
            let [first, end] = edges.map(|edge| edge as usize);
            match labels.get(first..end).ok_or_else(bad)?.binary_search(&label) {
                Ok(edge) => node = first + edge + 1,
                Err(_) => break,
            }
            match *terminals.get(node).ok_or_else(bad)? {
                NONE => {}
                terminal => longest = terminal,
            }
        }
        Ok(longest)
    }
}

/// Draws from candidates in descending order of their shares.
fn pick(mut kept: &[(f64, usize)], top_p: f64, min_p: f64, number: f64) -> Option<usize> {
    let total = |kept: &[(f64, usize)]| kept.iter().map(|(share, _)| share).sum::<f64>();
    if top_p < 1.0 {
        let wanted = top_p * total(kept);
        let mut sum = 0.0;
        let wants = |share: f64| {
            let wants = sum < wanted;
            sum += share;
            wants
        };
        let enough = kept.iter().map(|(share, _)| *share).map(wants).take_while(|&wants| wants).count();
        kept = &kept[..enough];
    }
    let some = kept.iter().take_while(|(share, _)| *share >= min_p).count();
    kept = &kept[..some];
    let mut rest = number * total(kept);
    let reached = kept.iter().find(|(share, _)| {
        rest -= share;
        rest < 0.0
    });
    reached.or(kept.last()).map(|&(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
