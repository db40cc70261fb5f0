//! Choosing the next id from the logits, and the probabilities that scoring needs.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{Error, Result};
use crate::text::ids::{BYTE_OFFSET, END_ID, FUSED_OFFSET, IDS, byte_to_id, id_to_byte, plain};

/// Number of candidates: the 256 bytes, and at `END` the end of the text.
pub const CANDIDATES: usize = 257;
/// The candidate that stands for the end of the text.
pub const END: usize = 256;

/// Largest bias, up or down; larger ones are clamped to it. It outweighs any difference between logits, and leaves
/// enough f32 precision to tell logits apart.
pub const MAX_BIAS: f32 = 1000.0;
/// Largest repetition penalty; larger ones are clamped to it.
pub const MAX_PENALTY: f32 = 100.0;
/// Lowest and highest temperature above 0; others are clamped to them. At the lowest only the most probable byte is
/// drawn, at the highest all bytes are equally probable.
pub const TEMPERATURES: [f32; 2] = [1e-6, 1e6];

/// How the next byte is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingOptions {
    /// Divides the log-probabilities of the bytes; 0 takes the most probable id instead of drawing one. Other values
    /// are clamped to 1e-6..=1e6.
    pub temperature: f32,
    /// Draw only from this many most probable bytes; 0 is off.
    pub top_k: usize,
    /// Draw only from the most probable bytes that together have at least this probability; 1 is off.
    pub top_p: f32,
    /// Draw only from bytes with at least this fraction of the most probable byte's probability; 0 is off.
    pub min_p: f32,
    /// Multiplies the model's log-probability of recent bytes: above 1 discourages them; 1 is off. Clamped to 100.
    pub repetition_penalty: f32,
    /// Number of ids that count as recent.
    pub repetition_window: usize,
    /// Added to the logits of single bytes. Their sum for each byte is clamped to -1000..=1000.
    pub byte_bias: Vec<(u8, f32)>,
    /// Added to the logits of the end of the text. Clamped to -1000..=1000.
    pub end_bias: f32,
    /// Added to the logits of all fused ids: above 0 makes patches shorter. Clamped to -1000..=1000.
    pub boundary_bias: f32,
    /// Seed of the random numbers. Equal seeds draw equal numbers on every platform.
    pub seed: u64,
}

impl Default for SamplingOptions {
    /// Greedy, with everything else off.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            byte_bias: Vec::new(),
            end_bias: 0.0,
            boundary_bias: 0.0,
            seed: 0,
        }
    }
}

impl SamplingOptions {
    /// Checks that every option is in its range.
    ///
    /// # Errors
    /// Names the option, its range and its value.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, name: &str, range: &str, value: f32| {
            ok.then_some(()).ok_or_else(|| Error::invalid(format!("{name}: expected {range}, found {value:?}")))
        };
        let number = "a finite number";
        let (t, penalty) = (self.temperature, self.repetition_penalty);
        check(t.is_finite() && t >= 0.0, "temperature", "0 or a finite number above", t)?;
        check(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", "a number above 0 and up to 1", self.top_p)?;
        check((0.0..=1.0).contains(&self.min_p), "min_p", "a number from 0 to 1", self.min_p)?;
        check(penalty.is_finite() && penalty > 0.0, "repetition_penalty", "a finite number above 0", penalty)?;
        check(self.end_bias.is_finite(), "end_bias", number, self.end_bias)?;
        check(self.boundary_bias.is_finite(), "boundary_bias", number, self.boundary_bias)?;
        for &(byte, bias) in &self.byte_bias {
            check(bias.is_finite(), &format!("byte_bias of byte 0x{byte:02x}"), number, bias)?;
        }
        Ok(())
    }

    /// The options, clamped: larger values would only cost precision.
    fn bounded(self) -> Self {
        let [lowest, highest] = TEMPERATURES;
        Self {
            temperature: if self.temperature == 0.0 { 0.0 } else { self.temperature.clamp(lowest, highest) },
            repetition_penalty: self.repetition_penalty.min(MAX_PENALTY),
            end_bias: bounded(self.end_bias),
            boundary_bias: bounded(self.boundary_bias),
            ..self
        }
    }
}

fn bounded(bias: f32) -> f32 {
    bias.clamp(-MAX_BIAS, MAX_BIAS)
}

/// Chooses ids one after another, with its own stream of random numbers.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplingOptions,
    /// Bias on the plain and the fused id of each candidate.
    bias: [f64; CANDIDATES],
    random: ChaCha8Rng,
}

/// The adjusted logits of a candidate's plain and fused id; minus infinity where it must not be chosen.
type Pair = [f64; 2];

impl Sampler {
    /// A sampler at the start of the random numbers of its seed.
    ///
    /// # Errors
    /// As [`SamplingOptions::validate`].
    pub fn new(options: SamplingOptions) -> Result<Self> {
        options.validate()?;
        let options = options.bounded();
        let mut bias = [0.0; CANDIDATES];
        for &(byte, value) in &options.byte_bias {
            bias[usize::from(byte)] += f64::from(value);
        }
        let most = f64::from(MAX_BIAS);
        bias = bias.map(|bias| bias.clamp(-most, most));
        bias[END] = f64::from(options.end_bias);
        let random = ChaCha8Rng::seed_from_u64(options.seed);
        Ok(Self { options, bias, random })
    }

    /// The options of this sampler, within their bounds.
    pub fn options(&self) -> &SamplingOptions {
        &self.options
    }

    /// The bias on the plain and the fused id of each candidate, for the device sampler.
    pub(crate) fn device_bias(&self) -> [f32; CANDIDATES] {
        self.bias.map(|bias| bias as f32)
    }

    /// The random numbers that the next `count` draws will use, two for each, for the device sampler. Empty if sampling
    /// is greedy.
    pub(crate) fn upcoming(&self, count: usize) -> Vec<[f32; 2]> {
        if self.options.temperature == 0.0 {
            return Vec::new();
        }
        let mut ahead = self.clone();
        // Rounded down, so that none of them is 1.
        let mut number = || ahead.uniform().min(f64::from(1.0 - f32::EPSILON / 2.0)) as f32;
        (0..count).map(|_| [number(), number()]).collect()
    }

    /// Skips the random numbers of `count` draws.
    pub(crate) fn skip(&mut self, count: usize) {
        if self.options.temperature != 0.0 {
            (0..2 * count).for_each(|_| _ = self.uniform());
        }
    }

    /// Chooses the id that follows `history`: a byte's, or 1 or 261 for the end; never another special's.
    ///
    /// The biases and the repetition penalty shift the logits of the plain and the fused id. The penalty uses the
    /// model's own log-probability of a byte, plain and fused together, before any bias. Greedy choice then takes the
    /// highest logit, with plain and fused ids separate; ties go to the lowest id. Drawing takes a byte first, by the
    /// probabilities of both ids together, after temperature, top-k, top-p and min-p in this order. Whether it is fused
    /// is drawn from the model's probabilities for that byte, at temperature 1. Each draw consumes two random numbers.
    ///
    /// `allowed` restricts the choice: byte 0 to 255, then the end.
    ///
    /// # Errors
    /// Nothing is allowed, there are not 520 logits, or one of them is not a number.
    pub fn choose(&mut self, logits: &[f32], history: &[u16], allowed: Option<&[bool; CANDIDATES]>) -> Result<u16> {
        check_logits(logits)?;
        if allowed.is_some_and(|allowed| !allowed.contains(&true)) {
            return Err(Error::invalid("allowed: expected at least one byte or the end, found none"));
        }
        let pairs = self.adjusted(logits, history, allowed);
        let chosen = if self.options.temperature == 0.0 { greedy(&pairs) } else { self.draw(&pairs) };
        chosen.ok_or_else(|| {
            Error::bad_checkpoint(
                "logits: expected a finite one among the allowed ids, found only minus infinity: the weights or the \
                 device are faulty",
            )
        })
    }

    fn adjusted(&self, logits: &[f32], history: &[u16], allowed: Option<&[bool; CANDIDATES]>) -> [Pair; CANDIDATES] {
        let mut pairs = [[f64::NEG_INFINITY; 2]; CANDIDATES];
        for (candidate, pair) in pairs.iter_mut().enumerate() {
            if allowed.is_none_or(|allowed| allowed[candidate]) {
                let [plain, fused] = plain_and_fused(logits, candidate_id(candidate));
                let bias = self.bias[candidate];
                *pair = [plain + bias, fused + bias + f64::from(self.options.boundary_bias)];
            }
        }
        let strength = f64::from(self.options.repetition_penalty) - 1.0;
        if strength != 0.0 {
            let mut seen = [false; 256];
            for &id in history.iter().rev().take(self.options.repetition_window) {
                if let Some(byte) = id_to_byte(id, BYTE_OFFSET) {
                    seen[usize::from(byte)] = true;
                }
            }
            let total = log_sum_exp(logits);
            for candidate in (0..256).filter(|&candidate| seen[candidate]) {
                let [plain, fused] = plain_and_fused(logits, candidate_id(candidate));
                let shift = (log_add_exp(plain, fused) - total) * strength;
                // A byte that the model rules out stays ruled out.
                if shift.is_finite() {
                    pairs[candidate] = pairs[candidate].map(|logit| logit + shift);
                }
            }
        }
        pairs
    }

    fn draw(&mut self, pairs: &[Pair; CANDIDATES]) -> Option<u16> {
        let mut kept: Vec<(usize, f64)> = pairs
            .iter()
            .enumerate()
            .map(|(candidate, &[plain, fused])| (candidate, log_add_exp(plain, fused)))
            .filter(|(_, log_weight)| *log_weight > f64::NEG_INFINITY)
            .collect();
        kept.sort_by(|(a, a_weight), (b, b_weight)| {
            b_weight.total_cmp(a_weight).then(candidate_id(*a).cmp(&candidate_id(*b)))
        });
        let &(_, most) = kept.first()?;
        if self.options.top_k > 0 {
            kept.truncate(self.options.top_k);
        }
        for (_, weight) in &mut kept {
            *weight = ((*weight - most) / f64::from(self.options.temperature)).exp();
        }
        if self.options.top_p < 1.0 {
            let wanted = f64::from(self.options.top_p) * kept.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut sum = 0.0;
            let enough = kept.iter().position(|(_, weight)| {
                sum += weight;
                sum >= wanted
            });
            kept.truncate(enough.map_or(kept.len(), |last| last + 1));
        }
        // The first weight is 1, so the others are already fractions of it.
        kept.retain(|(_, weight)| *weight >= f64::from(self.options.min_p));

        let mut rest = self.uniform() * kept.iter().map(|(_, weight)| weight).sum::<f64>();
        let reached = kept.iter().find(|(_, weight)| {
            rest -= weight;
            rest < 0.0
        });
        // Rounding may leave a remainder after the last one.
        let &(candidate, _) = reached.or(kept.last())?;
        let [plain, fused] = pairs[candidate];
        let is_fused = self.uniform() < 1.0 / (1.0 + (plain - fused).exp());
        Some(candidate_id(candidate) + if is_fused { FUSED_OFFSET } else { 0 })
    }

    /// A number in [0, 1) with 53 random bits.
    fn uniform(&mut self) -> f64 {
        const STEP: f64 = 1.0 / (1u64 << 53) as f64;
        (self.random.next_u64() >> 11) as f64 * STEP
    }
}

fn greedy(pairs: &[Pair; CANDIDATES]) -> Option<u16> {
    let mut best = (f64::NEG_INFINITY, None);
    // In ascending order of ids, so that the lowest of equal logits wins: the id of the end is below those of the
    // bytes.
    for (flag, offset) in [0, FUSED_OFFSET].into_iter().enumerate() {
        for candidate in std::iter::once(END).chain(0..END) {
            if pairs[candidate][flag] > best.0 {
                best = (pairs[candidate][flag], Some(candidate_id(candidate) + offset));
            }
        }
    }
    best.1
}

/// Decides whether a prompt's last byte, `id`, ends a patch: whether its fused id has a higher logit than its plain
/// one.
///
/// If both are equal the plain one wins, as in an argmax. Out-of-range ids and short logits count as plain.
pub fn force(logits: &[f32], id: u16, boundary_bias: f32) -> bool {
    let [plain, fused] = plain_and_fused(logits, id);
    fused + f64::from(bounded(boundary_bias)) > plain
}

/// Natural logarithm of the probability of exactly this id, plain and fused kept apart. Minus infinity for invalid ids.
pub fn joint(logits: &[f32], id: u16) -> f64 {
    logits.get(usize::from(id)).map_or(f64::NEG_INFINITY, |&logit| f64::from(logit) - log_sum_exp(logits))
}

/// Natural logarithm of the marginal probability of this id's byte or special, plain and fused together. Minus infinity
/// for invalid ids.
pub fn marginal(logits: &[f32], id: u16) -> f64 {
    let [plain, fused] = plain_and_fused(logits, id);
    match log_add_exp(plain, fused) {
        f64::NEG_INFINITY => f64::NEG_INFINITY,
        sum => sum - log_sum_exp(logits),
    }
}

/// The logits of the plain and the fused id of `id`.
fn plain_and_fused(logits: &[f32], id: u16) -> Pair {
    if usize::from(id) >= IDS {
        return [f64::NEG_INFINITY; 2];
    }
    let plain = usize::from(plain(id));
    let logit = |id: usize| logits.get(id).map_or(f64::NEG_INFINITY, |&logit| f64::from(logit));
    [logit(plain), logit(plain + usize::from(FUSED_OFFSET))]
}

/// The plain id of a candidate, which must be below [`CANDIDATES`].
fn candidate_id(candidate: usize) -> u16 {
    u8::try_from(candidate).map_or(END_ID, |byte| byte_to_id(byte, BYTE_OFFSET))
}

/// Minus infinity is a probability of 0. Other non-finite numbers have no meaning as logits.
fn check_logits(logits: &[f32]) -> Result<()> {
    if logits.len() != IDS {
        return Err(Error::invalid(format!("logits: expected {IDS}, found {}", logits.len())));
    }
    match logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY) {
        None => Ok(()),
        Some(id) => {
            let found = if logits[id].is_nan() { "one that is not a number" } else { "infinity" };
            Err(Error::bad_checkpoint(format!(
                "logits: expected finite ones, but the model produced {found} at id {id}: the weights or the device \
                 are faulty"
            )))
        }
    }
}

fn log_add_exp(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let most = f64::from(most);
    most + logits.iter().map(|&logit| (f64::from(logit) - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests;
